"""The science of Kolen–Pollack. Each fact is a function that a wrong rule must fail."""

import math
from dataclasses import replace

import pytest
import torch
from helpers import ACTIVATIONS, LOSSES, batch, clusters, grads, largest_difference, small_net

import course_utils as cu
from course_utils.metrics import alignment_angle, cosine, true_gradient
from course_utils.rules import FeedbackAlignment, KolenPollack

EXACT = 1e-12
# Square hidden layers, so that a transposed matrix still fits; the rest of the sizes are odd and different.
SIZES = {1: (7, 3), 2: (7, 5, 3), 3: (7, 5, 5, 3), 4: (7, 6, 6, 5, 3)}


class Mutant(KolenPollack):
    """Kolen–Pollack with one thing wrong."""

    wrong = ""

    @torch.no_grad()
    def backward(self, x, y):
        h = self.net.activations(x)
        delta = self.net.output_error(h[-1], y) / (1 if self.wrong == "sum" else len(x))
        for l in reversed(range(self.net.depth)):
            gradient = delta.T @ h[l]
            self.add_grad(self.net.weights[l], gradient)
            self.add_grad(self.net.biases[l], delta.sum(0))
            if l > 0:
                b = self.feedback_weights[l]
                change = {
                    "minus": -gradient,
                    "half the rate": gradient / 2,
                    "other batch": gradient.roll(1, dims=1),
                }.get(self.wrong, gradient)
                if self.wrong == "transposed" and b.shape[0] == b.shape[1]:
                    b = b.T
                if self.wrong != "fixed feedback":
                    self.add_grad(self.feedback_weights[l], change)
                slope = 1 if self.wrong == "no derivative" else self.net.derivative(h[l])
                delta = (delta @ b) * slope * (-1 if self.wrong == "sign" else 1)
        return self.net.loss(h[-1], y)

    @torch.no_grad()
    def step(self, x, y, optimizer):
        loss = cu.Rule.step(self, x, y, optimizer)
        keep = 1 - self.decay * (optimizer.param_groups[0]["lr"] if self.wrong == "decay times lr" else 1)
        for l in range(1, self.net.depth):
            self.net.weights[l].mul_(keep)
            self.feedback_weights[l].mul_(1 - self.decay / 2 if self.wrong == "unequal decay" else keep)
        return loss


def mutant(name):
    return type(f"Mutant_{name}", (Mutant,), {"wrong": name})


def distance_to_backprop(
    rule_class, sizes=SIZES[3], activation="tanh", loss="cross_entropy", targets="labels", steps=0
):
    """Largest difference to autograd with B := W, after that many steps."""
    net = small_net(sizes, activation, loss)
    rule, (x, y) = rule_class(net, decay=0.01).double(), batch(net, targets=targets)
    for l in range(1, net.depth):
        rule.feedback_weights[l] = net.weights[l]
    optimizer = torch.optim.SGD(rule.parameters(), lr=0.05, momentum=0.9)
    for _ in range(steps):
        rule.step(x, y, optimizer)
    return largest_difference(grads(rule, x, y), true_gradient(net, x, y))


@pytest.mark.parametrize("targets", ["labels", "values"])
@pytest.mark.parametrize("depth", SIZES)
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_with_b_equal_to_w_it_is_autograd(activation, loss, depth, targets):
    assert distance_to_backprop(KolenPollack, SIZES[depth], activation, loss, targets) < EXACT


def test_with_b_equal_to_w_it_stays_autograd():
    assert distance_to_backprop(KolenPollack, steps=30) < EXACT
    for wrong in ("minus", "half the rate", "other batch", "fixed feedback", "unequal decay"):
        assert distance_to_backprop(mutant(wrong), steps=30) > 1e-5, wrong


@pytest.mark.parametrize("wrong", ["transposed", "sign", "no derivative", "sum"])
def test_mutants_are_not_backprop(wrong):
    assert distance_to_backprop(mutant("")) < EXACT
    assert distance_to_backprop(mutant(wrong)) > 1e-3


@pytest.mark.parametrize("depth", SIZES)
@pytest.mark.parametrize("loss", LOSSES)
def test_output_layer_is_always_exact(loss, depth):
    net = small_net(SIZES[depth], loss=loss)
    x, y = batch(net)
    ours, true = grads(KolenPollack(net, seed=3).double(), x, y), true_gradient(net, x, y)
    last = [depth - 1, 2 * depth - 1]
    assert largest_difference([ours[i] for i in last], [true[i] for i in last]) < EXACT
    if depth > 1:
        assert (ours[0] - true[0]).abs().max() > 1e-3


