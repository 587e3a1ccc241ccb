"""The base class of rules, its feedback weights and its card."""

import pytest
import torch
from helpers import AutogradRule, batch, clusters, grads, largest_difference, small_net

import course_utils as cu
from course_utils.rule import FeedbackWeights, Rule
from course_utils.rules import Backprop, FeedbackAlignment


def test_base_class_says_what_to_override():
    net = small_net()
    with pytest.raises(NotImplementedError, match="Rule must override backward"):
        Rule(net).backward(*batch(net))


@pytest.mark.parametrize("seed", [-1, 0.5, "0", None])
def test_bad_seed_is_refused(seed):
    with pytest.raises(ValueError, match="seed is"):
        Backprop(small_net(), seed=seed)


def test_add_grad_accumulates_as_pytorch_does():
    net = small_net()
    rule, (x, y) = Backprop(net), batch(net)
    once = grads(rule, x, y)
    rule.backward(x, y)
    assert largest_difference([p.grad for p in net.parameters()], [2 * g for g in once]) < 1e-15
    net.zero_grad()
    for _ in range(2):
        net.loss(net(x), y).backward()
    assert largest_difference([p.grad for p in net.parameters()], [2 * g for g in once]) < 1e-12


def test_add_grad_of_one_tensor_to_two_parameters_keeps_them_apart():
    net = small_net((5, 4, 5))
    rule, (w, v) = Rule(net), (net.weights[0], net.weights[1])
    g = torch.randn(4, 5, dtype=torch.float64)
    kept = g.clone()
    rule.add_grad(w, g)
    rule.add_grad(v, g.T)  # one tensor for two parameters, as in Kolen–Pollack
    rule.add_grad(w, torch.ones_like(w))
    assert torch.equal(g, kept)
    assert torch.equal(w.grad, kept + 1) and torch.equal(v.grad, kept.T)
    assert not w.grad.requires_grad


@pytest.mark.parametrize("optimizer", [torch.optim.SGD, torch.optim.Adam])
@pytest.mark.parametrize("layout", ["transposed", "expanded"])
def test_fused_optimisers_read_every_layout_of_a_gradient_right(optimizer, layout):
    g = torch.randn(7, 5, dtype=torch.float64).T if layout == "transposed" else torch.randn(5, 1).double().expand(5, 7)
    results = []
    for fused in (False, True):
        net = small_net((7, 5))
        w = net.weights[0]
        Rule(net).add_grad(w, g)
        optimizer([w], lr=0.1, fused=fused).step()
        results.append(w.detach())
    assert torch.allclose(*results, rtol=0, atol=1e-12)


@pytest.mark.parametrize("shape", [(6,), (7, 6), (1, 7), (6, 1)])
def test_add_grad_refuses_other_shapes(shape):
    net = small_net()
    with pytest.raises(ValueError, match="gradient has shape .*its parameter"):
        Rule(net).add_grad(net.weights[0], torch.zeros(shape, dtype=torch.float64))


def test_step_takes_the_optimiser_step_and_returns_the_loss_before_it():
    net = small_net()
    rule, (x, y) = Backprop(net), batch(net)
    before = [p.detach().clone() for p in net.parameters()]
    expected = net.loss(net(x), y).item()
    gradient = grads(rule, x, y)  # leaves .grad filled: step must start from zero
    loss = rule.step(x, y, torch.optim.SGD(rule.parameters(), lr=0.1))
    assert loss.item() == pytest.approx(expected, abs=1e-14)
    assert (
        largest_difference([b - 0.1 * g for b, g in zip(before, gradient, strict=True)], list(net.parameters())) < 1e-15
    )
    assert net.loss(net(x), y).item() < expected


def test_predict_gives_scores_without_a_graph():
    net = small_net()
    x, _ = batch(net)
    scores = Backprop(net).predict(x)
    assert torch.equal(scores, net(x)) and not scores.requires_grad


