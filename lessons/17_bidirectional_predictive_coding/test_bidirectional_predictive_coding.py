"""The science of bidirectional predictive coding. Each fact is a function that a wrong rule must fail."""

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from helpers import ACTIVATIONS, LOSSES, batch, grads, largest_difference, small_net, snapshot

import course_utils as cu
from course_utils.rules import BidirectionalPredictiveCoding, PredictiveCoding
from course_utils.rules.bidirectional_predictive_coding import Settling

EXACT = 1e-12
# Square hidden layers, so that a transposed matrix still fits; the rest of the sizes are odd and different.
SIZES = {1: (7, 3), 2: (7, 5, 3), 3: (7, 5, 5, 3), 4: (7, 6, 6, 5, 3)}
STEPS, RATE = 6, 0.07


def make(sizes=SIZES[3], activation="tanh", loss="squared_error", rule_class=BidirectionalPredictiveCoding, **knobs):
    """A rule in float64 whose two streams both have random biases."""
    net = small_net(sizes, activation, loss)
    given = {"inference_steps": STEPS, "inference_rate": RATE, "discriminative": 0.9, "generative": 0.4} | knobs
    rule = rule_class(net, **given).double()
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for b in rule.top_down.biases:
            b.copy_(0.3 * torch.randn(b.shape, generator=generator, dtype=b.dtype))
    return rule


def energy(rule, v):
    """The energy of each example, written down a second time, plainly."""
    net, top_down, L = rule.net, rule.top_down, rule.net.depth
    h = [v[0], *(net.nonlinearity(a) for a in v[1:-1]), v[-1]]
    total = 0
    for l in range(L):
        up = h[l] @ net.weights[l].T + net.biases[l]
        missed = net.loss(up, v[L], reduction="none") if l == L - 1 else (v[l + 1] - up).pow(2).sum(1) / 2
        down = h[l + 1] @ top_down.weights[L - 1 - l].T + top_down.biases[L - 1 - l]
        total = total + rule.discriminative * missed + rule.generative * (v[l] - down).pow(2).sum(1) / 2
    return total


def slopes(rule, v, wanted):
    """Autograd's gradient of the summed energy in the states `wanted`, a list of layers."""
    leaves = [a.detach().clone().requires_grad_(l in wanted) for l, a in enumerate(v)]
    with torch.enable_grad():
        return torch.autograd.grad(energy(rule, leaves).sum(), [leaves[l] for l in wanted])


def some_known(x, seed=3):
    return torch.rand(x.shape, generator=torch.Generator().manual_seed(seed)) > 0.5


# Mutants of the settling batch and of the rule: one thing wrong in each.


class SendsStates(Settling):
    """Presynaptic terms without f: what is sent is the state itself."""

    def predict_up(self, l):
        self.h = self.v[:]
        return super().predict_up(l)

    def predict_down(self, l):
        self.h = self.v[:]
        return super().predict_down(l)


class ActivityInError(Settling):
    """The downward error has the activity itself in it, as if nothing had predicted it."""

    def compare(self, image=True):
        super().compare(image)
        for l in range(0 if image else 1, self.L):
            self.g[l] = self.g[l] + self.v[l]


class NoDerivative(Settling):
    def pull(self, l):
        pull = super().pull(l)
        if 0 < l < self.L:
            own = -self.rule.discriminative * self.e[l] - self.rule.generative * self.g[l]
            return (pull - own) / self.net.derivative(self.h[l]) + own
        return pull


class ForgetsAbove(Settling):
    """A hidden state does not hear what the stream from above makes of it."""

    def pull(self, l):
        pull = super().pull(l)
        return pull.add_(self.g[l], alpha=self.rule.generative) if l < self.L else pull


def mutant(settling):
    return type(f"Mutant{settling.__name__}", (BidirectionalPredictiveCoding,), {"settling": settling})


SETTLING_MUTANTS = [SendsStates, ActivityInError, NoDerivative, ForgetsAbove]


