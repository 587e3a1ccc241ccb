"""The science of the weight mirror. Each fact is a function that a wrong mirror must fail."""

import math
from dataclasses import replace

import pytest
import torch
from helpers import ACTIVATIONS, LOSSES, batch, clusters, grads, largest_difference, small_net, snapshot

import course_utils as cu
from course_utils.metrics import alignment_angle, cosine, true_gradient
from course_utils.rules import FeedbackAlignment, WeightMirror

EXACT = 1e-12
# Square hidden layers, so that a transposed matrix still fits; the rest of the sizes are odd and different.
SIZES = {1: (7, 3), 2: (7, 5, 3), 3: (7, 5, 5, 3), 4: (7, 6, 6, 5, 3)}
WIDE = (9, 41, 41, 23)  # wide enough for an angle to scatter little


class Mutant(WeightMirror):
    """A weight mirror with one thing wrong."""

    wrong = ""

    @torch.no_grad()
    def mirror(self):
        forwarded = None
        for l in range(1, self.net.depth):
            w, b, bias = self.net.weights[l], self.feedback_weights[l], self.net.biases[l]
            noise = torch.randn(self.examples, w.shape[1], generator=self.generator, dtype=w.dtype)
            if self.wrong == "one noise, forwarded" and forwarded is not None:
                noise = forwarded
            if self.wrong == "noise with a mean":
                noise = noise + 0.5
            heard = noise.roll(1, dims=0) if self.wrong == "other example" else noise
            current = heard @ (w.T if self.wrong != "transposed" or w.shape[0] != w.shape[1] else w)
            if self.wrong == "bias not blocked":
                current = current + 4 * bias
            if self.wrong == "through f":
                current = torch.tanh(current)
            forwarded = torch.tanh(current)
            rate = self.decay * {"louder noise": 2.0, "sign": -1.0, "sum": self.examples}.get(self.wrong, 1.0)
            keep = 1.0 if self.wrong == "nothing forgotten" else 1 - self.decay
            b.mul_(keep).addmm_(current.T, noise, alpha=rate / self.examples)


def mutant(name):
    return type(f"Mutant_{name}", (Mutant,), {"wrong": name})


MUTANTS = ["one noise, forwarded", "noise with a mean", "other example", "transposed", "bias not blocked"]
MUTANTS += ["through f", "louder noise", "sign", "sum", "nothing forgotten"]


# ------------------------------------------------------------------ awake


def distance_to_backprop(rule, x, y):
    for l in range(1, rule.net.depth):
        rule.feedback_weights[l] = rule.net.weights[l]
    return largest_difference(grads(rule, x, y), true_gradient(rule.net, x, y))


@pytest.mark.parametrize("targets", ["labels", "values"])
@pytest.mark.parametrize("depth", SIZES)
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_with_b_equal_to_w_it_is_autograd(activation, loss, depth, targets):
    net = small_net(SIZES[depth], activation, loss)
    assert distance_to_backprop(WeightMirror(net).double(), *batch(net, targets=targets)) < EXACT


def test_a_transposed_feedback_is_not_backprop():
    class Transposed(WeightMirror):
        @torch.no_grad()
        def backward(self, x, y):
            self.feedback_weights[1] = self.feedback_weights[1].T.clone()
            return super().backward(x, y)

    net = small_net(SIZES[3])
    assert distance_to_backprop(Transposed(net).double(), *batch(net)) > 1e-3


def test_gradients_are_batch_means():
    net = small_net()
    rule, (x, y) = WeightMirror(net).double(), batch(net)
    assert largest_difference(grads(rule, x, y), grads(rule, torch.cat([x, x]), torch.cat([y, y]))) < EXACT


class MirrorsInBackward(WeightMirror):
    def backward(self, x, y):
        self.mirror()
        return super().backward(x, y)


def test_backward_alone_never_mirrors():
    def moved(rule_class):
        net = small_net()
        rule = rule_class(net).double()
        before = snapshot(rule)
        rule.backward(*batch(net))
        after = snapshot(rule)
        return {name for name in before if before[name] != after[name]}

    assert moved(WeightMirror) == {"grad"}
    assert moved(MirrorsInBackward) == {"grad", "generator", "state"}


