"""Data of one's own, and those that all share, where they are used: sweeps, Forward-Forward, changes in place."""

import os
import subprocess
import sys
from dataclasses import replace

import joblib
import numpy as np
import pytest
import torch
from helpers import clusters
from helpers.small_mnist import write_small

import course_utils as cu
from course_utils import data as data_module
from course_utils import files
from course_utils.checkpoints import loaded_as

SWEEP = {"sizes": [12, 9, 4], "lr": 0.05, "seeds": 2, "epochs": 1, "batch_size": 16, "progress": False}
MEASURED = ["rule", "dataset", "seed", "samples", "val_accuracy", "test_accuracy"]


# ------------------------------------------------------------------ in a sweep


def swept(folder, data, **changes):
    return cu.sweep(["Backprop", "FeedbackAlignment"], data, folder=folder, **(SWEEP | changes))


def test_a_sweep_of_data_of_ones_own_gives_what_train_gives(tmp_path):
    data = replace(clusters(), name="mine", requested="mine")
    frame = swept(tmp_path, data)
    assert set(frame.dataset) == {"mine"} and len(list(tmp_path.glob("*.csv"))) == 4
    rule = cu.rules.Backprop(cu.MLP([12, 9, 4], seed=1), seed=1)
    history = cu.train(rule, data, lr=0.05, epochs=1, batch_size=16, seed=1, progress=False)
    mine = frame[(frame.rule == "Backprop") & (frame.seed == 1)]
    assert list(mine.val_accuracy) == list(history.frame.val_accuracy)
    assert mine.test_accuracy.iloc[-1] == cu.evaluate(rule, data.x_test, data.y_test)


def test_a_finished_run_stands_for_the_same_numbers_and_no_others(tmp_path):
    first = swept(tmp_path, clusters(seed=1))
    again = swept(tmp_path, clusters(seed=1))  # another object, the same numbers
    assert again.equals(first) and len(list(tmp_path.glob("*.csv"))) == 4
    data = clusters(seed=1)
    others = {
        "labels": replace(data, y_train=data.y_train.flip(0)),
        "a test image": replace(data, x_test=data.x_test + 1),
        "name": replace(data, name="again", requested="again"),
        "type": replace(data, y_train=data.y_train.to(torch.int64) + 0, x_val=data.x_val * 2),
    }
    for count, (what, other) in enumerate(others.items(), 2):
        swept(tmp_path, other)
        assert len(list(tmp_path.glob("*.csv"))) == 4 * count, what
    data.x_train.numpy()[0] += 1  # behind torch's back
    swept(tmp_path, data)
    assert len(list(tmp_path.glob("*.csv"))) == 4 * (len(others) + 2)


def test_workers_are_handed_the_data(tmp_path):
    alone = swept(tmp_path / "alone", clusters())
    with joblib.parallel_config(n_jobs=2):
        assert swept(tmp_path / "two", clusters())[MEASURED].equals(alone[MEASURED])


def test_what_load_dataset_gave_is_loaded_by_name_and_what_was_made_of_it_is_not():
    digits, few = cu.load_dataset("digits"), cu.load_dataset("digits", limit=300)
    assert loaded_as(digits) == ("digits", None) and loaded_as(few) == ("digits", 300)
    for change in ({"x_train": 1 - few.x_train}, {"y_train": few.y_train.flip(0)}, {"x_test": few.x_val}):
        assert loaded_as(replace(few, **change)) is None
    twice = torch.cat([digits.x_train] * 2), torch.cat([digits.y_train] * 2)
    assert loaded_as(replace(digits, x_train=twice[0], y_train=twice[1])) is None


def test_load_dataset_hands_a_dataset_back_and_cuts_it():
    data = clusters()
    assert all(a is b for a, b in zip(cu.load_dataset(data).tensors, data.tensors, strict=True))
    assert torch.equal(cu.load_dataset(data, limit=np.int64(7)).x_train, data.x_train[:7])
    with pytest.raises(ValueError, match="limit is 204; it must be a whole number from 1 to 203"):
        cu.load_dataset(data, limit=204)
    with pytest.raises(ValueError, match="unknown dataset .'mnist'."):
        cu.load_dataset(["mnist"])
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match='no device "cuda"'):
            cu.load_dataset("digits", device="cuda")


# ------------------------------------------------------------------ changes in place


