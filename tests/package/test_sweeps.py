"""Sweeps: the stored tables hold what a single run gives, in one schema."""

import datetime
import importlib
import importlib.util
import json
import platform
import re
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import joblib
import pandas as pd
import pytest
import torch

import course_utils as cu
from course_utils import runs, sweeps
from course_utils.history import COLUMNS

PATH = Path(__file__).parent.parent / "tools" / "results.py"
SIZES = [784, 16, 10]
THREADS = torch.get_num_threads()
SETTINGS = {"dataset": "digits", "batch_size": 64, "epochs": 2}
CONTRACT = [
    "rule",
    "dataset",
    "sizes",
    "seed",
    "lr",
    "noise",
    "epoch",
    "samples",
    "seconds",
    "val_accuracy",
    "test_accuracy",
    "device",
    "versions",
    "commit",
]


def single(name="FeedbackAlignment", seed=3, lr=0.05, **settings):
    data = cu.load_dataset("digits")
    rule = cu.rules.ALL[name](cu.MLP(SIZES, seed=seed), seed=seed)
    return rule, cu.train(rule, data, lr=lr, seed=seed, progress=False, epochs=2, batch_size=64, **settings)


def test_schema_is_that_of_the_contract():
    assert runs.SCHEMA[: len(CONTRACT)] == CONTRACT
    assert set(runs.SCHEMA) - set(CONTRACT) == {"measured"}
    assert set(runs.SCHEMA) & set(COLUMNS) == {"epoch", "samples", "seconds", "val_accuracy"}


def test_a_row_equals_a_single_run():
    frame = runs.one_run("FeedbackAlignment", SIZES, 0.05, 3, test=True, input_noise=0.1, **SETTINGS)
    rule, history = single(input_noise=0.1)
    data = cu.load_dataset("digits")
    assert list(frame.columns) == runs.SCHEMA and list(frame.samples) == [0, 1297, 2594]
    assert list(frame.val_accuracy) == list(history.frame.val_accuracy)
    assert frame.test_accuracy.iloc[-1] == cu.evaluate(rule, data.x_test, data.y_test)
    assert frame.test_accuracy.iloc[:-1].isna().all()  # the test set is looked at once
    row = frame.iloc[-1]
    assert (row.rule, row.dataset, row.sizes, row.seed, row.lr, row.noise) == (
        "FeedbackAlignment",
        "digits",
        "784-16-10",
        3,
        0.05,
        0.1,
    )


def test_the_rules_own_lr_is_stored_as_a_number():
    frame = runs.one_run("Backprop", SIZES, None, 0, limit=200, **{**SETTINGS, "epochs": 1})
    assert (frame.lr == cu.rules.Backprop.lr).all()


def test_provenance_says_when_where_and_with_what():
    facts = runs.provenance(torch.device("cpu"))
    assert facts["device"] == f"{torch.get_num_threads()} CPU threads"
    assert facts["versions"] == f"torch {torch.__version__}, python {platform.python_version()}"
    assert datetime.date.fromisoformat(facts["measured"]) <= datetime.date.today()
    assert isinstance(facts["commit"], str) and facts["commit"]
    assert not any("/" in value for value in facts.values())  # no path of this machine


def swept(folder, rules=("Backprop", "FeedbackAlignment"), **changes):
    settings = {"data": "digits", "sizes": SIZES, "lr": 0.05, "seeds": 2, "epochs": 2, "batch_size": 64}
    return cu.sweep(rules, folder=folder, progress=False, **{**settings, **changes})


def without_seconds(frame):
    return frame.drop(columns="seconds")


# ---------------------------------------------------------------- sweeps


def test_a_sweep_equals_single_runs(tmp_path):
    frame = swept(tmp_path, lr={"Backprop": [0.05, 0.1], "FeedbackAlignment": 0.05}, noise=[0.0, 0.1])
    assert list(frame.columns) == runs.SCHEMA
    runs = frame.groupby(["rule", "lr", "noise", "seed"], sort=False)
    assert len(runs) == 3 * 2 * 2
    for (name, lr, noise, seed), rows in runs:
        alone = runs.one_run(name, SIZES, lr, seed, test=True, input_noise=noise, **SETTINGS)
        assert without_seconds(rows.reset_index(drop=True)).equals(without_seconds(alone))


