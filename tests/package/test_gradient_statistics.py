"""Bias, variance and their errors against closed forms, and how little they hold and leave."""

import math

import pytest
import torch
from helpers import AutogradRule, NoisyGradient, ScaledGradient, SignGradient, batch, by_name, flat, small_net, snapshot

import course_utils as cu
from course_utils.controls import FrozenHidden
from course_utils.metrics import gradient_statistics, true_gradient
from course_utils.rule import Rule
from course_utils.rules import Backprop

STATISTICS = ["bias", "projection", "variance", "snr", "cosine", "cosine_of_mean", "norm_ratio"]


def test_isotropic_noise_of_known_size():
    net = small_net()
    x, y = batch(net, n=6)
    sigma, draws = 0.05, 1_000
    frame = gradient_statistics(NoisyGradient(net, sigma=sigma), x, y, draws=draws).set_index("layer")
    assert list(frame.index) == ["1", "2", "3", "all"]
    for name, g in by_name(net, true_gradient(net, x, y)).items():
        row, d, g2 = frame.loc[name], len(g), (g @ g).item()
        variance = sigma**2 * d / g2
        assert row.variance == pytest.approx(variance, rel=5 * (2 / (d * draws)) ** 0.5)
        assert row.snr == pytest.approx(1 / variance, rel=0.05)
        assert row.projection == pytest.approx(1, abs=4 * sigma / math.sqrt(g2 * draws))
        assert row.bias < 4 * math.sqrt(variance / math.sqrt(d) / draws)
        # The exact mean cosine, by sampling what the rule should have drawn.
        noise = torch.randn(40_000, d, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
        cosines = torch.cosine_similarity(g + sigma * noise, g[None], dim=1)
        assert row.cosine == pytest.approx(cosines.mean().item(), abs=4 * cosines.std().item() / draws**0.5)
        norms = (g + sigma * noise).norm(dim=1) / g2**0.5
        assert row.norm_ratio == pytest.approx(norms.mean().item(), abs=4 * norms.std().item() / draws**0.5)
        assert row.cosine_of_mean == pytest.approx(1 / math.sqrt(1 + variance / draws), rel=0.01)


def test_unbiased_noise_reads_not_resolved_and_bias_is_found():
    net = small_net()
    x, y = batch(net, n=6)
    unresolved = [
        gradient_statistics(NoisyGradient(net, seed=seed), x, y, draws=50).bias_reads.iloc[-1] == "not resolved"
        for seed in range(40)
    ]
    assert sum(unresolved) >= 28  # a bias of one standard error up happens by chance, one time in six

    class Shifted(NoisyGradient):
        def change(self, gradient):
            return super().change(1.5 * gradient)

    row = gradient_statistics(Shifted(net, sigma=0.02), x, y, draws=400).iloc[-1]
    assert row.bias == pytest.approx(0.5, abs=4 * row.bias_se) and "±" in row.bias_reads
    assert row.projection == pytest.approx(1.5, abs=4 * row.projection_se)


@pytest.mark.parametrize("factor", [0.0, 0.25, 1.0, 3.0, -1.0])
def test_scaled_gradient(factor):
    net = small_net()
    x, y = batch(net)
    frame = gradient_statistics(ScaledGradient(net, factor=factor), x, y, draws=20)
    for row in frame.itertuples():
        assert row.bias == pytest.approx(abs(factor - 1), abs=1e-12)
        assert row.projection == pytest.approx(factor, abs=1e-12)
        assert row.variance == pytest.approx(0, abs=1e-12)
        assert row.norm_ratio == pytest.approx(abs(factor), abs=1e-12)
        if factor:
            assert row.snr > 1e12
            assert row.cosine == pytest.approx(math.copysign(1, factor), abs=1e-12)
            assert row.cosine_of_mean == pytest.approx(math.copysign(1, factor), abs=1e-12)
        else:
            assert math.isnan(row.cosine) and math.isnan(row.cosine_of_mean)


def test_sign_of_the_gradient():
    net = small_net()
    x, y = batch(net)
    frame = gradient_statistics(SignGradient(net), x, y, draws=20).set_index("layer")
    for name, g in by_name(net, true_gradient(net, x, y)).items():
        expected = (g.abs().sum() / (len(g) ** 0.5 * g.norm())).item()
        assert (g != 0).all()
        assert frame.cosine[name] == pytest.approx(expected, abs=1e-12)
        assert frame.norm_ratio[name] == pytest.approx(len(g) ** 0.5 / g.norm().item(), rel=1e-12)


def test_layers_without_a_true_gradient_or_an_update_read_nan():
    net = small_net()
    with torch.no_grad():
        net.weights[2].zero_()  # nothing comes back through it
    x, y = batch(net)
    frame = gradient_statistics(NoisyGradient(net), x, y, draws=20).set_index("layer")
    assert frame.loc["1", ["bias", "projection", "variance", "cosine", "norm_ratio"]].isna().all()
    assert frame.loc["3", STATISTICS].notna().all()
    frame = gradient_statistics(FrozenHidden(Backprop(small_net())), x, y, draws=20).set_index("layer")
    assert frame.loc["1", "bias"] == pytest.approx(1) and math.isnan(frame.loc["1", "cosine"])
    assert frame.loc["3", "bias"] == pytest.approx(0, abs=1e-12)


def test_standard_errors_are_calibrated():
    net = small_net()
    x, y = batch(net, n=6)
    g = flat(true_gradient(net, x, y))
    sigma, seeds = 0.05, 80
    noise = torch.randn(40_000, len(g), generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    truth = {
        "projection": 1.0,
        "variance": sigma**2 * len(g) / (g @ g).item(),
        "cosine": torch.cosine_similarity(g + sigma * noise, g[None], dim=1).mean().item(),
        "norm_ratio": ((g + sigma * noise).norm(dim=1).mean() / g.norm()).item(),
    }
    frames = [gradient_statistics(NoisyGradient(net, seed=s, sigma=sigma), x, y, draws=30) for s in range(seeds)]
    for name, expected in truth.items():
        pulls = [abs(f[name].iloc[-1] - expected) / f[f"{name}_se"].iloc[-1] for f in frames]
        # Ten blocks give Student's t with 9 degrees of freedom: 66 % within 1, 92 % within 1.96.
        for width, share in ((1.0, 0.66), (1.96, 0.92)):
            inside = sum(p < width for p in pulls) / seeds
            assert inside == pytest.approx(share, abs=3.5 * (share * (1 - share) / seeds) ** 0.5), (name, width)


def test_data_noise_of_mini_batches():
    net = small_net((7, 5, 3))
    x, y = batch(net, n=24)
    g = flat(true_gradient(net, x, y))
    each = torch.stack([flat(true_gradient(net, x[i : i + 1], y[i : i + 1])) for i in range(24)])
    assert torch.allclose(each.mean(0), g)
    size = 6
    # Sampling without replacement: Var(mean) = S²/m · (1 − m/n), with S² the variance over the 24 examples.
    variance = (each.var(0).sum() / size * (1 - size / 24) / (g @ g)).item()
    row = gradient_statistics(Backprop(net), x, y, draws=1_000, batch_size=size).iloc[-1]
    assert row.variance == pytest.approx(variance, abs=4 * row.variance_se) and row.variance_se < 0.1 * variance
    assert row.projection == pytest.approx(1, abs=4 * row.projection_se)
    whole = gradient_statistics(Backprop(net), x, y, draws=20, batch_size=24).iloc[-1]
    assert whole.variance == pytest.approx(0, abs=1e-12) and whole.bias == pytest.approx(0, abs=1e-6)
    own = gradient_statistics(Backprop(net), x, y, draws=20).iloc[-1]
    assert own.variance == pytest.approx(0, abs=1e-12)  # a rule without noise of its own
    again = [gradient_statistics(Backprop(net), x, y, draws=20, batch_size=5, seed=s).iloc[-1].bias for s in (0, 0, 1)]
    assert again[0] == again[1] != again[2]


class Untidy(AutogradRule):
    """Uses its generator, has a buffer that it changes, and may fail on a late draw."""

    def __init__(self, net, seed=0, fail_at=None):
        super().__init__(net, seed)
        self.register_buffer("count", torch.zeros(1))
        self.inner = NoisyGradient(net, seed=seed + 1)  # a rule that holds a rule, with its own generator
        self.fail_at = fail_at

    def backward(self, x, y):
        self.count += torch.rand(1, generator=self.generator)
        with torch.no_grad():
            self.net.weights[0].add_(0.1)
        self.fail_at = self.fail_at and self.fail_at - 1
        if self.fail_at == 0:
            raise RuntimeError("failed on purpose")
        return self.inner.backward(x, y)


@pytest.mark.parametrize("fail_at", [None, 7])
@pytest.mark.parametrize("batch_size", [None, 2])
def test_statistics_leave_no_trace(batch_size, fail_at):
    net = small_net()
    rule, (x, y) = Untidy(net, fail_at=fail_at), batch(net)
    net.noise_generator = torch.Generator().manual_seed(5)
    net.weights[1].grad = torch.ones_like(net.weights[1])
    kept = net.weights[1].grad

    def all_of_it():
        states = [rule.inner.generator.get_state().tolist(), net.noise_generator.get_state().tolist()]
        return snapshot(rule), states

    before = all_of_it()
    if fail_at:
        with pytest.raises(RuntimeError, match="on purpose"):
            gradient_statistics(rule, x, y, draws=20, batch_size=batch_size)
    else:
        gradient_statistics(rule, x, y, draws=20, batch_size=batch_size)
    assert all_of_it() == before and net.weights[1].grad is kept


def test_memory_does_not_grow_with_draws():
    from course_utils.metrics import _Sums

    def held(sums):
        return sum(v.numel() for v in vars(sums).values() if isinstance(v, torch.Tensor))

    sums = _Sums(torch.randn(50).double(), 0.0)
    sizes = []
    for draw in range(300):
        sums.add(torch.randn(50).double(), draw % 10)
        sizes.append((held(sums), len(vars(sums))))
    assert len(set(sizes)) == 1
    assert all(isinstance(v, (torch.Tensor, float)) for v in vars(sums).values())


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"draws": 19}, "draws is 19"),
        ({"draws": 0}, "draws is 0"),
        ({"draws": 20.5}, "draws is 20.5"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"batch_size": 5}, "batch_size is 5"),
        ({"batch_size": -1}, "batch_size is -1"),
        ({"batch_size": 2.5}, "batch_size is 2.5"),
    ],
)
def test_statistics_refuse_bad_arguments(arguments, message):
    net = small_net()
    with pytest.raises(ValueError, match=message):
        gradient_statistics(Backprop(net), *batch(net), **arguments)


