"""What two streams can be asked: completing, showing, noise and independence of the batch."""

import math

import pytest
import torch
from helpers import batch, mutant
from helpers.two_streams import make, slopes, some_known

import course_utils as cu
from course_utils import runs
from course_utils.device import stream
from course_utils.rules import BidirectionalPredictiveCoding
from course_utils.rules.bidirectional_predictive_coding import Settling
from course_utils.studies.bidirectional_predictive_coding import rebuilt, told_and_rebuilt

EXACT = 1e-12


def depends_on_the_batch(rule_class=BidirectionalPredictiveCoding, **clamps):
    rule = make(rule_class=rule_class)
    x, y = batch(rule.net, n=9)
    known = some_known(x)

    def states(rows):
        return rule.infer(x[rows], None if clamps else y[rows], known[rows] if clamps else None).v

    alone, together = states(slice(4, 5)), states(slice(None))
    return max((a[0] - b[4]).abs().max().item() for a, b in zip(alone, together, strict=True))


@pytest.mark.parametrize("clamps", [{}, {"half": True}])
def test_inference_of_one_example_does_not_depend_on_its_batch(clamps):
    assert depends_on_the_batch(**clamps) < EXACT
    # The slope of an energy averaged over the batch: γ would mean something else in every batch.
    mean = mutant(Settling, "self.rule.inference_rate", "self.rule.inference_rate / len(self.v[0])")
    averaged = type("Wrong", (BidirectionalPredictiveCoding,), {"settling": mean})
    assert depends_on_the_batch(averaged, **clamps) > 1e-4


def test_sweeps_that_touch_no_pixel_are_those_that_do():
    """Everything known as a mask, so that the image is compared pixel by pixel, against a clamped image."""
    rule = make()
    x, y = batch(rule.net)
    squared, plain = rule.infer(x, y), rule.infer(x, y, torch.ones_like(x, dtype=torch.bool))
    assert squared.square is not None and plain.square is None
    for one, other in zip([*squared.v, *squared.g[:-1]], [*plain.v, *plain.g[:-1]], strict=True):
        assert (one - other).abs().max() < EXACT


def test_at_rest_a_linear_network_solves_its_equations():
    """All but the known pixels free: the energy is quadratic, so settling must arrive where its slope is 0."""
    rule = make(activation="linear", generative=1.0, inference_rate=0.1)
    x, _ = batch(rule.net)
    known = some_known(x)
    s = rule.infer(x, known=known, steps=20_000)
    assert (
        max(
            slope[~known].abs().max() if slope.shape == x.shape else slope.abs().max()
            for slope in slopes(rule, s.v, [0, 1, 2, 3])
        )
        < 1e-9
    )


def test_completion_keeps_what_is_known_and_looks_at_nothing_else():
    rule = make()
    x, _ = batch(rule.net)
    known = some_known(x)
    done = rule.complete(x, known)
    assert torch.equal(done[known], x[known]) and not torch.equal(done[~known], x[~known])
    assert torch.equal(done, rule.complete(torch.where(known, x, 99.0), known))
    row = known[0]
    assert torch.equal(rule.complete(x, row), rule.complete(x, row.expand_as(x)))
    assert torch.equal(rule.complete(x, torch.ones_like(row)), x)


def test_data_are_left_as_they_were():
    rule = make()
    x, y = batch(rule.net, targets="values")
    kept = x.clone(), y.clone()
    rule.backward(x, y), rule.complete(x, some_known(x)), rule.generate(y)
    assert torch.equal(x, kept[0]) and torch.equal(y, kept[1])


def test_no_image_does_better_for_a_class_than_its_mean():
    """Σ‖x − m‖² = Σ‖x − mean‖² + n ‖m − mean‖²: what a clamped label can know has an end."""
    x = torch.randn(40, 7, generator=torch.Generator().manual_seed(0)).double()
    rule = make()
    m = rule.generate(torch.zeros(1, dtype=torch.int64))[0]
    best, ours = (x - x.mean(0)).pow(2).sum(1).mean(), (x - m).pow(2).sum(1).mean()
    assert ours - best == pytest.approx((m - x.mean(0)).pow(2).sum().item(), abs=1e-12)


