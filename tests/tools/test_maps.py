"""The maps of README and lesson 00 are made from the outline and what stands with the lessons."""

import pytest
from helpers import small_course as course
from helpers.small_course import TOOL, lesson_text, run, write

from tools import lessons, maps

RUNS = """\
# device: 2 CPU threads
block,rule,sizes,seed,epoch,test_accuracy
0,Toy,784-10,0,0,
0,Toy,784-10,0,1,0.97
0,Toy,784-10,1,1,0.98
0,FrozenHidden(Toy),784-10,0,1,0.91
1,Toy,784-20-10,0,1,0.5
"""
STUDY = """\
blocks: [{rules: [Toy, FrozenHidden(Toy)]}]
targets:
  - {rule: Toy, at_least: 97, above: {FrozenHidden(Toy): 3}}
  - {rule: Toy(knob=1), at_least: 97, above: {FrozenHidden(Toy): 3}}
  - {rule: Other, at_least: 97}
"""


@pytest.fixture
def tree(tmp_path):
    """The small course with a README, a lesson 00 that holds the map, and stored runs."""
    course.small_course(tmp_path)
    marks = "Before.\n\n<!-- by machine: {0} -->\nold\n<!-- end: {0} -->\n\nAfter.\n"
    write(tmp_path, "README.md", marks.format("lessons") + marks.format("accuracies"))
    outline = course.OUTLINE.replace("lessons:\n", "lessons:\n  00_start_here: {part: I, title: Start here}\n")
    write(tmp_path, "lessons/outline.yaml", outline + "  08_more: {part: III, title: More}\n")
    start = TOOL | {"title": "# Start here", "sum": marks.format("lessons")}
    write(tmp_path, maps.START, lesson_text(start, "tool"))
    write(tmp_path, "lessons/06_toy_rule/made/cost.yaml", "lesson: {seconds: 40, private_mb: 851, resident_mb: 1200}\n")
    write(tmp_path, "lessons/06_toy_rule/study.yaml", STUDY)
    write(tmp_path, "lessons/06_toy_rule/made/runs/Toy.csv", RUNS)
    return tmp_path


def rows(text):
    return [line for line in text.splitlines() if line.startswith("|")]


def test_the_readme_lists_what_is_written_and_what_it_costs(tree):
    text = maps.filled(tree)["README.md"]
    assert (
        text.startswith("Before.\n\n<!-- by machine: lessons -->\n\n|")
        and text.count("After.") == 2
        and "old" not in text
    )
    assert rows(text)[2:5] == [
        "| 00 | [Start here](notebooks/00_start_here.ipynb) | How far? | 35 · 1 min | – |",
        "| 02 | [Measuring](notebooks/02_measuring.ipynb) | How far? | 35 · 1 min | – |",
        "| 06 | [Toy rule](notebooks/06_toy_rule.ipynb) | How far? | 35 · 1 min | 900 MB |",
    ]


def test_the_map_of_lesson_00_has_the_parts_and_what_is_planned(tree):
    assert rows(maps.filled(tree)[maps.START])[2:] == [
        "| **I** | **The problem** | |",
        "| 00 | Start here | How far? |",
        "| 02 | [Measuring](../02_measuring/lesson.md) | How far? |",
        "| **III** | **No weight transport** | |",
        "| 06 | [Toy rule](../06_toy_rule/lesson.md) | How far? |",
        "| 07–08 | Planned · More | *planned* |",
    ]


def test_accuracies_are_means_of_the_first_block_beside_the_frozen_control(tree):
    assert rows(maps.filled(tree)["README.md"])[-1:] == ["| 784-10 | `Toy` | 06 | 97.50 | 91.00 |"]


@pytest.mark.parametrize("measured", ["Nobody", "Toy"])
def test_a_rule_or_control_that_was_not_measured_yet_has_no_row(tree, measured):
    runs = RUNS.replace("FrozenHidden(Toy)", "FrozenHidden(Other)").replace(",Toy,", f",{measured},")
    write(tree, "lessons/06_toy_rule/made/runs/Toy.csv", runs)
    assert rows(maps.filled(tree)["README.md"])[-1] == "|---|---|---|---|---|"


def test_a_front_matter_without_its_words_is_refused_in_words(tree, capsys):
    source = tree / course.SOURCE
    source.write_text(source.read_text().replace("  question: How far?\n", ""))
    assert run(tree) == 1
    assert "the maps cannot be filled: KeyError('question')" in capsys.readouterr().out


def test_the_build_fills_the_maps_before_the_notebooks_and_checks_them(tree):
    assert run(tree) == 0 and run(tree, "--check") == 0
    assert "[Toy rule](06_toy_rule.ipynb)" in (tree / "notebooks/00_start_here.ipynb").read_text()
    write(tree, "README.md", (tree / "README.md").read_text().replace("900 MB", "800 MB"))
    assert run(tree, "--check") == 1
    maps.write(tree)
    assert run(tree, "--check") == 0


def test_a_mark_without_its_end_is_named(tree):
    write(tree, "README.md", "<!-- by machine: lessons -->\n")
    with pytest.raises(ValueError, match="no <!-- end: lessons -->"):
        maps.filled(tree)


def test_the_course_holds_all_its_maps():
    for name, tables in maps.TABLES.items():
        text = (lessons.ROOT / name).read_text()
        assert all(text.count(f"<!-- by machine: {mark} -->\n\n|") == 1 for mark in tables)
