"""What every rule of the course promises, whatever it does: one test for all, so that no lesson repeats it."""

import copy

import pytest
import torch
from helpers import batch, clusters, grads, largest_difference, small_net, snapshot, unused_biases

import course_utils as cu
from course_utils import rules
from course_utils.controls import FrozenHidden
from course_utils.rule import CRITERIA, LOOKS, Rule

ALL = list(rules.ALL.values())


def variants():
    """Every rule as it comes, and with each other choice of each of its choices: (class, knobs)."""
    for rule_class in ALL:
        yield pytest.param(rule_class, {}, id=rule_class.__name__)
        for name, knob in rule_class.knobs.items():
            for choice in knob.choices or ():
                if choice != knob.default and name not in NAMES_OF_RULES:
                    yield pytest.param(rule_class, {name: choice}, id=f"{rule_class.__name__}({name}={choice!r})")


NAMES_OF_RULES = ("first", "second", "hidden", "readout", "rule")  # of the hybrids: their parts are rules tested here
every_rule = pytest.mark.parametrize("rule_class", ALL, ids=lambda rule_class: rule_class.__name__)
every_variant = pytest.mark.parametrize("rule_class, knobs", variants())


def made(rule_class, sizes=(12, 11, 9, 4), seed=0, **knobs):
    return rule_class(small_net(sizes, seed=seed, dtype=torch.float32), seed=seed, **knobs)


def trained(rule_class, seed=0, knobs=None, **settings):
    rule = made(rule_class, seed=seed, **(knobs or {}))
    settings = {"epochs": 1, "lr": 0.01, "batch_size": 16, "seed": seed, **settings}
    cu.train(rule, clusters(blank=4), progress=False, **settings)
    return rule


def test_every_exported_rule_is_listed_under_its_name():
    assert {"Backprop", "FeedbackAlignment"} <= set(rules.ALL)
    for name, rule_class in rules.ALL.items():
        assert rule_class.__name__ == name and issubclass(rule_class, Rule) and getattr(rules, name) is rule_class


@every_rule
def test_it_has_a_title_a_rate_a_look_of_its_own_and_says_what_it_is(rule_class):
    assert rule_class.title != Rule.title and rule_class.lr > 0 and rule_class.__doc__
    assert "look" in vars(rule_class) and LOOKS[rule_class.title] == rule_class.look
    assert [other.title for other in ALL].count(rule_class.title) == 1
    assert [other.look for other in ALL if other is not rule_class].count(rule_class.look) == 0


@every_rule
def test_it_fills_in_the_whole_plausibility_card_in_the_words_of_the_course(rule_class):
    card = made(rule_class).plausibility
    assert tuple(card) == tuple(CRITERIA)
    assert all(words is None or card[column] in words for column, words in CRITERIA.items())


@every_variant
def test_backward_changes_nothing_but_grad(rule_class, knobs):
    net = small_net()
    rule, (x, y) = rule_class(net, seed=3, **knobs), batch(net)
    before, data = snapshot(rule), (x.clone(), y.clone())
    loss = rule.backward(x, y)
    after = snapshot(rule)
    for changed in ("grad", "generator"):  # a rule may use its own generator
        before.pop(changed), after.pop(changed)
    assert before == after
    assert torch.equal(x, data[0]) and torch.equal(y, data[1])
    assert loss.shape == () and not loss.requires_grad
    assert all(not p.grad.requires_grad for p in net.parameters() if p.grad is not None)


@every_rule
def test_one_example_and_one_layer_are_enough(rule_class):
    for sizes in ((7, 3), (7, 6, 3)):
        rule = rule_class(net := small_net(sizes))
        unused = {id(b) for b in unused_biases(rule)}
        found = zip(net.parameters(), grads(rule, *batch(net, n=1)), strict=True)
        assert all(g is None if id(p) in unused else torch.isfinite(g).all() for p, g in found)


@every_rule
@pytest.mark.parametrize("what", ["width", "nan", "empty", "labels", "length"])
def test_bad_input_is_refused_and_nothing_filled(rule_class, what):
    net = small_net()
    rule, (x, y) = rule_class(net), batch(net)
    bad = {
        "width": (x[:, :-1], y),
        "nan": (x * float("nan"), y),
        "empty": (x[:0], y[:0]),
        "labels": (x, y + 3),
        "length": (x, y[:-1]),
    }[what]
    with pytest.raises(ValueError, match=r"^[xy] "):
        rule.backward(*bad)
    assert all(p.grad is None for p in rule.parameters())