@pytest.fixture
def mnist(tmp_path, monkeypatch):
    """Small files of MNIST's format, and a process that has not yet loaded any."""
    write_small(tmp_path / "MNIST" / "raw")
    monkeypatch.setenv("COURSE_DATA", str(tmp_path))
    monkeypatch.setattr(data_module, "_cache", {})
    monkeypatch.setattr(files, "failed", {})


CHANGES = {
    "centred": lambda data: data.x_train.sub_(data.x_train.mean(0)),
    "one pixel of a slice": lambda data: data.x_test[3:5].fill_(7),
    "labels": lambda data: data.y_val.add_(1),
    "through a limit": lambda data: cu.load_dataset(data.name, limit=5).x_train.add_(2),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("name", ["mnist", "digits"])
def test_a_change_in_place_does_not_reach_later_loads(change, name, mnist, capsys):
    data = cu.load_dataset(name)
    before = [t.clone() for t in data.tensors]
    assert cu.load_dataset(name) is data and capsys.readouterr().out == ""
    CHANGES[change](data)
    again = cu.load_dataset(name)
    assert all(torch.equal(a, b) for a, b in zip(again.tensors, before, strict=True))
    assert f"{name}: its tensors were changed in place" in capsys.readouterr().out
    assert cu.load_dataset(name) is again and capsys.readouterr().out == ""


def test_an_assignment_that_ends_in_an_error_does_not_either(mnist):
    data = cu.load_dataset("mnist")
    mean = data.x_train.mean().item()
    with pytest.raises(AttributeError):
        data.x_train -= data.x_train.mean(0)
    assert data.x_train.mean().item() != mean and cu.load_dataset("mnist").x_train.mean().item() == mean


def test_a_first_load_in_inference_mode_spoils_no_later_one(mnist):
    with torch.inference_mode():
        cu.load_dataset("mnist")
    rule = cu.rules.Backprop(cu.MLP([784, 8, 10]))
    assert cu.train(rule, cu.load_dataset("mnist"), epochs=1, batch_size=16, progress=False).status == "done"


# ------------------------------------------------------------------ a label in the place of inputs


def table(blank=0):
    """Six columns, four classes, easily told apart: what Forward-Forward, unasked, wiped out."""
    generator = torch.Generator().manual_seed(3)
    centres = torch.randn(4, 6, generator=generator)
    y = torch.randint(4, (1_500,), generator=generator)
    x = centres[y] + 0.5 * torch.randn(1_500, 6, generator=generator)
    return cu.Dataset.of(torch.nn.functional.pad(x, (blank, 0)), y)


def test_forward_forward_refuses_a_table_and_says_how_to_give_the_label_room():
    for make in (cu.rules.ForwardForward, lambda net: cu.FrozenHidden(cu.rules.ForwardForward(net))):
        with pytest.raises(ValueError, match=r"first 4 inputs, \d\d.\d% of .*pad\(x, \(4, 0\)\).*as many inputs more"):
            cu.train(make(cu.MLP([6, 32, 4])), table(), progress=False)
    rule, data = cu.rules.ForwardForward(cu.MLP([10, 32, 32, 4])), table(blank=4)
    cu.train(rule, data, epochs=10, batch_size=32, optimizer="adam", progress=False)
    assert cu.evaluate(rule, data.x_test, data.y_test) > 0.85


def test_it_says_what_little_the_label_covers_and_nothing_where_there_is_a_margin(mnist, capsys):
    rule = cu.rules.ForwardForward(cu.MLP([784, 8, 10]))
    rule.check_data(cu.load_dataset("digits"))
    assert "first 10 inputs, 0.6% of the data's variance" in capsys.readouterr().out
    data = cu.load_dataset("digits")
    blank = replace(data, x_train=data.x_train.clone().index_fill_(1, torch.arange(10), 0.3))
    rule.check_data(blank)
    assert capsys.readouterr().out == ""


# ------------------------------------------------------------------ where words are printed


def test_signs_that_a_terminal_cannot_show_end_no_program():
    program = "import course_utils as cu; cu.setup(); cu.check('angle falls below 90°', True); print('on it goes')"
    command = [sys.executable, "-X", "utf8=0", "-c", program]
    run = subprocess.run(command, capture_output=True, env=os.environ | {"PYTHONIOENCODING": "ascii"})
    assert run.returncode == 0, run.stderr.decode()
    assert b"? angle falls below 90?" in run.stdout and b"on it goes" in run.stdout
