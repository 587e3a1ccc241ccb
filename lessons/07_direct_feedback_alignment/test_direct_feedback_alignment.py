"""The science of DirectFeedbackAlignment, ErrorSignDFA and DirectRandomTargetProjection. Each fact is a function that
a wrong rule must fail."""

from functools import partial

import pytest
import torch
from helpers import ACTIVATIONS, LOSSES, batch, clusters, grads, largest_difference, small_net

import course_utils as cu
from course_utils.metrics import alignment_angle, cosine, true_gradient
from course_utils.rules import (
    Backprop,
    DirectFeedbackAlignment,
    DirectRandomTargetProjection,
    ErrorSignDFA,
    FeedbackAlignment,
)

EXACT = 1e-12
RULES = [DirectFeedbackAlignment, ErrorSignDFA, DirectRandomTargetProjection]
# Square hidden layers, so that a transposed or misplaced matrix still fits.
SIZES = {1: (7, 3), 2: (7, 5, 3), 3: (7, 5, 5, 3), 4: (7, 6, 6, 5, 3)}


class Mutant(DirectFeedbackAlignment):
    """Direct feedback alignment with one thing wrong."""

    wrong = ""

    @torch.no_grad()
    def backward(self, x, y):
        feedback = list(self.feedback_weights)
        if self.wrong == "redrawn":
            for l in range(1, self.net.depth):
                b = self.feedback_weights[l]
                b.copy_(torch.randn(b.shape, generator=self.generator, dtype=b.dtype) / b.shape[1] ** 0.5)
        h = self.net.activations(x)
        error = self.net.output_error(h[-1], y) / (1 if self.wrong == "sum" else len(x))
        message = self.message(error * len(x), y) / (1 if self.wrong == "sum" else len(x))
        for l in range(self.net.depth):
            delta = error
            if l < self.net.depth - 1:
                b = feedback[self.net.depth - 1 - l if self.wrong == "another layer's feedback" else l + 1]
                b = b[torch.arange(len(b)).roll(1)] if self.wrong == "outputs exchanged" else b
                slope = 1 if self.wrong == "no derivative" else self.net.derivative(h[l + 1])
                delta = (message @ b) * slope * (-1 if self.wrong == "sign" else 1)
            self.add_grad(self.net.weights[l], delta.T @ h[l])
            self.add_grad(self.net.biases[l], delta.sum(0))
        return self.net.loss(h[-1], y)


def mutant(name, base=DirectFeedbackAlignment):
    return type(f"Mutant_{name}", (Mutant,), {"wrong": name, "message": base.message})


def hidden(net, tensors):
    """Of a list that runs as net.parameters(): the hidden layers' weights and biases."""
    return [*tensors[: net.depth - 1], *tensors[net.depth : -1]]


def readout(net, tensors):
    return [tensors[net.depth - 1], tensors[-1]]


def centred(rule):
    """The same rule, its feedback made to sum to zero over the outputs."""
    for l in range(1, rule.net.depth):
        rule.feedback_weights[l] = rule.feedback_weights[l] - rule.feedback_weights[l].mean(0)
    return rule


# ------------------------------------------------------------------ relations to rules that are known


def distance_to_feedback_alignment(
    rule_class, sizes=SIZES[2], activation="tanh", loss="cross_entropy", targets="labels"
):
    net = small_net(sizes, activation, loss)
    x, y = batch(net, targets=targets)
    chain, direct = FeedbackAlignment(net, seed=1).double(), rule_class(net, seed=1).double()
    for l in range(1, net.depth):
        if direct.feedback_weights[l].shape == chain.feedback_weights[l].shape:
            direct.feedback_weights[l] = chain.feedback_weights[l]
    return largest_difference(grads(chain, x, y), grads(direct, x, y))


@pytest.mark.parametrize("targets", ["labels", "values"])
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_with_one_hidden_layer_it_is_feedback_alignment(activation, loss, targets):
    assert distance_to_feedback_alignment(DirectFeedbackAlignment, SIZES[2], activation, loss, targets) < EXACT


def test_with_two_hidden_layers_it_is_not():
    assert distance_to_feedback_alignment(DirectFeedbackAlignment, SIZES[3]) > 1e-3