def test_an_interrupted_sweep_goes_on_where_it_was(tmp_path, monkeypatch):
    whole = swept(tmp_path / "whole")
    done = []

    def fails_at_the_third(name, sizes, lr, seed, **settings):
        done.append((name, seed))
        if len(done) == 3:
            raise KeyboardInterrupt
        return runs.one_run(name, sizes, lr, seed, **settings)

    fails_at_the_third.__module__, fails_at_the_third.__name__ = "course_utils.runs", "one_run"  # the same cells
    with pytest.raises(KeyboardInterrupt):
        swept(tmp_path / "part", function=fails_at_the_third)
    finished = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "part").iterdir()}
    assert len(finished) == 2
    assert without_seconds(swept(tmp_path / "part", function=fails_at_the_third)).equals(without_seconds(whole))
    assert len(done) == 3 + 2  # the third again and the fourth; the finished ones not
    assert all((tmp_path / "part" / name).stat().st_mtime_ns == at for name, at in finished.items())


def test_a_finished_sweep_is_read_and_a_half_written_cell_is_not(tmp_path, monkeypatch):
    frame = swept(tmp_path)
    (tmp_path / ".123.half_written.csv").write_text("rule,dat")
    monkeypatch.setattr(sweeps, "_run", None)  # nothing may be computed
    assert swept(tmp_path).equals(frame)


def test_another_setting_or_an_edited_rule_is_another_cell(tmp_path, monkeypatch):
    base = {"name": "Backprop", "sizes": SIZES, "lr": 0.1, "seed": 0, "epochs": 2}
    changes = [{"lr": 0.2}, {"seed": 1}, {"epochs": 3}, {"network": {"activation": "tanh"}}, {"sizes": [784, 10]}]
    names = {sweeps.file_name(runs.one_run, base | change) for change in [{}, *changes, {"name": "ZIL"}]}
    names.add(sweeps.file_name(runs.provenance, base))
    assert len(names) == len(changes) + 3

    for number, body in enumerate(["lr = 0.3", "lr = 0.5"]):  # one class, edited
        (tmp_path / f"own{number}.py").write_text(f"import course_utils as cu\nclass Own(cu.rules.ZIL):\n    {body}\n")
        monkeypatch.syspath_prepend(tmp_path)
        own = importlib.import_module(f"own{number}").Own
        names.add(sweeps.file_name(runs.one_run, base | {"name": own}))
    assert len(names) == len(changes) + 5


def test_equal_cells_are_computed_once(tmp_path):
    frame = swept(tmp_path, rules=["Backprop", cu.rules.Backprop], seeds=[3])
    assert len(list(tmp_path.iterdir())) == 1 and len(frame) == 2 * 3


class OwnRule(cu.rules.FeedbackAlignment):
    title = "My own"


def test_a_rule_of_ones_own_is_swept_by_its_class(tmp_path):
    frame = swept(tmp_path, rules=[OwnRule, "FeedbackAlignment"], lr=None)
    mine, theirs = (frame[frame.rule == name] for name in ("OwnRule", "FeedbackAlignment"))
    assert list(mine.val_accuracy) == list(theirs.val_accuracy) and len(mine) == 2 * 3


def test_a_sweep_takes_the_whole_registry(tmp_path):
    cell_list = sweeps.grid(cu.rules.ALL, SIZES, seeds=[7])
    assert [settings["name"] for _, settings in cell_list] == list(cu.rules.ALL)
    assert all(settings["seed"] == 7 and settings["lr"] is None for _, settings in cell_list)


def test_the_first_images_of_a_dataset_are_a_limit_and_other_data_are_refused(tmp_path):
    few = cu.load_dataset("digits", limit=300)
    assert swept(tmp_path, data=few).samples.max() == 600
    with pytest.raises(ValueError, match="workers load their data by name.*function="):
        swept(tmp_path, data=replace(few, x_train=1 - few.x_train))


