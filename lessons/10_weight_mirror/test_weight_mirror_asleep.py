"""The weight mirror asleep: what B hears, at which angle and length. A wrong mirror must fail each."""

import math

import pytest
import torch
from helpers import largest_difference, mutant, small_net

from course_utils.metrics import alignment_angle
from course_utils.rules import WeightMirror

EXACT = 1e-12
SIZES = {2: (7, 5, 3), 3: (7, 5, 5, 3), 4: (7, 6, 6, 5, 3)}
WIDE = (9, 41, 41, 23)  # wide enough for an angle to scatter little
ONWARD = "noise = getattr(self, 'onward', noise) if l > 1 else noise; self.onward = torch.tanh(noise @ w.T); "
WRONG = {  # what is wrong: (in the rule's source, instead of it)
    "one noise, forwarded": ("current = noise @ w.T", ONWARD + "current = noise @ w.T"),
    "noise with a mean": ("dtype=w.dtype)", "dtype=w.dtype) + 0.5"),
    "other example": ("noise @ w.T", "noise.roll(1, dims=0) @ w.T"),
    "transposed": ("noise @ w.T", "noise @ (w if w.shape[0] == w.shape[1] else w.T)"),
    "bias not blocked": ("noise @ w.T", "noise @ w.T + 4 * self.net.biases[l]"),
    "through f": ("current = noise @ w.T", "current = torch.tanh(noise @ w.T)"),
    "louder noise": ("alpha=self.decay", "alpha=2 * self.decay"),
    "sign": ("alpha=self.decay", "alpha=-self.decay"),
    "sum": (" / self.examples", ""),
    "nothing forgotten": ("b.mul_(1 - self.decay)", "pass"),
}


def wrong(name):
    return mutant(WeightMirror, *WRONG[name])


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


@pytest.mark.parametrize("name", WRONG)
def test_mutants_are_not_the_equation(name):
    assert distance_to_the_sum_over_examples(wrong(name)) > 1e-3


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
    "name", ["one noise, forwarded", "noise with a mean", "other example", "transposed", "bias not blocked", "sign"]
)
def test_mutants_miss_the_angle(name):
    assert max(map(abs, angle_misses(wrong(name), 0.1, 32))) > 4


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


@pytest.mark.parametrize("name", ["louder noise", "sum", "through f", "sign", "nothing forgotten"])
def test_mutants_have_another_length(name):
    assert max(length_misses(wrong(name))) > 8


def test_without_decay_the_length_grows_by_the_same_amount_at_each_step():
    rule = wrong("nothing forgotten")(small_net(WIDE), decay=0.1, examples=64).double()
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
    assert differences(wrong("nothing forgotten")) > 1e-3


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
    rule = wrong("through f")(net, decay=1.0, examples=400_000).double()
    rule.mirror()
    w, b = net.weights[1].detach(), rule.feedback_weights[1]
    generator = torch.Generator().manual_seed(9)
    a = w.norm(dim=1) * torch.randn(400_000, 1, generator=generator, dtype=w.dtype)
    slope = (1 - torch.tanh(a) ** 2).mean(0)
    # Standard error of an entry: at most √(E y² ξ²) / √n ≤ √3 / √n; that of the slope adds less.
    assert (b - slope[:, None] * w).abs().max() < 5 * math.sqrt(3 / 400_000)
    assert (b - w).abs().max() > 0.02
    assert slope[0] > slope[-1]