def missed_slope(settling=Settling, sizes=SIZES[3], activation="tanh", loss="squared_error", **clamps):
    """Largest difference between what moves the states, on the way, and minus autograd's slope of the energy."""
    rule = make(sizes, activation, loss, mutant(settling))
    x, y = batch(rule.net)
    y = None if clamps.get("label_free") else y
    known = some_known(x) if clamps.get("image_free") else None
    worst = 0.0
    for steps in (0, 1, STEPS):
        s = rule.infer(x, y, known, steps)
        moving = [l for l, free in enumerate(s.free) if free is not False]
        if moving:
            worst = max(worst, largest_difference([-s.pull(l) for l in moving], slopes(rule, s.v, moving)))
    return worst


@pytest.mark.parametrize("depth", SIZES)
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_hidden_states_move_down_the_energy(activation, loss, depth):
    assert missed_slope(Settling, SIZES[depth], activation, loss) < EXACT


@pytest.mark.parametrize("depth", SIZES)
@pytest.mark.parametrize(
    "clamps", [{"label_free": True}, {"label_free": True, "image_free": True}, {"image_free": True}]
)
def test_free_labels_and_pixels_move_down_the_energy_too(clamps, depth):
    assert missed_slope(sizes=SIZES[depth], **clamps) < EXACT


@pytest.mark.parametrize("settling", SETTLING_MUTANTS)
def test_mutants_do_not_move_down_the_energy(settling):
    assert missed_slope(settling) > 1e-3


def missed_gradient(
    rule_class=BidirectionalPredictiveCoding, sizes=SIZES[3], activation="tanh", loss="squared_error", targets="labels"
):
    """Largest difference of all .grad, W's and V's, to autograd's gradient of the mean energy at the settled states."""
    rule = make(sizes, activation, loss, rule_class)
    x, y = batch(rule.net, targets=targets)
    v = [a.clone() for a in rule.infer(x, y).v]
    rule.backward(x, y)
    with torch.enable_grad():
        true = torch.autograd.grad(energy(rule, v).mean(), list(rule.parameters()))
    return largest_difference([p.grad for p in rule.parameters()], true)


@pytest.mark.parametrize("targets", ["labels", "values"])
@pytest.mark.parametrize("depth", SIZES)
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_both_streams_learn_down_the_energy(activation, loss, depth, targets):
    assert missed_gradient(sizes=SIZES[depth], activation=activation, loss=loss, targets=targets) < EXACT


class SumsOverBatch(BidirectionalPredictiveCoding):
    def add_grad(self, parameter, gradient):
        super().add_grad(parameter, 4 * gradient)  # `batch` has four examples


class SignOfV(BidirectionalPredictiveCoding):
    def add_grad(self, parameter, gradient):
        super().add_grad(parameter, -gradient if any(parameter is p for p in self.top_down.parameters()) else gradient)


@pytest.mark.parametrize("wrong", [mutant(SendsStates), mutant(ActivityInError), SumsOverBatch, SignOfV])
def test_mutants_do_not_learn_down_the_energy(wrong):
    assert missed_gradient() < EXACT
    assert missed_gradient(wrong) > 1e-3


def missed_predictive_coding(settling=Settling, activation="tanh", loss="squared_error", generative=0.0, depth=3):
    rule = make(SIZES[depth], activation, loss, mutant(settling), discriminative=1.0, generative=generative)
    plain = PredictiveCoding(small_net(SIZES[depth], activation, loss), inference_steps=STEPS, inference_rate=RATE)
    plain = plain.double()
    (x, y), off = batch(rule.net), 0.0
    for _ in range(2):  # and a second time, from the weights that the first step made
        optimizers = [torch.optim.SGD(r.net.parameters(), lr=0.1) for r in (rule, plain)]
        losses = [r.step(x, y, optimizer) for r, optimizer in zip((rule, plain), optimizers, strict=True)]
        off = max(off, abs((losses[0] - losses[1]).item()))
        off = max(off, largest_difference(*([p.grad for p in r.net.parameters()] for r in (rule, plain))))
    return off


@pytest.mark.parametrize("depth", SIZES)
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_without_the_generative_stream_it_is_predictive_coding(activation, loss, depth):
    assert missed_predictive_coding(activation=activation, loss=loss, depth=depth) < EXACT


def test_what_is_not_predictive_coding():
    assert missed_predictive_coding(generative=0.1) > 1e-4
    for settling in (SendsStates, NoDerivative):
        assert missed_predictive_coding(settling) > 1e-4


