"""The science of incremental predictive coding. Each fact is a function that a wrong rule must fail."""

import math
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from helpers import ACTIVATIONS, LOSSES, batch, clusters, grads, largest_difference, small_net

import course_utils as cu
from course_utils.metrics import alignment_angle, true_gradient
from course_utils.rules import IncrementalPredictiveCoding, LearnedFeedbackPC, PredictiveCoding
from course_utils.rules.incremental_predictive_coding import SettlingByFeedback, SettlingWhileLearning

EXACT = 1e-12
# Square hidden layers, so that a transposed matrix still fits; the rest of the sizes are odd and different.
SIZES = {1: (7, 3), 2: (7, 5, 3), 3: (7, 5, 5, 3), 4: (7, 6, 6, 5, 3)}
RULES = [IncrementalPredictiveCoding, LearnedFeedbackPC]
PRECISION = [1.7, 0.6, 2.3]  # for SIZES[4]


# ------------------------------------------------------------------ an independent account, by autograd


def energy(net, states, x, y, precision, c):
    """F of states v_1 … v_{L−1}, straight from its definition: a sum over units, one mean over the batch."""
    below, total = x, 0.0
    for l in range(net.depth):
        mu = below @ net.weights[l].T + net.biases[l]
        if l == net.depth - 1:
            return total / len(x) + c * net.loss(mu, y)
        total = total + precision[l] / 2 * (states[l] - mu).pow(2).sum()
        below = net.nonlinearity(states[l])


def forward_states(net, x):
    states, h = [], x
    for l in range(net.depth - 1):
        states.append((h @ net.weights[l].T + net.biases[l]).detach())
        h = net.nonlinearity(states[-1])
    return states


def descend_states(net, states, x, y, precision, c, rate):
    states = [v.requires_grad_() for v in states]
    slopes = torch.autograd.grad(len(x) * energy(net, states, x, y, precision, c), states) if states else []
    return [(v - rate * g).detach() for v, g in zip(states, slopes, strict=True)]


def weight_slopes(net, states, x, y, precision, c):
    found = torch.autograd.grad(energy(net, states, x, y, precision, c) / c, list(net.parameters()), allow_unused=True)
    return [torch.zeros_like(p) if g is None else g for p, g in zip(net.parameters(), found, strict=True)]


def descent_by_autograd(net, x, y, steps, rate, wait, precision, c, lr):
    """States and weights after a step of plain gradient descent on F, first states, then weights."""
    states = forward_states(net, x)
    for t in range(1, steps + 1):
        states = descend_states(net, states, x, y, precision, c, rate)
        if t % wait == 0 or t == steps:
            slopes = weight_slopes(net, states, x, y, precision, c)
            with torch.no_grad():
                for p, g in zip(net.parameters(), slopes, strict=True):
                    p -= lr * g
    return [p.detach().clone() for p in net.parameters()]


# ------------------------------------------------------------------ wrong rules


class WrongSettling(SettlingWhileLearning):
    """Settling with one thing wrong."""

    wrong = ""

    @torch.no_grad()
    def compare(self):
        super().compare()
        for error, p in zip(self.e[1:-1], self.rule.precision, strict=True):
            if self.wrong == "variance for precision":
                error.div_(p**2)
            if self.wrong == "precision forgotten":
                error.div_(p)

    @torch.no_grad()
    def renew(self):
        if self.wrong == "stale errors":  # W_1's prediction is new, the errors are not
            torch.addmm(self.offsets[0], self.v[0], self.net.weights[0].T, out=self.first)
        elif self.wrong == "first prediction held":
            self.compare()
        elif self.wrong == "states reset":
            self.__init__(self.rule, self.v[0], self.y)
        else:
            super().renew()


