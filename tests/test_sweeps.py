"""Sweeps: the stored tables hold what a single run gives, in one schema."""

import datetime
import importlib.util
import json
import platform
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
import torch

import course_utils as cu
from course_utils import sweeps
from course_utils.history import COLUMNS

PATH = Path(__file__).parent.parent / "tools" / "results.py"
SIZES = [784, 16, 10]
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
    assert sweeps.SCHEMA[: len(CONTRACT)] == CONTRACT
    assert set(sweeps.SCHEMA) - set(CONTRACT) == {"measured"}
    assert set(sweeps.SCHEMA) & set(COLUMNS) == {"epoch", "samples", "seconds", "val_accuracy"}


def test_a_row_equals_a_single_run():
    frame = sweeps.run_cell("FeedbackAlignment", SIZES, 0.05, 3, test=True, input_noise=0.1, **SETTINGS)
    rule, history = single(input_noise=0.1)
    data = cu.load_dataset("digits")
    assert list(frame.columns) == sweeps.SCHEMA and list(frame.samples) == [0, 1297, 2594]
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
    frame = sweeps.run_cell("Backprop", SIZES, None, 0, limit=200, **{**SETTINGS, "epochs": 1})
    assert (frame.lr == cu.rules.Backprop.lr).all()


def test_provenance_says_when_where_and_with_what():
    facts = sweeps.provenance(torch.device("cpu"))
    assert facts["device"] == f"{torch.get_num_threads()} CPU threads"
    assert facts["versions"] == f"torch {torch.__version__}, python {platform.python_version()}"
    assert datetime.date.fromisoformat(facts["measured"]) <= datetime.date.today()
    assert isinstance(facts["commit"], str) and facts["commit"]
    assert not any("/" in value for value in facts.values())  # no path of this machine


def test_test_accuracy_stays_out_of_the_choice_of_lr():
    table, best = sweeps.choose_lr(
        ["Backprop", "FrozenHidden(Backprop)"], SIZES, [1e-4, 0.05, 30.0], limit=600, dataset="digits", batch_size=32
    )
    assert list(table.columns) == sweeps.SCHEMA and table.test_accuracy.isna().all()
    last = table[table.samples == 600]
    assert len(last) >= 5 and set(best) == {"Backprop", "FrozenHidden(Backprop)"}  # lr 30 may diverge on the way
    for name, lr in best.items():
        rows = table[table.rule == name].groupby("lr").tail(1)
        assert lr == rows.loc[rows.val_accuracy.idxmax(), "lr"]
    assert best["Backprop"] == 0.05


def test_run_seeds_gives_every_rule_every_seed():
    names = ["FeedbackAlignment", "FrozenHidden(FeedbackAlignment)"]
    frame = sweeps.run_seeds(names, SIZES, dict.fromkeys(names, 0.05), seeds=2, **SETTINGS)
    last = frame.groupby(["rule", "seed"]).tail(1)
    assert len(last) == 4 and last.test_accuracy.notna().all()
    assert last.val_accuracy.nunique() > 1
    again = sweeps.run_seeds(names[:1], SIZES, {names[0]: 0.05}, seeds=2, **SETTINGS)
    mine = frame[frame.rule == names[0]].reset_index(drop=True)
    assert mine.drop(columns="seconds").equals(again.drop(columns="seconds"))


def test_make_rule_makes_the_rule_and_its_control():
    assert type(sweeps.make_rule("Backprop", SIZES, 0)) is cu.rules.Backprop
    control = sweeps.make_rule("FrozenHidden(FeedbackAlignment)", SIZES, 2, activation="tanh")
    assert isinstance(control, cu.FrozenHidden) and isinstance(control.rule, cu.rules.FeedbackAlignment)
    assert control.net.activation_name == "tanh"
    for unknown in ("Backporp", "FrozenHidden(Backporp)"):
        with pytest.raises(ValueError, match="Backporp.*Backprop"):
            sweeps.make_rule(unknown, SIZES, 0)


def test_a_rule_is_written_as_a_call():
    rule = sweeps.make_rule("FrozenHidden(FeedbackAlignment(feedback_scale=0.0))", SIZES, 2)
    assert isinstance(rule, cu.FrozenHidden) and not rule.rule.feedback_weights[1].any()
    assert sweeps.make_rule("FeedbackAlignment(feedback_scale=0.0)", SIZES, 2).title == "Feedback alignment"
    unnamed = "FeedbackAlignment(0.5)", "FeedbackAlignment(**{'feedback_scale': 0.5})"  # dropped, they would mislead
    unclosed = "FeedbackAlignment(", "FrozenHidden(FeedbackAlignment"
    for bad in (*unnamed, *unclosed, "FeedbackAlignment(feedback_scale=open('x'))", "1 + 1", ""):
        with pytest.raises(ValueError, match="use one of"):
            sweeps.make_rule(bad, SIZES, 0)
    frame = sweeps.run_cell(
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


def test_the_tool_measures_the_blocks_of_a_lesson(tmp_path, monkeypatch, capsys):
    (tmp_path / "lessons").mkdir()
    (tmp_path / "results").mkdir()
    block = {"rules": ["Backprop"], "sizes": SIZES, "seeds": 2, "epochs": 1, "batch_size": 64}
    block |= {"dataset": "digits", "search_images": 600}
    blocks = [{**block, "lrs": [0.05, 0.1]}, {**block, "lrs": [0.3], "network": {"activation": "tanh"}}]
    lesson = f"---\nlesson: {json.dumps({'results': blocks})}\n---\n"
    (tmp_path / "lessons" / "99_test.md").write_text(lesson)
    spec = importlib.util.spec_from_file_location("results", PATH)
    results = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(results)
    monkeypatch.setattr(results, "ROOT", tmp_path)
    monkeypatch.setattr(cu, "load_dataset", lambda name: SimpleNamespace(is_fallback=False))
    results.main("99")
    table, search = (pd.read_csv(tmp_path / "results" / name) for name in ("99.csv", "99_lr.csv"))
    last = table.dropna(subset=["test_accuracy"])
    assert list(table.columns) == list(search.columns) == sweeps.SCHEMA
    assert list(last.sizes) == 2 * ["784-16-10"] + 2 * ["784-16-10 tanh"] and list(last.seed) == [0, 1, 0, 1]
    assert set(last.lr[-2:]) == {0.3} and set(last.lr[:2]) <= {0.05, 0.1}
    assert set(search.lr) == {0.05, 0.1} and search.test_accuracy.isna().all()
    assert "chosen on validation" in capsys.readouterr().out
