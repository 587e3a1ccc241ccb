"""The science of hybrids: what follows exactly from the parts, and wrong hybrids that must fail."""

import math
from pathlib import Path

import pytest
import torch
import yaml
from course_utils.pretraining import passes, pretrained
from helpers import batch, clusters, grads, largest_difference, small_net, snapshot

import course_utils as cu
from course_utils.controls import FrozenHidden
from course_utils.metrics import alignment_angle, gradient_statistics, true_gradient
from course_utils.rules import (
    Backprop,
    Blend,
    FeedbackAlignment,
    Layered,
    NodePerturbation,
    PerturbationTaughtFeedback,
    RandomFreezing,
    WeightForwardGradient,
)
from course_utils.rules.hybrids import Parts, can_be_a_part, estimate_of
from course_utils.runs import SCHEMA, make_rule, one_run

EXACT = 1e-12
HYBRIDS = [Blend, Layered, RandomFreezing, PerturbationTaughtFeedback]
PARTS = [name for name, rule_class in cu.rules.ALL.items() if can_be_a_part(rule_class)]


def flat(tensors):
    return torch.cat([t.flatten() for t in tensors])


def trained(rule, steps=15, lr=0.02):
    optimizer = torch.optim.SGD(rule.parameters(), lr=lr, momentum=0.9)
    for t in range(steps):
        rule.step(*batch(rule.net, n=9, seed=t), optimizer)
    return [p.detach().clone() for p in rule.net.parameters()]


def same(ours, theirs):
    return all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


def draws_of(rule, x, y, n):
    """(n, d) estimates at one batch."""
    return torch.stack([flat(grads(rule, x, y)) for _ in range(n)])


# ------------------------------------------------------------------ parts


def test_an_estimate_is_taken_without_touching_grad():
    net = small_net()
    x, y = batch(net)
    for p in net.parameters():
        p.grad = torch.ones_like(p)
    rule = Backprop(net)
    before = snapshot(rule)
    loss, estimate = estimate_of(rule, x, y)
    assert snapshot(rule) == before and loss == net.loss(net(x), y)
    assert largest_difference(estimate, true_gradient(net, x, y)) < EXACT
    with pytest.raises(ValueError, match="^x "):
        estimate_of(rule, x[:, 1:].contiguous(), y)
    assert snapshot(rule) == before


@pytest.mark.parametrize("name", PARTS)
def test_every_rule_that_may_be_a_part_works_as_one(name):
    net = small_net()
    x, y = batch(net)
    plain = grads(cu.rules.ALL[name](net, seed=4).double(), x, y)
    kept = [
        Blend(net, seed=4, blend=0.0, first=name, second="Backprop"),
        Blend(net, seed=4, blend=1.0, first="Backprop", second=name),
        RandomFreezing(net, seed=4, frozen=0.0, rule=name),
    ]
    for hybrid in kept:
        assert same(grads(hybrid.double(), x, y), plain)
    above = Layered(net, seed=4, hidden=name, readout="Backprop").double()
    layered = grads(above, x, y)
    if not isinstance(above.parts[0], Parts):  # two of them would draw from the shared generator in another order
        assert same([layered[i] for i in (0, 1, 3, 4)], [plain[i] for i in (0, 1, 3, 4)])
    for hybrid in [*kept, above]:
        assert len(list(hybrid.parameters())) == len({id(p) for p in hybrid.parameters()})


@pytest.mark.parametrize("name", ["KolenPollack", "WeightMirror", "ForwardForward", "PerturbationTaughtFeedback"])
def test_rules_that_do_more_than_fill_grad_cannot_be_parts(name):
    net = small_net()
    for make in (
        lambda: Blend(net, first=name),
        lambda: Blend(net, second=name),
        lambda: Layered(net, hidden=name),
        lambda: Layered(net, readout=name),
        lambda: RandomFreezing(net, rule=name),
    ):
        with pytest.raises(ValueError, match=f"{name}.*does more.*Backprop"):
            make()
    with pytest.raises(ValueError, match="Backporp.*is no rule.*Backprop"):
        Blend(net, first="Backporp")