@pytest.mark.parametrize("wrong", ["sign", "no derivative", "sum", "outputs exchanged"])
def test_mutants_are_not_feedback_alignment(wrong):
    assert distance_to_feedback_alignment(mutant("")) < EXACT
    assert distance_to_feedback_alignment(mutant(wrong)) > 1e-3


def distance_to_backprop(rule_class, depth=3, loss="cross_entropy"):
    """A linear network, and each feedback the product of the forward weights it skips."""
    net = small_net(SIZES[depth], "linear", loss)
    rule, (x, y) = rule_class(net, seed=1).double(), batch(net)
    product = net.weights[-1].detach()
    for l in reversed(range(1, depth)):
        rule.feedback_weights[l] = product
        product = product @ net.weights[l - 1].detach()
    return largest_difference(grads(rule, x, y), true_gradient(net, x, y))


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("depth", SIZES)
def test_in_a_linear_network_with_feedback_the_product_of_the_weights_it_is_autograd(depth, loss):
    assert distance_to_backprop(DirectFeedbackAlignment, depth, loss) < EXACT


@pytest.mark.parametrize("wrong", ["sign", "sum", "outputs exchanged", "another layer's feedback"])
def test_mutants_are_not_autograd(wrong):
    assert distance_to_backprop(mutant("")) < EXACT
    assert distance_to_backprop(mutant(wrong)) > 1e-3
    assert distance_to_backprop(ErrorSignDFA) > 1e-3


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("depth", SIZES)
@pytest.mark.parametrize("rule_class", RULES)
def test_the_readout_gets_the_true_gradient(rule_class, depth, loss):
    net = small_net(SIZES[depth], loss=loss)
    x, y = batch(net)
    ours, true = grads(rule_class(net, seed=3).double(), x, y), true_gradient(net, x, y)
    assert largest_difference(readout(net, ours), readout(net, true)) < EXACT
    if depth > 1:
        assert largest_difference(hidden(net, ours), hidden(net, true)) > 1e-3


@pytest.mark.parametrize("rule_class", RULES)
def test_gradients_are_batch_means(rule_class):
    def change_when_doubled(rule_class):
        net = small_net()
        rule, (x, y) = rule_class(net).double(), batch(net)
        return largest_difference(grads(rule, x, y), grads(rule, torch.cat([x, x]), torch.cat([y, y])))

    assert change_when_doubled(rule_class) < EXACT
    assert change_when_doubled(mutant("sum", rule_class)) > 1e-3


# ------------------------------------------------------------------ the sign is the label


def test_under_a_softmax_the_sign_of_the_error_is_the_label_and_a_constant():
    net = small_net()
    x, y = batch(net, n=50)
    one_hot = torch.nn.functional.one_hot(y, 3).double()
    assert torch.equal(torch.sign(net.output_error(net(x), y)), 1 - 2 * one_hot)
    squared = small_net(loss="squared_error")
    assert not torch.equal(torch.sign(squared.output_error(squared(x), y)), 1 - 2 * one_hot)


def hidden_distance(one, factor, other, prepare=centred, loss="cross_entropy", seed=0):
    """Largest difference of the hidden estimates of `one` and of `factor` times those of `other`."""
    net = small_net(loss=loss, seed=seed)
    x, y = batch(net)
    ours, theirs = (hidden(net, grads(prepare(r(net, seed=5).double()), x, y)) for r in (one, other))
    return largest_difference(ours, [factor * t for t in theirs])


def test_with_centred_feedback_sign_dfa_is_twice_target_projection():
    distance = partial(hidden_distance, ErrorSignDFA, 2, DirectRandomTargetProjection)
    assert distance() < EXACT
    assert distance(prepare=lambda rule: rule) > 1e-3  # the constant is not nothing
    assert distance(loss="squared_error") > 1e-3
    assert hidden_distance(mutant("sign", ErrorSignDFA), 2, DirectRandomTargetProjection) > 1e-3


def change_by_centring(rule_class, loss="cross_entropy"):
    net = small_net(loss=loss)
    x, y = batch(net)
    plain, without = (grads(f(rule_class(net, seed=5).double()), x, y) for f in (lambda rule: rule, centred))
    return largest_difference(plain, without)


def test_the_error_of_a_softmax_does_not_see_the_mean_of_the_feedback_but_sign_and_label_do():
    assert change_by_centring(DirectFeedbackAlignment) < EXACT
    assert change_by_centring(DirectFeedbackAlignment, "squared_error") > 1e-3
    assert change_by_centring(ErrorSignDFA) > 1e-3
    assert change_by_centring(DirectRandomTargetProjection) > 1e-3


