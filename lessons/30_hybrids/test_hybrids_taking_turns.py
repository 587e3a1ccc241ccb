"""Taking turns: passes are counted, and the second rule goes on from the first one's weights."""

import pytest

import course_utils as cu
from course_utils.runs import SCHEMA, make_rule, one_run
from course_utils.studies.hybrids import passes, pretrained

NET = [784, 8, 10]
SMALL = {"dataset": "digits", "batch_size": 64, "optimizer": "adam"}


def test_passes_are_counted_from_the_rule_and_never_too_many():
    def of(name):
        return passes(make_rule(name, NET, 0))

    assert of("Backprop") == of("FeedbackAlignment") == of("ForwardForward") == 2
    assert of("PredictiveCoding") == 13 and of("PredictiveCoding(inference_steps=6)") == 7
    assert of("NodePerturbation(draws=4)") == 5  # it takes 9
    assert all(of(name) >= 2 for name in cu.rules.able(NET))


def test_after_the_teacher_the_rule_goes_on_from_its_weights():
    settings = SMALL | {"teacher": "Backprop", "teacher_lr": 0.01, "teacher_epochs": 2}
    frame = pretrained("FeedbackAlignment", NET, 0.003, 1, epochs=1, test=True, **settings)
    teacher = one_run("Backprop", NET, 0.01, 1, epochs=2, **SMALL)
    assert list(frame.columns) == SCHEMA
    assert frame.val_accuracy.iloc[0] == teacher.val_accuracy.iloc[-1]
    assert frame.samples.iloc[0] == teacher.samples.iloc[-1] and frame.epoch.iloc[-1] == 3
    assert frame.test_accuracy.iloc[:-1].isna().all() and frame.test_accuracy.iloc[-1] > 0
    again = pretrained("FeedbackAlignment", NET, 0.003, 1, epochs=1, test=True, **settings)
    assert frame.drop(columns="seconds").equals(again.drop(columns="seconds"))
    assert frame.dataset.iloc[0].endswith(", after Backprop")


def test_from_scratch_the_rule_has_the_teachers_passes_too():
    settings = SMALL | {"teacher": "PredictiveCoding(inference_steps=5)", "teacher_epochs": 1, "scratch": True}
    frame = pretrained("FeedbackAlignment", NET, 0.003, 1, epochs=1, **settings)
    assert frame.epoch.iloc[-1] == pytest.approx(1 + 6 / 2, abs=0.05)
    assert frame.dataset.iloc[0].endswith(", from scratch")
    plain = one_run("FeedbackAlignment", NET, 0.003, 1, epochs=4.0, **SMALL)
    assert frame.val_accuracy.iloc[-1] == plain.val_accuracy.iloc[-1]
    alike = pretrained("PredictiveCoding(inference_steps=5)", NET, 0.003, 1, epochs=1, **settings)
    assert alike.epoch.iloc[-1] == pytest.approx(2, abs=0.05)
