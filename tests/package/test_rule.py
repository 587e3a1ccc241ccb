"""The base class, feedback weights and the frozen control."""

import numpy as np
import pytest
import torch
from helpers import AutogradRule, batch, clusters, grads, largest_difference, small_net

import course_utils as cu
from course_utils.controls import Around, FrozenHidden
from course_utils.rule import FeedbackWeights, Knob, Rule, above, at_least, between, one_of, whole
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


# ------------------------------------------------------------------ knobs


class Knobby(AutogradRule):
    title = "Knobby"
    gain = Knob(1.0, above(0), slider=(0.1, 10, "log"), live=True)
    tries = Knob(2, whole(1))
    mode = Knob("slow", one_of("slow", "fast"))
    share = Knob(0.5, between(0, 1), live=True)


def test_a_knob_has_its_default_or_what_the_constructor_is_told():
    plain, told = Knobby(small_net()), Knobby(small_net(), gain=np.float32(0.5), tries=np.int64(3), mode="fast")
    assert (plain.gain, plain.tries, plain.mode, plain.share) == (1.0, 2, "slow", 0.5)
    assert (told.gain, told.tries, told.mode) == (0.5, 3, "fast") and type(told.tries) is int
    plain.gain = 3
    assert plain.gain == 3 and told.gain == 0.5 and Knobby.gain.default == 1.0
    assert list(Knobby.knobs) == ["gain", "tries", "mode", "share"] and Knobby.live_knobs == ("gain", "share")


@pytest.mark.parametrize(
    "name, bad, words",
    [
        ("gain", 0, "gain is 0; it must be a number above 0"),
        ("gain", "much", "gain is 'much'; it must be a number above 0"),
        ("gain", True, "gain is True"),
        ("tries", 2.5, "tries is 2.5; it must be a whole number, 1 or larger"),
        ("tries", 0, "tries is 0"),
        ("mode", "quick", "mode is 'quick'; it must be one of: 'slow', 'fast'"),
        ("share", 1.01, "share is 1.01; it must be a number from 0 to 1"),
    ],
)
def test_a_knob_refuses_what_is_not_allowed_by_name(name, bad, words):
    with pytest.raises(ValueError, match=words):
        Knobby(small_net(), **{name: bad})
    rule = Knobby(small_net())
    with pytest.raises(ValueError, match=words):
        setattr(rule, name, bad)
    assert getattr(rule, name) == Knobby.knobs[name].default


def test_a_subclass_may_add_change_and_drop_knobs_and_keep_an_ordinary_init():
    class Less(Knobby):
        mode = "fast"
        gain = Knob(2.0, at_least(0))
        extra = Knob(0.0, at_least(0))

        def __init__(self, net, seed=0, **knobs):
            super().__init__(net, seed, **knobs)
            self.register_buffer("trace", self.extra * net.weights[0].detach())

    rule = Less(small_net(), extra=2.0)
    assert set(Less.knobs) == {"tries", "share", "gain", "extra"} and Less.live_knobs == ("share",)
    assert rule.mode == "fast" and rule.gain == 2.0 and "trace" in rule.state_dict()
    with pytest.raises(TypeError, match="Less has no knob mode; its knobs are: "):
        Less(small_net(), mode="slow")


@pytest.mark.parametrize("slider", [(2.0, 3.0, "log"), (0.0, 2.0, "log"), (1.0, 1.0, "linear"), (0.0, 2.0, "cubic")])
def test_a_slider_without_room_for_the_default_is_refused(slider):
    with pytest.raises(ValueError, match="slider is"):
        Knob(1.0, at_least(0), slider=slider)


def test_a_default_that_is_not_allowed_is_refused():
    with pytest.raises(ValueError, match="knob is -1"):
        Knob(-1, at_least(0))


def test_knobs_as_a_dictionary_of_ranges_are_refused_with_the_way_to_write_them():
    with pytest.raises(ValueError, match="declare each in the class"):
        type("Old", (AutogradRule,), {"knobs": {"gain": (0.0, 1.0, "linear")}})


@pytest.mark.parametrize(
    "card, words", [({"weight_transport": "perhaps"}, "write one of: no"), ({"speed": "no"}, "the columns")]
)
def test_a_card_in_other_words_is_refused_when_the_class_is_made(card, words):
    with pytest.raises(ValueError, match=words):
        type("Odd", (AutogradRule,), {"plausibility": card})


# ------------------------------------------------------------------ wrappers


class Loud(Around):
    """Says when it steps."""

    steps = 0

    def step(self, x, y, optimizer):
        self.steps += 1
        return super().step(x, y, optimizer)


def test_a_wrapper_hands_over_all_it_does_not_change():
    inner = Knobby(small_net((12, 9, 4), dtype=torch.float32), seed=3, tries=4)
    inner.register_buffer("memory", torch.ones(2))
    around = Loud(FrozenHidden(Loud(inner)))
    assert around.generator is inner.generator and around.seed == 3 and around.tries == 4
    assert around.memory is inner.memory and around.knobs is inner.knobs and around.live_knobs == ("gain", "share")
    assert around.lr == inner.lr and around.plausibility == inner.plausibility
    around.gain = 0.25
    assert inner.gain == 0.25
    with pytest.raises(ValueError, match="share is 7"):
        around.share = 7
    with pytest.raises(AttributeError, match="nothing"):
        _ = around.nothing
    settings = dict(epochs=1, batch_size=16, lr=0.05, knobs={"gain": [(0, 0.5), (64, 2.0)]}, progress=False)
    history = cu.train(around, clusters(), **settings)
    assert inner.gain == 2.0 and around.steps == history.steps == around.rule.rule.steps
    x, y = clusters().x_train[:5], clusters().y_train[:5]
    assert cu.metrics.gradient_statistics(around, x, y, draws=20).variance.iloc[-1] < 1e-9


def test_the_control_of_a_rule_with_parameters_of_its_own_asks_which_are_hidden():
    class Larger(AutogradRule):
        def __init__(self, net, seed=0):
            super().__init__(net, seed)
            self.own = torch.nn.Parameter(torch.ones(2))

    with pytest.raises(ValueError, match="hidden_parameters"):
        FrozenHidden(Larger(small_net()))

    class Says(Larger):
        def hidden_parameters(self):
            return [*super().hidden_parameters(), self.own]

    control = FrozenHidden(Says(small_net()))
    assert any(p is control.rule.own for p in control.hidden_parameters())


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