def test_without_mirror_steps_it_is_feedback_alignment_bit_for_bit():
    def trained(rule):
        optimizer = torch.optim.SGD(rule.parameters(), lr=0.1, momentum=0.9)
        for t in range(20):
            rule.step(*batch(rule.net, n=9, seed=t), optimizer)
        return rule.state_dict()

    lesson_06 = trained(FeedbackAlignment(small_net(), seed=5))
    ours = trained(WeightMirror(small_net(), seed=5, mirror_steps=0))
    assert ours.keys() == lesson_06.keys()
    assert all(torch.equal(ours[name], lesson_06[name]) for name in ours)
    with_mirror = trained(WeightMirror(small_net(), seed=5, mirror_steps=1))
    assert not torch.equal(with_mirror["feedback_weights.1"], lesson_06["feedback_weights.1"])


@pytest.mark.parametrize("steps", [0, 1, 3])
def test_a_step_is_one_of_feedback_alignment_and_then_so_many_mirrors(steps):
    calls = []

    class Counting(WeightMirror):
        def mirror(self):
            calls.append([w.detach().clone() for w in self.net.weights])
            return super().mirror()

    net = small_net()
    rule = Counting(net, mirror_steps=steps).double()
    rule.step(*batch(net), torch.optim.SGD(rule.parameters(), lr=0.1))
    assert len(calls) == steps
    # The mirror sees the weights after the update, and leaves them alone.
    assert all(torch.equal(seen, now) for weights in calls for seen, now in zip(weights, net.weights, strict=True))


def test_a_mirror_moves_the_feedback_and_nothing_else():
    net = small_net()
    rule = WeightMirror(net).double()
    rule.backward(*batch(net))
    before = snapshot(rule)
    rule.mirror()
    after = snapshot(rule)
    assert before["grad"] == after["grad"] and before["torch"] == after["torch"]
    changed = {name for name in before["state"] if before["state"][name] != after["state"][name]}
    assert changed == {"feedback_weights.1", "feedback_weights.2"}


# ----------------------------------------------------------------- asleep


def distance_to_the_sum_over_examples(rule_class, sizes=SIZES[4], decay=0.3, examples=11):
    """One mirror step against Σ over examples of outer products, with the same noise."""
    net = small_net(sizes)
    rule = rule_class(net, decay=decay, examples=examples).double()
    twin = torch.Generator()
    twin.set_state(rule.generator.get_state())
    expected = []
    for l in range(1, net.depth):
        w, b = net.weights[l].detach(), rule.feedback_weights[l]
        noise = torch.randn(examples, w.shape[1], generator=twin, dtype=w.dtype)
        mean = sum(torch.outer(w @ xi, xi) for xi in noise) / examples
        expected.append((1 - decay) * b + decay * mean)
    rule.mirror()
    return largest_difference(list(rule.feedback_weights)[1:], expected)


@pytest.mark.parametrize("decay", [0.01, 0.3, 1.0])
@pytest.mark.parametrize("depth", [2, 3, 4])
def test_one_mirror_step_is_the_equation(depth, decay):
    assert distance_to_the_sum_over_examples(WeightMirror, SIZES[depth], decay) < EXACT


@pytest.mark.parametrize("wrong", MUTANTS)
def test_mutants_are_not_the_equation(wrong):
    assert distance_to_the_sum_over_examples(mutant("")) < EXACT
    assert distance_to_the_sum_over_examples(mutant(wrong)) > 1e-3


def listening(rule_class, steps, decay=0.1, examples=16, seed=0, sizes=WIDE, settle=None):
    """Yield the rule after each mirror step, its weights held still, from the time the first B is forgotten."""
    rule = rule_class(small_net(sizes, seed=seed), seed=seed, decay=decay, examples=examples).double()
    for _ in range(settle or math.ceil(8 / decay)):  # e⁻⁸ of the first B is left
        rule.mirror()
    for _ in range(steps):
        rule.mirror()
        yield rule