def test_feedback_gets_the_gradient_of_its_weights_bit_for_bit_and_accumulates_apart():
    net = small_net()
    rule, (x, y) = KolenPollack(net).double(), batch(net)
    rule.backward(x, y)
    rule.backward(x, 2 - y)  # a second batch on top, as PyTorch accumulates
    for l in range(1, net.depth):
        assert torch.equal(rule.feedback_weights[l].grad, net.weights[l].grad)
    once = grads(KolenPollack(small_net()).double(), x, y)
    again = grads(KolenPollack(small_net()).double(), x, 2 - y)
    total = [p.grad for p in net.parameters()]
    assert largest_difference(total, [a + b for a, b in zip(once, again, strict=True)]) < EXACT


def test_gradients_are_batch_means():
    def change_when_doubled(rule_class):
        net = small_net()
        rule, (x, y) = rule_class(net).double(), batch(net)
        return largest_difference(grads(rule, x, y), grads(rule, torch.cat([x, x]), torch.cat([y, y])))

    assert change_when_doubled(KolenPollack) < EXACT
    assert change_when_doubled(mutant("sum")) > 1e-2


OPTIMIZERS = {
    "sgd": (torch.optim.SGD, {"lr": 0.1}),
    "momentum": (torch.optim.SGD, {"lr": 0.05, "momentum": 0.9}),
    "nesterov": (torch.optim.SGD, {"lr": 0.05, "momentum": 0.9, "nesterov": True}),
    "adam": (torch.optim.Adam, {"lr": 0.01}),
}


def gaps(rule):
    return [(rule.net.weights[l] - rule.feedback_weights[l]).detach().clone() for l in range(1, rule.net.depth)]


def broken_law(rule_class, optimizer="momentum", decay=0.02, steps=40, scale=1.0, fused=False, noise=False, **more):
    """Largest deviation of W − B from (1 − λ)ᵗ (W − B)₀ on the way."""
    net = small_net(SIZES[4])
    rule = rule_class(net, decay=decay).double()
    for l in range(1, net.depth):
        rule.feedback_weights[l] = scale * rule.feedback_weights[l]
    make, settings = OPTIMIZERS[optimizer]
    opt = make(rule.parameters(), **settings, fused=fused, **more)
    start, worst = gaps(rule), 0.0
    for t in range(1, steps + 1):
        x, y = batch(net, n=9, seed=t)
        if noise:  # any update sequence at all: the gradient need not come from anything learned
            x = 10 * x
        rule.step(x, y, opt)
        law = [(1 - decay) ** t * d for d in start]
        worst = max(worst, largest_difference(gaps(rule), law))
    return worst


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("decay", [0.0, 1e-3, 0.02, 0.5])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_the_difference_follows_the_law(optimizer, decay, fused):
    assert broken_law(KolenPollack, optimizer, decay, fused=fused) < EXACT


@pytest.mark.parametrize("change", [{"scale": 10.0}, {"noise": True}])
def test_the_law_asks_neither_for_equal_scale_nor_for_sensible_updates(change):
    assert broken_law(KolenPollack, **change) < EXACT


@pytest.mark.parametrize(
    "wrong", ["minus", "half the rate", "other batch", "fixed feedback", "unequal decay", "decay times lr"]
)
def test_mutants_break_the_law(wrong):
    assert broken_law(mutant("")) < EXACT
    assert broken_law(mutant(wrong)) > 1e-3


def test_any_sequence_of_gradients_will_do():
    net = small_net(SIZES[2])
    rule, generator = KolenPollack(net, decay=0.01).double(), torch.Generator().manual_seed(5)

    class Noise(KolenPollack):
        def backward(self, x, y):
            w, b = self.net.weights[1], self.feedback_weights[1]
            w.grad = b.grad = torch.randn(w.shape, generator=generator, dtype=w.dtype)
            return self.net.loss(self.net(x), y).detach()

    rule.__class__ = Noise
    (start,), opt = gaps(rule), torch.optim.Adam(rule.parameters(), lr=0.1)
    for _ in range(60):
        rule.step(*batch(net), opt)
    assert (gaps(rule)[0] - 0.99**60 * start).abs().max() < EXACT