def test_the_streams_share_no_memory_and_know_nothing_of_each_other():
    net = cu.MLP([300, 200, 150], loss="squared_error", seed=4)
    rule = BidirectionalPredictiveCoding(net, seed=4)  # the same seed as the network's
    held = {p.untyped_storage().data_ptr() for p in net.parameters()}
    assert not held & {p.untyped_storage().data_ptr() for p in rule.top_down.parameters()}
    assert len(list(rule.parameters())) == 8
    for w, v in zip(net.weights, reversed(rule.top_down.weights), strict=True):
        assert w.shape == v.shape[::-1]
        assert abs(cu.metrics.cosine(w.detach().flatten(), v.detach().T.flatten())) < 4 / w.numel() ** 0.5


def test_noise_in_the_states_is_as_large_as_said_and_repeats():
    rule = make(state_noise=0.5, inference_rate=1e-9, inference_steps=1, sizes=(7, 400, 400, 3))
    x, y = batch(rule.net, n=50)
    quiet = make(inference_rate=1e-9, inference_steps=1, sizes=(7, 400, 400, 3)).infer(x, y)
    s = rule.infer(x, y)
    added = s.v[1] - quiet.v[1]
    assert added.std().item() == pytest.approx(0.5, rel=4 / (2 * added.numel()) ** 0.5)
    assert not torch.equal(rule.infer(x, y).v[1], s.v[1])
    rule.generator.set_state(stream("rule", rule.seed).get_state())
    assert torch.equal(rule.infer(x, y).v[1], s.v[1])
    assert torch.equal(s.v[0], x)


def test_activity_noise_of_training_reaches_the_streams():
    rule = make(generative=0.0, inference_steps=0)
    x, y = batch(rule.net)
    quiet = rule.infer(x, y).v[1]
    rule.net.activity_noise, rule.net.noise_seed = 0.5, 1
    noisy = rule.infer(x, y)
    assert (noisy.v[1] - quiet).std() > 0.1 and noisy.e[1].abs().max() < EXACT
    assert torch.equal(noisy.v[1], rule.infer(x, y).v[1])


def test_what_cannot_be_asked_is_refused():
    rule = make()
    x, _ = batch(rule.net)
    for y in (torch.tensor([3]), torch.tensor([-1]), torch.tensor([0.5]), torch.tensor([[math.nan, 0, 0]])):
        with pytest.raises(ValueError, match="y "):
            rule.generate(y)
    for known in (torch.ones(3, dtype=torch.bool), torch.ones_like(x)):
        with pytest.raises(ValueError, match="known "):
            rule.complete(x, known)
    crossed = make(loss="cross_entropy")
    with pytest.raises(ValueError, match="squared_error"):
        crossed.complete(x, some_known(x))


def test_what_is_rebuilt_is_the_share_of_variance_that_layer_1_expects():
    rule = make()
    x, _ = batch(rule.net, n=40)
    expects = rule.infer(x).down[0]
    mean = x.mean(0)
    share = 1 - ((x - expects) ** 2).sum() / ((x - mean) ** 2).sum()
    assert rebuilt(rule, x, mean) == pytest.approx(share.item(), abs=EXACT)
    with torch.no_grad():
        for w in rule.top_down.weights:
            w.zero_()
        rule.top_down.biases[-1].copy_(mean)  # who always answers with the mean rebuilds nothing
    assert abs(rebuilt(rule, x, mean)) < EXACT


def test_a_tested_run_brings_its_pictures_along_where_there_is_a_second_stream():
    settings = dict(sizes=[784, 16, 10], lr=0.003, seed=1, dataset="digits", epochs=2, optimizer="adam")
    settings["network"] = {"loss": "squared_error"}
    columns = ["rule", "samples", "val_accuracy", "test_accuracy", "lr", "sizes", "dataset"]
    for beta, tested, more in ((0.1, True, 1), (0.1, False, 0), (0.0, True, 0)):
        name = f"BidirectionalPredictiveCoding(generative={beta})"
        both, plain = (run(name, test=tested, **settings) for run in (told_and_rebuilt, runs.one_run))
        assert both[columns].head(len(plain)).equals(plain[columns])
        assert list(both.dataset[len(plain) :]) == ["digits, rebuilt"] * more
