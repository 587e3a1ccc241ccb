"""The science of PEPITA. Each fact is a function that a wrong rule must fail."""

import math
from dataclasses import replace

import pytest
import torch
from helpers import ACTIVATIONS, LOSSES, batch, grads, largest_difference, small_net, snapshot
from torch.nn.functional import one_hot

import course_utils as cu
from course_utils.metrics import alignment_angle, cosine, true_gradient
from course_utils.rules import Pepita

EXACT = 1e-12
# Square hidden layers, so that a transposed matrix still fits; the rest of the sizes are odd and different.
SIZES = {1: (7, 3), 2: (7, 5, 3), 3: (7, 5, 5, 3), 4: (7, 6, 6, 5, 3)}
F_OF = {  # the activations, written out once more
    "relu": lambda a: a * (a > 0),
    "tanh": torch.tanh,
    "sigmoid": lambda a: 1 / (1 + torch.exp(-a)),
    "linear": lambda a: a,
}


class Mutant(Pepita):
    """PEPITA with one thing wrong, in its plain form: two passes, neither knows of the other."""

    wrong = ""

    @torch.no_grad()
    def backward(self, x, y):
        net, x, wrong = self.net, self.net.check_input(x), self.wrong
        gains = self.gains(x) if self.dropout else None
        h = net.activations(x, gains=gains)
        error = net.output_error(h[-1], y)
        if wrong == "other mask":
            gains = self.gains(x)
        if wrong == "no mask in pass 2":
            gains = None
        back = self.feedback_scale * self.feedback @ error.T
        if wrong == "bias in F":
            back = back + self.feedback_scale
        changed = {"sign": x - back.T, "only the error": back.T.contiguous()}.get(wrong, x + back.T)
        second = net.activations(changed, gains=gains)
        if wrong == "error of pass 2":
            error = net.output_error(second[-1], y)
        for l in range(net.depth):
            last = l == net.depth - 1
            difference = error if last else h[l + 1] - second[l + 1]
            if wrong == "swapped" and not last:
                difference = -difference
            if wrong == "with derivative" and not last:
                difference = difference * net.derivative(h[l + 1])
            before = h[l] if wrong == "inputs of pass 1" else second[l]
            n = 1 if wrong == "sum" else len(x)
            self.add_grad(net.weights[l], difference.T @ before / n)
            self.add_grad(net.biases[l], difference.sum(0) / n)
        return net.loss(h[-1], y)


def mutant(name):
    return type(f"Mutant_{name}", (Mutant,), {"wrong": name})


def as_published(net, feedback, x, y, gains=None):
    """The rule one example, one layer at a time, as the paper's algorithm has it; means over the batch."""
    f, total = F_OF[net.activation_name], [torch.zeros_like(p) for p in net.parameters()]

    def pass_through(h, n):
        activities = [h]
        for l in range(net.depth):
            a = net.weights[l] @ activities[-1] + net.biases[l]
            h = a if l == net.depth - 1 else f(a)
            activities.append(h if gains is None or l == net.depth - 1 else h * gains[l][n])
        return activities

    for n in range(len(x)):
        h = pass_through(x[n], n)
        target = one_hot(y[n], net.sizes[-1]) if y.dtype == torch.int64 else y[n]
        error = (torch.softmax(h[-1], 0) if net.loss_name == "cross_entropy" else h[-1]) - target
        second = pass_through(x[n] + feedback @ error, n)
        for l in range(net.depth):
            difference = error if l == net.depth - 1 else h[l + 1] - second[l + 1]
            total[l] += torch.outer(difference, second[l]) / len(x)
            total[net.depth + l] += difference / len(x)
    return [t.detach() for t in total]


def distance_to_published(
    rule_class, sizes=SIZES[3], activation="tanh", loss="cross_entropy", targets="labels", dropout=0.0, scale=0.7
):
    net = small_net(sizes, activation, loss)
    rule, (x, y) = rule_class(net, feedback_scale=scale, dropout=dropout).double(), batch(net, targets=targets)
    gains = None
    if dropout:
        state = rule.generator.get_state()
        gains = rule.gains(x)
        rule.generator.set_state(state)
    return largest_difference(grads(rule, x, y), as_published(net, scale * rule.feedback, x, y, gains))


