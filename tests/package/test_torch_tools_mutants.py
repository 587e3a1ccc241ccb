"""The promises of test_torch_tools.py, each broken on purpose: what would then go wrong does."""

import contextlib

import torch
from helpers import grads, mutant
from helpers.small_training import DATA, new_rule, same_weights, train

from course_utils import evaluation
from course_utils.rule import Rule
from course_utils.rules import Backprop, NodePerturbation


def test_an_add_grad_that_does_not_look_moves_a_frozen_layer(monkeypatch):
    monkeypatch.setattr(Rule, "add_grad", mutant(Rule.add_grad, "if not parameter.requires_grad:", "if False:"))
    rule = new_rule()
    w = rule.net.weights[0].requires_grad_(False)
    rule.step(DATA.x_val, DATA.y_val, torch.optim.SGD(rule.parameters(), lr=0.1))
    assert not torch.equal(w, new_rule().net.weights[0])


def test_under_autocast_a_run_that_keeps_torch_s_cache_goes_on_with_its_first_weights(monkeypatch):
    def under_autocast():
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return train(epochs=4)[1].frame.val_loss.iloc[-1]

    learned = under_autocast()
    monkeypatch.setattr(torch, "clear_autocast_cache", lambda: None)
    assert learned < 0.3 and under_autocast() > 1


def test_a_state_without_its_generator_draws_other_numbers(monkeypatch):
    monkeypatch.setattr(Rule, "set_extra_state", lambda rule, state: None)
    source, fresh = new_rule(NodePerturbation, seed=3), new_rule(NodePerturbation)
    fresh.load_state_dict(source.state_dict())
    one, two = (grads(rule, DATA.x_val, DATA.y_val) for rule in (source, fresh))
    assert torch.equal(source.net.weights[0], fresh.net.weights[0]) and not torch.equal(one[0], two[0])


def test_metrics_that_are_not_kept_apart_change_the_run(monkeypatch):
    def heedless(rule, x, y):
        with torch.no_grad():
            rule.net.weights[0].add_(0.1)
        return 0.0

    plain, _ = train()
    kept, _ = train(metrics={"heedless": heedless})
    monkeypatch.setattr(evaluation, "no_trace", lambda rule: contextlib.nullcontext())
    moved, _ = train(new_rule(Backprop), metrics={"heedless": heedless})
    assert same_weights(plain, kept) and not same_weights(plain, moved)