def predicted_angle(fan_in, n):
    return math.degrees(math.atan(math.sqrt((fan_in + 1) / n)))


def effective(examples, decay):
    return examples * (2 - decay) / decay


def angle_misses(rule_class, decay, examples):
    """Measured minus predicted angle of each layer, in degrees; the measured one a mean over 20 separate times."""
    apart = math.ceil(2 / decay)
    angles = []
    for t, rule in enumerate(listening(rule_class, 20 * apart, decay, examples)):
        if t % apart == 0:
            pairs = zip(list(rule.net.weights)[1:], list(rule.feedback_weights)[1:], strict=True)
            angles.append([alignment_angle(w.detach(), b) for w, b in pairs])
    measured = torch.tensor(angles).mean(0).tolist()
    return [angle - predicted_angle(41, effective(examples, decay)) for angle in measured]


# One angle scatters by about ½ sin 2θ · √(2/(p q)) ≤ 0.9° at 23 × 41 weights: 2° is nine errors of the mean of 20.
@pytest.mark.parametrize(("decay", "examples"), [(1.0, 64), (0.5, 8), (0.1, 4), (0.1, 32), (0.02, 16)])
def test_the_angle_is_within_2_degrees_of_the_closed_form(decay, examples):
    assert max(map(abs, angle_misses(WeightMirror, decay, examples))) < 2


@pytest.mark.parametrize(
    "wrong", ["one noise, forwarded", "noise with a mean", "other example", "transposed", "bias not blocked", "sign"]
)
def test_mutants_miss_the_angle(wrong):
    assert max(map(abs, angle_misses(mutant(""), 0.1, 32))) < 2
    assert max(map(abs, angle_misses(mutant(wrong), 0.1, 32))) > 4


def test_the_chosen_decay_keeps_500_inputs_below_15_degrees():
    rule = WeightMirror(small_net((3, 500, 10)))
    predicted = predicted_angle(500, effective(rule.examples, rule.decay))
    assert predicted < 15
    for _ in range(math.ceil(8 / rule.decay)):
        rule.mirror()
    measured = alignment_angle(rule.net.weights[1].detach(), rule.feedback_weights[1])
    assert measured < 15 and measured == pytest.approx(predicted, abs=2)


def test_a_decay_of_one_over_t_makes_the_plain_mean():
    """n examples in all, each counting alike: cos = 1/√(1 + (p+1)/n), 45° at n = p + 1."""
    angles = {n: [] for n in (20, 42, 84, 420, 2058)}
    for seed in range(20):
        rule = WeightMirror(small_net(WIDE, seed=seed), seed=seed, examples=2).double()
        for t in range(1, 1030):
            rule.decay = 1 / t
            rule.mirror()
            if 2 * t in angles:
                angles[2 * t].append(alignment_angle(rule.net.weights[2].detach(), rule.feedback_weights[2]))
    for n, measured in angles.items():
        assert sum(measured) / 20 == pytest.approx(predicted_angle(41, n), abs=2)
        assert math.cos(math.radians(sum(measured) / 20)) == pytest.approx(1 / math.sqrt(1 + 42 / n), rel=0.05)
    assert sum(angles[42]) / 20 == pytest.approx(45, abs=2)
    assert math.cos(math.radians(sum(angles[2058]) / 20)) == pytest.approx(0.99, abs=2e-3)  # 49 p: 99 %


def length_misses(rule_class, decay=0.1, examples=16):
    """(⟨B, W⟩/‖W‖² − 1, ‖B‖²/‖W‖² over its prediction − 1), each in standard errors, the means over time."""
    rows = []
    for t, rule in enumerate(listening(rule_class, 1600, decay, examples)):
        if t % 40 == 0:  # (1 − λ)⁴⁰: a hundredth is left in common
            w, b = rule.net.weights[2].detach(), rule.feedback_weights[2]
            along, length = (b * w).sum() / w.norm() ** 2, b.norm() ** 2 / w.norm() ** 2
            rows.append((along - 1, length / (1 + 42 / effective(examples, decay)) - 1))
    rows = torch.tensor(rows)
    return (rows.mean(0) / (rows.std(0) / math.sqrt(len(rows)))).abs().tolist()