@pytest.mark.parametrize("targets", ["labels", "values"])
@pytest.mark.parametrize("depth", SIZES)
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_it_is_the_published_algorithm(activation, loss, depth, targets):
    assert distance_to_published(Pepita, SIZES[depth], activation, loss, targets) < EXACT


@pytest.mark.parametrize("depth", [2, 3, 4])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_both_passes_wear_the_same_mask(activation, depth):
    assert distance_to_published(Pepita, SIZES[depth], activation, dropout=0.5) < EXACT


WRONG = [
    "sign",
    "swapped",
    "only the error",
    "error of pass 2",
    "with derivative",
    "inputs of pass 1",
    "bias in F",
    "sum",
]


@pytest.mark.parametrize("wrong", WRONG)
def test_mutants_are_not_the_published_algorithm(wrong):
    assert distance_to_published(mutant("")) < EXACT  # the plain form is the rule: equation (6) is exact
    assert distance_to_published(mutant(wrong)) > 1e-3


@pytest.mark.parametrize("wrong", ["other mask", "no mask in pass 2"])
def test_mutants_with_another_mask_are_not(wrong):
    assert distance_to_published(mutant(""), dropout=0.5) < EXACT
    assert distance_to_published(mutant(wrong), dropout=0.5) > 1e-2


def feedback_alignment(net, x, y, back):
    """Gradients of the message e B for a network with one hidden layer, B (outputs, hidden)."""
    h = net.activations(x)
    error = net.output_error(h[-1], y) / len(x)
    delta = (error @ back) * net.derivative(h[1])
    return [t.detach() for t in (delta.T @ x, error.T @ h[1], delta.sum(0), error.sum(0))]


def apart_from_feedback_alignment(rule_class, scale, activation="tanh", loss="cross_entropy"):
    """(cosine, relative distance) of the hidden weights' update to feedback alignment's with B = −(W₁F)ᵀ."""
    net = small_net((31, 17, 5), activation, loss)
    rule, (x, y) = rule_class(net, feedback_scale=scale, dropout=0.0).double(), batch(net, n=13)
    theirs = feedback_alignment(net, x, y, -(net.weights[0].detach() @ (scale * rule.feedback)).T)
    ours = grads(rule, x, y)
    distance = max(((a - b).norm() / b.norm()).item() for a, b in zip(ours, theirs, strict=True))
    return cosine(ours[0].flatten(), theirs[0].flatten()), distance


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("activation", ["tanh", "sigmoid", "linear", "relu"])
def test_it_tends_to_feedback_alignment_through_minus_w1_f(activation, loss):
    assert apart_from_feedback_alignment(Pepita, 1e-4, activation, loss)[0] > 0.9999
    (cosine_far, far), (_, near) = (apart_from_feedback_alignment(Pepita, s, activation, loss) for s in (1.0, 1e-5))
    assert near < 1e-3 < far and cosine_far < 0.999


def test_what_is_left_shrinks_in_proportion_to_f():
    far, near = (apart_from_feedback_alignment(Pepita, s)[1] for s in (2e-4, 1e-4))
    assert far / near == pytest.approx(2, rel=0.01)  # first order in F


@pytest.mark.parametrize("wrong", ["sign", "swapped", "only the error", "with derivative", "bias in F"])
def test_mutants_do_not_tend_to_it(wrong):
    assert apart_from_feedback_alignment(mutant(""), 1e-4)[0] > 0.9999
    assert apart_from_feedback_alignment(mutant(wrong), 1e-4)[0] < 0.99


def slope_miss(rule_class, depth=4, scale=1e-6):
    """Relative distance of the bias gradients of all hidden layers to −J_l F e, J_l the Jacobian of h_l in x."""
    net = small_net(SIZES[depth])
    rule, (x, y) = rule_class(net, feedback_scale=scale, dropout=0.0).double(), batch(net)
    error = net.output_error(net(x), y).detach()
    hidden = lambda x: tuple(net.activations(x)[1:-1])  # noqa: E731
    _, slopes = torch.autograd.functional.jvp(hidden, x, error @ (scale * rule.feedback).T)
    ours = grads(rule, x, y)[depth:-1]
    return max(((a + s.mean(0)).norm() / s.mean(0).norm()).item() for a, s in zip(ours, slopes, strict=True))