def test_bad_sweeps_are_refused(tmp_path):
    with pytest.raises(ValueError, match="noise_on is 'weights'; use"):
        swept(tmp_path, noise_on="weights")
    with pytest.raises(ValueError, match="lr has no value for FeedbackAlignment"):
        swept(tmp_path, lr={"Backprop": 0.1})
    with pytest.raises(ValueError, match="Backporp.*Backprop"):
        swept(tmp_path, rules="Backporp")


def test_noise_goes_where_it_is_said(tmp_path):
    on_pixels, on_units = (swept(tmp_path, noise=0.2, noise_on=where) for where in ("input", "activity"))
    assert (on_pixels.noise == 0.2).all() and (on_units.noise == 0.2).all()
    assert list(on_pixels.val_accuracy) != list(on_units.val_accuracy)
    alone = runs.one_run("Backprop", SIZES, 0.05, 0, activity_noise=0.2, **SETTINGS)
    assert list(on_units.val_accuracy[:3]) == list(alone.val_accuracy)


def test_processes_give_what_one_process_gives(tmp_path):
    alone = swept(tmp_path / "alone")
    with joblib.parallel_config(n_jobs=2):
        assert without_seconds(swept(tmp_path / "two")).equals(without_seconds(alone))
    assert torch.get_num_threads() == THREADS  # a cell's threads are its own


def programs():
    """The programs of docs/sweeps.md, in their order, on small data."""
    text = (PATH.parent.parent / "docs" / "sweeps.md").read_text()
    smaller = {'"mnist"': '"digits"', "seeds=5": "seeds=[1]", "epochs=5": "epochs=1", "784, 256, 10": "784, 8, 10"}
    for old, new in smaller.items():
        text = text.replace(old, new)
    return re.findall(r"```python\n(.*?)```", text, re.S)


def test_the_documented_programs_run_and_a_dask_cluster_gives_what_one_process_gives(tmp_path, monkeypatch, capsys):
    pytest.importorskip("dask.distributed")
    monkeypatch.setattr(sweeps, "RESULTS", tmp_path)
    laptop, local, slurm, gateway = programs()
    exec(laptop, found := {"__name__": "__main__"})
    assert len(found["frame"].groupby(["rule", "noise", "lr", "seed"])) == 3 * 2 * 3
    assert "FrozenHidden(Backprop)" in capsys.readouterr().out
    few = local.replace("cu.rules.ALL", '["Backprop", "ZIL"]').replace("worker=1", "worker=1, dashboard_address=None")
    exec(few, found := {"__name__": "__main__"})  # on a cluster of two workers, and then here
    alone = cu.sweep(["Backprop", "ZIL"], "digits", [784, 8, 10], seeds=[1], epochs=1, folder=tmp_path / "alone")
    assert len(found["frame"]) == 4 and without_seconds(found["frame"]).equals(without_seconds(alone))
    for program in (slurm, gateway):  # no such cluster here: only that they are programs
        compile(program, "docs/sweeps.md", "exec")


def test_a_worker_without_the_data_is_told_so(monkeypatch):
    monkeypatch.setattr(sweeps, "load_dataset", lambda name: SimpleNamespace(is_fallback=True))
    with pytest.raises(FileNotFoundError, match="this worker has no mnist"):
        sweeps._run("a.csv", runs.one_run, {"dataset": "mnist"}, "cpu", 1)


def test_the_rate_is_chosen_on_validation_alone(tmp_path):
    names = ["Backprop", "FrozenHidden(Backprop)"]
    table = swept(tmp_path, rules=names, lr=[1e-4, 0.05, 30.0], seeds=1, limit=600, epochs=1, test=False)
    assert table.test_accuracy.isna().all()
    best = sweeps.best_lr(table)
    assert set(best) == set(names) and best["Backprop"] == 0.05  # 30 may diverge on the way
    for name, lr in best.items():
        rows = table[table.rule == name].groupby("lr").tail(1)
        assert lr == rows.loc[rows.val_accuracy.idxmax(), "lr"]


# ---------------------------------------------------------------- rules by name


