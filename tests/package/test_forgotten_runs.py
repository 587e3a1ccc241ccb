"""A run that was left hanging ends with its interpreter, with its cell, or with its playground."""

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import Knobby
from helpers.small_training import DATA

import course_utils as cu

ROOT = Path(__file__).resolve().parents[2]

HANGING = """
import torch
import course_utils as cu
from course_utils.data import Dataset
from course_utils.settings import Settings
from course_utils.training import steps

x, y = torch.randn(300, 12), torch.arange(300) % 4
rule = cu.rules.Backprop(cu.MLP([12, 9, 4]))
runner = steps(rule, Dataset("mine", "mine", x, y, x, y, x, y), Settings(epochs=50, activity_noise=0.1))
for _ in range(5):
    history = next(runner)
print(history.samples)
"""


def test_a_script_that_leaves_a_run_hanging_ends_well():
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    said = subprocess.run([sys.executable, "-c", HANGING], env=env, capture_output=True, text=True)
    assert (said.returncode, said.stdout, said.stderr) == (0, "428\n", "")


def playing(act):
    """act(lab), an awaitable, while Train drives lab's run; the run's History then, and its steps some chunks later."""

    async def play():
        lab = cu.playground(Knobby, data=DATA, epochs=100_000)
        lab.train.click()
        while not lab.history.steps:
            await asyncio.sleep(0)
        old, task = lab.history, lab.task
        other = act(lab)
        await asyncio.wait_for(task, timeout=60)
        steps = old.steps
        for _ in range(100):
            await asyncio.sleep(0)
        assert old.steps == steps and lab.task is None
        return old, other

    return asyncio.run(play())


def test_the_cell_run_again_ends_the_run_that_it_left_training():
    old, new = playing(lambda lab: cu.playground(Knobby, data=DATA))
    assert old.status == "stopped" and new.run_steps(2).steps == 2


def test_a_playground_taken_off_the_page_ends_its_run():
    assert playing(lambda lab: lab.close())[0].status == "stopped"


def test_two_playgrounds_made_first_train_side_by_side():
    async def play():
        labs = [cu.playground(Knobby, data=DATA, epochs=100_000) for _ in range(2)]
        for lab in labs:
            lab.train.click()
        while not all(lab.history.steps > 20 for lab in labs):
            await asyncio.sleep(0)
        assert [lab.history.status for lab in labs] == ["running", "running"]
        for lab in labs:
            lab.stop.click()
            await asyncio.sleep(0)

    asyncio.run(asyncio.wait_for(play(), timeout=60))


def test_a_half_way_run_that_nobody_drives_stays_as_it_is():
    lab = cu.playground(Knobby, data=DATA)
    lab.run_steps(3)
    cu.playground(Knobby, data=DATA)
    assert lab.run_steps(2).steps == 5


def test_a_playground_that_was_refused_is_closed_without_a_word(recwarn):
    with pytest.raises(ValueError):
        cu.playground(Knobby, data=DATA, sizes=[3, 4])
    assert not recwarn.list