def test_in_every_hidden_layer_it_is_a_slope_forward_along_f_e():
    assert slope_miss(Pepita) < 1e-4
    for wrong in ("sign", "swapped", "with derivative", "bias in F"):
        assert slope_miss(mutant(wrong)) > 1e-2, wrong


def test_in_a_linear_network_the_message_is_exact_at_any_scale():
    def miss(rule_class, scale):
        net = small_net(SIZES[2], "linear")
        rule, (x, y) = rule_class(net, feedback_scale=scale, dropout=0.0).double(), batch(net)
        theirs = feedback_alignment(net, x, y, -(net.weights[0].detach() @ (scale * rule.feedback)).T)
        ours = grads(rule, x, y)
        return max((ours[i] - theirs[i]).abs().max().item() for i in (2, 3))  # biases: the message alone

    for scale in (1e-3, 0.05, 1.0, 30.0):
        assert miss(Pepita, scale) < EXACT * max(1, scale)
    assert miss(mutant("sign"), 1.0) > 1e-2 and miss(mutant("bias in F"), 1.0) > 1e-2


def test_without_feedback_it_is_the_frozen_control():
    net = small_net()
    rule, (x, y) = Pepita(net, feedback_scale=0.0, dropout=0.3).double(), batch(net)
    ours = grads(rule, x, y)
    assert all(ours[i].abs().max() == 0 for i in (0, 1, 3, 4)) and ours[2].abs().max() > 1e-3
    net.activity_noise, net.noise_seed = 0.5, 7  # both passes meet the same noise, so nothing differs
    assert all(grads(rule, x, y)[i].abs().max() == 0 for i in (0, 1, 3, 4))


def left_without_feedback(rule_class):
    net = small_net(SIZES[2])
    rule, (x, y) = rule_class(net, feedback_scale=0.0, dropout=0.5).double(), batch(net)
    return grads(rule, x, y)[0].abs().max().item()


def test_with_another_mask_the_difference_is_dropout_s_and_not_the_error_s():
    assert left_without_feedback(Pepita) == 0
    assert left_without_feedback(mutant("other mask")) > 0.1


def test_a_silent_unit_learns_nothing():
    net = small_net((7, 50, 3))
    rule, (x, y) = Pepita(net, feedback_scale=0.5, dropout=0.5).double(), batch(net, n=1)
    state = rule.generator.get_state()
    (gain,) = rule.gains(x)
    rule.generator.set_state(state)
    change = grads(rule, x, y)[0].abs().sum(1)
    assert torch.equal(change == 0, gain[0] == 0) and 10 < (change == 0).sum() < 40


def test_gains_are_right_in_the_mean_and_leave_predict_alone():
    rule = Pepita(small_net((7, 400, 3)), dropout=0.2)
    x, _ = batch(rule.net, n=500)
    (gain,) = rule.gains(x)
    assert gain.dtype == torch.float64 and set(gain.unique().tolist()) == {0.0, 1.25}
    spread = math.sqrt(0.2 / 0.8 / gain.numel())  # of the mean
    assert abs(gain.mean().item() - 1) < 4 * spread
    assert torch.equal(rule.predict(x), rule.net(x))


def test_gradients_are_batch_means_and_accumulate():
    def change_when_doubled(rule_class):
        net = small_net()
        rule, (x, y) = rule_class(net, dropout=0.0).double(), batch(net)
        return largest_difference(grads(rule, x, y), grads(rule, torch.cat([x, x]), torch.cat([y, y])))

    assert change_when_doubled(Pepita) < EXACT
    assert change_when_doubled(mutant("sum")) > 1e-2
    net = small_net()
    rule, (x, y) = Pepita(net, dropout=0.0).double(), batch(net)
    once = grads(rule, x, y)
    rule.backward(x, y)
    assert largest_difference([p.grad for p in net.parameters()], [2 * g for g in once]) < EXACT