def test_without_decay_the_difference_never_changes_and_the_angle_falls_by_growth_alone():
    data = cu.load_dataset("digits")
    rule = KolenPollack(cu.MLP([784, 32, 10]), decay=0.0)
    (start,) = gaps(rule)
    before = alignment_angle(rule.net.weights[1].detach(), rule.feedback_weights[1].detach())
    cu.train(rule, data, epochs=8, lr=0.1, batch_size=32, progress=False)
    (end,) = gaps(rule)
    assert (end - start).abs().max() < 1e-5  # float32
    after = alignment_angle(rule.net.weights[1].detach(), rule.feedback_weights[1].detach())
    assert after < before - 20
    common = (rule.net.weights[1] + rule.feedback_weights[1]).detach().norm()
    assert after == pytest.approx(2 * math.degrees(math.atan(end.norm() / common)), abs=5)  # equal lengths: exact


def test_half_life():
    for decay in (1e-3, 0.02):
        half_life = math.log(2) / -math.log(1 - decay)
        assert half_life == pytest.approx(math.log(2) / decay, rel=decay)
        steps = round(half_life)
        net = small_net(SIZES[2])
        rule = KolenPollack(net, decay=decay).double()
        opt, (start,) = torch.optim.SGD(rule.parameters(), lr=0.1), gaps(rule)
        for _ in range(steps):
            rule.step(*batch(net), opt)
        assert (gaps(rule)[0].norm() / start.norm()).item() == pytest.approx((1 - decay) ** steps, rel=1e-9)
        assert abs((1 - decay) ** steps - 0.5) < decay


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_decay_does_not_depend_on_the_learning_rate(momentum):
    def left(lr, rule_class=KolenPollack):
        net = small_net(SIZES[2])
        rule = rule_class(net, decay=0.02).double()
        opt, (start,) = torch.optim.SGD(rule.parameters(), lr=lr, momentum=momentum), gaps(rule)
        for _ in range(20):
            rule.step(*batch(net), opt)
        return (gaps(rule)[0].norm() / start.norm()).item()

    assert left(0.001) == pytest.approx(left(0.1), rel=1e-9)
    assert left(0.001, mutant("decay times lr")) > left(0.1, mutant("decay times lr")) + 0.02


def l2_partners(rule, make, lr, weight_decay):
    """An optimiser whose weight decay takes hold of W and B of layer 2 alone."""
    partners = {"params": [rule.net.weights[1], rule.feedback_weights[1]], "weight_decay": weight_decay}
    others = {"params": [rule.net.weights[0], *rule.net.biases], "weight_decay": 0.0}
    return make([partners, others], lr=lr)


def shares_left(make, lr, weight_decay, steps=60):
    """What is left of each W_ij − B_ij, as a share of its start, with decay in the optimiser and none in step."""
    net = small_net(SIZES[2])
    rule = KolenPollack(net, decay=0.0).double()
    opt, (start,) = l2_partners(rule, make, lr, weight_decay), gaps(rule)
    for t in range(steps):
        rule.step(*batch(net, n=9, seed=t), opt)
    return gaps(rule)[0] / start


def test_l2_in_the_gradient_keeps_the_law_under_sgd_and_breaks_it_under_adam():
    law = (1 - 0.01) ** 60  # the same η · weight_decay for all
    assert (shares_left(torch.optim.SGD, 0.1, 0.1) - law).abs().max() < 1e-10
    assert (shares_left(torch.optim.AdamW, 0.01, 1.0) - law).abs().max() < 1e-10
    broken = shares_left(torch.optim.Adam, 0.01, 1.0)
    assert (broken - law).abs().max() > 0.1  # no common rate any more …
    assert broken.max() - broken.min() > 0.1  # … every synapse has one of its own


def test_feedback_that_learns_at_half_the_rate_becomes_half_of_the_weights():
    net = small_net(SIZES[2])
    rule = mutant("half the rate")(net, decay=0.05).double()
    opt = torch.optim.SGD(rule.parameters(), lr=0.1)

    def gap():
        return (rule.feedback_weights[1] - rule.net.weights[1] / 2).detach().clone()

    start = gap()
    for _ in range(200):
        rule.step(*batch(net, n=9), opt)
    assert (gap() - 0.95**200 * start).abs().max() < EXACT
    assert cosine(rule.feedback_weights[1].detach().flatten(), net.weights[1].detach().flatten()) > 0.999


@pytest.mark.parametrize("decay", [0.01, 0.04])
def test_at_rest_the_gradient_balances_the_decay(decay):
    def miss(rule_class):
        net, lr = small_net(SIZES[2], seed=1), 0.3
        rule, (x, y) = cu.FrozenHidden(rule_class(net, decay=decay).double()), batch(net, n=11)  # so that it arrives
        opt = torch.optim.SGD(rule.parameters(), lr=lr)
        for _ in range(1800):
            rule.step(x, y, opt)
        gradient, w = grads(rule, x, y)[1], net.weights[1].detach()
        pull = -decay / (lr * (1 - decay)) * w
        return ((gradient - pull).norm() / pull.norm()).item()

    assert miss(KolenPollack) < 1e-6
    assert miss(mutant("decay times lr")) > 0.1