# ------------------------------------------------------------------ the label alone


def change_with_the_layers_above(rule_class, l, seed=0):
    """How much the estimates of layers up to l (counted from 0) change when all weights above are replaced."""
    net = small_net(SIZES[4], seed=seed)
    x, y = batch(net)
    rule = rule_class(net, seed=5).double()
    before = grads(rule, x, y)
    generator = torch.Generator().manual_seed(9)
    with torch.no_grad():
        for p in [*net.weights[l + 1 :], *net.biases[l + 1 :]]:
            p.copy_(torch.randn(p.shape, generator=generator, dtype=p.dtype))
    after = grads(rule, x, y)
    kept = [*range(l + 1), *range(net.depth, net.depth + l + 1)]
    return largest_difference([before[i] for i in kept], [after[i] for i in kept])


@pytest.mark.parametrize("l", [0, 1, 2])
def test_a_hidden_layer_of_target_projection_knows_nothing_of_what_is_above_it(l):
    assert change_with_the_layers_above(DirectRandomTargetProjection, l) == 0
    assert change_with_the_layers_above(DirectFeedbackAlignment, l) > 1e-3
    assert change_with_the_layers_above(FeedbackAlignment, l) > 1e-3


def distance_to_the_layers_own_objective(rule_class, activation="tanh"):
    """Largest difference to autograd's gradient of −⟨y* B_l · h_l⟩ by layer l's own weights, over the hidden layers."""
    net = small_net(SIZES[4], activation)
    x, y = batch(net)
    rule = rule_class(net, seed=5).double()
    ours, h = grads(rule, x, y), net.activations(x)
    gaps = []
    for l in range(net.depth - 1):
        own = net._f(torch.nn.functional.linear(h[l].detach(), net.weights[l], net.biases[l]))
        objective = -(rule.feedback_weights[l + 1][y] * own).sum(1).mean()
        theirs = torch.autograd.grad(objective, [net.weights[l], net.biases[l]])
        gaps.append(largest_difference([ours[l], ours[net.depth + l]], theirs))
    return max(gaps)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_target_projection_follows_the_gradient_of_each_layers_own_objective(activation):
    assert distance_to_the_layers_own_objective(DirectRandomTargetProjection, activation) < EXACT


@pytest.mark.parametrize("wrong", ["sign", "no derivative", "sum", "outputs exchanged", "another layer's feedback"])
def test_mutants_follow_another(wrong):
    assert distance_to_the_layers_own_objective(mutant("", DirectRandomTargetProjection)) < EXACT
    if wrong == "another layer's feedback":  # its widths must agree
        assert hidden_distance_of_mutant(wrong) > 1e-3
    else:
        assert distance_to_the_layers_own_objective(mutant(wrong, DirectRandomTargetProjection)) > 1e-3


def hidden_distance_of_mutant(wrong):
    net = small_net(SIZES[3])
    x, y = batch(net)
    right, other = (
        r(net, seed=5).double() for r in (DirectRandomTargetProjection, mutant(wrong, DirectRandomTargetProjection))
    )
    return largest_difference(grads(right, x, y), grads(other, x, y))


def test_target_projection_takes_target_values_too():
    net = small_net(loss="squared_error")
    x, y = batch(net)
    rule = DirectRandomTargetProjection(net).double()
    one_hot = torch.nn.functional.one_hot(y, 3).double()
    assert largest_difference(grads(rule, x, y), grads(rule, x, one_hot)) < EXACT
    assert largest_difference(grads(rule, x, y), grads(rule, x, 2 * one_hot)) > 1e-3


def test_where_the_error_is_zero_only_sign_and_label_go_on():
    net = small_net(loss="squared_error")
    x, _ = batch(net)
    y = net(x).detach()
    for rule_class, silent in (
        (DirectFeedbackAlignment, True),
        (ErrorSignDFA, True),
        (DirectRandomTargetProjection, False),
    ):
        estimates = hidden(net, grads(rule_class(net).double(), x, y))
        assert all((g == 0).all() for g in estimates) == silent