def test_feedback_weights_hold_buffers_and_parameters():
    shared = torch.nn.Parameter(torch.randn(3, 5))
    feedback = FeedbackWeights([None, torch.randn(5, 6), shared])
    assert len(feedback) == 3 and feedback[0] is None and feedback[-1] is shared
    assert [type(t) for t in feedback] == [type(None), torch.Tensor, torch.nn.Parameter]
    assert [id(p) for p in feedback.parameters()] == [id(shared)]
    assert set(feedback.state_dict()) == {"1", "2"}
    assert feedback.double()[1].dtype == torch.float64
    with pytest.raises(IndexError):
        feedback[3]


def test_feedback_weights_never_share_memory_with_what_they_were_given():
    net = small_net()
    feedback = FeedbackWeights([None] + [w.detach() for w in net.weights[1:]])
    rule = FeedbackAlignment(net).double()
    rule.feedback_weights[1] = net.weights[1]
    copied = net.weights[1].detach().clone()
    with torch.no_grad():
        net.weights[1].add_(1)
    assert torch.equal(rule.feedback_weights[1], copied) and torch.equal(feedback[1], copied)
    assert not isinstance(rule.feedback_weights[1], torch.nn.Parameter)
    assert not rule.feedback_weights[1].requires_grad


@pytest.mark.parametrize(
    "l, value",
    [(1, torch.zeros(6, 5)), (1, torch.zeros(5)), (1, 2.0), (1, None), (0, torch.zeros(6, 7)), (-1, torch.zeros(3, 6))],
)
def test_feedback_weights_refuse_what_does_not_fit(l, value):
    rule = FeedbackAlignment(small_net())
    with pytest.raises(ValueError, match="feedback_weights"):
        rule.feedback_weights[l] = value


def test_feedback_travels_in_state_dict_and_each_parameter_counts_once():
    net = small_net()
    rule = FeedbackAlignment(net, seed=1).double()
    assert len(list(rule.parameters())) == len({id(p) for p in rule.parameters()}) == 6
    other = FeedbackAlignment(small_net(seed=5), seed=2).double()
    assert not torch.equal(other.feedback_weights[1], rule.feedback_weights[1])
    other.load_state_dict(rule.state_dict())
    x, y = batch(net)
    assert largest_difference(grads(other, x, y), grads(rule, x, y)) == 0


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_a_rule_of_your_own_trains(optimizer):
    data, lr = clusters(), 0.1 if optimizer == "sgd" else 0.01
    rule = AutogradRule(small_net((12, 9, 4), dtype=torch.float32))
    history = cu.train(rule, data, epochs=3, lr=lr, batch_size=16, optimizer=optimizer, progress=False)
    assert history.status == "done" and cu.evaluate(rule, data.x_test, data.y_test) > 0.95


@pytest.mark.parametrize(
    "card, words", [({"weight_transport": "perhaps"}, "write one of: no"), ({"speed": "no"}, "the columns")]
)
def test_a_card_in_other_words_is_refused_when_the_class_is_made(card, words):
    with pytest.raises(ValueError, match=words):
        type("Odd", (AutogradRule,), {"plausibility": card})


def test_layers_may_ask_for_rates_of_their_own():
    class TwoRates(AutogradRule):
        def parameter_groups(self, lr):
            return [{"params": list(self.net.weights), "lr": lr}, {"params": list(self.net.biases), "lr": 3 * lr}]

    seen = []

    class Watched(TwoRates):
        def step(self, x, y, optimizer):
            seen.append([group["lr"] for group in optimizer.param_groups])
            return super().step(x, y, optimizer)

    rule = Watched(small_net((12, 9, 4), dtype=torch.float32))
    cu.train(rule, clusters(), epochs=1, batch_size=16, lr=[(0, 0.1), (64, 0.02)], schedule="constant", progress=False)
    assert seen[0] == pytest.approx([0.1, 0.3]) and seen[-1] == pytest.approx([0.02, 0.06])