def test_b_is_w_in_the_mean_and_longer_by_its_noise():
    assert max(length_misses(WeightMirror)) < 4


@pytest.mark.parametrize("wrong", ["louder noise", "sum", "through f", "sign", "nothing forgotten"])
def test_mutants_have_another_length(wrong):
    assert max(length_misses(mutant(""))) < 4
    assert max(length_misses(mutant(wrong))) > 8


def test_without_decay_the_length_grows_by_the_same_amount_at_each_step():
    rule = mutant("nothing forgotten")(small_net(WIDE), decay=0.1, examples=64).double()
    w, start, rows = rule.net.weights[2].detach(), rule.feedback_weights[2].clone(), []
    for _ in range(400):
        rule.mirror()
        rows.append(((rule.feedback_weights[2] - start) * w).sum() / w.norm() ** 2)
    steps = torch.stack(rows).diff(prepend=torch.zeros(1, dtype=w.dtype))
    error = steps.std() / math.sqrt(len(steps))
    assert abs(steps.mean() - 0.1) < 4 * error  # η s² = 0.1, each step: E B_n = B_0 + n η s² W
    assert rule.feedback_weights[2].norm() > 30 * w.norm()
    *_, kept = listening(WeightMirror, 400, 0.1, 64)
    assert kept.feedback_weights[2].norm() < 1.2 * kept.net.weights[2].norm()


@pytest.mark.parametrize("decay", [1e-3, 0.02, 0.5, 1.0])
def test_where_b_began_is_forgotten_at_the_rate_of_the_decay(decay):
    def differences(rule_class, steps=30):
        rules = [rule_class(small_net(SIZES[3]), decay=decay).double() for _ in range(2)]
        rules[1].feedback_weights[1] = 7 * rules[1].feedback_weights[1]
        start = rules[1].feedback_weights[1] - rules[0].feedback_weights[1]
        for _ in range(steps):
            for rule in rules:
                rule.mirror()  # the same noise for both
        apart = rules[1].feedback_weights[1] - rules[0].feedback_weights[1]
        return (apart - (1 - decay) ** steps * start).abs().max().item()

    assert differences(WeightMirror) < EXACT
    assert differences(mutant("nothing forgotten")) > 1e-3


def test_b_is_the_mean_of_past_weights_while_w_moves():
    """E B_t = (1 − λ)ᵗ B_0 + λ Σ (1 − λ)ᵏ W_{t−k}: the lag."""
    decay, times, repeats = 0.1, 25, 120

    def last(seed):
        net = small_net(SIZES[2])
        rule = WeightMirror(net, seed=seed, decay=decay, examples=40).double()
        rule.feedback_weights[1] = torch.zeros(3, 5)
        expected = torch.zeros(3, 5, dtype=torch.float64)
        for _ in range(times):
            with torch.no_grad():
                net.weights[1] += 0.3
            rule.mirror()
            expected = (1 - decay) * expected + decay * net.weights[1].detach()
        return rule.feedback_weights[1].clone(), expected, net.weights[1].detach()

    found = [last(seed) for seed in range(repeats)]
    b = torch.stack([f[0] for f in found])
    deviation = (b.mean(0) - found[0][1]) / (b.std(0) / math.sqrt(repeats))
    assert deviation.abs().max() < 4.5  # the largest of 15
    now = (b.mean(0) - found[0][2]) / (b.std(0) / math.sqrt(repeats))
    assert now.abs().min() > 8  # and not the W of the moment


def test_layers_hear_noise_of_their_own():
    """Two layers with equal weights would otherwise have equal feedback."""
    net = small_net((7, 5, 5, 5))
    with torch.no_grad():
        net.weights[2].copy_(net.weights[1])
    rule = WeightMirror(net, decay=1.0, examples=3).double()
    rule.mirror()
    assert (rule.feedback_weights[1] - rule.feedback_weights[2]).abs().max() > 0.1


