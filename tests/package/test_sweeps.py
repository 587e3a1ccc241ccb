"""Sweeps: the stored tables hold what a single run gives, in one schema."""

import functools
import re
from pathlib import Path
from types import SimpleNamespace

import joblib
import pandas as pd
import pytest
import torch
from joblib.externals.loky import get_reusable_executor

import course_utils as cu
from course_utils import runs, sweeps

ROOT = Path(__file__).resolve().parents[2]
SIZES = [784, 16, 10]
THREADS = torch.get_num_threads()
SETTINGS = {"dataset": "digits", "batch_size": 64, "epochs": 2}


@pytest.fixture(scope="module", autouse=True)
def no_workers_left():
    """joblib keeps its processes for the next sweep, and other tests measure what a process has started."""
    yield
    get_reusable_executor().shutdown(wait=True)


def swept(folder, rules=("Backprop", "FeedbackAlignment"), **changes):
    settings = {"data": "digits", "sizes": SIZES, "lr": 0.05, "seeds": 2, "epochs": 2, "batch_size": 64}
    return cu.sweep(rules, folder=folder, progress=False, **{**settings, **changes})


def without_seconds(frame):
    return frame.drop(columns=["seconds", "commit"])  # somebody may commit in the meantime


# ---------------------------------------------------------------- sweeps


def test_a_sweep_equals_single_runs(tmp_path):
    frame = swept(tmp_path, lr={"Backprop": [0.05, 0.1], "FeedbackAlignment": 0.05}, noise=[0.0, 0.1])
    assert list(frame.columns) == runs.SCHEMA
    parts = frame.groupby(["rule", "lr", "noise", "seed"], sort=False)
    assert len(parts) == 3 * 2 * 2
    for (name, lr, noise, seed), rows in parts:
        alone = runs.one_run(name, SIZES, lr, seed, test=True, input_noise=noise, **SETTINGS)
        assert without_seconds(rows.reset_index(drop=True)).equals(without_seconds(alone))


def test_an_interrupted_sweep_goes_on_where_it_was(tmp_path, monkeypatch):
    whole = swept(tmp_path / "whole")
    log = tmp_path / "log"  # what a function holds is a part of it, so it may not hold a list that grows

    def fails_at_the_third(name, sizes, lr, seed, **settings):
        with log.open("a") as file:
            file.write("x")
        if len(log.read_text()) == 3:
            raise KeyboardInterrupt
        return runs.one_run(name, sizes, lr, seed, **settings)

    fails_at_the_third.__module__, fails_at_the_third.__name__ = "course_utils.runs", "one_run"  # the same runs
    with pytest.raises(KeyboardInterrupt):
        swept(tmp_path / "part", function=fails_at_the_third)
    finished = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "part").iterdir()}
    assert len(finished) == 2
    assert without_seconds(swept(tmp_path / "part", function=fails_at_the_third)).equals(without_seconds(whole))
    assert len(log.read_text()) == 3 + 2  # the third again and the fourth; the finished ones not
    assert all((tmp_path / "part" / name).stat().st_mtime_ns == at for name, at in finished.items())


def test_a_finished_sweep_is_read_and_a_half_written_one_is_not(tmp_path, monkeypatch):
    frame = swept(tmp_path)
    (tmp_path / ".123.half_written.csv").write_text("rule,dat")
    monkeypatch.setattr(sweeps, "_run", None)  # nothing may be computed
    assert swept(tmp_path).equals(frame)


def test_a_commit_of_digits_stays_a_text(tmp_path, monkeypatch):
    for commit in ("0213672", "12e4567"):
        monkeypatch.setattr(runs, "commit", lambda commit=commit: commit)
        assert set(swept(tmp_path / commit, rules=["Backprop"]).commit) == {commit}


def test_another_setting_is_another_run():
    base = {"name": "Backprop", "sizes": SIZES, "lr": 0.1, "seed": 0, "epochs": 2}
    changes = [{"lr": 0.2}, {"seed": 1}, {"epochs": 3}, {"network": {"activation": "tanh"}}, {"sizes": [784, 10]}]
    names = {sweeps.file_name(runs.one_run, base | change) for change in [{}, *changes, {"name": "ZIL"}]}
    names.add(sweeps.file_name(runs.provenance, base))
    assert len(names) == len(changes) + 3