def test_backward_changes_nothing_but_grad_and_its_own_generator():
    net = small_net()
    rule, (x, y) = Pepita(net, dropout=0.0).double(), batch(net)
    kept = x.clone()
    before = snapshot(rule)
    loss = rule.backward(x, y)
    after = snapshot(rule)
    assert before["state"] == after["state"] and before["torch"] == after["torch"]
    assert before["generator"] == after["generator"]  # no dropout, no draws
    assert torch.equal(x, kept) and loss.ndim == 0 and not loss.requires_grad
    assert loss.item() == pytest.approx(net.loss(net(x), y).item(), abs=EXACT)


def test_the_feedback_is_the_published_one():
    rule = Pepita(cu.MLP([784, 30, 10]), seed=3)
    f = rule.feedback_scale * rule.feedback
    limit = 0.05 * math.sqrt(6 / 784)
    assert f.shape == (784, 10) and f.abs().max() <= limit and f.abs().max() > 0.99 * limit
    assert abs(f.mean().item()) < 4 * limit / math.sqrt(3 * f.numel())
    assert f.std().item() == pytest.approx(limit / math.sqrt(3), rel=0.03)
    assert "feedback" not in dict(rule.named_parameters())
    other = Pepita(cu.MLP([784, 30, 10]), seed=4).feedback
    assert abs(cosine(rule.feedback.flatten(), other.flatten())) < 4 / math.sqrt(f.numel())


def self_feeding_miss(rule_class):
    """On a dark image, in a linear network, W₁F must change by +η W₁F ⟨e eᵀ⟩ FᵀF."""
    net = small_net(SIZES[2], "linear")
    rule, (x, y) = rule_class(net, feedback_scale=0.7, dropout=0.0).double(), batch(net)
    x = torch.zeros_like(x)
    w1, f, e = net.weights[0].detach(), 0.7 * rule.feedback, net.output_error(net(x), y).detach()
    return (grads(rule, x, y)[0] @ f + w1 @ f @ (e.T @ e / len(x)) @ (f.T @ f)).abs().max().item()


def test_w1_f_feeds_itself_with_the_square_of_f():
    assert self_feeding_miss(Pepita) < EXACT
    for wrong in ("swapped", "sum", "inputs of pass 1"):
        assert self_feeding_miss(mutant(wrong)) > 1e-3, wrong


def aligned(rule_class, seed=0):
    """The angle of W₂ to −(W₁F)ᵀ before and after training, and the validation accuracy."""
    rule = rule_class(cu.MLP([784, 32, 10], seed=seed), seed=seed, feedback_scale=0.2, dropout=0.0)

    def angle():
        w1, w2 = (w.detach() for w in rule.net.weights)
        return alignment_angle(w2, -(w1 @ rule.feedback).T)

    before = angle()
    frame = cu.train(rule, cu.load_dataset("digits"), epochs=8, lr=0.2, batch_size=32, progress=False).frame
    return before, angle(), frame.val_accuracy.iloc[-1]


def test_w2_comes_to_align_with_minus_w1_f():
    low, high = cu.metrics.chance_band(320)
    before, after, accuracy = aligned(Pepita)
    assert low - 3 < before < high + 3 and after < before - 20 and accuracy > 0.9
    for wrong in ("sign", "swapped"):
        assert aligned(mutant(wrong))[1] > after + 20, wrong


def test_the_earlier_code_s_feedback_is_not_finite_by_the_tenth_batch():
    """A default linear layer as F: uniform ± 1/√10, bias included, no scale; squared error, no softmax."""
    data = cu.load_dataset("digits")

    def batches_survived(rule):
        optimizer = torch.optim.SGD(rule.parameters(), lr=0.01)
        for n in range(40):
            x, y = data.x_train[32 * n % 1280 :][:32], data.y_train[32 * n % 1280 :][:32]
            try:
                loss = rule.step(x, y, optimizer)
            except ValueError:
                return n
            if not torch.isfinite(loss):
                return n
        return 40

    def net():
        return cu.MLP([784, 120, 10], loss="squared_error")

    limit_ratio = math.sqrt(1 / 10) / math.sqrt(6 / 784)  # 3.61 times the unit scale, 72 times the published one
    assert limit_ratio / 0.05 == pytest.approx(72, abs=1)
    assert batches_survived(Pepita(net(), feedback_scale=limit_ratio, dropout=0.0)) <= 20
    assert batches_survived(Pepita(net(), dropout=0.0)) == 40