@pytest.mark.parametrize("bad", [-0.1, 1.1, math.nan, "0.5", None])
def test_settings_out_of_range_are_refused(bad):
    net = small_net()
    for make in (
        lambda: Blend(net, blend=bad),
        lambda: RandomFreezing(net, frozen=bad),
        lambda: PerturbationTaughtFeedback(net, feedback_rate=bad),
    ):
        with pytest.raises(ValueError, match="it must be"):
            make()
    rule = Blend(net)
    with pytest.raises(ValueError, match="blend is"):
        rule.blend = bad
    for make in (
        lambda: RandomFreezing(net, frozen=1.0),
        lambda: PerturbationTaughtFeedback(net, feedback_rate=0.0),
        lambda: PerturbationTaughtFeedback(net, perturbation_std=0.0),
    ):
        with pytest.raises(ValueError, match="it must be"):
            make()


def test_the_frozen_control_turns_the_noise_of_parts_off():
    control = FrozenHidden(Blend(small_net(), first="NodePerturbation"))
    assert control.rule.parts[0].perturb_hidden is False and not control.rule.perturb_hidden
    net = small_net((12, 9, 7, 4), dtype=torch.float32)
    before = [w.detach().clone() for w in net.weights]
    cu.train(FrozenHidden(Layered(net)), clusters(), epochs=1, lr=0.1, batch_size=16, progress=False)
    assert [torch.equal(a, b) for a, b in zip(before, net.weights, strict=True)] == [True, True, False]


# ------------------------------------------------------------------ the blend


@pytest.mark.parametrize("first", ["WeightPerturbation", "NodePerturbation", "PredictiveCoding"])
def test_at_its_ends_the_blend_is_its_parts_bit_for_bit_all_through_training(first):
    ends = [trained(Blend(small_net(), seed=3, blend=blend, first=first).double()) for blend in (0.0, 1.0)]
    parts = cu.rules.ALL[first], FeedbackAlignment
    assert all(same(e, trained(part(small_net(), seed=3).double())) for e, part in zip(ends, parts, strict=True))
    assert not same(*ends)


class Unweighted(Blend):
    @property
    def blend(self):
        return 0.5

    @blend.setter
    def blend(self, value):
        pass


class TurnedRound(Blend):
    """The shares the wrong way round."""

    def take(self, first, second):
        super().take(second, first)


def off_the_mixture(blend_class, share=0.3):
    """Largest distance of .grad from (1 − β) ĝ₁ + β ĝ₂, relative to the parts' own noise drawn again."""
    net = small_net()
    x, y = batch(net)
    first, second = (grads(c(net, seed=2).double(), x, y) for c in (NodePerturbation, FeedbackAlignment))
    ours = grads(blend_class(net, seed=2, blend=share, first="NodePerturbation").double(), x, y)
    return largest_difference(ours, [(1 - share) * a + share * b for a, b in zip(first, second, strict=True)])


def test_the_blend_is_the_weighted_mean_of_its_parts():
    assert off_the_mixture(Blend) < EXACT
    for wrong in (Unweighted, TurnedRound):
        assert off_the_mixture(wrong) > 1e-3


def test_grad_accumulates_in_a_blend():
    net = small_net()
    rule, (x, y) = Blend(net, first="PredictiveCoding").double(), batch(net)
    once = grads(rule, x, y)
    rule.backward(x, y)
    assert largest_difference([p.grad for p in net.parameters()], [2 * g for g in once]) < EXACT


def standard_errors_off(blend_class, first, second, share, draws=800):
    """How far bias and variance of a blend are from (2) and (3), in standard errors of the measurement."""
    net = small_net()
    x, y = batch(net, n=6)
    g = flat(true_gradient(net, x, y))
    d = len(g)
    biases, variances = [], []
    for name in (first, second):
        fixed = name == "FeedbackAlignment"
        biases.append(flat(grads(cu.rules.ALL[name](net, seed=2).double(), x, y)) - g if fixed else torch.zeros(d))
        variances.append(0.0 if fixed else d + 1.0)  # lesson 03
    rule = blend_class(net, seed=2, blend=share, first=first, second=second).double()
    for part in rule.parts:
        part.perturbation_std = 1e-4  # in float64: its own bias, of order σ², is far below what is looked for
    variance = ((1 - share) ** 2 * variances[0] + share**2 * variances[1]) * g.dot(g)  # (3)
    seen = draws_of(rule, x, y, draws)
    expected = g + (1 - share) * biases[0] + share * biases[1]  # (2)
    squares = (seen - expected).square().sum(1)
    bias = (seen.mean(0) - expected).norm() / (variance / draws).sqrt()  # of the mean of so many draws
    return bias, (squares.mean() - variance).abs() / (squares.std() / math.sqrt(draws))


