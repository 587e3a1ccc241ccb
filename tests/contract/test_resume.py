"""Every rule, and its control, can be stopped and gone on with: weights and rows of one long run, bit for bit."""

import pytest
import torch
from helpers import clusters, small_net
from helpers.checkpoints import same_run

import course_utils as cu

DATA = clusters(blank=4)  # Forward-Forward puts its label there
HOW = {"epochs": 2, "lr": 0.01, "batch_size": 16, "input_noise": 0.1, "activity_noise": 0.1, "progress": False}


def control(rule):
    try:
        return cu.FrozenHidden(rule)
    except ValueError as error:  # it says why there is none
        pytest.skip(str(error))


@pytest.mark.parametrize("wrap", [lambda rule: rule, control], ids=["rule", "control"])
@pytest.mark.parametrize("name", cu.rules.ALL)
def test_a_resumed_run_is_the_run_that_was_never_stopped(name, wrap, tmp_path):
    def make():
        return wrap(cu.rules.ALL[name](small_net((12, 11, 9, 4), seed=3, dtype=torch.float32), seed=5))

    rule = make()
    history = cu.train(rule, DATA, **HOW)
    cu.train(make(), DATA, **HOW, stop_after=230, checkpoint=tmp_path / "run")
    again = cu.resume(tmp_path / "run", data=DATA, progress=False)  # the file makes the rule
    assert same_run((history, rule), again) and type(again[1]) is type(rule)
