"""The learner's checks: one line for a fact, a fair and friendly trial for an update."""

import math

import pytest
import torch

import course_utils as cu

SHAPES = {"delta": (5, 3), "h": (5, 7)}


def reference(delta, h):
    return delta.T @ h / len(h)


@pytest.fixture
def ci(monkeypatch):
    monkeypatch.setenv("CI", "true")


@pytest.fixture(autouse=True)
def no_ci(monkeypatch):
    monkeypatch.delenv("CI", raising=False)


def verdict(capsys, mine, reference=reference, shapes=SHAPES, **more):
    """(was mine returned?, what was printed)"""
    returned = cu.check_update(mine, reference, shapes=shapes, **more)
    assert returned is mine or returned is reference
    return returned is mine, capsys.readouterr().out


def test_check_prints_one_line(capsys):
    cu.check("angle falls below 90°", True, got=71.2345)
    cu.check("angle falls below 90°", False, got=torch.tensor(95.0))
    cu.check("it holds", True)
    lines = capsys.readouterr().out.splitlines()
    assert lines == ["✓ angle falls below 90°   (got 71.23)", "✗ angle falls below 90°   (got 95)", "✓ it holds"]


def test_check_raises_under_ci_and_only_when_it_fails(capsys, monkeypatch):
    monkeypatch.setenv("CI", "true")
    cu.check("right", True)
    with pytest.raises(AssertionError, match="wrong.*got 3"):
        cu.check("wrong", False, got=3)
    monkeypatch.setenv("CI", "")
    cu.check("wrong", False)
    assert capsys.readouterr().out.count("✗") == 2


@pytest.mark.parametrize("passed", [torch.tensor(True), 1 < 2, torch.ones(1).numpy()[0] > 0])
def test_check_takes_any_truth(passed, capsys):
    cu.check("right", passed)
    assert "✓" in capsys.readouterr().out


def test_check_is_skipped_for_the_stand_in_data(capsys, monkeypatch):
    from dataclasses import replace

    monkeypatch.setenv("CI", "true")
    digits = cu.load_dataset("digits")
    stand_in = replace(digits, requested="mnist")
    cu.check("accuracy above 97 %", False, data=stand_in)
    assert "skipped: digits" in capsys.readouterr().out
    with pytest.raises(AssertionError):
        cu.check("accuracy above 97 %", False, data=digits)  # asked for digits: judged


def test_right_answers_are_returned(capsys):
    forms = [
        reference,
        lambda delta, h: torch.einsum("bi,bj->ij", delta, h).div(delta.shape[0]),
        lambda delta, h: reference(delta.float(), h.float()),  # right to what its type can hold
        lambda delta, h: reference(delta, h) + 1e-8,
    ]
    for mine in forms:
        was_mine, out = verdict(capsys, mine)
        assert was_mine and "✓" in out and "✗" not in out


@pytest.mark.parametrize(
    "guess, read",
    [(90, 90), ("90%", 90), ("about 90", 90), ("85 to 95", 90), ("85-95", 90), ((85, 95), 90), ([80, 90, 100], 90)]
    + [("-3.5°", -3.5), ("397,511", 397_511), ("1e-3", 1e-3), (None, None), ("no idea", None), ("", None), ((), None)]
    + [(torch.tensor(90.0), 90), (True, 1), ({}, None)],
)
def test_a_guess_in_any_form_stands_beside_the_number_measured(guess, read):
    table = cu.beside({"angle": guess, "unasked": 3}, {"angle": 12.345, "accuracy": 97.04})
    assert table.measured.tolist() == [12.3, 97.0] and list(table.index) == ["angle", "accuracy"]
    assert math.isnan(table.predicted["accuracy"])
    assert (
        math.isnan(table.predicted["angle"])
        if read is None
        else table.predicted["angle"] == pytest.approx(read, abs=0.05)
    )


def test_not_done_returns_the_reference(capsys):
    was_mine, out = verdict(capsys, lambda delta, h: None)
    assert not was_mine and "NOT DONE" in out


