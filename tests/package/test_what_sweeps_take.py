"""What people hand to a sweep: classes of their own, partials, numbers of NumPy, nothing, strange names, threads."""

import functools
import random
import sys
import time

import joblib
import numpy as np
import pandas as pd
import pytest
import torch
from helpers import NoisyGradient

import course_utils as cu
from course_utils import runs, sweeps
from course_utils.live import LiveRun

HOW = {"data": "digits", "sizes": [784, 8, 10], "seeds": 1, "epochs": 0.2, "progress": False}


def swept(folder, rules, **changes):
    return cu.sweep(rules, folder=folder, **{**HOW, **changes}).drop(columns=["seconds", "commit"])


class NoSeed(cu.rules.Backprop):
    """It has nothing to draw."""

    def __init__(self, net, gain=1.0):
        super().__init__(net)
        self.gain = gain

    def backward(self, x, y):
        loss = super().backward(x, y)
        for p in self.net.parameters():
            p.grad *= self.gain
        return loss


class Seedy(cu.rules.FeedbackAlignment):
    """It hands its seed on."""

    def __init__(self, net, **knobs):
        super().__init__(net, **knobs)


# ---------------------------------------------------------------- rules


def test_a_partial_of_a_known_rule_is_its_name_with_arguments(tmp_path):
    rule = functools.partial(cu.rules.FeedbackAlignment, feedback_scale=0.5)
    frame = swept(tmp_path, rule)
    assert set(frame.rule) == {"FeedbackAlignment(feedback_scale=0.5)"}
    assert frame.equals(swept(tmp_path, "FeedbackAlignment(feedback_scale=0.5)"))
    assert len(list(tmp_path.iterdir())) == 1
    control = swept(tmp_path, functools.partial(cu.FrozenHidden, rule))
    assert control.equals(swept(tmp_path, "FrozenHidden(FeedbackAlignment(feedback_scale=0.5))"))


@pytest.mark.parametrize("jobs", [1, pytest.param(2, id="two processes")])
def test_a_class_of_ones_own_its_arguments_and_its_control_are_swept(jobs, tmp_path):
    names = ["NoSeed", "NoSeed(gain=0.0)", "FrozenHidden(NoSeed)", "FrozenHidden(NoSeed(gain=0.0))"]
    partial = functools.partial(NoSeed, gain=0.0)
    with joblib.parallel_config(n_jobs=jobs):
        frame = swept(
            tmp_path, [NoSeed, partial, *names[2:]], lr={NoSeed: 0.1, partial: 0.1, **dict.fromkeys(names[2:], 0.1)}
        )
    assert list(frame.rule.unique()) == names
    own = {name: list(rows.val_accuracy) for name, rows in frame.groupby("rule")}
    known = swept(tmp_path, ["Backprop", "FrozenHidden(Backprop)"], lr=0.1)
    known = {name: list(rows.val_accuracy) for name, rows in known.groupby("rule")}
    assert own["NoSeed"] == known["Backprop"] and own["FrozenHidden(NoSeed)"] == known["FrozenHidden(Backprop)"]
    assert len(set(own["NoSeed(gain=0.0)"])) == 1  # it learns nothing, nor does its control


def test_a_class_typed_in_is_found_by_its_name(tmp_path, monkeypatch):
    monkeypatch.setattr(sys.modules["__main__"], "NoSeed", NoSeed, raising=False)
    assert set(swept(tmp_path, "FrozenHidden(NoSeed)").rule) == {"FrozenHidden(NoSeed)"}
    monkeypatch.setattr(sys.modules["__main__"], "Backprop", NoSeed, raising=False)
    assert sweeps.grid("Backprop", [7, 3])[0][1]["name"] == "Backprop"  # the registry's names are its own


def test_sweep_and_playground_have_one_idea_of_who_takes_a_seed():
    data, training = cu.load_dataset("digits"), {"seed": 5, "epochs": 1}
    for rule_class in (Seedy, NoSeed, NoisyGradient, functools.partial(Seedy, seed=5)):
        made = runs.make_rule(rule_class, [784, 8, 10], 5)
        if isinstance(rule_class, type):
            live = LiveRun(rule_class, data, [784, 8, 10], {}, {"seed": 5}, training).rule
            assert live.seed == made.seed == (0 if rule_class is NoSeed else 5)
        assert made.seed == (0 if rule_class is NoSeed else 5)


def test_knobs_that_say_the_same_are_one_run_and_others_are_others(tmp_path):
    swept(tmp_path, functools.partial(NoSeed, gain=np.float64(0.5)))
    swept(tmp_path, functools.partial(NoSeed, gain=0.5))
    assert len(list(tmp_path.iterdir())) == 1
    masks = [torch.zeros(5_000), torch.zeros(5_000).index_fill(0, torch.tensor([2_500]), 1.0)]
    names = {
        sweeps.file_name(*sweeps.grid(functools.partial(NoSeed, gain=mask), [784, 10], seeds=1)[0]) for mask in masks
    }
    assert len(names) == 2 and max(map(len, names)) < 160


# ---------------------------------------------------------------- numbers


