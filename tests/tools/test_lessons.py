"""tools/lessons.py: a lesson is found by its number and knows its places; its study has the defaults in every block."""

import os
import re

import pytest
from helpers import small_course as course
from helpers.small_course import write

from tools import lessons


@pytest.fixture
def tree(tmp_path):
    return course.small_course(tmp_path)


def test_lessons_are_those_of_the_outline_that_are_written(tree):
    assert [lesson.stem for lesson in lessons.outline(tree)] == ["02_measuring", "06_toy_rule", "07_planned"]
    assert [lesson.number for lesson in lessons.all_lessons(tree)] == ["02", "06"]
    write(tree, "lessons/07_planned/__pycache__/x.pyc", "")  # what a branch leaves behind is no lesson
    assert [lesson.number for lesson in lessons.all_lessons(tree)] == ["02", "06"]
    assert lessons.parts(tree) == {"I": "The problem", "III": "No weight transport"}


@pytest.mark.parametrize("number", ["06", "6", 6])
def test_a_lesson_is_found_by_its_number_and_knows_its_places(tree, number):
    lesson = lessons.find(number, tree)
    assert (lesson.number, lesson.name, lesson.part, lesson.title) == ("06", "toy_rule", "III", "Toy rule")
    assert lesson.source == tree / "lessons/06_toy_rule/lesson.md" and lesson.source.exists()
    assert lesson.study == tree / "lessons/06_toy_rule/study.yaml"
    assert lesson.figures == tree / "lessons/06_toy_rule/figures.py"
    assert lesson.test == tree / "lessons/06_toy_rule/test_toy_rule.py"
    assert lesson.made == tree / "lessons/06_toy_rule/made"
    assert lesson.notebook == tree / course.NOTEBOOK and lesson.module == tree / course.MODULE
    assert lesson.study_module == tree / "course_utils/studies/toy_rule.py"
    assert lesson.front == {"kind": "rule", "question": "How far?", "minutes": {"read": 35, "run": 1}}


def test_a_number_without_a_lesson_is_told_which_there_are(tree):
    with pytest.raises(ValueError, match="no lesson has the number 7; there are 02, 06"):
        lessons.find(7, tree)
    with pytest.raises(ValueError, match="17"):
        lessons.chosen(["06", "17"], tree)


def test_some_lessons_are_chosen_or_all(tree):
    assert [lesson.number for lesson in lessons.chosen(["06"], tree)] == ["06"]
    assert lessons.chosen([], tree) == lessons.all_lessons(tree)


def test_defaults_hold_for_every_block_that_says_nothing_else(tree):
    lesson = lessons.find(6, tree)
    assert lessons.study(lesson) == {"blocks": []}
    study = "defaults: {seeds: 5, lrs: [0.1]}\nblocks: [{rules: [A]}, {rules: [B], seeds: 3}]\ntargets: [{rule: A}]\n"
    write(tree, "lessons/06_toy_rule/study.yaml", study)
    first, second = {"seeds": 5, "lrs": [0.1], "rules": ["A"]}, {"seeds": 3, "lrs": [0.1], "rules": ["B"]}
    assert lessons.study(lesson) == {"blocks": [first, second], "targets": [{"rule": "A"}]}


def test_a_file_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "made" / "cost.yaml"
    lessons.write(path, "old ü")
    assert path.read_bytes() == "old ü".encode() and [p.name for p in path.parent.iterdir()] == ["cost.yaml"]
    seen = []

    def power_cut(_):
        seen.append(path.read_text(encoding="utf-8"))
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", power_cut)
    with pytest.raises(KeyboardInterrupt):
        lessons.write(path, "new")
    assert seen == [path.read_text(encoding="utf-8")] == ["old ü"]
    assert [p.name for p in path.parent.iterdir()] == ["cost.yaml"]


IN_PLACE = re.compile(r"\.(write_text|write_bytes|to_csv|savefig|unlink|rename)\(([^)]*)")


def test_no_tool_writes_a_table_in_place():
    """What a killed tool leaves is the old table or the new one: they write by `lessons.write` alone."""
    found = {}
    for path in lessons.ROOT.glob("tools/*.py"):
        for line in path.read_text(encoding="utf-8").splitlines():
            call = IN_PLACE.search(line)
            if call and not call[2].startswith(("index=False", "picture")):  # into the memory
                found[path.name] = found.get(path.name, []) + [call[0]]
    assert found.pop("soak.py") == [".unlink("] * 2  # of the runs it has killed, in a folder of its own
    assert found == {"lessons.py": [".unlink(missing_ok=True"], "results.py": [".unlink("]}