MISTAKES = {
    "the sign is turned round": lambda delta, h: -delta.T @ h / len(h),
    "it is the transpose": lambda delta, h: h.T @ delta / len(h),
    "missing 1/batch": lambda delta, h: delta.T @ h,
    "mean over the batch twice": lambda delta, h: delta.T @ h / len(h) ** 2,
    "transpose and sums over the batch": lambda delta, h: h.T @ delta,
    "sign is turned round and 1/batch is missing": lambda delta, h: -delta.T @ h,
    "it is half of what is asked": lambda delta, h: delta.T @ h / len(h) / 2,
    "it is twice what is asked": lambda delta, h: 2 * delta.T @ h / len(h),
    "turned round and it is half": lambda delta, h: -delta.T @ h / len(h) / 2,
    "turned round and it is twice": lambda delta, h: -2 * delta.T @ h / len(h),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_common_mistakes_are_named(name, capsys):
    was_mine, out = verdict(capsys, MISTAKES[name])
    assert not was_mine and "✗" in out and name in out


def test_a_wrong_answer_shows_yours_true_and_the_largest_difference(capsys):
    _, out = verdict(capsys, lambda delta, h: reference(delta, h) + 0.125)
    assert (
        "differ by up to 0.125" in out and "yours begins [" in out and "true  begins [" in out and "Likely" not in out
    )


@pytest.mark.parametrize(
    "mine, message",
    [
        (lambda delta, h: delta @ h, "it stopped with RuntimeError"),
        (lambda delta: delta, "it stopped with TypeError"),
        (lambda delta, h: 1 / 0, "it stopped with ZeroDivisionError"),
        (lambda delta, h: [1.0], "it returned a list"),
        (lambda delta, h: reference(delta, h).numpy(), "it returned a ndarray"),
        (lambda delta, h: 3.0, "it returned a float"),
        (lambda delta, h: reference(delta, h)[0], r"yours has shape (7,), asked is (3, 7)"),
        (lambda delta, h: reference(delta, h).sum(), "yours has shape ()"),
        (lambda delta, h: reference(delta, h)[None], "yours has shape (1, 3, 7)"),
        (lambda delta, h: reference(delta, h).numpy(), "The numbers are right: hand them to torch.as_tensor"),
        (lambda delta, h: reference(delta, h).tolist(), "The numbers are right: hand them to torch.as_tensor"),
        (lambda delta, h: reference(delta, h).half(), "yours holds torch.float16"),
        (lambda delta, h: (reference(delta, h) + 1e-4).float(), "differ by up to 0.0001"),
        (lambda delta, h: reference(delta, h) + 1e-6, "differ by up to 1e-06"),
        (lambda delta, h: reference(delta, h) > 0, "yours holds torch.bool"),
        (lambda delta, h: reference(delta, h).long(), "yours holds torch.int64"),
        (lambda delta, h: reference(delta, h) * float("nan"), "yours holds nan"),
        (None, "it stopped with TypeError"),
    ],
)
def test_nothing_a_learner_writes_raises_even_under_ci(mine, message, capsys, ci):
    was_mine, out = verdict(capsys, mine)
    assert not was_mine and message in out


def moved(w, pull):
    return w - 0.1 * pull


@pytest.mark.parametrize(
    "mine, name",
    [
        (lambda w, pull: w + 0.1 * pull, "in the step from w, the sign is turned round"),
        (lambda w, pull: w - 0.2 * pull, "in the step from w, it is twice what is asked"),
        (lambda w, pull: w - 0.1 * pull / len(w), "in the step from w, it takes the mean over the batch twice"),
        (lambda w, pull: -0.1 * pull, "it is the step from w alone"),
        (lambda w, pull: w, ""),
    ],
)
def test_where_the_answer_is_a_state_after_a_step_the_step_is_compared(mine, name, capsys):
    was_mine, out = verdict(capsys, mine, moved, {"w": (5, 3), "pull": (5, 3)})
    assert not was_mine and (name in out if name else "Likely" not in out)


def test_mutants_explain_a_mistake_of_their_own(capsys):
    def back(delta, w, h):
        return (delta @ w) * (1 - h * h)

    shapes = {"delta": (5, 3), "w": (3, 7), "h": (5, 7)}
    mutants = {
        "broken": lambda delta, w, h: delta @ h,  # a mutant that fails must not stop the notebook
        "no tensor": lambda delta, w, h: 3.0,
        "f′ is missing": lambda delta, w, h: delta @ w,
    }
    _, out = verdict(capsys, lambda delta, w, h: delta @ w, back, shapes, mutants=mutants)
    assert "Likely: f′ is missing" in out
    for more, factor in (("1/batch is missing", 5), ("the sign is turned round", -1)):
        _, out = verdict(capsys, lambda delta, w, h, k=factor: k * (delta @ w), back, shapes, mutants=mutants)
        assert f"Likely: f′ is missing; and {more}" in out
    _, out = verdict(capsys, lambda delta, w, h: (delta @ w) * h, back, shapes, mutants=mutants)
    assert "✗" in out and "Likely" not in out
    assert verdict(capsys, back, back, shapes, mutants=mutants)[0]


def test_a_learner_who_changes_the_inputs_in_place_does_not_spoil_the_trial(capsys):
    def careless(delta, h):
        answer = reference(delta, h)
        delta.zero_(), h.zero_()
        return answer

    assert verdict(capsys, careless)[0]


def test_trials_are_random_non_zero_double_and_leave_torch_alone(capsys):
    seen, state = [], torch.get_rng_state()

    def mine(delta, h):
        seen.append((delta, h))
        return reference(delta, h)

    verdict(capsys, mine)
    assert len(seen) == 3 and not torch.equal(seen[0][0], seen[1][0])
    for delta, h in seen:
        assert delta.dtype == torch.float64 and delta.shape == (5, 3) and h.shape == (5, 7)
        assert (delta.abs() > 0.09).all() and (delta < 0).any() and (delta > 0).any()
    assert torch.equal(state, torch.get_rng_state())


def test_values_can_be_made_possible_ones(capsys):
    seen = []

    def mine(a, y):
        seen.append(y)
        return torch.where(y == 1, a - 1, a)

    possible = {"y": lambda values: (values > 0).to(values)}
    was_mine, _ = verdict(capsys, mine, lambda a, y: a - y, {"a": (7, 1), "y": (7, 1)}, possible=possible)
    assert was_mine and all(set(y.flatten().tolist()) <= {0.0, 1.0} for y in seen)


def test_an_answer_right_on_the_first_trial_only_is_wrong(capsys):
    answers = []

    def remembered(delta, h):
        answers.append(reference(delta, h))
        return answers[0]

    assert not verdict(capsys, remembered)[0]


def test_bias_updates_of_one_dimension(capsys):
    shapes = {"delta": (5, 3)}
    assert verdict(capsys, lambda delta: delta.mean(0), lambda delta: delta.sum(0) / 5, shapes)[0]
    _, out = verdict(capsys, lambda delta: delta.sum(0), lambda delta: delta.mean(0), shapes)
    assert "missing 1/batch" in out