def test_numbers_of_numpy_and_pandas_are_numbers(tmp_path):
    plain = {"lr": [0.25, 0.5], "seeds": [0, 1], "noise": [0.0, 0.5], "sizes": [784, 8, 10], "epochs": 1}
    frame = swept(tmp_path, "Backprop", limit=200, **plain)
    files = set(tmp_path.iterdir())
    others = [
        {
            "lr": np.array([0.25, 0.5]),
            "seeds": np.arange(2),
            "noise": np.array([0.0, 0.5]),
            "sizes": np.array([784, 8, 10]),
        },
        {"lr": pd.Series([0.25, 0.5]), "seeds": np.int64(2), "noise": (0.0, np.float32(0.5)), "epochs": np.int64(1)},
        {"lr": torch.tensor([0.25, 0.5]), "seeds": (s for s in range(2)), "sizes": (784, np.int32(8), 10)},
        {"lr": {"Backprop": np.array([0.25, 0.5])}, "seeds": range(2), "sizes": iter([784, 8, 10])},
    ]
    for other in others:
        assert swept(tmp_path, "Backprop", limit=200, **{**plain, **other}).equals(frame)
    assert set(tmp_path.iterdir()) == files
    assert swept(tmp_path, "Backprop", lr=np.array(0.5)).lr.unique() == [0.5]


EMPTY = {"rules": [[], (), {}], "lr": [[], np.array([]), {"Backprop": []}], "noise": [[]], "seeds": [0, [], range(0)]}


@pytest.mark.parametrize("name, value", [(name, value) for name, values in EMPTY.items() for value in values])
def test_a_sweep_of_nothing_is_refused_by_name(name, value, tmp_path):
    with pytest.raises(ValueError, match=f"{name} is .*(: nothing would run|whole number, 1 or larger)"):
        swept(tmp_path, **{"rules": "Backprop", name: value})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("seeds", [-1, True, 1.5, "two", [0.5], [-1], [True], None])
def test_seeds_that_are_none_are_refused(seeds, tmp_path):
    with pytest.raises(ValueError, match="seeds is "):
        swept(tmp_path, "Backprop", seeds=seeds)


@pytest.mark.parametrize("frame", [None, 3, pd.DataFrame({"rule": [1]}), pd.DataFrame(columns=runs.SCHEMA)])
def test_a_function_that_returns_no_run_is_named(frame, tmp_path):
    def mine(name, sizes, lr, seed, **settings):
        return frame

    with pytest.raises(ValueError, match="mine returned a .* without .*; a run returns a frame with rule, dataset"):
        swept(tmp_path, "Backprop", function=mine)
    assert not list(tmp_path.iterdir())


def test_a_function_with_an_argument_fixed_is_a_function(tmp_path):
    fixed = [functools.partial(runs.one_run, momentum=momentum) for momentum in (0.0, 0.9, 0.9)]
    frames = [swept(tmp_path, "Backprop", function=function) for function in fixed]
    assert frames[1].equals(frames[2]) and not frames[0].equals(frames[1]) and len(list(tmp_path.iterdir())) == 2


# ---------------------------------------------------------------- names


NAMES = ["../../x", "/etc/passwd", "..", "a\\b", "x" * 300, "CON", "Größe" * 60, "=cmd|' /C calc'!A0"]


@pytest.mark.parametrize("name", NAMES)
def test_a_name_cannot_leave_its_folder_nor_be_too_long(name, tmp_path):
    own = type(name, (cu.rules.Backprop,), {})
    folder = tmp_path / "deep" / "down"
    frame = swept(folder, own)
    (file,) = folder.iterdir()
    assert file.is_file() and len(file.name.encode()) < 160 and [*tmp_path.rglob("*.csv")] == [file]
    assert swept(folder, own).equals(frame) and set(frame.rule) == {name}
    with pytest.raises(ValueError, match="use one of"):
        swept(folder, name if name != "CON" else "CON()")


@pytest.mark.parametrize("name", ["NA", "null", "None", "nan", "1e5", "True"])
def test_a_rule_may_be_called_what_pandas_takes_for_something_else(name, tmp_path):
    assert set(swept(tmp_path, type(name, (cu.rules.Backprop,), {})).rule) == {name}


# ---------------------------------------------------------------- threads


def quick(name, sizes, lr, seed, **settings):
    time.sleep(random.Random(seed).uniform(0, 0.01))  # so that they leave in another order than they came
    return pd.DataFrame([dict.fromkeys(runs.SCHEMA, 0) | {"seed": seed}])


def test_threads_take_nothing_away_for_good(tmp_path, capsys):
    before = sys.stdout, torch.get_num_threads(), cu.device.current_device()
    with joblib.parallel_config(backend="threading", n_jobs=4):
        swept(tmp_path, "Backprop", seeds=40, function=quick)
    assert (sys.stdout, torch.get_num_threads(), cu.device.current_device()) == before
    print("heard")
    assert capsys.readouterr().out == "heard\n"


def test_a_run_that_diverges_in_a_sweep_is_silent_and_says_so_in_its_rows(tmp_path, capsys):
    frame = swept(tmp_path, "Backprop", lr=1e30, epochs=2, network={"loss": "squared_error"})
    assert frame.samples.max() < 2 * 1297 and capsys.readouterr().out == ""
    rule = cu.rules.Backprop(cu.MLP([784, 8, 10], loss="squared_error"))
    cu.train(rule, cu.load_dataset("digits"), lr=1e30, epochs=2, progress=False)
    assert "diverged" in capsys.readouterr().out