def test_only_weights_with_feedback_decay():
    net = small_net(SIZES[3])
    rule = KolenPollack(net, decay=0.25).double()
    before = {name: value.clone() for name, value in rule.state_dict().items()}
    rule.step(*batch(net), torch.optim.SGD(rule.parameters(), lr=0.0))
    for name, value in rule.state_dict().items():
        decays = name in ("net.weights.1", "net.weights.2") or name.startswith("feedback_weights")
        assert torch.equal(value, 0.75 * before[name] if decays else before[name]), name


def test_decay_may_move_while_training_runs():
    def train(knobs):
        rule = KolenPollack(cu.MLP([12, 9, 4]), decay=0.3)
        (start,) = gaps(rule)
        cu.train(rule, clusters(n=200), epochs=1, lr=0.05, batch_size=20, knobs=knobs, progress=False)
        return (gaps(rule)[0].norm() / start.norm()).item()

    assert train({"decay": 0.1}) == pytest.approx(0.9**10, rel=1e-4)
    assert train({"decay": [(0, 0.1), (80, 0.0)]}) == pytest.approx(0.9**4, rel=1e-4)


@pytest.mark.parametrize("decay", [-1e-9, 1, 1.5, math.nan, math.inf])
def test_bad_decay_is_refused_at_the_door_and_later(decay):
    with pytest.raises(ValueError, match="decay is"):
        KolenPollack(small_net(), decay=decay)
    rule = KolenPollack(small_net())
    with pytest.raises(ValueError, match="decay is"):
        rule.decay = decay
    assert rule.decay == 5e-4


def test_bad_input_is_refused():
    rule = KolenPollack(small_net())
    x, y = batch(rule.net)
    for bad in ((x[:, :3], y), (x[:0], y[:0]), (x, y[:2]), (x, y + 7), (x * math.nan, y)):
        with pytest.raises(ValueError):
            rule.double().backward(*bad)


def test_feedback_is_trained_independent_of_the_weights_and_as_large():
    net = cu.MLP([300, 200, 150], seed=4)
    rule = KolenPollack(net, seed=4)  # the same seed as the network's
    b = rule.feedback_weights[1].detach()
    assert rule.feedback_weights[0] is None and any(rule.feedback_weights[1] is p for p in rule.parameters())
    assert abs(cosine(b.flatten(), net.weights[1].detach().flatten())) < 4 / b.numel() ** 0.5
    assert (b.std() / net.weights[1].std()).item() == pytest.approx(1, rel=0.02)


def run(seed=0, data=None, **settings):
    data = data or cu.load_dataset("digits", limit=400)
    rule = KolenPollack(cu.MLP([784, 24, 10], seed=seed), seed=seed)
    cu.train(rule, data, **{"epochs": 2, "lr": 0.1, "batch_size": 32, "seed": seed, **settings}, progress=False)
    return rule


def test_training_is_deterministic_bit_for_bit():
    one, again, other = (run(seed).state_dict() for seed in (0, 0, 1))
    assert one.keys() == again.keys()
    assert all(torch.equal(one[name], again[name]) for name in one)
    assert not torch.equal(one["net.weights.0"], other["net.weights.0"])


def test_state_dict_round_trip_carries_the_feedback():
    trained, fresh = run(), KolenPollack(cu.MLP([784, 24, 10], seed=9), seed=9)
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


def test_hidden_angle_falls_below_that_of_feedback_alignment():
    data = cu.load_dataset("digits")
    x, y = data.x_train[:256], data.y_train[:256]

    def angle(rule):
        cu.train(rule, data, epochs=8, lr=0.1, batch_size=32, progress=False)
        return alignment_angle(grads(rule, x, y)[0], true_gradient(rule.net, x, y)[0])

    for seed in range(3):
        net = {"seed": seed}
        ours = angle(KolenPollack(cu.MLP([784, 32, 10], **net), seed=seed, decay=0.01))
        assert ours < 10 and ours < angle(FeedbackAlignment(cu.MLP([784, 32, 10], **net), seed=seed)) - 20


def test_learning_really_happens_in_the_hidden_layer():
    data, accuracy = cu.load_dataset("digits"), {}
    for name, wrap in {"taught": lambda r: r, "frozen": cu.FrozenHidden}.items():
        rule = wrap(KolenPollack(cu.MLP([784, 16, 10])))  # few units, so that random features are poor
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