def test_make_rule_makes_the_rule_and_its_control():
    assert type(runs.make_rule("Backprop", SIZES, 0)) is cu.rules.Backprop
    control = runs.make_rule("FrozenHidden(FeedbackAlignment)", SIZES, 2, activation="tanh")
    assert isinstance(control, cu.FrozenHidden) and isinstance(control.rule, cu.rules.FeedbackAlignment)
    assert control.net.activation_name == "tanh"
    for unknown in ("Backporp", "FrozenHidden(Backporp)"):
        with pytest.raises(ValueError, match="Backporp.*Backprop"):
            runs.make_rule(unknown, SIZES, 0)


def test_a_rule_is_written_as_a_call():
    rule = runs.make_rule("FrozenHidden(FeedbackAlignment(feedback_scale=0.0))", SIZES, 2)
    assert isinstance(rule, cu.FrozenHidden) and not rule.rule.feedback_weights[1].any()
    assert runs.make_rule("FeedbackAlignment(feedback_scale=0.0)", SIZES, 2).title == "Feedback alignment"
    unnamed = "FeedbackAlignment(0.5)", "FeedbackAlignment(**{'feedback_scale': 0.5})"  # dropped, they would mislead
    unclosed = "FeedbackAlignment(", "FrozenHidden(FeedbackAlignment"
    for bad in (*unnamed, *unclosed, "FeedbackAlignment(feedback_scale=open('x'))", "1 + 1", ""):
        with pytest.raises(ValueError, match="use one of"):
            runs.make_rule(bad, SIZES, 0)
    frame = runs.one_run(
        "FeedbackAlignment(feedback_scale=0.5)", SIZES, 0.1, 0, limit=200, network={"activation": "tanh"}, **SETTINGS
    )
    assert set(frame.rule) == {"FeedbackAlignment(feedback_scale=0.5)"} and set(frame.sizes) == {"784-16-10 tanh"}


def test_stored_results_are_read_or_said_to_be_missing(tmp_path, monkeypatch):
    monkeypatch.setattr(sweeps, "RESULTS", tmp_path)
    for number in (6, "06"):
        with pytest.raises(FileNotFoundError, match=r"06\.csv is not there.*make results N=06"):
            cu.stored_results(number)
    pd.DataFrame({"rule": ["Backprop"], "val_accuracy": [0.97]}).to_csv(tmp_path / "06.csv", index=False)
    assert cu.stored_results(6).equals(cu.stored_results("06")) and cu.stored_results(6).val_accuracy[0] == 0.97


@pytest.fixture
def tool(tmp_path, monkeypatch):
    """tools/results.py in a tree of its own, with two lessons that share cells."""
    (tmp_path / "lessons").mkdir()
    (tmp_path / "results").mkdir()
    block = {"rules": ["Backprop"], "sizes": SIZES, "seeds": 2, "epochs": 1, "batch_size": 64}
    block |= {"dataset": "digits", "search_images": 600}
    blocks = [{**block, "lrs": [0.05, 0.1]}, {**block, "lrs": [0.3], "network": {"activation": "tanh"}}]
    for number, found in (("98", blocks[1]), ("99", blocks)):
        lesson = f"---\nlesson: {json.dumps({'results': found})}\n---\n"
        (tmp_path / "lessons" / f"{number}_test.md").write_text(lesson)
    (tmp_path / "lessons" / "97_without_results.md").write_text("---\nlesson: {}\n---\n")
    spec = importlib.util.spec_from_file_location("results", PATH)
    results = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "results", results)
    spec.loader.exec_module(results)
    monkeypatch.setattr(results, "ROOT", tmp_path)
    digits = cu.load_dataset("digits")
    monkeypatch.setattr(cu, "load_dataset", lambda name: digits)
    return results


def test_the_tool_measures_the_blocks_of_a_lesson(tool, tmp_path, capsys):
    tool.main(["99", "--jobs", "1"])
    table, search = (pd.read_csv(tmp_path / "results" / name) for name in ("99.csv", "99_lr.csv"))
    last = table.dropna(subset=["test_accuracy"])
    assert list(table.columns) == list(search.columns) == runs.SCHEMA
    assert list(last.sizes) == 2 * ["784-16-10"] + 2 * ["784-16-10 tanh"] and list(last.seed) == [0, 1, 0, 1]
    assert set(last.lr[-2:]) == {0.3} and set(last.lr[:2]) <= {0.05, 0.1}
    assert set(search.lr) == {0.05, 0.1} and search.test_accuracy.isna().all()
    assert "6 cells for lessons 99; 0 are finished" in capsys.readouterr().out


