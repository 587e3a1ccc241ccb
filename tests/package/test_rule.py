"""The base class, feedback weights and the frozen control."""

import pytest
import torch
from helpers import AutogradRule, batch, clusters, grads, largest_difference, small_net, snapshot

import course_utils as cu
from course_utils.rule import CRITERIA, FeedbackWeights, FrozenHidden, Rule
from course_utils.rules import Backprop, FeedbackAlignment

ALL_RULES = list(cu.rules.ALL.values())


def test_every_exported_rule_is_listed_under_its_name():
    assert {"Backprop", "FeedbackAlignment"} <= set(cu.rules.ALL)
    for name, rule_class in cu.rules.ALL.items():
        assert rule_class.__name__ == name and issubclass(rule_class, Rule) and getattr(cu.rules, name) is rule_class
        assert rule_class.title != Rule.title and rule_class.lr > 0


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


@pytest.mark.parametrize("rule_class", ALL_RULES)
def test_backward_changes_nothing_but_grad(rule_class):
    net = small_net()
    rule, (x, y) = rule_class(net, seed=3), batch(net)
    before, data = snapshot(rule), (x.clone(), y.clone())
    loss = rule.backward(x, y)
    after = snapshot(rule)
    if rule_class in (Backprop, FeedbackAlignment):
        assert before["generator"] == after["generator"]
    for changed in ("grad", "generator"):  # a rule may use its own generator
        before.pop(changed), after.pop(changed)
    assert before == after
    assert torch.equal(x, data[0]) and torch.equal(y, data[1])
    assert loss.shape == () and not loss.requires_grad
    assert all(not p.grad.requires_grad for p in net.parameters() if p.grad is not None)


@pytest.mark.parametrize("rule_class", ALL_RULES)
def test_backward_works_for_one_example_and_one_layer(rule_class):
    for sizes in ((7, 3), (7, 6, 3)):
        net = small_net(sizes)
        assert all(torch.isfinite(g).all() for g in grads(rule_class(net), *batch(net, n=1)))


@pytest.mark.parametrize("rule_class", ALL_RULES)
@pytest.mark.parametrize("what", ["width", "nan", "empty", "labels", "length"])
def test_backward_refuses_bad_input_and_fills_nothing(rule_class, what):
    net = small_net()
    rule, (x, y) = rule_class(net), batch(net)
    bad = {
        "width": (x[:, :-1].contiguous(), y),
        "nan": (x * float("nan"), y),
        "empty": (x[:0], y[:0]),
        "labels": (x, y + 3),
        "length": (x, y[:-1]),
    }[what]
    with pytest.raises(ValueError, match=r"^[xy] "):
        rule.backward(*bad)
    assert all(p.grad is None for p in rule.parameters())


def trained(rule_class, seed, **settings):
    rule = rule_class(small_net((12, 11, 9, 4), seed=seed, dtype=torch.float32), seed=seed)
    settings = {"epochs": 1, "lr": 0.01, "batch_size": 16, "seed": seed, **settings}
    cu.train(rule, clusters(), progress=False, **settings)
    return rule


@pytest.mark.parametrize("rule_class", ALL_RULES)
def test_every_rule_trains_alike_from_one_seed_and_otherwise_from_another(rule_class):
    one, again, other = (trained(rule_class, seed).state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(one[name], again[name]) for name in one)
    assert not torch.equal(one["net.weights.0"], other["net.weights.0"])


@pytest.mark.parametrize("rule_class", ALL_RULES)
def test_probing_leaves_no_trace_in_any_rule(rule_class):
    plain, probed = (trained(rule_class, 0, probe_every=every).state_dict() for every in (0, 48))
    assert all(torch.equal(plain[name], probed[name]) for name in plain)


@pytest.mark.parametrize("rule_class", ALL_RULES)
def test_the_state_of_every_rule_travels(rule_class):
    """All a rule has learned or drawn at its beginning is in its state_dict, its generator aside."""
    source, fresh = trained(rule_class, 0), rule_class(small_net((12, 11, 9, 4), seed=5, dtype=torch.float32), seed=5)
    fresh.load_state_dict(source.state_dict())
    fresh.generator.set_state(source.generator.get_state())
    data = clusters()
    assert largest_difference(*(grads(r, data.x_train[:7], data.y_train[:7]) for r in (source, fresh))) == 0
    assert torch.equal(fresh.predict(data.x_test), source.predict(data.x_test))


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


@pytest.mark.parametrize("rule_class", ALL_RULES)
def test_frozen_hidden_teaches_the_readout_alone_and_as_the_rule_does(rule_class):
    net = small_net()
    x, y = batch(net)
    alone = rule_class(net, seed=1).double()
    if hasattr(alone, "perturb_hidden"):  # such a rule draws no noise for layers that do not learn
        alone.perturb_hidden = False
    whole, again = grads(alone, x, y), grads(alone, x, y)
    control = FrozenHidden(rule_class(net, seed=1).double())
    frozen = grads(control, x, y)
    assert [g is None for g in frozen] == [True, True, False, True, True, False]  # weights, then biases
    assert torch.equal(frozen[2], whole[2]) and torch.equal(frozen[5], whole[5])
    net.weights[0].grad = torch.ones_like(net.weights[0])
    control.backward(x, y)
    assert (net.weights[0].grad == 1).all() and net.weights[1].grad is None
    assert torch.allclose(net.weights[2].grad, frozen[2] + again[2], rtol=1e-14, atol=0)
    with pytest.raises(ValueError):
        control.backward(x[:, :-1], y)
    assert (net.weights[0].grad == 1).all()
    assert len(list(control.parameters())) == len({id(p) for p in control.parameters()})


def test_frozen_hidden_weights_do_not_move_in_training():
    net = small_net((12, 9, 8, 4), dtype=torch.float32)
    before = [p.detach().clone() for p in net.parameters()]
    cu.train(FrozenHidden(Backprop(net)), clusters(), epochs=2, lr=0.1, batch_size=16, progress=False)
    moved = [not torch.equal(a, b) for a, b in zip(before, net.parameters(), strict=True)]
    assert moved == [False, False, True, False, False, True]


def test_frozen_hidden_turns_perturbation_of_hidden_units_off():
    class Perturbing(Backprop):
        perturb_hidden = True

    rule = Perturbing(small_net())
    FrozenHidden(rule)
    assert rule.perturb_hidden is False


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_a_rule_of_your_own_trains(optimizer):
    data, lr = clusters(), 0.1 if optimizer == "sgd" else 0.01
    rule = AutogradRule(small_net((12, 9, 4), dtype=torch.float32))
    history = cu.train(rule, data, epochs=3, lr=lr, batch_size=16, optimizer=optimizer, progress=False)
    assert history.status == "done" and cu.evaluate(rule, data.x_test, data.y_test) > 0.95


def test_every_rule_fills_in_the_whole_plausibility_card():
    for name, rule_class in cu.rules.ALL.items():
        assert tuple(rule_class.plausibility) == CRITERIA, name
        assert rule_class.title != Rule.title and rule_class.__doc__, name