class Wrong(IncrementalPredictiveCoding):
    wrong = ""

    def teach(self, s, l):
        super().teach(s, l)
        scale = {"sum": len(s.y), "averaged twice": 1 / len(s.y), "sign": -1}.get(self.wrong, 1)
        w = self.net.weights[l]
        if self.wrong == "presynaptic without f":
            w.grad = (s.e[l + 1] / (-self.output_weight * len(s.y))).T @ s.v[l]
        w.grad = scale * w.grad

    def move(self, optimizer):
        if self.wrong != "one move only" or self.moves == 0:
            optimizer.step()
        self.moves += 1

    def step(self, x, y, optimizer):
        self.moves = 0
        return super().step(x, y, optimizer)


TEACHERS = ["sum", "averaged twice", "sign", "presynaptic without f", "one move only"]
SETTLINGS = ["variance for precision", "precision forgotten", "stale errors", "first prediction held", "states reset"]


def mutant(wrong):
    settling = type("WrongSettlingHere", (WrongSettling,), {"wrong": wrong})
    return type("Mutant", (Wrong,), {"wrong": wrong, "settling": settling})


# ------------------------------------------------------------------ one descent on one energy


def distance_to_autograd(
    rule_class,
    depth=4,
    activation="tanh",
    loss="cross_entropy",
    targets="labels",
    wait=1,
    precision=None,
    steps=5,
    lr=0.1,
):
    """Largest difference of all parameters, after a step, to plain descent by autograd on F."""
    net, twin = (small_net(SIZES[depth], activation, loss) for _ in range(2))
    x, y = batch(net, n=6, targets=targets)
    precision = PRECISION[: depth - 1] if precision is None else precision
    rule = rule_class(
        net, inference_steps=steps, inference_rate=0.15, output_weight=0.7, wait=wait, precision=precision
    ).double()
    rule.step(x, y, torch.optim.SGD(rule.parameters(), lr=lr))
    expected = descent_by_autograd(twin, x, y, steps, 0.15, wait, precision, 0.7, lr)
    return largest_difference([p.detach() for p in net.parameters()], expected)


@pytest.mark.parametrize("targets", ["labels", "values"])
@pytest.mark.parametrize("depth", SIZES)
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_a_step_is_descent_on_one_energy_in_states_and_weights_by_turns(activation, loss, depth, targets):
    assert distance_to_autograd(IncrementalPredictiveCoding, depth, activation, loss, targets) < EXACT


@pytest.mark.parametrize("wait", [1, 2, 3, 5, 9])
def test_whatever_the_wait(wait):
    assert distance_to_autograd(IncrementalPredictiveCoding, wait=wait) < EXACT


@pytest.mark.parametrize("wrong", TEACHERS + SETTLINGS)
def test_mutants_do_not_descend_on_the_energy(wrong):
    assert distance_to_autograd(mutant(""), lr=1.0) < EXACT
    assert distance_to_autograd(mutant(wrong), lr=1.0) > 1e-3


@pytest.mark.parametrize("rule_class", RULES)
def test_backward_gives_the_estimate_of_the_first_move(rule_class):
    net = small_net(SIZES[4])
    rule, (x, y) = rule_class(net, wait=2).double(), batch(net)
    ours, seen = grads(rule, x, y), []
    optimizer = torch.optim.SGD(rule.parameters(), lr=0.1)
    optimizer.register_step_pre_hook(lambda *_: seen.append([p.grad for p in net.parameters()]))
    rule.step(x, y, optimizer)
    assert len(seen) == 4
    assert all(a is b is None or torch.equal(a, b) for a, b in zip(ours, seen[0], strict=True))


def test_an_error_comes_down_one_layer_a_sweep():
    net = small_net(SIZES[4])
    for wait, silent in ((1, 2), (2, 1), (3, 0), (8, 0)):
        found = grads(IncrementalPredictiveCoding(net, wait=wait).double(), *batch(net))
        assert [g.abs().max().item() < EXACT for g in found[:4]] == [True] * silent + [False] * (
            4 - silent
        )  # to rounding


