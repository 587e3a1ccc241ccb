"""What lesson 02 teaches about measuring: closed forms of estimators one can see through."""

import math

import pytest
import torch
from helpers import AutogradRule, NoisyGradient, SignGradient, batch, flat, grads, small_net

from course_utils.metrics import alignment_angle, chance_band, gradient_statistics, true_gradient

# ---------------------------------------------------------------- chance


@pytest.mark.parametrize("d", [10, 300, 5_000])
def test_the_cosine_of_random_pairs_has_variance_one_over_d(d):
    pairs = 2_000
    generator = torch.Generator().manual_seed(d)
    one = torch.randn(d, generator=generator, dtype=torch.float64)
    many = torch.randn(pairs, d, generator=generator, dtype=torch.float64)
    cosine = many @ one / (many.norm(dim=1) * one.norm())
    # Its square is Beta(1/2, (d − 1)/2): mean 1/d, variance 2(d − 1)/(d²(d + 2)).
    error = math.sqrt(2 * (d - 1) / (d**2 * (d + 2)) / pairs)
    assert cosine.pow(2).mean().item() == pytest.approx(1 / d, abs=4 * error)
    assert cosine.mean().item() == pytest.approx(0, abs=4 / math.sqrt(d * pairs))


def density_inside_the_band(d):
    """Share of the exact density, ∝ sin^(d−2) θ, inside the chance band."""
    angle = torch.linspace(0, 180, 400_001, dtype=torch.float64)
    density = (torch.sin(torch.deg2rad(angle)).clamp(min=1e-300).log() * (d - 2)).exp()
    low, high = chance_band(d)
    inside = (low < angle) & (angle < high)
    return (density[inside].sum() / density.sum()).item()


def test_the_band_holds_95_percent_in_many_dimensions_and_less_in_the_plane():
    assert density_inside_the_band(203_530) == pytest.approx(0.95, abs=0.001)
    assert density_inside_the_band(1_000) == pytest.approx(0.95, abs=0.001)
    low, high = chance_band(2)
    assert density_inside_the_band(2) == pytest.approx((high - low) / 180, abs=1e-4)  # any angle is as likely
    assert density_inside_the_band(2) < 0.9


def test_the_band_is_112_degrees_over_the_root_of_d():
    for d in (4, 100, 203_530):
        low, high = chance_band(d)
        assert (high - low) / 2 == pytest.approx(112.3 / math.sqrt(d), rel=1e-3)


# ---------------------------------------------------------------- estimators one can see through


def test_the_error_of_one_draw_is_bias_squared_plus_variance():
    net = small_net()
    x, y = batch(net)
    g = flat(true_gradient(net, x, y))

    class Crooked(NoisyGradient):
        def change(self, gradient):
            return super().change(1.4 * gradient)

    rule = Crooked(net, sigma=0.05)
    errors = torch.stack([(flat(grads(rule, x, y)) - g).pow(2).sum() / (g @ g) for _ in range(800)])
    expected = 0.4**2 + 0.05**2 * len(g) / (g @ g)
    assert errors.mean().item() == pytest.approx(expected.item(), abs=4 * errors.std().item() / 800**0.5)


def sign_scaled(gradient):
    return gradient.sign() * gradient.abs().sum() / gradient.count_nonzero()


def sign_statistics(spoil):
    """(bias − sin θ, projection − cos² θ) of a sign-only estimator on a net with silent inputs, exactly measured."""
    net = small_net()
    x, y = batch(net)
    x[:, :2] = 0  # as MNIST's border: some gradients are 0, and sign(0) = 0
    g = flat(true_gradient(net, x, y))
    assert (g == 0).any()

    class Sign(AutogradRule):
        def backward(self, x, y):
            loss = super().backward(x, y)
            parameters = list(self.net.parameters())
            spoilt = spoil(flat([p.grad for p in parameters]))
            for p, part in zip(parameters, spoilt.split([p.numel() for p in parameters]), strict=True):
                p.grad = part.view_as(p)
            return loss

    row = gradient_statistics(Sign(net), x, y, draws=20).iloc[-1]
    cosine = (g.abs().sum() / (math.sqrt(g.count_nonzero()) * g.norm())).item()
    assert row.cosine == pytest.approx(cosine, abs=1e-12)
    return row.bias - math.sqrt(1 - cosine**2), row.projection - cosine**2


def test_the_bias_of_the_sign_is_the_sine_of_its_angle():
    assert sign_statistics(sign_scaled) == pytest.approx((0, 0), abs=1e-12)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda g: g.sign() * g.abs().mean(),  # counts the silent ones too
        lambda g: g.sign() * g.norm() / len(g) ** 0.5,
        lambda g: 2 * sign_scaled(g),
    ],
)
def test_another_length_of_the_sign_has_another_bias(spoil):
    assert max(map(abs, sign_statistics(spoil))) > 1e-3


