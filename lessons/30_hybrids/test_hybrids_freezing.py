"""Random freezing: what is left in the mean, the noise that it adds, and lots that are drawn once."""

import math

import pytest
import torch
from helpers import batch, flat, grads, mutant, small_net
from helpers.hybrids import draws_of, same, trained

from course_utils.metrics import gradient_statistics, true_gradient
from course_utils.rules import RandomFreezing

KEEPS_THE_FROZEN = mutant(RandomFreezing, ">= self.frozen", "< self.frozen")
AMPLIFIED = mutant(RandomFreezing, ">= self.frozen)", ">= self.frozen) / (1 - self.frozen)")
DRAWN = "torch.rand(p.shape, generator=self.generator, dtype=p.dtype, device=p.device)"
WHOLE_ROWS = mutant(RandomFreezing, DRAWN, DRAWN.replace("p.shape", "p[..., :1].shape") + ".expand(p.shape)")


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
    for wrong in (KEEPS_THE_FROZEN, AMPLIFIED):
        assert off_the_freezing(wrong, frozen)[0] > 4
    assert off_the_freezing(WHOLE_ROWS, frozen)[0] < 2  # right in the mean and in the trace: what it breaks is below


def independent(rule_class):
    """Correlation of neighbours in one row over draws."""
    net = small_net()
    x, y = batch(net)
    rule = rule_class(net, seed=2).double()
    kept = torch.stack([(grads(rule, x, y)[0] != 0).double().flatten() for _ in range(400)])
    return torch.corrcoef(kept[:, :2].T)[0, 1].abs().item()


def test_each_weight_draws_its_own_lot():
    assert independent(RandomFreezing) < 4 / math.sqrt(400)
    assert independent(WHOLE_ROWS) > 0.9


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