@pytest.mark.parametrize("rule_class", RULES)
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_the_training_loop_s_own_optimisers_take_it(rule_class, optimizer):
    """They are fused, and refuse a parameter whose first gradient comes later than the others'."""
    rule = rule_class(cu.MLP([12, 9, 8, 7, 4]))
    history = cu.train(rule, clusters(n=60), epochs=1, lr=0.01, batch_size=20, optimizer=optimizer, progress=False)
    assert history.status == "done"


def falls(rule_class, lr, rate, steps=60):
    """The largest rise of F on the way, from half-step to half-step: states, weights, states, …"""
    net = small_net(SIZES[4])
    x, y = batch(net, n=9)
    rule, trace = rule_class(net, inference_steps=steps, inference_rate=rate, precision=PRECISION).double(), []

    class Watched(rule.settling):
        def compare(self):
            super().compare()
            trace.append(self.energy().item())

    rule.settling = Watched
    rule.step(x, y, torch.optim.SGD(rule.parameters(), lr=lr))
    assert len(trace) == 2 * steps - 1
    return max(b - a for a, b in pairwise(trace)), trace


def test_the_energy_falls_at_every_half_step():
    rise, trace = falls(IncrementalPredictiveCoding, lr=0.05, rate=0.05)
    assert rise < 0 and trace[-1] < 0.8 * trace[0]
    assert falls(mutant("sign"), lr=0.05, rate=0.05)[0] > 1e-3
    assert falls(IncrementalPredictiveCoding, lr=0.05, rate=3.0)[0] > 1e-3  # γ beyond 2 / the largest curvature


# ------------------------------------------------------------------ beside lesson 15


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("make", ["sgd", "adam"])
def test_who_waits_until_the_end_is_predictive_coding_bit_for_bit(loss, make):
    def trained(rule_class, **more):
        net = small_net(SIZES[4], loss=loss)
        rule = rule_class(net, inference_steps=6, inference_rate=0.2, output_weight=0.5, **more).double()
        kinds = {"sgd": (torch.optim.SGD, {"lr": 0.1, "momentum": 0.9}), "adam": (torch.optim.Adam, {"lr": 0.01})}
        optimizer = kinds[make][0](rule.parameters(), **kinds[make][1])
        losses = [rule.step(*batch(net, n=5, seed=t), optimizer) for t in range(8)]
        return [*losses, *net.parameters()]

    waiting, lesson_15 = trained(IncrementalPredictiveCoding, wait=6), trained(PredictiveCoding)
    assert all(torch.equal(a, b) for a, b in zip(waiting, lesson_15, strict=True))
    for wait in (1, 3, 5):
        assert largest_difference(trained(IncrementalPredictiveCoding, wait=wait), lesson_15) > 1e-3


def test_at_learning_rate_0_the_states_are_those_of_lesson_15_bit_for_bit():
    def states(rule_class, lr=0.0):
        net = small_net(SIZES[4])
        rule, (x, y) = rule_class(net, inference_steps=9, inference_rate=0.2).double(), batch(net)
        kept = []

        class Kept(rule.settling):
            def __init__(self, *given):
                super().__init__(*given)
                kept.append(self)

        rule.settling = Kept
        rule.step(x, y, torch.optim.SGD(rule.parameters(), lr=lr))
        return kept[0].v + kept[0].e[1:]

    assert all(map(torch.equal, states(IncrementalPredictiveCoding), states(PredictiveCoding)))
    moved = [
        largest_difference(states(IncrementalPredictiveCoding, lr), states(PredictiveCoding)) for lr in (1e-4, 2e-4)
    ]
    assert moved[1] / moved[0] == pytest.approx(2, rel=0.01)  # and the difference is of the first order in lr