def test_statistics_refuse_bad_data():
    net = small_net()
    x, y = batch(net)
    with pytest.raises(ValueError, match="x has shape"):
        gradient_statistics(Backprop(net), x[:, 1:].contiguous(), y)
    with pytest.raises(ValueError, match="y holds labels"):
        gradient_statistics(Backprop(net), x, y + 5)


def test_statistics_work_for_every_rule():
    net = small_net()
    for rule_class in cu.rules.ALL.values():
        rule: Rule = rule_class(net)
        frame = gradient_statistics(rule, *batch(net), draws=20)
        assert list(frame.columns) == ["layer", *(c for s in STATISTICS for c in (s, f"{s}_se")), "bias_reads"]


def test_the_error_of_a_mean_over_draws_is_that_of_its_ten_blocks():
    """For what is a plain mean, leaving out a block at a time gives the standard error of the block means, exactly."""
    net = small_net()
    x, y = batch(net)
    g, told = torch.cat([t.flatten() for t in true_gradient(net, x, y)]), []

    class Told(NoisyGradient):
        def backward(self, x, y):
            loss = super().backward(x, y)
            told.append((torch.cat([p.grad.flatten() for p in self.net.parameters()]) @ g / (g @ g)).item())
            return loss

    row = gradient_statistics(Told(net), x, y, draws=40).iloc[-1]
    blocks = torch.tensor(told, dtype=torch.float64).view(4, 10).mean(0)
    assert row.projection == pytest.approx(sum(told) / 40, rel=1e-12)
    assert row.projection_se == pytest.approx((blocks.std() / 10**0.5).item(), rel=1e-9)