class OneNoise(Blend):
    """Parts that draw the same noise."""

    def take(self, *names):
        super().take(*names)
        for part in self.parts:
            part.generator = torch.Generator().manual_seed(5)


@pytest.mark.parametrize("share", [0.2, 0.5, 0.9])
def test_bias_and_variance_of_a_blend_follow_from_those_of_its_parts(share):
    bias, variance = standard_errors_off(Blend, "WeightPerturbation", "FeedbackAlignment", share)
    assert bias < 1.5 and variance < 4  # the length of a mean's error in d dimensions scatters by 1/√d around 1
    bias, variance = standard_errors_off(TurnedRound, "WeightPerturbation", "FeedbackAlignment", 0.9)
    assert bias > 4 and variance > 10


def test_two_noisy_parts_have_noises_of_their_own():
    names = "WeightPerturbation", "WeightPerturbation"
    _, variance = standard_errors_off(Blend, *names, 0.5)
    assert variance < 4
    _, variance = standard_errors_off(OneNoise, *names, 0.5)
    assert variance > 6


def error_of(share, b1, b2, v1, v2):
    return ((1 - share) * b1 + share * b2).square().sum() + (1 - share) ** 2 * v1 + share**2 * v2


def test_the_closed_form_of_the_best_blend_is_where_the_error_is_least():
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        b1, b2 = torch.randn(2, 7, generator=generator, dtype=torch.float64)
        v1, v2 = torch.rand(2, generator=generator, dtype=torch.float64)
        best = (b1.dot(b1) - b1.dot(b2) + v1) / ((b1 - b2).square().sum() + v1 + v2)  # (4)
        at = error_of(best, b1, b2, v1, v2)
        assert all(at < error_of(best + step, b1, b2, v1, v2) for step in (-0.01, 0.01))


# ------------------------------------------------------------------ layered


class Upside(Layered):
    def take(self, hidden, readout):
        super().take(readout, hidden)


def off_the_layers(layered_class, hidden="FeedbackAlignment", readout="Pepita"):
    net = small_net()
    x, y = batch(net)
    for_hidden, for_readout = (
        grads(cu.rules.ALL[name](net, seed=2, **({"dropout": 0.0} if name == "Pepita" else {})).double(), x, y)
        for name in (hidden, readout)
    )
    rule = layered_class(net, seed=2, hidden=hidden, readout=readout).double()
    for part in rule.parts:
        part.dropout = 0.0
    expected = [for_readout[i] if i in (2, 5) else for_hidden[i] for i in range(6)]
    return largest_difference(grads(rule, x, y), expected)


def test_each_layer_has_the_gradient_of_the_rule_that_teaches_it():
    assert off_the_layers(Layered) == 0
    assert off_the_layers(Layered, "Pepita", "FeedbackAlignment") == 0
    assert off_the_layers(Upside) > 1e-3


def test_a_readout_rule_that_perturbs_leaves_the_hidden_units_alone():
    net = small_net()
    x, y = batch(net)
    rule = Layered(net, seed=2, hidden="Backprop", readout="NodePerturbation").double()
    control = FrozenHidden(NodePerturbation(net, seed=2).double())
    assert torch.equal(grads(rule, x, y)[2], grads(control, x, y)[2])


def test_feedback_alignment_under_a_backprop_readout_is_feedback_alignment():
    assert same(
        trained(Layered(small_net(), seed=3).double()), trained(FeedbackAlignment(small_net(), seed=3).double())
    )