def test_the_first_error_by_hand():
    """1-1-1-1, everything a power of two: γ = ½, one sweep."""
    net = cu.MLP([1, 1, 1, 1], activation="linear", loss="squared_error").double()
    rule = BidirectionalPredictiveCoding(net, inference_steps=1, inference_rate=0.5, generative=0.0).double()
    with torch.no_grad():
        for w, value in zip(net.weights, (2.0, 0.5, 4.0), strict=True):
            w.fill_(value)
    s = rule.infer(torch.ones(1, 1).double(), torch.full((1, 1), 12.0).double())
    # Feed-forward: v = 1, 2, 1, and the output 4, where 12 is wanted: an error of 8, which pulls v_2 by ½ · 4 · 8.
    assert [v.item() for v in s.v] == [1, 2, 17, 12]
    assert [e.item() for e in s.e[1:]] == [0, 16, 12 - 4 * 17]


def test_without_the_discriminative_stream_it_is_generative():
    """W neither learns nor has a say in what is generated, which is the top-down pass, unmoved."""
    rule = make(discriminative=0.0, inference_steps=50)
    x, y = batch(rule.net)
    assert all((g == 0).all() for g in grads(rule, x, y))
    generated = rule.generate(y)
    one_hot = F.one_hot(y, 3).double()
    assert (generated - rule.top_down(one_hot)).abs().max() < EXACT
    both = make(inference_steps=50)
    assert (both.generate(y) - both.top_down(one_hot)).abs().max() > 1e-3


def rises(rate, steps=60, **clamps):
    """How often the energy of any example rises on the way down, relative to its first value."""
    rule = make(inference_rate=rate)
    x, y = batch(rule.net, n=11)
    known = some_known(x) if clamps.get("image_free") else None
    s = rule.infer(x, None if clamps.get("label_free") else y, known, 0)
    values = [s.energy()]
    for _ in range(steps):
        values.append(s.settle(1).energy())
    differences = torch.stack(values).diff(dim=0)
    return (differences > 1e-12).sum().item(), differences[-1].abs().max().item()


@pytest.mark.parametrize("clamps", [{}, {"label_free": True}, {"label_free": True, "image_free": True}])
def test_the_energy_of_every_example_falls_at_small_rates(clamps):
    assert rises(0.05, **clamps)[0] == 0
    assert rises(1.5, **clamps)[0] > 0


def test_the_energy_is_the_plain_one_and_that_of_the_settled_states():
    for loss in LOSSES:
        rule = make(loss=loss)
        s = rule.infer(*batch(rule.net))
        assert (s.energy() - energy(rule, s.v)).abs().max() < EXACT
        assert s.energy().shape == (4,)


def depends_on_the_batch(rule_class=BidirectionalPredictiveCoding, **clamps):
    rule = make(rule_class=rule_class)
    x, y = batch(rule.net, n=9)
    known = some_known(x)

    def states(rows):
        return rule.infer(x[rows], None if clamps else y[rows], known[rows] if clamps else None).v

    alone, together = states(slice(4, 5)), states(slice(None))
    return max((a[0] - b[4]).abs().max().item() for a, b in zip(alone, together, strict=True))


class MeanEnergy(Settling):
    """The slope of an energy averaged over the batch: γ would mean something else in every batch."""

    def pull(self, l):
        return super().pull(l) / len(self.v[0])


@pytest.mark.parametrize("clamps", [{}, {"half": True}])
def test_inference_of_one_example_does_not_depend_on_its_batch(clamps):
    assert depends_on_the_batch(**clamps) < EXACT
    assert depends_on_the_batch(mutant(MeanEnergy), **clamps) > 1e-4


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
    rule.generator.manual_seed(rule.seed + 2_000_003)
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


def test_backward_changes_nothing_but_grad_and_its_generator():
    rule = make(state_noise=0.1)
    before = snapshot(rule)
    rule.backward(*batch(rule.net))
    after = snapshot(rule)
    assert {name for name in before if before[name] != after[name]} == {"grad", "generator"}


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("inference_steps", [-1, 2.5, True, math.nan]),
        ("inference_rate", [0, -0.1, math.nan, math.inf]),
        ("state_noise", [-0.1, math.nan, "much"]),
        ("discriminative", [-1, math.inf]),
        ("generative", [-1e-9, math.nan]),
    ],
)
def test_bad_knobs_are_refused_at_the_door_and_later(name, values):
    for value in values:
        with pytest.raises(ValueError, match=f"{name} is"):
            BidirectionalPredictiveCoding(small_net(), **{name: value})
        rule = BidirectionalPredictiveCoding(small_net())
        with pytest.raises(ValueError, match=f"{name} is"):
            setattr(rule, name, value)