def distance_to_gamma_backprop(rule_class, activation, loss, rate):
    net = small_net(SIZES[2], activation, loss)
    x, y = batch(net, n=6)
    ours = grads(rule_class(net, inference_steps=1, inference_rate=rate, output_weight=0.6).double(), x, y)
    true = true_gradient(net, x, y)
    return max((ours[i] - rate * true[i]).abs().max().item() for i in (0, 2))


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_after_one_sweep_the_last_hidden_layer_has_gamma_times_backprop(activation, loss):
    assert distance_to_gamma_backprop(IncrementalPredictiveCoding, activation, loss, rate=0.3) < EXACT
    for wrong in ("sum", "averaged twice", "sign"):
        assert distance_to_gamma_backprop(mutant(wrong), activation, loss, rate=0.3) > 1e-4


# ------------------------------------------------------------------ precision


def test_only_ratios_of_precisions_count():
    """All precisions and c times k, γ by k: the same step."""

    def moved(k, rate):
        net = small_net(SIZES[4])
        rule = IncrementalPredictiveCoding(
            net, inference_rate=rate, output_weight=0.7 * k, precision=[k * p for p in PRECISION]
        ).double()
        rule.step(*batch(net), torch.optim.SGD(rule.parameters(), lr=0.1))
        return [p.detach() for p in net.parameters()]

    assert largest_difference(moved(1, 0.2), moved(8, 0.2 / 8)) < EXACT
    assert largest_difference(moved(1, 0.2), moved(8, 0.2)) > 1e-3


@pytest.mark.parametrize("loss", LOSSES)
def test_at_rest_the_weighted_errors_obey_backprop_s_recursion_whatever_the_precisions(loss):
    net = small_net(SIZES[4], loss=loss)
    rule = IncrementalPredictiveCoding(net, inference_steps=6000, inference_rate=0.1, precision=PRECISION).double()
    s = rule.infer(*batch(net))
    for l in range(1, net.depth):
        told = (s.e[l + 1] @ net.weights[l]) * net.derivative(s.h[l])
        assert (s.e[l] - told).abs().max() < 1e-10
        assert s.e[l].abs().max() > 1e-4


def test_stiff_states_tend_to_backprop():
    """With Π → ∞ the settled states stay at the feed-forward pass, and the estimate tends to the gradient as 1/Π."""

    def error(p):
        net = small_net(SIZES[3])
        rule = IncrementalPredictiveCoding(
            net, inference_steps=600, inference_rate=0.2 / p, wait=600, precision=p
        ).double()
        x, y = batch(net)
        return largest_difference(grads(rule, x, y), true_gradient(net, x, y))

    errors = [error(p) for p in (1.0, 50.0, 100.0, 200.0)]
    assert errors[0] > 10 * errors[1]
    assert errors[1] / errors[2] == pytest.approx(2, rel=0.1) and errors[2] / errors[3] == pytest.approx(2, rel=0.1)


# ------------------------------------------------------------------ learned feedback


class WrongFeedback(LearnedFeedbackPC):
    wrong = ""

    def __init__(self, net, seed=0, **given):
        super().__init__(net, seed, **given)
        if self.wrong == "a view of W":
            for l in range(1, net.depth):
                self.feedback_weights.register_parameter(str(l), net.weights[l])

    def teach(self, s, l):
        super().teach(s, l)
        b = self.feedback_weights[l] if l else None
        if l and self.wrong == "half the rate":
            b.grad = b.grad / 2
        if l and self.wrong == "fixed feedback":
            b.grad = None

    def move(self, optimizer):
        if self.wrong != "unequal decay":
            return super().move(optimizer)
        optimizer.step()
        for l in range(1, self.net.depth):
            self.net.weights[l].data.mul_(1 - self.decay)


def wrong_feedback(wrong):
    return type("WrongFeedbackHere", (WrongFeedback,), {"wrong": wrong})


def gaps(rule):
    return [(rule.net.weights[l] - rule.feedback_weights[l]).detach().clone() for l in range(1, rule.net.depth)]


OPTIMIZERS = {
    "sgd": (torch.optim.SGD, {"lr": 0.1}),
    "momentum": (torch.optim.SGD, {"lr": 0.03, "momentum": 0.9}),
    "adam": (torch.optim.Adam, {"lr": 0.01}),
}