def test_target_projection_stops_at_the_ceiling_of_tanh_and_not_with_relu():
    def activity(activation, steps):
        data, net = clusters(), cu.MLP([12, 20, 4], activation=activation)
        rule = DirectRandomTargetProjection(net)
        optimizer = torch.optim.SGD(rule.parameters(), lr=0.5)
        for _ in range(steps):
            rule.step(data.x_train, data.y_train, optimizer)
        return net.activations(data.x_val)[1].abs().mean().item()

    assert 0.5 < activity("tanh", 200) < activity("tanh", 400) <= 1
    # Once it is settled who is active for whom, each step adds the same: the activity is proportional to the steps.
    assert activity("relu", 400) / activity("relu", 200) == pytest.approx(2, rel=0.2)


# ------------------------------------------------------------------ alignment


def from_zero(rule_class, steps=300, depth=3):
    """A linear network with white inputs and an orthonormal target, trained from zero; (rule, x, y)."""
    generator = torch.Generator().manual_seed(0)
    x = torch.linalg.qr(torch.randn(200, 8, generator=generator).double())[0].contiguous() * 200**0.5
    y = x @ torch.linalg.qr(torch.randn(8, 4, generator=generator).double())[0]
    net = cu.MLP([8, *[20] * (depth - 1), 4], activation="linear", loss="squared_error").double()
    with torch.no_grad():
        for p in net.parameters():
            p.zero_()
    rule = rule_class(net).double()
    optimizer = torch.optim.SGD(rule.parameters(), lr=0.03)
    for _ in range(steps):
        rule.step(x, y, optimizer)
    return rule, x, y


def outside_the_feedback(rule):
    """The share of each middle W that is not of the form Bᵀ A B′ of the feedback above and below it."""
    shares = []
    for l in range(1, rule.net.depth - 1):
        below, above = rule.feedback_weights[l], rule.feedback_weights[l + 1]
        w = rule.net.weights[l].detach()
        inside = torch.linalg.pinv(above) @ above @ w @ torch.linalg.pinv(below) @ below
        shares.append(((w - inside).norm() / w.norm()).item())
    return max(shares)


@pytest.mark.parametrize("depth", [3, 4])
def test_from_zero_a_middle_layer_becomes_an_adapter_between_two_feedbacks(depth):
    rule, x, y = from_zero(DirectFeedbackAlignment, depth=depth)
    assert outside_the_feedback(rule) < 1e-10
    angles = [
        alignment_angle(ours, true)
        for ours, true in zip(grads(rule, x, y)[: depth - 1], true_gradient(rule.net, x, y)[: depth - 1], strict=True)
    ]
    assert max(angles) < 60


def test_a_feedback_that_moves_leaves_no_adapter():
    assert outside_the_feedback(from_zero(mutant("redrawn"))[0]) > 0.1


def test_hidden_angles_of_direct_feedback_fall_below_chance_in_training():
    data = cu.load_dataset("digits")
    x, y = data.x_train[:256], data.y_train[:256]
    for seed in range(2):
        net = cu.MLP([784, 48, 32, 10], activation="tanh", seed=seed)
        rule = DirectFeedbackAlignment(net, seed=seed)
        cu.train(rule, data, epochs=3, lr=0.1, batch_size=32, progress=False)
        ours, true = grads(rule, x, y), true_gradient(net, x, y)
        for l in range(2):
            assert alignment_angle(ours[l], true[l]) < cu.metrics.chance_band(net.weights[l].numel())[0]


# ------------------------------------------------------------------ the feedback


@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_feedback_has_the_size_of_forward_weights_and_knows_nothing_of_them(activation):
    net = cu.MLP([30, 900, 900, 10], activation=activation, seed=4)
    b = DirectFeedbackAlignment(net, seed=4).feedback_weights  # the same seed as the network's
    assert len(b) == net.depth and b[0] is None
    for l in (1, 2):
        assert b[l].shape == (10, 900)
        expected = ((2 if activation == "relu" else 1) / 900) ** 0.5
        assert b[l].std().item() == pytest.approx(expected, rel=4 / (2 * b[l].numel()) ** 0.5)  # 4 standard errors
    for one, other in ((b[1], b[2]), (b[2], net.weights[2].detach())):
        assert abs(cosine(one.flatten(), other.flatten())) < 4 / one.numel() ** 0.5


