"""One run is one frame, in the schema of all stored tables; a rule is made from its name or its class."""

import datetime
import platform

import pytest
import torch

import course_utils as cu
from course_utils import runs
from course_utils.history import COLUMNS

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