def test_the_table_holds_every_rule_whose_readout_is_not_backprops():
    """Other rules are such a hybrid already, or backprop. A rule added later is asked for here."""
    net = small_net()
    x, y = batch(net, n=9)
    backprop = grads(Backprop(net), x, y)
    wanted = set()
    for name in PARTS:
        rule = cu.rules.ALL[name](net, seed=0).double()
        if not isinstance(rule, Parts) and not same(grads(rule, x, y)[2::3], backprop[2::3]):
            wanted |= {name, f"Layered(hidden='{name}')", f"Layered(hidden='Backprop', readout='{name}')"}
    blocks = yaml.safe_load(LESSON.read_text().split("---\n")[1])["lesson"]["results"]
    (block,) = [block for block in blocks if "Layered(hidden='NodePerturbation')" in block["rules"]]
    assert set(block["rules"]) == wanted | {"Backprop"}


# ------------------------------------------------------------------ freezing


class KeepsTheFrozen(RandomFreezing):
    @torch.no_grad()
    def backward(self, x, y):
        loss, estimate = estimate_of(self.parts[0], x, y)
        for p, g in zip(self.net.parameters(), estimate, strict=True):
            self.add_grad(p, g * (self.draw(p) < self.frozen))
        return loss


class Amplified(RandomFreezing):
    @torch.no_grad()
    def backward(self, x, y):
        loss, estimate = estimate_of(self.parts[0], x, y)
        for p, g in zip(self.net.parameters(), estimate, strict=True):
            self.add_grad(p, g * (self.draw(p) >= self.frozen) / (1 - self.frozen))
        return loss


class WholeRows(RandomFreezing):
    def draw(self, p):
        return super().draw(p[..., :1]).expand(p.shape)


def off_the_freezing(rule_class, frozen=0.3, draws=1200):
    """Standard errors by which mean and variance over draws miss (6)."""
    net = small_net()
    x, y = batch(net)
    g = flat(true_gradient(net, x, y))
    seen = draws_of(rule_class(net, seed=2, frozen=frozen).double(), x, y, draws)
    scale = (frozen * (1 - frozen) * g.square() / draws).sqrt()
    mean = ((seen.mean(0) - (1 - frozen) * g) / scale).square().mean().sqrt()  # 1, scatters by 1/√(2d)
    squares = (seen - (1 - frozen) * g).square().sum(1)
    variance = (squares.mean() - frozen * (1 - frozen) * g.dot(g)).abs() / (squares.std() / math.sqrt(draws))
    return mean.item(), variance.item()


@pytest.mark.parametrize("frozen", [0.3, 0.8])
def test_freezing_shrinks_the_mean_and_adds_a_known_noise(frozen):
    mean, variance = off_the_freezing(RandomFreezing, frozen)
    assert 0.7 < mean < 1.3 and variance < 4
    for wrong in (KeepsTheFrozen, Amplified):
        assert off_the_freezing(wrong, frozen)[0] > 4
    assert off_the_freezing(WholeRows, frozen)[0] < 2  # right in the mean and in the trace: what it breaks is below


def independent(rule_class):
    """Correlation of neighbours in one row over draws."""
    net = small_net()
    x, y = batch(net)
    rule = rule_class(net, seed=2).double()
    kept = torch.stack([(grads(rule, x, y)[0] != 0).double().flatten() for _ in range(400)])
    return torch.corrcoef(kept[:, :2].T)[0, 1].abs().item()


def test_each_weight_draws_its_own_lot():
    assert independent(RandomFreezing) < 4 / math.sqrt(400)
    assert independent(WholeRows) > 0.9


def test_an_amplified_rate_makes_freezing_unbiased():
    net = small_net()
    x, y = batch(net)
    rule = RandomFreezing(net, seed=2, frozen=0.75).double()
    row = gradient_statistics(rule, x, y, draws=200).iloc[-1]
    assert abs(row.projection - 0.25) < 4 * row.projection_se  # so 4 times the rate brings 1
    assert abs(row.variance - 0.75 * 0.25) < 4 * row.variance_se