def broken_law(rule_class, optimizer="momentum", decay=0.02, wait=1, fused=False):
    """Largest deviation of W − B from (1 − λ)ᵗ (W − B)₀, t counting the moves; and the start's size."""
    net = small_net(SIZES[4])
    rule = rule_class(net, inference_steps=6, wait=wait, decay=decay).double()
    make, settings = OPTIMIZERS[optimizer]
    opt, start, worst = make(rule.parameters(), **settings, fused=fused), gaps(rule), 0.0
    moves = math.ceil(6 / wait)
    for t in range(1, 9):
        rule.step(*batch(net, n=9, seed=t), opt)
        law = [(1 - decay) ** (moves * t) * d for d in start]
        worst = max(worst, largest_difference(gaps(rule), law))
    return worst


@pytest.mark.parametrize("wait", [1, 4])
@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("decay", [0.0, 1e-3, 0.05])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_the_difference_of_weights_and_feedback_follows_the_law(optimizer, decay, fused, wait):
    assert broken_law(LearnedFeedbackPC, optimizer, decay, wait, fused) < EXACT


@pytest.mark.parametrize("wrong", ["half the rate", "fixed feedback", "unequal decay"])
def test_mutants_break_the_law(wrong):
    assert broken_law(wrong_feedback("")) < EXACT
    assert broken_law(wrong_feedback(wrong)) > 1e-3


def shares_memory(rule):
    pointers = {p.data_ptr() for p in rule.net.parameters()}
    return any(rule.feedback_weights[l].data_ptr() in pointers for l in range(1, rule.net.depth))


def test_feedback_is_apart_from_the_weights():
    """The flaw of an earlier implementation: feedback that was a view of W, so that "its" learning moved W."""
    rule, alias = LearnedFeedbackPC(small_net()), wrong_feedback("a view of W")(small_net())
    assert not shares_memory(rule) and shares_memory(alias)
    for r, apart in ((rule, True), (alias, False)):
        before = r.net.weights[1].detach().clone()
        with torch.no_grad():
            r.feedback_weights[1].add_(1)
        assert torch.equal(r.net.weights[1], before) == apart
    rule.feedback_weights[1] = rule.net.weights[1]  # assigning copies
    assert not shares_memory(rule)
    assert rule.feedback_weights[0] is None


@pytest.mark.parametrize("depth", [2, 3, 4])
@pytest.mark.parametrize("wait", [1, 3])
def test_with_b_equal_to_w_it_is_transported_feedback_and_stays_so(depth, wait):
    def trained(rule_class, **more):
        net = small_net(SIZES[depth])
        rule = rule_class(net, wait=wait, **more).double()
        if hasattr(rule, "feedback_weights"):
            for l in range(1, depth):
                rule.feedback_weights[l] = net.weights[l]
        opt = torch.optim.SGD(rule.parameters(), lr=0.05, momentum=0.9)
        for t in range(6):
            rule.step(*batch(net, n=9, seed=t), opt)
        return [p.detach() for p in net.parameters()]

    transported = trained(IncrementalPredictiveCoding)
    assert largest_difference(trained(LearnedFeedbackPC, decay=0.0), transported) < EXACT
    assert largest_difference(trained(wrong_feedback("half the rate"), decay=0.0), transported) > 1e-5


def test_w_is_not_read_on_the_way_down():
    """The first sweep's message: the same B, another W_2, the same output error, the same states."""

    def moved(change, rule_class=LearnedFeedbackPC):
        net = small_net(SIZES[2], activation="linear")
        rule, (x, y) = rule_class(net).double(), batch(net)
        s = rule.settling(rule, x, y)
        before = s.v[1].clone()
        with torch.no_grad():
            net.weights[1].add_(change)
        s.sweep()
        return s.v[1] - before

    assert torch.equal(moved(0.0), moved(0.5))
    assert not torch.equal(moved(0.0, wrong_feedback("a view of W")), moved(0.5, wrong_feedback("a view of W")))


