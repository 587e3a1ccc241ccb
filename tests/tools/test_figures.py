"""Figures: every drawing of every lesson is drawn here, on a handful of digits, and is what its lesson shows."""

import re
from dataclasses import replace

import pandas as pd
import pytest
from matplotlib.figure import Figure

import course_utils as cu
from tools import circuits
from tools.figures import TEMPLATE, drawings, drawn, save_svg
from tools.lessons import Lesson, all_lessons

LESSONS = [TEMPLATE, *all_lessons()]
DRAWINGS = [
    pytest.param(function, id=f"{lesson.stem}/{name}")
    for lesson in LESSONS
    for name, function in drawings(lesson).items()
]


def digits(n=256, n_val=50):
    data = cu.load_dataset("digits", device="cpu")
    x_val, y_val = data.x_val[:n_val], data.y_val[:n_val]
    return replace(data, x_train=data.x_train[:n], y_train=data.y_train[:n], x_val=x_val, y_val=y_val)


@pytest.mark.parametrize("function", DRAWINGS)
def test_every_drawing_shows_something_and_names_it(function):
    figure = drawn(function, digits)
    assert isinstance(figure, Figure) and figure.axes
    for ax in figure.axes:
        assert [*ax.lines, *ax.patches, *ax.images, *ax.collections], "empty axes"
        assert unnamed(ax) == [], f"{ax.get_title() or 'axes'} without {unnamed(ax)}"


def unnamed(ax):
    """What a reader would miss: words on a drawing, on a chart the names of both axes or words at their ticks."""
    if not ax.axison:
        return [] if ax.get_title() or ax.texts else ["a word"]
    if ax.images:  # pixels need no axes, but what they show
        ticks = ax.get_xticklabels()
        return [] if ax.get_title() or ax.get_ylabel() or any(tick.get_text() for tick in ticks) else ["a word"]
    y_is_said = ax.get_ylabel() or any(re.search("[a-z]", tick.get_text()) for tick in ax.get_yticklabels())
    first = ax.get_subplotspec() is None or ax.get_subplotspec().is_first_col()  # it speaks for its row
    return ["x label"] * (not ax.get_xlabel()) + ["y label"] * (first and not y_is_said)


@pytest.mark.parametrize("lesson", LESSONS, ids=lambda lesson: lesson.stem)
def test_a_lesson_shows_what_is_drawn_and_nothing_else_lies_about(lesson):
    text = re.sub("<!--.*?-->", "", lesson.source.read_text(encoding="utf-8"), flags=re.DOTALL)
    shown = set(re.findall(r"made/(\w+)\.svg", text))
    assert shown == {path.stem for path in lesson.made.glob("*.svg")} == set(drawings(lesson))


def figures_of(folder, body):
    (folder / "figures.py").write_text("from matplotlib.figure import Figure\n" + body)
    return drawings(Lesson(folder))


def test_a_drawing_without_its_return_is_refused_by_name(tmp_path):
    forgotten = figures_of(tmp_path, "def circuit():\n    figure = Figure()\n")["circuit"]
    with pytest.raises(ValueError, match=r"circuit\(\) returned None; it must end in `return figure`"):
        drawn(forgotten, digits)


def test_helpers_and_what_is_imported_are_no_drawings(tmp_path):
    body = "from math import sqrt\nfrom textwrap import fill\ndef _arrow(): ...\ndef play(data): return Figure()\n"
    assert list(figures_of(tmp_path, body)) == ["play"]


def test_a_chart_without_names_would_be_noticed():
    ax = Figure().subplots()
    assert unnamed(ax) == ["x label", "y label"]
    ax.axis("off")
    assert unnamed(ax) == ["a word"]


def test_saved_svg_is_byte_stable(tmp_path):
    frame = pd.DataFrame({"samples": [0, 64], "angle_1": [88.0, 60.0], "angle_2": [1.0, 0.5]})
    files = []
    for i in range(2):
        figure = Figure(figsize=(4, 3))
        axes = figure.subplots(1, 2)
        cu.plots.angles(axes[0], frame, cu.MLP([12, 9, 4], device="cpu"))
        circuits.circuit(axes[1], ["x", "h", "ŷ"], ["W₁", "W₂"], [None, "B₂"])
        save_svg(figure, tmp_path / f"{i}.svg")
        files.append((tmp_path / f"{i}.svg").read_bytes())
    assert files[0] == files[1] and b"<dc:date>" not in files[0] and files[0].startswith(b"<?xml")