def test_the_tool_confirms_the_rate_in_a_long_race(tool, tmp_path):
    """The winner of the short race and the smaller rates next to it run as long as the seeds do; the best is taken."""
    block = {"rules": ["Backprop", "FeedbackAlignment"], "sizes": SIZES, "seeds": 2, "epochs": 2, "batch_size": 64}
    block |= {"dataset": "digits", "search_images": 200, "lrs": [0.3, 0.001, 0.03, 0.1], "confirm": 2}
    lesson = f"---\nlesson: {json.dumps({'results': [block, {**block, 'confirm': 0, 'lrs': [0.1]}]})}\n---\n"
    (tmp_path / "lessons" / "96_confirm.md").write_text(lesson)
    tool.main(["96", "--jobs", "1"])
    table, search = (pd.read_csv(tmp_path / "results" / name) for name in ("96.csv", "96_lr.csv"))
    assert search.test_accuracy.isna().all() and set(search.seed) == {0}
    for name in block["rules"]:
        runs = search[search.rule == name]
        short = runs[runs.samples == 200].set_index("lr").val_accuracy
        long = runs[runs.samples == runs.samples.max()].set_index("lr").val_accuracy
        assert set(long.index) == set(sorted(lr for lr in block["lrs"] if lr <= short.idxmax())[-3:])
        used = table[table.rule == name].lr
        assert set(used.iloc[: len(used) // 2]) == {long.idxmax()}
    cost = pd.read_csv(tmp_path / "results" / "cost.csv").set_index("lesson")
    finished = list((tmp_path / "results" / "cells").iterdir())
    assert cost.cells[96] == len(finished)
    tool.main(["96", "--jobs", "1"])
    assert list((tmp_path / "results" / "cells").iterdir()) == finished


def test_the_tool_measures_everything_shares_cells_and_goes_on(tool, tmp_path, capsys):
    tool.main(["98", "--jobs", "1"])
    finished = {path: path.stat().st_mtime_ns for path in (tmp_path / "results" / "cells").iterdir()}
    assert len(finished) == 2
    capsys.readouterr()
    tool.main(["--jobs", "1"])
    said = capsys.readouterr().out
    assert "6 cells for lessons 98, 99; 2 are finished" in said and "minutes on 1 cores" in said
    assert all(path.stat().st_mtime_ns == at for path, at in finished.items())
    cost = pd.read_csv(tmp_path / "results" / "cost.csv", dtype={"lesson": str}).set_index("lesson")
    assert dict(cost.cells) == {"98": 2, "99": 4}  # what both need counts for the first
    tool.main(["--jobs", "1"])
    assert "6 are finished\nabout 0 minutes" in capsys.readouterr().out
    tool.main(["98", "--jobs", "1", "--fresh"])
    assert "0 are finished" in capsys.readouterr().out


def test_a_block_may_ask_for_every_rule_and_for_another_function(tool):
    block = tool.read_block("99", "all", SIZES, [0.1], also=["FrozenHidden(Backprop)"], epochs=1)
    assert block.rules == [*cu.rules.ALL, "FrozenHidden(Backprop)"]
    other = tool.read_block("99", ["ZIL"], SIZES, [0.1, 0.2], function="course_utils.sweeps.one_run", epochs=3)
    assert {function for function, _ in other.cells("search")} == {runs.one_run}
    assert [(s["limit"], s["epochs"], s["test"]) for _, s in other.cells("search")] == 2 * [(20_000, 1, False)]


def test_every_lesson_s_blocks_can_be_read():
    spec = importlib.util.spec_from_file_location("results_as_it_is", PATH)
    results = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = results
    spec.loader.exec_module(results)
    for path in (PATH.parent.parent / "lessons").glob("[0-9]*.md"):
        for block in results.blocks_of(path.name[:2]):
            for function, settings in [*block.cells("search"), *block.cells("seeds")]:
                assert callable(function) and sweeps.file_name(function, settings)