def test_frozen_for_good_is_the_same_at_every_step_and_travels():
    net = small_net()
    x, y = batch(net)
    rule = RandomFreezing(net, seed=2, frozen=0.5, redraw=False).double()
    still = [g == 0 for g in grads(rule, x, y)]
    assert same(still, [g == 0 for g in grads(rule, *batch(net, seed=9))])
    drawn_anew = RandomFreezing(net, seed=2).double()
    assert not same(*([g == 0 for g in grads(drawn_anew, x, y)] for _ in range(2)))
    rule.frozen = 0.8  # raised while it runs: more stand still, and none of them wakes up
    assert all(more[few].all() for few, more in zip(still, [g == 0 for g in grads(rule, x, y)], strict=True))
    rule.frozen = 0.5
    other = RandomFreezing(small_net(seed=5), seed=7, redraw=False).double()
    assert not same(grads(other, x, y), grads(rule, x, y))
    other.load_state_dict(rule.state_dict())
    assert same(grads(other, x, y), grads(rule, x, y))
    before = [p.detach().clone() for p in net.parameters()]
    moved = trained(rule)
    assert all(torch.equal(a[s], b[s]) for a, b, s in zip(before, moved, still, strict=True))


# ------------------------------------------------------------------ feedback taught by perturbation


class NoDerivative(PerturbationTaughtFeedback):
    @torch.no_grad()
    def teach_feedback(self, x, y):
        kept, self.net._derivative = self.net._derivative, torch.ones_like
        super().teach_feedback(x, y)
        self.net._derivative = kept


class OneSlope(PerturbationTaughtFeedback):
    """Every example hears the mean of the batch."""

    @torch.no_grad()
    def teach_feedback(self, x, y):
        kept, net = self.net.loss, self.net
        net.loss = lambda out, y, reduction="mean": (
            kept(out, y).expand(len(out)) if reduction == "none" else kept(out, y)
        )
        super().teach_feedback(x, y)
        net.loss = kept


class Backwards(PerturbationTaughtFeedback):
    @torch.no_grad()
    def teach_feedback(self, x, y):
        before = [None if b is None else b.clone() for b in self.feedback_weights]
        super().teach_feedback(x, y)
        for l in range(1, self.net.depth):
            self.feedback_weights[l] = 2 * before[l] - self.feedback_weights[l]


def lessons_of(rule_class, activation="tanh", draws=1000):
    """Rows of standard scores by which the mean change of each B misses (5) without its noise, and the z of a B = W."""
    net = small_net((7, 6, 5, 3), activation)
    x, y = batch(net, n=5)
    rule = rule_class(net, seed=2, perturbation_std=1e-4).double()
    h = net.activations(x)
    delta, expected = net.output_error(h[-1], y), {}
    right = delta
    for l in (2, 1):
        w, b, f = net.weights[l].detach(), rule.feedback_weights[l].clone(), net.derivative(h[l])
        size = delta.square().sum(1, keepdim=True)
        miss = ((delta @ b) * f - (right @ w) * f) * f  # what shaking finds is the true message, in the mean
        expected[l] = -0.5 * (delta / (size + size.mean())).T @ miss / len(x)
        delta, right = (delta @ b) * f, (right @ w) * f
    start = {l: rule.feedback_weights[l].clone() for l in (1, 2)}
    changes: dict = {1: [], 2: []}
    for _ in range(draws):
        for l in (1, 2):
            rule.feedback_weights[l] = start[l]
        rule.teach_feedback(x, y)
        for l in (1, 2):
            changes[l].append(rule.feedback_weights[l] - start[l])
    scores = []
    for l in (1, 2):
        seen = torch.stack(changes[l])
        scores.append((seen.mean(0) - expected[l]) / (seen.std(0) / math.sqrt(draws)).clamp(min=1e-9))
    return flat(scores).square().mean().sqrt().item()


@pytest.mark.parametrize("activation", ["tanh", "relu"])
def test_feedback_moves_on_average_as_regression_on_the_true_message_would(activation):
    assert lessons_of(PerturbationTaughtFeedback, activation) < 1.5
    for wrong in (NoDerivative, OneSlope, Backwards):
        assert lessons_of(wrong, activation) > 3