def test_feedback_accumulates_as_pytorch_does():
    net = small_net(SIZES[3])
    rule, (x, y) = LearnedFeedbackPC(net, wait=3).double(), batch(net)
    rule.backward(x, y)
    rule.backward(x, 2 - y)
    for l in range(1, net.depth):
        assert torch.equal(rule.feedback_weights[l].grad, net.weights[l].grad)


# ------------------------------------------------------------------ manners


@pytest.mark.parametrize("rule_class", RULES)
def test_gradients_are_batch_means_and_states_do_not_depend_on_the_batch(rule_class):
    net = small_net(SIZES[3])
    rule, (x, y) = rule_class(net, wait=4).double(), batch(net)
    assert largest_difference(grads(rule, x, y), grads(rule, torch.cat([x, x]), torch.cat([y, y]))) < EXACT
    alone, together = rule.infer(x[:1], y[:1]), rule.infer(x, y)
    assert largest_difference(alone.v[1:], [v[:1] for v in together.v[1:]]) < EXACT


BAD = {
    "inference_steps": [0, -1, 2.0],
    "wait": [0, 1.5],
    "inference_rate": [0, -0.1, math.nan],
    "precision": [0, -1.0, math.inf, [1.0], [1.0, 0.0], "high"],
}


@pytest.mark.parametrize("name", BAD)
def test_bad_knobs_are_refused_at_the_door_and_later(name):
    for value in BAD[name]:
        with pytest.raises(ValueError, match=f"{name} is"):
            IncrementalPredictiveCoding(small_net(), **{name: value})
        rule = IncrementalPredictiveCoding(small_net())
        with pytest.raises(ValueError, match=f"{name} is"):
            setattr(rule, name, value)


@pytest.mark.parametrize("decay", [-1e-9, 1, math.nan])
def test_bad_decay_is_refused(decay):
    with pytest.raises(ValueError, match="decay is"):
        LearnedFeedbackPC(small_net(), decay=decay)


@pytest.mark.parametrize("rule_class", RULES)
def test_bad_input_is_refused(rule_class):
    rule = rule_class(small_net()).double()
    x, y = batch(rule.net)
    for bad in ((x[:, :3], y), (x[:0], y[:0]), (x, y[:2]), (x, y + 7), (x * math.nan, y)):
        with pytest.raises(ValueError):
            rule.backward(*bad)


def run(rule_class, seed=0, data=None, **settings):
    data = data or cu.load_dataset("digits", limit=400)
    rule = rule_class(cu.MLP([784, 24, 20, 10], seed=seed), seed=seed, state_noise=0.01)
    given = {"epochs": 2, "lr": 1e-3, "optimizer": "adam", "batch_size": 32, "seed": seed, **settings}
    cu.train(rule, data, **given, progress=False)
    return rule


@pytest.mark.parametrize("rule_class", RULES)
def test_training_is_deterministic_bit_for_bit_and_probes_leave_no_trace(rule_class):
    one, again, other, probed = (
        run(rule_class, seed, **more).state_dict()
        for seed, more in ((0, {}), (0, {}), (1, {}), (0, {"probe_every": 64}))
    )
    assert all(torch.equal(one[name], again[name]) and torch.equal(one[name], probed[name]) for name in one)
    assert not torch.equal(one["net.weights.0"], other["net.weights.0"])


def test_state_dict_round_trip_carries_the_feedback():
    trained, fresh = run(LearnedFeedbackPC), LearnedFeedbackPC(cu.MLP([784, 24, 20, 10], seed=9), seed=9)
    state = trained.state_dict()
    assert {"feedback_weights.1", "feedback_weights.2"} <= state.keys()
    fresh.load_state_dict(state)
    data = cu.load_dataset("digits", limit=400)
    x, y = data.x_train[:50], data.y_train[:50]
    assert torch.equal(fresh.feedback_weights[1], trained.feedback_weights[1])
    trained.state_noise = 0.0
    trained.wait = fresh.wait = 3
    assert largest_difference(grads(fresh, x, y), grads(trained, x, y)) == 0


