"""Every rule under what PyTorch users do to gradients, parameters and files."""

import copy
import io
import pickle

import pytest
import torch
from helpers import batch, clusters, grads, small_net, unused_biases

import course_utils as cu
from course_utils.controls import FrozenHidden

DATA = clusters(blank=4)  # room for the label that Forward-Forward writes
every_rule = pytest.mark.parametrize("rule_class", cu.rules.ALL.values(), ids=cu.rules.ALL)


def made(rule_class, seed=0):
    return rule_class(small_net((12, 11, 9, 4), seed=seed, dtype=torch.float32), seed=seed)


def run(rule, **settings):
    settings = {"epochs": 0.5, "batch_size": 16, "lr": 0.01, "progress": False, **settings}
    return cu.train(rule, DATA, **settings)


@every_rule
def test_scaling_grad_in_place_scales_every_gradient_once_and_touches_nothing_else(rule_class):
    rule = made(rule_class)
    x, y = DATA.x_train[:16].clone(), DATA.y_train[:16]
    rule.backward(x, y)
    filled = {name: p.grad for name, p in rule.named_parameters() if p.grad is not None}
    before, state = {name: g.clone() for name, g in filled.items()}, copy.deepcopy(rule.state_dict())
    for gradient in filled.values():
        gradient *= 0.5
    assert filled and all(torch.equal(g, before[name] / 2) for name, g in filled.items())
    assert all(torch.equal(value, state[name]) for name, value in rule.state_dict().items())
    assert torch.equal(x, DATA.x_train[:16])
    total = torch.nn.utils.clip_grad_norm_(rule.parameters(), 1e-3)
    assert all(torch.allclose(g, before[name] / 2 * 1e-3 / total, rtol=1e-3) for name, g in filled.items())


@every_rule
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_what_has_requires_grad_false_stays_and_all_else_learns(rule_class, optimizer):
    rule = made(rule_class)
    frozen = [rule.net.weights[0], rule.net.biases[-1], *list(getattr(rule, "feedback_weights", ()))[-1:]]
    frozen = [p.requires_grad_(False) for p in frozen if isinstance(p, torch.nn.Parameter)]
    frozen += unused_biases(rule)
    before = [(p, p.detach().clone()) for p in rule.parameters()]
    assert run(rule, optimizer=optimizer, probe_every=64).status == "done"
    for p, old in before:
        assert torch.equal(p, old) == any(p is still for still in frozen)


@every_rule
def test_autocast_trains_in_the_type_of_the_weights_or_is_refused_by_name(rule_class):
    rule = made(rule_class)
    before = copy.deepcopy(rule.state_dict())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        try:
            assert run(rule).status == "done"
        except ValueError as error:
            assert "autocast is on" in str(error)
            assert all(torch.equal(value, before[name]) for name, value in rule.state_dict().items())
            return
    assert {p.dtype for p in rule.parameters()} == {torch.float32}
    assert not torch.equal(rule.net.weights[-1], before["net.weights.2"])


def saved(rule):
    file = io.BytesIO()
    torch.save(rule, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


@every_rule
@pytest.mark.parametrize("again", [copy.deepcopy, lambda rule: pickle.loads(pickle.dumps(rule)), saved])
@pytest.mark.parametrize("around", [lambda rule: rule, FrozenHidden])
def test_a_copy_takes_the_same_next_step_bit_for_bit(rule_class, again, around):
    rule = around(made(rule_class))
    run(rule, epochs=0.2)
    twin = again(rule)
    for one in (rule, twin):
        run(one, epochs=0.2)
    assert all(torch.equal(a, b) for a, b in zip(rule.state_dict().values(), twin.state_dict().values(), strict=True))
    assert type(twin) is type(rule)


@every_rule
def test_its_state_holds_its_generator_and_loads_without_pickle(rule_class):
    rule, fresh, file = made(rule_class), made(rule_class, seed=5), io.BytesIO()
    run(rule, epochs=0.2)
    torch.save(rule.state_dict(), file)
    file.seek(0)
    fresh.load_state_dict(torch.load(file, weights_only=True))
    assert torch.equal(fresh.generator.get_state(), rule.generator.get_state())
    for one in (rule, fresh):
        run(one, epochs=0.2)
    pairs = zip(rule.state_dict().values(), fresh.state_dict().values(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


def runs_along(rule, x, y):
    """Do means and spreads behind its scores move in `step`, at a rate of 0 too? Then its first loss is no measure."""
    still = copy.deepcopy(rule)
    still.step(x, y, torch.optim.SGD(still.parameters(), lr=0.0))
    return not torch.equal(still.predict(x), rule.predict(x))


@every_rule
def test_it_learns_values_and_shows_the_loss(rule_class):
    """Or, where its objective is another one, trains at least."""
    net = small_net(loss="squared_error")
    x, y = batch(net, n=64, targets="values")
    x[:, :3] = 0  # room for a label
    data = cu.data.Dataset("values", "values", x, y, x, y, x, y)
    rule = rule_class(net).double()
    begin = 1 if runs_along(rule, x, y) else 0
    history = cu.train(rule, data, epochs=3, lr=0.002, batch_size=8, progress=False)
    assert history.status == "done" and history.frame[["train_accuracy", "val_accuracy"]].isna().all(axis=None)
    loss = history.frame.val_loss
    assert loss.iloc[-1] < loss[begin] if rule_class.loss_name == "loss" else loss.isna().all()


@every_rule
def test_a_network_of_one_s_own_is_taught_or_refused_in_a_sentence(rule_class):
    from helpers.own_network import TwoLinear

    try:
        rule = rule_class(TwoLinear())
        assert run(rule).status == "done" and not all(g is None for g in grads(rule, DATA.x_val, DATA.y_val))
    except ValueError as error:
        assert "net is a TwoLinear: " in str(error)