def message_angles(rule, x, y):
    """Angle of the message of each hidden layer to the true one, from the top down."""
    net = rule.net
    h = net.activations(x)
    told = right = net.output_error(h[-1], y)
    found = []
    for l in reversed(range(1, net.depth)):
        told = ((told @ rule.feedback_weights[l]) * net.derivative(h[l])).detach()
        right = ((right @ net.weights[l]) * net.derivative(h[l])).detach()
        found.append(alignment_angle(told, right))
    return found


def test_feedback_comes_to_do_what_the_transposed_weights_would():
    net = small_net((7, 13, 11, 5))
    x, y = batch(net, n=60)
    rule = PerturbationTaughtFeedback(net, seed=2, feedback_rate=0.2).double()
    before = message_angles(rule, x, y)
    for _ in range(1500):
        rule.teach_feedback(x, y)
    after = message_angles(rule, x, y)
    assert all(a < 25 < b for a, b in zip(after, before, strict=True)), (before, after)


def test_with_the_right_feedback_it_is_backprop_and_backward_never_teaches():
    net = small_net()
    rule, (x, y) = PerturbationTaughtFeedback(net, seed=2).double(), batch(net)
    before = snapshot(rule)
    assert same(grads(rule, x, y), grads(FeedbackAlignment(net, seed=2).double(), x, y))
    after = snapshot(rule)
    assert {name for name in before if before[name] != after[name]} <= {"grad"}
    for l in (1, 2):
        rule.feedback_weights[l] = net.weights[l]
    assert largest_difference(grads(rule, x, y), true_gradient(net, x, y)) < EXACT


def test_a_step_is_feedback_alignments_and_then_the_feedbacks():
    rule, plain = (c(small_net(), seed=3).double() for c in (PerturbationTaughtFeedback, FeedbackAlignment))
    x, y = batch(rule.net)
    for r in (rule, plain):
        r.step(x, y, torch.optim.SGD(r.parameters(), lr=0.1))
    assert same(list(rule.net.parameters()), list(plain.net.parameters()))
    assert not torch.equal(rule.feedback_weights[1], plain.feedback_weights[1])


# ------------------------------------------------------------------ all of them


@pytest.mark.parametrize("rule_class", HYBRIDS)
def test_hybrids_learn_in_training_and_repeat_themselves(rule_class):
    def run(seed):
        rule = rule_class(small_net((12, 11, 9, 4), seed=seed, dtype=torch.float32), seed=seed)
        cu.train(rule, clusters(), epochs=6, lr=0.02, batch_size=16, progress=False)
        return rule

    rule, again, other = run(0), run(0), run(1)
    assert same(rule.net.parameters(), again.net.parameters()) and not same(
        rule.net.parameters(), other.net.parameters()
    )
    assert cu.evaluate(rule, clusters().x_test, clusters().y_test) > 0.9


@pytest.mark.parametrize("rule_class", HYBRIDS[:3])
def test_a_live_knob_moves_while_training_runs(rule_class):
    if not rule_class.live_knobs:
        return
    (knob,) = rule_class.live_knobs
    rule = rule_class(small_net((12, 11, 9, 4), dtype=torch.float32))
    cu.train(rule, clusters(), epochs=1, lr=0.02, batch_size=16, knobs={knob: [(0, 0.9), (96, 0.1)]}, progress=False)
    assert getattr(rule, knob) == 0.1


def test_hybrids_are_named_as_calls_in_sweeps():
    rule = make_rule("Blend(first='NodePerturbation', blend=0.3)", [784, 8, 10], 0)
    assert rule.blend == 0.3 and isinstance(rule.parts[0], NodePerturbation)
    assert isinstance(
        make_rule("RandomFreezing(rule='WeightForwardGradient')", [784, 8, 10], 0).parts[0], WeightForwardGradient
    )


# ------------------------------------------------------------------ pre-training


NET = [784, 8, 10]
SMALL = {"dataset": "digits", "batch_size": 64, "optimizer": "adam"}