def test_knobs_may_move_while_training_runs():
    rule = IncrementalPredictiveCoding(cu.MLP([12, 9, 4]))
    knobs = {"inference_steps": [(0, 4), (100, 2)], "wait": 2, "inference_rate": 0.1}
    history = cu.train(rule, clusters(n=200), epochs=1, lr=0.05, batch_size=20, knobs=knobs, progress=False)
    assert history.status == "done" and (rule.inference_steps, rule.wait) == (2, 2)


def test_activity_noise_of_training_stays_the_same_through_a_step():
    net = small_net(SIZES[3])
    rule, (x, y) = IncrementalPredictiveCoding(net).double(), batch(net)
    net.activity_noise, net.noise_seed, seen = 0.5, 3, []

    class Kept(rule.settling):
        def compare(self):
            super().compare()
            seen.append(self.offsets[0] - self.net.biases[0])

    rule.settling = Kept
    rule.step(x, y, torch.optim.SGD(rule.parameters(), lr=0.1))
    assert all((noise - seen[0]).abs().max() < EXACT for noise in seen) and seen[0].abs().max() > 0.1


def test_learned_feedback_turns_towards_the_weights():
    def angle(rule):
        return alignment_angle(rule.net.weights[2].detach(), rule.feedback_weights[2].detach())

    before = LearnedFeedbackPC(cu.MLP([784, 24, 20, 10]))
    assert angle(before) > 70 and angle(run(LearnedFeedbackPC, epochs=6)) < angle(before) - 20


def test_learning_really_happens_in_the_hidden_layers():
    data, accuracy = cu.load_dataset("digits"), {}
    for name, wrap in {"taught": lambda r: r, "frozen": cu.FrozenHidden}.items():
        rule = wrap(IncrementalPredictiveCoding(cu.MLP([784, 16, 16, 10])))  # few units: random features are poor
        first = rule.net.weights[0].detach().clone()
        cu.train(rule, data, epochs=8, lr=2e-3, optimizer="adam", batch_size=32, progress=False)
        accuracy[name] = cu.evaluate(rule, data.x_test, data.y_test)
        assert torch.equal(first, rule.net.weights[0]) == (name == "frozen")
    assert accuracy["taught"] > accuracy["frozen"] + 0.1 and accuracy["taught"] > 0.85


def test_shuffled_labels_teach_nothing_about_the_test_set():
    data = cu.load_dataset("digits")
    order = torch.randperm(len(data.y_train), generator=torch.Generator().manual_seed(0))
    rule = run(IncrementalPredictiveCoding, data=replace(data, y_train=data.y_train[order]))
    chance, n = 0.1, len(data.y_test)
    assert cu.evaluate(rule, data.x_test, data.y_test) < chance + 4 * (chance * (1 - chance) / n) ** 0.5


def test_who_reads_settling_by_feedback_gets_the_same_energy():
    net = small_net(SIZES[3])
    x, y = batch(net)
    plain = IncrementalPredictiveCoding(net, precision=[2.0, 3.0], output_weight=0.4).double()
    states = forward_states(net, x)
    for settling in (SettlingWhileLearning, SettlingByFeedback):
        rule = (
            plain
            if settling is SettlingWhileLearning
            else LearnedFeedbackPC(net, precision=[2.0, 3.0], output_weight=0.4).double()
        )
        s = settling(rule, x, y)
        s.v[1].add_(0.1)
        s.compare()
        moved = [states[0] + 0.1, *states[1:]]
        assert s.energy().item() == pytest.approx(energy(net, moved, x, y, [2.0, 3.0], 0.4).item(), rel=1e-12)