def test_a_sign_alone_is_never_worse_than_one_over_root_d():
    net = small_net()
    x, y = batch(net)
    g = flat(true_gradient(net, x, y))
    row = gradient_statistics(SignGradient(net), x, y, draws=20).iloc[-1]
    assert 1 / math.sqrt(len(g)) < row.cosine < 1


def test_the_mean_of_as_many_draws_as_the_variance_is_45_degrees_off():
    generator = torch.Generator().manual_seed(0)
    d, v = 4_000, 50
    g = torch.zeros(d, dtype=torch.float64)
    g[0] = 1
    noise = math.sqrt(v / d) * torch.randn(v, d, generator=generator, dtype=torch.float64)
    assert alignment_angle((g + noise).mean(0), g) == pytest.approx(45, abs=4 * math.degrees(1 / math.sqrt(d)))
    assert alignment_angle(g + noise[0], g) == pytest.approx(math.degrees(math.atan(v**0.5)), abs=4)


def corrected_square(draws, g):
    return (draws.mean(0) - g).pow(2).sum() - draws.var(0).sum() / len(draws)


def naive_square(draws, g):
    return (draws.mean(0) - g).pow(2).sum()


def mean_and_spread_of(estimate, b=0.1, v=10.0, d=300, n=60, stacks=400):
    generator = torch.Generator().manual_seed(0)
    g = torch.ones(d, dtype=torch.float64) / math.sqrt(d)
    noise = math.sqrt(v / d) * torch.randn(stacks, n, d, generator=generator, dtype=torch.float64)
    values = torch.stack([estimate((1 + b) * g + z, g) for z in noise])
    return values.mean().item(), values.std().item()


def test_the_standard_error_of_the_squared_bias_is_the_closed_form():
    b, v, d, n, stacks = 0.1, 10.0, 300, 60, 400
    mean, spread = mean_and_spread_of(corrected_square, b, v, d, n, stacks)
    expected = math.sqrt(2 / d * (v / n) ** 2 + 4 * b**2 * v / (n * d))
    assert mean == pytest.approx(b**2, abs=4 * expected / stacks**0.5)
    assert spread == pytest.approx(expected, rel=4 / math.sqrt(2 * stacks))
    naive, _ = mean_and_spread_of(naive_square, b, v, d, n, stacks)
    assert naive == pytest.approx(b**2 + v / n, abs=4 * expected / stacks**0.5)  # the mutant: no correction
    assert abs(naive - b**2) > 4 * expected


def test_a_small_bias_is_resolved_by_the_predicted_number_of_draws():
    net = small_net((25, 20, 5))
    x, y = batch(net)
    g = flat(true_gradient(net, x, y))
    v, b = 20.0, 0.15
    needed = 2 * math.sqrt(2) * v / (math.sqrt(len(g)) * b**2)

    class Crooked(NoisyGradient):
        def change(self, gradient):
            return super().change((1 + b) * gradient)

    sigma = math.sqrt(v / len(g)) * g.norm().item()

    def unresolved(draws):
        rules = [Crooked(net, seed=s, sigma=sigma) for s in range(4)]
        return sum(gradient_statistics(r, x, y, draws=draws).bias_reads.iloc[-1] == "not resolved" for r in rules)

    assert unresolved(round(needed / 4)) >= 2 and unresolved(round(4 * needed)) == 0


# ---------------------------------------------------------------- data noise


def test_the_lengths_of_single_images_gradients_give_the_data_noise():
    net = small_net()
    x, y = batch(net, n=9)
    with torch.no_grad():
        h = net.activations(x)
        delta = net.output_error(h[-1], y)
        squares = torch.zeros(len(x), dtype=x.dtype)
        for l in reversed(range(net.depth)):
            squares += delta.pow(2).sum(1) * (h[l].pow(2).sum(1) + 1)
            delta = (delta @ net.weights[l]) * net.derivative(h[l])
    each = torch.stack([flat(true_gradient(net, x[i : i + 1], y[i : i + 1])) for i in range(9)])
    assert torch.allclose(squares, each.pow(2).sum(1), rtol=1e-12)
    g = flat(true_gradient(net, x, y))
    from_lengths = 9 / 8 * (squares.mean() - g @ g)
    assert from_lengths.item() == pytest.approx(each.var(0).sum().item(), rel=1e-12)


def test_best_of_five_adds_more_than_one_standard_deviation():
    best = torch.randn(100_000, 5, generator=torch.Generator().manual_seed(0)).max(1).values.mean().item()
    assert best == pytest.approx(1.163, abs=4 * 0.67 / 100_000**0.5)  # the expected maximum of five, 1.16296