def test_passes_are_counted_from_the_rule_and_never_too_many():
    def of(name):
        return passes(make_rule(name, NET, 0))

    assert of("Backprop") == of("FeedbackAlignment") == of("ForwardForward") == 2
    assert of("PredictiveCoding") == 13 and of("PredictiveCoding(inference_steps=6)") == 7
    assert of("NodePerturbation(draws=4)") == 5  # it takes 9
    assert all(of(name) >= 2 for name in cu.rules.ALL)


def test_after_the_teacher_the_rule_goes_on_from_its_weights():
    settings = SMALL | {"teacher": "Backprop", "teacher_lr": 0.01, "teacher_epochs": 2}
    frame = pretrained("FeedbackAlignment", NET, 0.003, 1, epochs=1, test=True, **settings)
    teacher = one_run("Backprop", NET, 0.01, 1, epochs=2, **SMALL)
    assert list(frame.columns) == SCHEMA
    assert frame.val_accuracy.iloc[0] == teacher.val_accuracy.iloc[-1]
    assert frame.samples.iloc[0] == teacher.samples.iloc[-1] and frame.epoch.iloc[-1] == 3
    assert frame.test_accuracy.iloc[:-1].isna().all() and frame.test_accuracy.iloc[-1] > 0
    again = pretrained("FeedbackAlignment", NET, 0.003, 1, epochs=1, test=True, **settings)
    assert frame.drop(columns="seconds").equals(again.drop(columns="seconds"))
    assert frame.dataset.iloc[0].endswith(", after Backprop")


def test_from_scratch_the_rule_has_the_teachers_passes_too():
    settings = SMALL | {"teacher": "PredictiveCoding(inference_steps=5)", "teacher_epochs": 1, "scratch": True}
    frame = pretrained("FeedbackAlignment", NET, 0.003, 1, epochs=1, **settings)
    assert frame.epoch.iloc[-1] == pytest.approx(1 + 6 / 2, abs=0.05)
    assert frame.dataset.iloc[0].endswith(", from scratch")
    plain = one_run("FeedbackAlignment", NET, 0.003, 1, epochs=4.0, **SMALL)
    assert frame.val_accuracy.iloc[-1] == plain.val_accuracy.iloc[-1]
    alike = pretrained("PredictiveCoding(inference_steps=5)", NET, 0.003, 1, epochs=1, **settings)
    assert alike.epoch.iloc[-1] == pytest.approx(2, abs=0.05)


# ------------------------------------------------------------------ what the lesson says of its table


ROOT = Path(__file__).parent.parent
LESSON = ROOT / "lessons" / "30_hybrids.md"


def table():
    frame = cu.stored_results(30).dropna(subset=["test_accuracy"])
    return frame.assign(test=100 * frame.test_accuracy, val=100 * frame.val_accuracy)


def runs(rule, sizes, samples=60_000, dataset="mnist", lr=None):
    rows = table()
    rows = rows[(rows.rule == rule) & (rows.sizes == sizes) & (rows.dataset == dataset)]
    rows = rows[abs(rows.samples - samples) < 500] if samples else rows
    rows = rows if lr is None else rows[rows.lr == lr]
    assert sorted(rows.seed) == [0, 1, 2, 3, 4]
    return rows.set_index("seed").sort_index()


def interval(hybrid, parent):
    d = hybrid.test - parent.test
    half = 2.776 * d.std() / math.sqrt(len(d))
    return d.mean() - half, d.mean() + half


DEEP, TANH = "784-32-32-32-10", "784-32-32-32-10 tanh"


def test_no_mixture_can_be_told_from_its_better_parent():
    nodes = [f"Blend(first='NodePerturbation', blend={share})" for share in (0.3, 0.6, 0.8, 0.95)]
    weights = [f"Blend(blend={share})" for share in (0.5, 0.9, 0.98, 0.998)]
    for first, names, sizes in (
        ("WeightPerturbation", weights, "784-32-10"),
        ("NodePerturbation", nodes, DEEP),
        ("NodePerturbation", nodes, TANH),
    ):
        best = max((runs(name, sizes) for name in names), key=lambda rows: rows.val.mean())
        parents = [runs(name, sizes) for name in (first, "FeedbackAlignment")]
        better = max(parents, key=lambda rows: rows.test.mean())
        low, high = interval(best, better)
        assert low < 0 < high
        inner = [runs(name, sizes).test.mean() for name in names]
        if sizes == DEEP:  # "the best shares lie between"
            assert max(inner) > max(p.test.mean() for p in parents)
        else:  # "accuracy climbs with the share of feedback alignment"
            ends = [parents[0].test.mean(), *inner, parents[1].test.mean()]
            assert ends == sorted(ends)