@pytest.mark.parametrize("rule_class", RULES)
@pytest.mark.parametrize("scale", [0.0, 0.1, 3.0])
def test_feedback_scale_scales_the_feedback_and_the_hidden_update(scale, rule_class):
    net = small_net()
    one, scaled = rule_class(net, seed=1).double(), rule_class(net, seed=1, feedback_scale=scale).double()
    for l in range(1, net.depth):
        assert torch.allclose(scaled.feedback_weights[l], scale * one.feedback_weights[l], rtol=1e-6)
    x, y = batch(net)
    ours, theirs = (hidden(net, grads(rule, x, y)) for rule in (scaled, one))
    assert largest_difference(ours, [scale * t for t in theirs]) < 1e-6


@pytest.mark.parametrize("rule_class", RULES)
def test_bad_input_is_refused_in_words(rule_class):
    net = small_net()
    for scale in (-1.0, float("nan")):
        with pytest.raises(ValueError, match="feedback_scale"):
            rule_class(net, feedback_scale=scale)
    rule = rule_class(net).double()
    x, y = batch(net)
    with pytest.raises(ValueError, match="shape"):
        rule.feedback_weights[1] = torch.zeros(2, 2)
    with pytest.raises(ValueError, match="None"):
        rule.feedback_weights[0] = torch.zeros(3, 7)
    with pytest.raises(ValueError):
        rule.backward(x[:, :-1].contiguous(), y)
    with pytest.raises(ValueError):
        rule.backward(x, y + 3)


@pytest.mark.parametrize("rule_class", RULES)
def test_feedback_travels_in_the_state_dict(rule_class):
    one, other = (rule_class(small_net(seed=seed), seed=seed).double() for seed in (0, 1))
    x, y = batch(one.net)
    assert largest_difference(grads(one, x, y), grads(other, x, y)) > 1e-3
    state = one.state_dict()
    assert {"feedback_weights.1", "feedback_weights.2"} <= state.keys()
    other.load_state_dict(state)
    assert largest_difference(grads(one, x, y), grads(other, x, y)) == 0


@pytest.mark.parametrize("rule_class", RULES)
def test_a_network_without_hidden_layers_is_taught_as_by_backprop(rule_class):
    net = small_net(SIZES[1])
    x, y = batch(net)
    assert largest_difference(grads(rule_class(net).double(), x, y), grads(Backprop(net), x, y)) < EXACT


@pytest.mark.parametrize("rule_class", RULES)
def test_training_is_deterministic_bit_for_bit(rule_class):
    def run(seed):
        rule = rule_class(cu.MLP([12, 9, 8, 4], activation="tanh", seed=seed), seed=seed)
        cu.train(rule, clusters(), epochs=2, lr=0.05, batch_size=32, seed=seed, progress=False)
        return rule.state_dict()

    one, again, other = run(0), run(0), run(1)
    assert all(torch.equal(one[name], again[name]) for name in one)
    for name in ("net.weights.0", "feedback_weights.1", "feedback_weights.2"):
        assert not torch.equal(one[name], other[name])


# ------------------------------------------------------------------ learning


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("rule_class", [DirectFeedbackAlignment, DirectRandomTargetProjection])
def test_learning_really_happens_in_the_hidden_layers(rule_class, seed):
    data, accuracy = cu.load_dataset("digits"), {}
    for name, wrap in {"taught": lambda r: r, "frozen": cu.FrozenHidden}.items():
        net = cu.MLP([784, 16, 16, 10], activation="tanh", seed=seed)  # few units: random features are poor
        rule = wrap(rule_class(net, seed=seed))
        cu.train(rule, data, epochs=10, lr=0.01, optimizer="adam", batch_size=32, progress=False)
        accuracy[name] = cu.evaluate(rule, data.x_test, data.y_test)
    assert accuracy["taught"] > accuracy["frozen"] + 0.03


@pytest.mark.parametrize("rule_class", RULES)
def test_shuffled_labels_teach_nothing_about_the_test_set(rule_class):
    from dataclasses import replace

    data = cu.load_dataset("digits", limit=400)
    order = torch.randperm(len(data.y_train), generator=torch.Generator().manual_seed(0))
    rule = rule_class(cu.MLP([784, 24, 24, 10], activation="tanh"))
    cu.train(rule, replace(data, y_train=data.y_train[order]), epochs=2, lr=0.05, batch_size=32, progress=False)
    chance, n = 0.1, len(data.y_test)
    assert cu.evaluate(rule, data.x_test, data.y_test) < chance + 4 * (chance * (1 - chance) / n) ** 0.5
