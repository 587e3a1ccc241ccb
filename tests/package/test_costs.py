"""course_utils.costs: what an update is charged with, counted a second way; and that nobody notices the counting."""

import itertools
from types import SimpleNamespace

import pytest
import torch
from helpers import batch, small_net
from torch import nn

import course_utils as cu
from course_utils import costs, runs

SIZES, N = (7, 6, 5, 3), 4
LAYERS = [inputs * outputs for inputs, outputs in itertools.pairwise(SIZES)]
THERE, BACK = N * sum(LAYERS), N * sum(LAYERS[1:])  # no error goes back to the input


def cost_of(name, repeats=1):
    rule = runs.make_rule(name, list(SIZES), 0)
    return costs.of_update(rule, torch.rand(N, SIZES[0]), torch.arange(N) % SIZES[-1], repeats=repeats)


class Hoarder(cu.Rule):
    """Makes three tensors of 1,000, 500 and 3,000 numbers, and lets the first go before the third is made."""

    def __init__(self, net, seed=0):
        super().__init__(net, seed)
        self.register_buffer("keepsake", torch.zeros(11))
        self.own = nn.Parameter(torch.zeros(2, 3))

    @torch.no_grad()
    def backward(self, x, y):
        first, second = x.new_zeros(1000), x.new_zeros(500)
        first += 1  # in place: nothing new
        view = first[:10]
        del first, view
        third = x.new_zeros(3000)
        assert len(second) + len(third) == 3500
        return x.new_zeros(())


# ---------------------------------------------------------------- products


@pytest.mark.parametrize("name", ["Backprop", "FeedbackAlignment", "KolenPollack", "SignSymmetry"])
def test_one_sweep_forward_and_one_back_multiply_as_the_closed_form_says(name):
    # forward and gradient meet every weight once an example, the way back all but the first layer's
    assert cost_of(name)["products"] == 2 * THERE + BACK


def test_what_comes_straight_from_the_output_multiplies_with_it_alone():
    assert cost_of("DirectFeedbackAlignment")["products"] == 2 * THERE + N * 3 * (6 + 5)


@pytest.mark.parametrize("sweeps", [1, 4])
def test_a_sweep_of_predictive_coding_leaves_the_first_layer_out(sweeps):
    cost = cost_of(f"PredictiveCoding(inference_steps={sweeps})")
    assert cost["products"] == 2 * THERE + sweeps * 2 * BACK


@pytest.mark.parametrize("draws", [1, 10])
def test_tries_share_the_first_product_and_the_gradients(draws):
    cost, mean = cost_of(f"NodePerturbation(draws={draws})"), N * draws * (6 + 5 + 3) * (draws > 1)
    assert cost["products"] == 2 * THERE + 2 * draws * BACK + mean


# ---------------------------------------------------------------- memory


def test_peak_and_kept_of_a_rule_that_is_known_to_the_byte():
    rule = Hoarder(small_net(dtype=torch.float32))
    x, y = batch(rule.net)
    cost = costs.of_update(rule, x, y, repeats=1)
    assert cost["kept"] == 4 * (11 + 2 * 3) and cost["products"] == 0
    assert cost["peak"] == 4 * (500 + 3000 + 1)  # and the loss


def test_kept_is_what_the_rule_owns_besides_the_network():
    assert cost_of("Backprop")["kept"] == 0
    assert cost_of("FeedbackAlignment")["kept"] == 4 * (5 * 6 + 3 * 5)
    assert cost_of("FrozenHidden(FeedbackAlignment)")["kept"] == 4 * (5 * 6 + 3 * 5)


@pytest.mark.parametrize("name", ["Backprop", "ForwardForward", "IncrementalPredictiveCoding", "WeightPerturbation"])
def test_peak_is_what_the_profiler_of_torch_finds(name):
    """Two ways to count: tensors alive between operations, and every allocation inside them."""
    sizes, n = [40, 30, 20, 10], 16
    rule = runs.make_rule(name, sizes, 0)
    x, y, optimizer = torch.rand(n, 40), torch.arange(n) % 10, torch.optim.Adam(rule.parameters(), lr=1e-3, fused=True)
    peak = costs.of_update(rule, x, y, optimizer, repeats=1)["peak"]
    rule.step(x, y, optimizer)
    optimizer.zero_grad(set_to_none=True)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        rule.step(x, y, optimizer)
    events = [e for e in profile.profiler.kineto_results.events() if e.name() == "[memory]"]
    allocated = list(itertools.accumulate(e.nbytes() for e in sorted(events, key=lambda e: e.start_ns())))
    assert allocated
    assert abs(peak / max(allocated) - 1) < 0.1  # small tensors are rounded up to 64 bytes
    assert peak >= sum(4 * p.numel() for p in rule.net.parameters())  # the gradients at least


def test_memory_that_is_given_back_is_taken_off():
    with costs.Alive() as alive:
        for _ in range(10):
            torch.zeros(1000)
        kept = torch.ones(1000)
        kept += 1  # in place: nothing new
        view = kept[:10]
    assert alive.peak in (4 * 2000, 4 * 1000)  # never more than two at once
    assert alive.now == 4 * 1000 and len(view) == 10


# ---------------------------------------------------------------- time, and no trace


def test_milliseconds_are_the_median(monkeypatch):
    now, naps = [7.0], iter([0.05, 0.002, 0.003, 0.001])
    monkeypatch.setattr(costs, "time", SimpleNamespace(perf_counter=lambda: now[0]))  # the test's own clock

    def nap():
        now[0] += next(naps)

    assert costs.milliseconds_of(nap, repeats=3) == pytest.approx(3)
    assert next(naps) == 0.001  # three calls, no more


def test_so_many_steps_are_timed():
    rule = Hoarder(small_net(dtype=torch.float32))
    x, y = batch(rule.net)
    seen, step = [], rule.step
    rule.step = lambda *arguments: seen.append(1) or step(*arguments)
    assert costs.of_update(rule, x, y, repeats=7)["milliseconds"] > 0
    assert len(seen) == 7 + 2  # one makes what is made once, one is counted


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize("name", [*cu.rules.ALL, "FrozenHidden(NodePerturbation)"])
def test_counting_leaves_no_trace(name, optimizer):
    """Of two rules alike one is counted in the middle of its training: the next steps are the same to the bit."""
    x, y = torch.rand(N, SIZES[0]), torch.arange(N) % SIZES[-1]
    losses = []
    for counted in (False, True):
        rule = runs.make_rule(name, list(SIZES), 0)
        kind = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam}[optimizer]
        used = kind(rule.parameters(), lr=1e-3, **({"momentum": 0.9} if optimizer == "sgd" else {}))
        rule.step(x, y, used)
        grads = [p.grad for p in rule.parameters()]
        if counted:
            costs.of_update(rule, x, y, used, repeats=2)
            costs.of_update(rule, x, y, repeats=2)
        assert all(p.grad is g for p, g in zip(rule.parameters(), grads, strict=True))
        losses.append([rule.step(x, y, used).item() for _ in range(3)] + [p.sum().item() for p in rule.parameters()])
    assert losses[0] == losses[1]


def test_what_a_rule_refuses_leaves_no_trace_either():
    rule = runs.make_rule("Backprop", list(SIZES), 0)
    before = [p.clone() for p in rule.parameters()]
    with pytest.raises(ValueError, match="x has shape"):
        costs.of_update(rule, torch.rand(N, SIZES[0] + 1), torch.arange(N) % SIZES[-1])
    assert all(map(torch.equal, before, rule.parameters()))