@every_variant
def test_it_trains_alike_from_one_seed_and_otherwise_from_another(rule_class, knobs):
    one, again, other = (trained(rule_class, seed, knobs).state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(one[name], again[name]) for name in one)
    assert not torch.equal(one["net.weights.0"], other["net.weights.0"])


@every_variant
def test_probing_leaves_no_trace(rule_class, knobs):
    plain, probed = (trained(rule_class, 0, knobs, probe_every=every).state_dict() for every in (0, 48))
    assert all(torch.equal(plain[name], probed[name]) for name in plain)


@every_variant
def test_its_state_travels(rule_class, knobs):
    """All a rule has learned or drawn is in its state_dict, and so are the random numbers that it will draw."""
    source, fresh = trained(rule_class, 0, knobs), made(rule_class, seed=5, **knobs)
    fresh.load_state_dict(source.state_dict())
    data = clusters(blank=4)
    assert largest_difference(*(grads(r, data.x_train[:7], data.y_train[:7]) for r in (source, fresh))) == 0
    assert torch.equal(fresh.predict(data.x_test), source.predict(data.x_test))


def mean_estimate(rule, x, y, draws):
    """The mean of many estimates, flat, zeros where the rule teaches nothing."""
    total = 0.0
    for _ in range(draws):
        total = total + torch.cat([g.flatten() if g is not None else g for g in grads(rule, x, y) if g is not None])
    return total / draws


@every_variant
def test_a_batch_given_four_times_over_gives_the_same_gradient(rule_class, knobs):
    """The mean over the batch, not its sum: exactly where the rule draws nothing, in the mean where it does."""
    rule = made(rule_class, sizes=(7, 6, 5, 3), seed=2, **knobs).double()
    x, y = batch(rule.net, n=5)
    state = rule.generator.get_state()
    once = mean_estimate(rule, x, y, 1)
    if torch.equal(state, rule.generator.get_state()):
        assert (mean_estimate(rule, x.repeat(4, 1), y.repeat(4), 1) - once).abs().max() < 1e-12
        return
    once, more = mean_estimate(rule, x, y, 600), mean_estimate(rule, x.repeat(4, 1), y.repeat(4), 600)
    assert 0.6 < (once @ more / (once @ once)).item() < 1.6  # a sum would be 4, a mean taken twice 1/4


@every_rule
def test_knobs_refuse_the_same_values_in_the_constructor_afterwards_and_in_training(rule_class):
    rule = made(rule_class)
    for name, knob in rule_class.knobs.items():
        for bad in ("unheard of", None, float("nan"), -1.5, [2]):
            with pytest.raises(ValueError, match=f"^{name} is"):
                made(rule_class, **{name: bad})
            with pytest.raises(ValueError, match=f"^{name} is"):
                setattr(rule, name, bad)
            if knob.live:
                with pytest.raises(ValueError, match=f"^{name} is"):
                    cu.train(rule, clusters(blank=4), knobs={name: bad}, epochs=1, batch_size=16, progress=False)
        assert getattr(rule, name) == knob.default
    with pytest.raises(TypeError, match="no knob unheard_of"):
        made(rule_class, unheard_of=1)


@every_rule
def test_both_ends_of_every_slider_are_allowed(rule_class):
    for name, knob in rule_class.knobs.items():
        for end in (knob.slider or ())[:2]:
            value = type(knob.default)(end)
            assert getattr(made(rule_class, **{name: value}), name) == value


@every_rule
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


@every_rule
def test_a_copy_is_a_rule_of_its_own(rule_class):
    rule = trained(rule_class)
    twin = copy.deepcopy(rule)
    data = clusters(blank=4)
    before = rule.predict(data.x_test)
    cu.train(twin, data, epochs=1, lr=0.05, batch_size=16, progress=False)
    assert torch.equal(rule.predict(data.x_test), before) and not torch.equal(twin.predict(data.x_test), before)
