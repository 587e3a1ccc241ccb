"""The lessons as a learner meets them: folded solutions pass their checks, typical wrong answers do not."""

import contextlib
import io
import re
from pathlib import Path

import jupytext
import pytest
import torch

import course_utils as cu

LESSONS = sorted((Path(__file__).parent.parent / "lessons").glob("[0-9]*.md"))
SOLUTION = re.compile(r'<details class="solution">.*?```python\n(.*?)```.*?</details>', re.S)
FUNCTION = re.compile(r"^def (my_\w+)", re.M)

# What learners write instead: (in the solution, instead of it). The general mistakes below come on top.
SLIPS = {
    "my_hidden_update": [
        (" * (1 - h * h)", ""),
        (" / len(x)", ""),
        ("delta.T @ x", "x.T @ delta"),
        ("(1 - h * h)", "h * (1 - h)"),
        ("(error @ feedback)", "-(error @ feedback)"),
        ("torch.tanh(x @ weights.T)", "x @ weights.T"),
        ("len(x)", "x.shape[1]"),
        ("torch.tanh(x @ weights.T)", "torch.tanh(x @ weights)"),  # stops with an error
    ],
    "my_share_helped": [
        (".sum(1)", ".sum(0)"),
        ("(agreement > 0)", "(agreement < 0)"),
        (".mean()", ".sum()"),
        ("(error @ feedback)", "(error @ weights)"),
        ("(agreement > 0).to(error.dtype)", "agreement"),
    ],
}


def exercises():
    """(lesson, function name, stub, check cell, solution) for each exercise of each lesson."""
    for path in LESSONS:
        cells = jupytext.read(path).cells
        solutions = {FUNCTION.search(code).group(1): code for code in SOLUTION.findall(path.read_text())}
        stubs = [cell.source for cell in cells if "exercise" in cell.metadata.get("tags", [])]
        for stub in stubs:
            name = FUNCTION.search(stub).group(1)
            (check,) = [
                cell.source
                for cell in cells
                if "check" in cell.metadata.get("tags", []) and re.search(rf"check_update\(\s*{name}", cell.source)
            ]
            yield path.stem, name, stub, check, solutions[name]


EXERCISES = list(exercises())
NAMES = [f"{lesson}:{name}" for lesson, name, *_ in EXERCISES]


def tried(answer, check):
    """What the check cell prints for an answer, and the namespace afterwards."""
    namespace = {"torch": torch, "cu": cu}
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(answer, namespace)
        exec(check, namespace)
    return printed.getvalue(), namespace


@pytest.mark.parametrize(("lesson", "name", "stub", "check", "solution"), EXERCISES, ids=NAMES)
def test_the_folded_solution_passes_and_is_used(lesson, name, stub, check, solution):
    printed, namespace = tried(solution, check)
    assert printed.startswith("✓"), printed
    assert "your rule" in [value for value in namespace.values() if isinstance(value, str)]


@pytest.mark.parametrize(("lesson", "name", "stub", "check", "solution"), EXERCISES, ids=NAMES)
def test_the_stub_left_undone_says_so_and_the_reference_is_used(lesson, name, stub, check, solution):
    printed, namespace = tried(stub, check)
    assert printed.startswith("NOT DONE"), printed
    assert "reference" in [value for value in namespace.values() if isinstance(value, str)]


@pytest.mark.parametrize(("lesson", "name", "stub", "check", "solution"), EXERCISES, ids=NAMES)
def test_typical_wrong_answers_are_refused(lesson, name, stub, check, solution):
    slips = [(old, solution.replace(old, new)) for old, new in SLIPS[name]]
    for wrap in ("-({})", "2 * ({})", "({}) + 1e-3", "({}).unsqueeze(0)", "print({})", "float(({}).sum())"):
        returned = re.compile(r"return (.*)")
        slips.append((wrap, returned.sub(lambda match, wrap=wrap: "return " + wrap.format(match[1]), solution)))
    for what, wrong in slips:
        assert wrong != solution, f"the slip {what!r} changes nothing"
        printed, _ = tried(wrong, check)
        assert "✓" not in printed, f"{what!r} was accepted: {printed}"


def test_a_wrong_answer_is_told_what_is_wrong():
    lesson, name, stub, check, solution = next(e for e in EXERCISES if e[1] == "my_hidden_update")
    for old, new, said in (
        (" * (1 - h * h)", "", "f′ is missing"),
        (" / len(x)", "", "1/batch"),
        ("delta.T @ x", "x.T @ delta", "transpose"),
        ("(error @ feedback)", "-(error @ feedback)", "sign"),
    ):
        printed, _ = tried(solution.replace(old, new), check)
        assert said in printed, printed