@pytest.mark.parametrize("bad", [{"feedback_scale": -1e-9}, {"feedback_scale": math.nan}, {"feedback_scale": math.inf},
                                 {"dropout": 1}, {"dropout": -0.1}, {"dropout": math.nan}])  # fmt: skip
def test_bad_knobs_are_refused(bad):
    with pytest.raises(ValueError, match="feedback_scale is .*dropout"):
        Pepita(small_net(), **bad)


def test_bad_input_is_refused():
    rule = Pepita(small_net()).double()
    x, y = batch(rule.net)
    for bad in ((x[:, :3], y), (x[:0], y[:0]), (x, y[:2]), (x, y + 7), (x * math.nan, y), (x.tolist(), y), (x[0], y)):
        with pytest.raises(ValueError):
            rule.backward(*bad)


def run(seed=0, data=None, **settings):
    data = data or cu.load_dataset("digits", limit=400)
    rule = Pepita(cu.MLP([784, 24, 10], seed=seed), seed=seed)
    cu.train(rule, data, **{"epochs": 2, "lr": 0.1, "batch_size": 32, "seed": seed, **settings}, progress=False)
    return rule


def test_training_is_deterministic_bit_for_bit_and_probes_leave_no_trace():
    one, again, other, probed = (r.state_dict() for r in (run(0), run(0), run(1), run(0, probe_every=64)))
    assert all(torch.equal(one[name], again[name]) and torch.equal(one[name], probed[name]) for name in one)
    assert not torch.equal(one["net.weights.0"], other["net.weights.0"])


def test_state_dict_round_trip_carries_the_feedback():
    trained, fresh = run(), Pepita(cu.MLP([784, 24, 10], seed=9), seed=9)
    fresh.load_state_dict(trained.state_dict())
    fresh.dropout = trained.dropout = 0.0
    data = cu.load_dataset("digits", limit=400)
    x, y = data.x_train[:50], data.y_train[:50]
    assert torch.equal(fresh.feedback, trained.feedback)
    assert largest_difference(grads(fresh, x, y), grads(trained, x, y)) == 0


def test_the_scale_may_move_while_training_runs():
    frozen, moved = run(knobs={"feedback_scale": 0.0}), run(knobs={"feedback_scale": [(0, 0.0), (400, 0.05)]})
    start = cu.MLP([784, 24, 10]).weights[0]
    assert torch.equal(frozen.net.weights[0], start) and not torch.equal(moved.net.weights[0], start)
    assert moved.feedback_scale == 0.05


def test_learning_really_happens_in_the_hidden_layer():
    data, accuracy = cu.load_dataset("digits"), {}
    for name, wrap in {"taught": lambda r: r, "frozen": cu.FrozenHidden}.items():
        rule = wrap(Pepita(cu.MLP([784, 16, 10]), feedback_scale=0.2, dropout=0.0))
        first = rule.net.weights[0].detach().clone()
        cu.train(rule, data, epochs=20, lr=0.1, batch_size=32, progress=False)
        accuracy[name] = cu.evaluate(rule, data.x_test, data.y_test)
        assert torch.equal(first, rule.net.weights[0]) == (name == "frozen")
    assert accuracy["taught"] > accuracy["frozen"] + 0.05 and accuracy["taught"] > 0.85


def test_shuffled_labels_teach_nothing_about_the_test_set():
    data = cu.load_dataset("digits")
    order = torch.randperm(len(data.y_train), generator=torch.Generator().manual_seed(0))
    rule = run(data=replace(data, y_train=data.y_train[order]))
    chance, n = 0.1, len(data.y_test)
    assert cu.evaluate(rule, data.x_test, data.y_test) < chance + 4 * (chance * (1 - chance) / n) ** 0.5


def test_the_output_layer_tends_to_the_true_gradient():
    def miss(scale):
        net = small_net()
        rule, (x, y) = Pepita(net, feedback_scale=scale, dropout=0.0).double(), batch(net)
        ours, true = grads(rule, x, y), true_gradient(net, x, y)
        assert (ours[5] - true[5]).abs().max() < EXACT  # its bias sees e alone
        return ((ours[2] - true[2]).norm() / true[2].norm()).item()

    assert miss(1e-6) < 1e-5 and miss(1.0) > 1e-2