@pytest.mark.parametrize("sizes", [DEEP, TANH])
def test_taught_feedback_is_better_than_both_parents_and_behind_backprop(sizes):
    names = "PerturbationTaughtFeedback", "PerturbationTaughtFeedback(feedback_rate=1.0)"
    taught = max((runs(name, sizes) for name in names), key=lambda rows: rows.val.mean())
    parents = ("FeedbackAlignment", 60_000), ("NodePerturbation", 60_000)
    for name, samples in (*parents, ("FeedbackAlignment", 150_000), ("NodePerturbation", 100_000)):
        assert interval(taught, runs(name, sizes, samples))[0] > 0, name
    assert interval(taught, runs("Backprop", sizes))[1] < 0
    assert interval(taught, runs("FrozenHidden(Backprop)", sizes))[0] > 10


def test_freezing_anew_is_a_smaller_rate_and_for_good_is_more():
    def at(rule, lr):
        return runs(rule, "784-100-10", 30_000, lr=lr)

    for inside, p, amplified in (("", 0.5, 0.04), ("frozen=0.9", 0.9, 0.2)):
        anew = f"RandomFreezing({inside})" if inside else "RandomFreezing"
        good = f"RandomFreezing({inside}{', ' if inside else ''}redraw=False)"
        backprop = at("Backprop", 0.02)
        assert interval(at(anew, 0.02), backprop)[1] < -5  # a large effect, of the rate
        low, high = interval(at(anew, amplified), backprop)
        assert low < 0 < high
        low, high = interval(at(anew, 0.02), at("Backprop", round(0.02 * (1 - p), 6)))
        assert low < 0 < high
        assert interval(at(good, amplified), backprop)[1] < 0
        tuned = table()
        tuned = tuned[(tuned.sizes == "784-100-10") & (tuned.lr > 0.25)]
        best = {name: rows.set_index("seed").sort_index() for name, rows in tuned.groupby("rule")}
        assert all(interval(best[name], best["Backprop"])[1] < 0 for name in (anew, good))


def test_a_start_by_predictive_coding_lifts_the_weak_to_where_it_stood():
    start, rows = "PredictiveCoding(inference_steps=6)", table()
    alone = runs(start, TANH, 6_430)
    names = rows[rows.dataset == "mnist, from scratch"].rule.unique()
    assert set(names) <= set(cu.rules.ALL) and len(names) > 20
    weak = [name for name in names if runs(name, TANH, None, "mnist, from scratch").test.mean() < 80]
    assert {"WeightPerturbation", "NodePerturbation"} <= set(weak)
    for name in set(weak) - {"ForwardForward"}:
        after, scratch = runs(name, TANH, None, f"mnist, after {start}"), runs(name, TANH, None, "mnist, from scratch")
        assert interval(after, scratch)[0] > 0 and interval(after, alone)[1] < 0, name
    backprop = [runs("Backprop", TANH, None, where) for where in (f"mnist, after {start}", "mnist, from scratch")]
    assert interval(*backprop)[1] < 0 and interval(backprop[0], alone)[0] > 0


def test_a_readout_by_backprop_lifts_the_perturbation_rules():
    for name in ("WeightPerturbation", "NodePerturbation"):
        plain, under = runs(name, TANH, 10_000), runs(f"Layered(hidden='{name}')", TANH, 10_000)
        over = runs(f"Layered(hidden='Backprop', readout='{name}')", TANH, 10_000)
        assert interval(under, plain)[0] > 0
        assert interval(over, runs("Backprop", TANH, 10_000))[0] > -1.5  # little or nothing
        assert over.test.mean() > under.test.mean() + 10  # what they lack, they lack in the hidden layers
