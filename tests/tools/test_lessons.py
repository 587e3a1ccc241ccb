"""tools/lessons.py: a lesson is found by its number and knows its places; its study has the defaults in every block."""

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