def test_equal_runs_are_computed_once(tmp_path):
    frame = swept(tmp_path, rules=["Backprop", cu.rules.Backprop], seeds=[3])
    assert len(list(tmp_path.iterdir())) == 1 and len(frame) == 2 * 3


class OwnRule(cu.rules.FeedbackAlignment):
    title = "My own"


class NoSeed(cu.rules.Backprop):
    """It has nothing to draw."""

    def __init__(self, net, gain=1.0):
        super().__init__(net)


def test_a_rule_of_ones_own_is_swept_by_its_class(tmp_path):
    frame = swept(tmp_path, rules=[OwnRule, NoSeed, "FeedbackAlignment", "Backprop"], lr=None)
    for own, other in (("OwnRule", "FeedbackAlignment"), ("NoSeed", "Backprop")):
        mine, theirs = (frame[frame.rule == name] for name in (own, other))
        assert list(mine.val_accuracy) == list(theirs.val_accuracy) and len(mine) == 2 * 3


def test_a_sweep_takes_the_whole_registry(tmp_path):
    settings = [settings for _, settings in sweeps.grid(cu.rules.ALL, SIZES, seeds=[7])]
    assert [run["name"] for run in settings] == list(cu.rules.ALL)
    assert all(run["seed"] == 7 and run["lr"] is None for run in settings)


def test_the_first_images_of_a_dataset_are_a_limit(tmp_path):
    few = cu.load_dataset("digits", limit=300)
    assert swept(tmp_path, data=few).samples.max() == 600


def test_bad_sweeps_are_refused(tmp_path):
    with pytest.raises(ValueError, match="noise_on is 'weights'; use"):
        swept(tmp_path, noise_on="weights")
    with pytest.raises(ValueError, match="lr has no value for FeedbackAlignment"):
        swept(tmp_path, lr={"Backprop": 0.1})
    with pytest.raises(ValueError, match="Backporp.*Backprop"):
        swept(tmp_path, rules="Backporp")
    for rule in (cu.rules.Backprop(cu.MLP(SIZES)), functools.partial(cu.rules.Backprop, None), torch.nn.Linear, 3):
        with pytest.raises(ValueError, match="rules holds .*give"):
            swept(tmp_path, rules=[rule])


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
    assert torch.get_num_threads() == THREADS  # a run's threads are its own


def programs():
    """The programs of docs/sweeps.md, in their order, on small data."""
    text = (ROOT / "docs" / "sweeps.md").read_text()
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


def test_what_is_not_stored_is_said_to_be_missing(tmp_path, monkeypatch):
    monkeypatch.setattr(sweeps, "ROOT", tmp_path)
    (tmp_path / "lessons" / "06_test").mkdir(parents=True)
    for number, read, kind in ((6, cu.stored_results, "runs"), ("06", cu.stored_rates, "rates")):
        words = f"lesson 06 has no stored {kind} here.*in the course's repository, not in the.*make results N=06"
        with pytest.raises(FileNotFoundError, match=words):
            read(number)


def test_stored_runs_come_by_block_and_then_in_the_order_of_the_registry(tmp_path, monkeypatch):
    monkeypatch.setattr(sweeps, "ROOT", tmp_path)
    folder = tmp_path / "lessons" / "06_test" / "made" / "runs"
    folder.mkdir(parents=True)
    columns = ["block", *runs.SCHEMA[: -len(runs.FACTS)]]
    for number, name in enumerate(["ZIL", "Backprop", "Own"]):
        rows = [[block, name, "mnist", "784-10", 0, 0.1, 0.0, 1.0, 55_000, 1.5, 0.9, 0.875] for block in (1, 0)]
        facts = (
            f"# device: {number} CPU threads\n# versions: torch 2, python 3\n# commit: abc\n# measured: 2026-01-01\n"
        )
        (folder / f"{name}.csv").write_text(facts + pd.DataFrame(rows, columns=columns).to_csv(index=False))
    table = cu.stored_results(6)
    assert table.equals(cu.stored_results("06")) and list(table.columns) == runs.SCHEMA
    assert list(table.rule) == 2 * ["Backprop", "ZIL", "Own"]
    assert list(table.device[:3]) == ["1 CPU threads", "0 CPU threads", "2 CPU threads"]
    assert (table.test_accuracy == 0.875).all() and (table.commit == "abc").all()