def test_bad_input_is_refused():
    rule = make()
    x, y = batch(rule.net)
    for bad in ((x[:, :3], y), (x[:0], y[:0]), (x, y[:2]), (x, y + 7), (x * math.nan, y), (x.float(), y)):
        with pytest.raises(ValueError):
            rule.backward(*bad)
    for y in (torch.tensor([3]), torch.tensor([-1]), torch.tensor([0.5]), torch.tensor([[math.nan, 0, 0]])):
        with pytest.raises(ValueError, match="y "):
            rule.generate(y)
    for known in (torch.ones(3, dtype=torch.bool), torch.ones_like(x)):
        with pytest.raises(ValueError, match="known "):
            rule.complete(x, known)
    crossed = make(loss="cross_entropy")
    with pytest.raises(ValueError, match="squared_error"):
        crossed.complete(x, some_known(x))


def run(seed=0, data=None, **settings):
    data = data or cu.load_dataset("digits", limit=400)
    rule = BidirectionalPredictiveCoding(
        cu.MLP([784, 24, 10], loss="squared_error", seed=seed), seed=seed, state_noise=0.01
    )
    given = {"epochs": 2, "lr": 0.003, "optimizer": "adam", "batch_size": 32, "seed": seed} | settings
    cu.train(rule, data, **given, progress=False)
    return rule


def test_training_is_deterministic_bit_for_bit():
    one, again, other = (run(seed).state_dict() for seed in (0, 0, 1))
    assert one.keys() == again.keys()
    assert all(torch.equal(one[name], again[name]) for name in one)
    assert not torch.equal(one["top_down.weights.0"], other["top_down.weights.0"])


def test_state_dict_round_trip_carries_both_streams():
    trained = run()
    fresh = BidirectionalPredictiveCoding(cu.MLP([784, 24, 10], loss="squared_error", seed=9), seed=9)
    fresh.load_state_dict(trained.state_dict())
    labels = torch.arange(10)
    trained.state_noise = 0.0
    assert torch.equal(fresh.generate(labels), trained.generate(labels))


def test_a_probed_run_is_bit_equal_to_an_unprobed_one():
    plain, probed = run().state_dict(), run(probe_every=64).state_dict()
    assert all(torch.equal(plain[name], probed[name]) for name in plain)


def test_it_learns_to_tell_to_show_and_to_complete():
    data, accuracy = cu.load_dataset("digits"), {}
    for name, wrap in {"taught": lambda r: r, "frozen": cu.FrozenHidden}.items():
        rule = BidirectionalPredictiveCoding(cu.MLP([784, 16, 10], loss="squared_error"))
        first = rule.net.weights[0].detach().clone()
        framed = wrap(rule)
        cu.train(framed, data, epochs=25, lr=0.003, optimizer="adam", batch_size=32, progress=False)
        accuracy[name] = cu.evaluate(framed, data.x_test, data.y_test)
        assert torch.equal(first, rule.net.weights[0]) == (name == "frozen")
        if name == "taught":
            shown = rule.generate(torch.arange(10))
            means = torch.stack([data.x_train[data.y_train == k].mean(0) for k in range(10)])
            distance = torch.cdist(shown, means)
            assert (distance.argmin(1) == torch.arange(10)).all()  # its 3 looks more like 3s than like anything else
    assert accuracy["taught"] > accuracy["frozen"] + 0.05 and accuracy["taught"] > 0.8


def test_shuffled_labels_teach_nothing_about_the_test_set():
    data = cu.load_dataset("digits")
    order = torch.randperm(len(data.y_train), generator=torch.Generator().manual_seed(0))
    rule = run(data=replace(data, y_train=data.y_train[order]))
    chance, n = 0.1, len(data.y_test)
    assert cu.evaluate(rule, data.x_test, data.y_test) < chance + 4 * (chance * (1 - chance) / n) ** 0.5
