"""Every lesson as a learner meets it: solutions pass their checks, typical wrong answers do not; and it is whole."""

import ast
import contextlib
import io
import re
from collections import defaultdict

import jupytext
import pytest
import torch
import yaml

import course_utils as cu
from tools import lessons, markdown

LESSONS = lessons.all_lessons()
STEMS = [lesson.stem for lesson in LESSONS]
RULES = [lesson for lesson in LESSONS if lesson.front["kind"] == "rule"]
GENERAL = ("-({})", "2 * ({})", "({}) + 1e-3", "({}).unsqueeze(0)", "print({})", "float(({}).sum())")


def exercises(source):
    """(function name, stub, check cell, solution, slips) for each exercise of a lesson."""
    text = source.read_text()
    cells = jupytext.reads(text, fmt="md:myst").cells
    solutions, slips = markdown.solutions(text), markdown.slips(text)
    for stub in [cell.source for cell in cells if "exercise" in cell.metadata.get("tags", [])]:
        name = markdown.FUNCTION.search(stub)[1]
        (check,) = [
            cell.source
            for cell in cells
            if "check" in cell.metadata.get("tags", []) and re.search(rf"check_update\(\s*{name}\b", cell.source)
        ]
        yield name, stub, check, solutions[name]["code"], slips[name]


def tried(answer, check):
    """What the check cell prints for an answer, and the namespace afterwards."""
    namespace = {"torch": torch, "cu": cu}
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(answer, namespace)
        exec(check, namespace)
    return printed.getvalue(), namespace


EXERCISES = {
    f"{lesson.stem}:{exercise[0]}": exercise[1:] for lesson in LESSONS for exercise in exercises(lesson.source)
}


@pytest.fixture(params=EXERCISES)
def exercise(request):
    return EXERCISES[request.param]


# ---------------------------------------------------------------- exercises


def test_the_folded_solution_passes_and_is_used(exercise):
    _, check, solution, _ = exercise
    printed, namespace = tried(solution, check)
    assert printed.startswith("✓"), printed
    assert "your rule" in [value for value in namespace.values() if isinstance(value, str)]


def test_the_stub_left_undone_says_so_and_the_reference_is_used(exercise):
    stub, check, _, _ = exercise
    printed, namespace = tried(stub, check)
    assert printed.startswith("NOT DONE"), printed
    assert "reference" in [value for value in namespace.values() if isinstance(value, str)]


def test_typical_wrong_answers_are_refused(exercise):
    _, check, solution, slips = exercise
    assert len(slips) >= 3, "name three wrong answers or more"
    wrong = [(old, solution.replace(old, new)) for old, new in slips]
    for wrap in GENERAL:
        wrong.append((wrap, re.sub(r"return (.*)", lambda match, w=wrap: "return " + w.format(match[1]), solution)))
    for what, answer in wrong:
        assert answer != solution, f"the slip {what!r} changes nothing"
        printed, _ = tried(answer, check)
        assert "✓" not in printed, f"{what!r} was accepted: {printed}"


def test_a_wrong_answer_is_told_what_is_wrong():
    _, check, solution, _ = EXERCISES["06_feedback_alignment:my_hidden_update"]
    for old, new, said in (
        (" * (1 - h * h)", "", "f′ is missing"),
        (" / len(x)", "", "1/batch"),
        ("delta.T @ x", "x.T @ delta", "transpose"),
        ("(error @ feedback)", "-(error @ feedback)", "sign"),
    ):
        printed, _ = tried(solution.replace(old, new), check)
        assert said in printed, printed


@pytest.mark.parametrize("lesson", LESSONS, ids=STEMS)
def test_every_solution_belongs_to_an_exercise_and_has_its_slips(lesson):
    text = lesson.source.read_text()
    names = [name for name, *_ in exercises(lesson.source)]
    assert set(names) == set(markdown.solutions(text)) == set(markdown.slips(text))
    assert names or lesson.front["kind"] != "rule", "a rule lesson has exercises"


# ---------------------------------------------------------------- the outline and the four files


def test_the_outline_lists_every_lesson_once_and_in_order():
    outline = lessons.outline()
    lines = re.findall(r"^  (\d\d_\w+):", (lessons.ROOT / "lessons/outline.yaml").read_text(), re.M)
    assert [lesson.stem for lesson in outline] == lines
    assert [lesson.number for lesson in outline] == [f"{number:02d}" for number in range(len(outline))]
    assert len(outline) >= 35
    parts = list(dict.fromkeys(lesson.part for lesson in outline))
    assert parts == list(lessons.parts()), "parts follow one another"
    assert len({lesson.title for lesson in outline}) == len(outline)


def test_every_folder_is_a_lesson_of_the_outline():
    folders = {path.parent.name for path in lessons.ROOT.glob("lessons/*/*") if path.suffix in (".md", ".yaml", ".py")}
    assert folders == {"_template", *STEMS}


@pytest.mark.parametrize("lesson", LESSONS, ids=STEMS)
def test_the_first_heading_is_the_title_and_the_question_asks(lesson):
    assert re.search(r"^# (.*)$", lesson.source.read_text(), re.M)[1] == lesson.title
    assert set(lesson.front) == {"kind", "question", "minutes"}
    assert lesson.front["question"].endswith("?")


@pytest.mark.parametrize("lesson", RULES, ids=[lesson.stem for lesson in RULES])
def test_a_rule_lesson_has_its_four_files(lesson):
    for path in (lesson.source, lesson.study, lesson.figures, lesson.test):
        assert path.is_file(), path.relative_to(lessons.ROOT)
    assert lesson.module.is_file(), "nothing is exported"
    assert set(yaml.safe_load(lesson.study.read_text())) <= {"defaults", "blocks", "targets", "judged"}
    assert (lesson.made / "circuit.svg").is_file()


# ---------------------------------------------------------------- nothing is pasted


def helpers(source):
    """(name, form) of each function at the top level of a lesson's code cells; numbers and texts do not count."""
    for cell in jupytext.read(source, fmt="md:myst").cells:
        if cell.cell_type == "code" and "def " in cell.source:
            for node in ast.parse(re.sub(r"^[%!].*", "", cell.source, flags=re.M)).body:
                if isinstance(node, ast.FunctionDef):
                    body = node.body[ast.get_docstring(node) is not None :]
                    for constant in ast.walk(node):
                        if isinstance(constant, ast.Constant):
                            constant.value = None
                    yield node.name, "".join(map(ast.dump, [node.args, *body]))


def test_no_helper_stands_in_two_lessons():
    homes = defaultdict(set)
    for lesson in LESSONS:
        for helper in helpers(lesson.source):
            homes[helper].add(lesson.number)
    pasted = [f"{name}: {' '.join(sorted(places))}" for (name, _), places in homes.items() if len(places) > 1]
    assert not pasted, "a helper that two lessons need goes into course_utils:\n" + "\n".join(sorted(pasted))