@pytest.mark.parametrize("strength", [0.5, 3.0])
def test_through_f_it_is_w_with_every_row_scaled_by_its_mean_slope(strength):
    """Stein: E f(w·ξ) ξ = E f′(w·ξ) w. Rows of large weights saturate, and come out too short."""
    net = small_net((7, 9, 5))
    with torch.no_grad():
        net.weights[1] *= strength * torch.arange(1, 6)[:, None] / 3
    rule = mutant("through f")(net, decay=1.0, examples=400_000).double()
    rule.mirror()
    w, b = net.weights[1].detach(), rule.feedback_weights[1]
    generator = torch.Generator().manual_seed(9)
    a = w.norm(dim=1) * torch.randn(400_000, 1, generator=generator, dtype=w.dtype)
    slope = (1 - torch.tanh(a) ** 2).mean(0)
    # Standard error of an entry: at most √(E y² ξ²) / √n ≤ √3 / √n; that of the slope adds less.
    assert (b - slope[:, None] * w).abs().max() < 5 * math.sqrt(3 / 400_000)
    assert (b - w).abs().max() > 0.02
    assert slope[0] > slope[-1]


# -------------------------------------------------------------- the rest


def test_knobs_may_move_while_training_runs():
    def left(knobs):
        rules = [WeightMirror(cu.MLP([12, 9, 4])) for _ in range(2)]
        rules[1].feedback_weights[1] = 5 * rules[1].feedback_weights[1]
        (start,) = [rules[1].feedback_weights[1] - rules[0].feedback_weights[1]]
        for rule in rules:  # lr 0, so that both see the same weights
            cu.train(rule, clusters(n=200), epochs=1, lr=0.0, batch_size=20, knobs=knobs, progress=False)
        return ((rules[1].feedback_weights[1] - rules[0].feedback_weights[1]).norm() / start.norm()).item()

    assert left({"decay": 0.1}) == pytest.approx(0.9**10, rel=1e-4)
    assert left({"decay": 0.1, "mirror_steps": 3}) == pytest.approx(0.9**30, rel=1e-4)
    assert left({"decay": [(0, 0.1), (80, 0.2)]}) == pytest.approx(0.9**4 * 0.8**6, rel=1e-4)
    assert left({"decay": 0.1, "mirror_steps": [(0, 2), (100, 0)]}) == pytest.approx(0.9**10, rel=1e-4)


@pytest.mark.parametrize("decay", [-0.1, 0, 0.0, 1.01, math.nan, math.inf])
def test_a_bad_decay_is_refused_at_the_door_and_later(decay):
    with pytest.raises(ValueError, match="decay is"):
        WeightMirror(small_net(), decay=decay)
    rule = WeightMirror(small_net())
    with pytest.raises(ValueError, match="decay is"):
        rule.decay = decay
    assert rule.decay == 0.02


@pytest.mark.parametrize("count", [-1, 1.5, math.nan, "2", None])
def test_bad_counts_are_refused(count):
    with pytest.raises(ValueError, match="mirror_steps is"):
        WeightMirror(small_net(), mirror_steps=count)
    with pytest.raises(ValueError, match="examples is"):
        WeightMirror(small_net(), examples=count)
    rule = WeightMirror(small_net())
    with pytest.raises(ValueError, match="mirror_steps is"):
        rule.mirror_steps = count
    assert rule.mirror_steps == 1
    with pytest.raises(ValueError, match="examples is"):
        WeightMirror(small_net(), examples=0)


def test_bad_input_is_refused():
    rule = WeightMirror(small_net())
    x, y = batch(rule.net)
    for bad in ((x[:, :3], y), (x[:0], y[:0]), (x, y[:2]), (x, y + 7), (x * math.nan, y)):
        with pytest.raises(ValueError):
            rule.double().backward(*bad)


def test_feedback_is_a_buffer_independent_of_the_weights_and_as_large():
    net = cu.MLP([300, 200, 150], seed=4)
    rule = WeightMirror(net, seed=4)  # the same seed as the network's
    b = rule.feedback_weights[1]
    assert rule.feedback_weights[0] is None and all(p is not b for p in rule.parameters())
    assert abs(cosine(b.flatten(), net.weights[1].detach().flatten())) < 4 / b.numel() ** 0.5
    assert (b.std() / net.weights[1].std()).item() == pytest.approx(1, rel=0.02)


def run(seed=0, data=None, **settings):
    data = data or cu.load_dataset("digits", limit=400)
    rule = WeightMirror(cu.MLP([784, 24, 10], seed=seed), seed=seed)
    cu.train(rule, data, **{"epochs": 2, "lr": 0.1, "batch_size": 32, "seed": seed, **settings}, progress=False)
    return rule


def test_training_is_deterministic_bit_for_bit():
    one, again, other = (run(seed).state_dict() for seed in (0, 0, 1))
    assert one.keys() == again.keys()
    assert all(torch.equal(one[name], again[name]) for name in one)
    assert not torch.equal(one["net.weights.0"], other["net.weights.0"])


def test_state_dict_round_trip_carries_the_feedback():
    trained, fresh = run(), WeightMirror(cu.MLP([784, 24, 10], seed=9), seed=9)
    state = trained.state_dict()
    assert "feedback_weights.1" in state
    fresh.load_state_dict(state)
    data = cu.load_dataset("digits", limit=400)
    x, y = data.x_train[:50], data.y_train[:50]
    assert torch.equal(fresh.feedback_weights[1], trained.feedback_weights[1])
    assert largest_difference(grads(fresh, x, y), grads(trained, x, y)) == 0


def test_a_probed_run_is_bit_equal_to_an_unprobed_one():
    plain, probed = run().state_dict(), run(probe_every=64).state_dict()
    assert all(torch.equal(plain[name], probed[name]) for name in plain)


def test_the_frozen_control_mirrors_too():
    inner = WeightMirror(small_net(SIZES[3]))
    rule = cu.FrozenHidden(inner)
    hidden, b = inner.net.weights[0].detach().clone(), inner.feedback_weights[1].clone()
    rule.step(*batch(inner.net), torch.optim.SGD(rule.parameters(), lr=0.1))
    assert torch.equal(hidden, inner.net.weights[0]) and not torch.equal(b, inner.feedback_weights[1])


def test_hidden_angle_falls_below_that_of_feedback_alignment():
    data = cu.load_dataset("digits")
    x, y = data.x_train[:256], data.y_train[:256]

    def angle(rule):
        cu.train(rule, data, epochs=8, lr=0.1, batch_size=32, progress=False)
        return alignment_angle(grads(rule, x, y)[0], true_gradient(rule.net, x, y)[0])

    for seed in range(3):
        ours = angle(WeightMirror(cu.MLP([784, 32, 10], seed=seed), seed=seed))
        assert ours < 10 and ours < angle(FeedbackAlignment(cu.MLP([784, 32, 10], seed=seed), seed=seed)) - 20


def test_learning_really_happens_in_the_hidden_layer():
    data, accuracy = cu.load_dataset("digits"), {}
    for name, wrap in {"taught": lambda r: r, "frozen": cu.FrozenHidden}.items():
        rule = wrap(WeightMirror(cu.MLP([784, 16, 10])))  # few units, so that random features are poor
        first = rule.net.weights[0].detach().clone()
        cu.train(rule, data, epochs=8, lr=0.03, batch_size=32, progress=False)
        accuracy[name] = cu.evaluate(rule, data.x_test, data.y_test)
        assert torch.equal(first, rule.net.weights[0]) == (name == "frozen")
    assert accuracy["taught"] > accuracy["frozen"] + 0.1 and accuracy["taught"] > 0.85


def test_shuffled_labels_teach_nothing_about_the_test_set():
    data = cu.load_dataset("digits")
    order = torch.randperm(len(data.y_train), generator=torch.Generator().manual_seed(0))
    rule = run(data=replace(data, y_train=data.y_train[order]))
    chance, n = 0.1, len(data.y_test)
    assert cu.evaluate(rule, data.x_test, data.y_test) < chance + 4 * (chance * (1 - chance) / n) ** 0.5
