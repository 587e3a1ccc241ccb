"""The README's lesson map quotes measured time and memory, and every lesson keeps within its limits."""

import math
import subprocess
import sys
from types import SimpleNamespace

import nbformat
import pytest
from nbclient.exceptions import CellExecutionError

from tools import cost, lessons
from tools.lessons import ROOT, all_lessons

LONGEST, LARGEST, BINDER = 90, 1_200, 2_000  # seconds; MB of private memory; MB that Binder gives a session
SERVER = 200  # MB for JupyterLab itself, beside the kernel

every_lesson = pytest.mark.parametrize("lesson", all_lessons(), ids=lambda lesson: lesson.stem)


def minutes(seconds):
    """To the nearest half minute, at least one half."""
    return f"{max(0.5, round(2 * seconds / 60) / 2):g}"


def megabytes(private_mb):
    """Up to the next 50 MB."""
    return f"{50 * math.ceil(private_mb / 50)} MB"


@every_lesson
def test_lesson_keeps_within_its_limits(lesson):
    costs = cost.of(lesson).get("lesson")
    assert costs, f"measure: make cost N={lesson.number}"
    assert 0 < costs["seconds"] <= LONGEST
    assert 100 < costs["private_mb"] <= LARGEST
    assert costs["private_mb"] <= costs["resident_mb"] <= BINDER - SERVER
    assert costs["device"] == "2 CPU threads"


@every_lesson
def test_readme_and_lesson_say_what_was_measured(lesson):
    """In the README: | 06 | [Feedback alignment](notebooks/…) | the question | 50 · 1 min | 850 MB |"""
    readme, costs, front = (ROOT / "README.md").read_text(), cost.of(lesson)["lesson"], lesson.front["minutes"]
    (line,) = [line for line in readme.splitlines() if f"](notebooks/{lesson.stem}.ipynb)" in line and line[0] == "|"]
    quoted = [cell.strip() for cell in line.strip("| ").split("|")][-2:]
    assert quoted == [f"{front['read']} · {minutes(costs['seconds'])} min", megabytes(costs["private_mb"])]
    assert f"{front['run']:g}" == minutes(costs["seconds"]), f"{lesson.stem}: write `run: {minutes(costs['seconds'])}`"


def test_rounding():
    assert [minutes(seconds) for seconds in (3, 44, 46, 74, 76, 90)] == ["0.5", "0.5", "1", "1", "1.5", "1.5"]
    assert [megabytes(mb) for mb in (846, 850, 851)] == ["850 MB", "850 MB", "900 MB"]


# ---------------------------------------------------------------- tools/cost.py


def notebook(path, *sources):
    cells = [nbformat.v4.new_code_cell(source) for source in sources]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), path)


def test_memory_of_children_is_seen_and_private_is_not_shared():
    hold = "import sys, time; x = bytearray(200_000_000); print(len(x), flush=True); time.sleep(60)"
    with cost.PeakMemory() as peak:
        with subprocess.Popen([sys.executable, "-c", hold], stdout=subprocess.PIPE) as child:
            assert child.stdout.readline() == b"200000000\n"
            for _ in range(200):
                if peak.private >= 200:
                    break
                peak.done.wait(0.05)
            child.kill()
    assert 200 <= peak.private <= peak.resident < 300


@pytest.fixture
def course(tmp_path, monkeypatch):
    """A course of two lessons, whose notebooks sleep for half a second."""
    monkeypatch.setattr(cost, "chosen", lambda numbers: lessons.chosen(numbers, tmp_path))
    monkeypatch.setattr(cost.torch, "set_num_threads", lambda count: None)
    monkeypatch.setattr(cost.maps, "write", lambda: None)
    monkeypatch.setattr(cost, "load_dataset", lambda name: SimpleNamespace(is_fallback=False))
    monkeypatch.setattr(cost.os, "environ", dict(cost.os.environ))
    (tmp_path / "notebooks").mkdir()
    for name in ("01_a", "02_b"):
        (tmp_path / "lessons" / name).mkdir(parents=True)
        (tmp_path / "lessons" / name / "lesson.md").write_text("---\n---\n")
        path = tmp_path / "notebooks" / f"{name}.ipynb"
        notebook(path, "import os, time", "assert os.environ['CI'] == 'true'; time.sleep(0.5)")
    (tmp_path / "lessons" / "outline.yaml").write_text("lessons: {01_a: {part: I}, 02_b: {part: I}}")
    return lessons.all_lessons(tmp_path)


def test_one_lesson_is_measured_and_nothing_else_is_touched(course, capsys):
    first, second = course
    cost.note(first, "results", {"runs": 3})
    cost.main(["1"])
    costs = cost.of(first)
    assert costs["results"] == {"runs": 3} and cost.of(second) == {}
    assert 0.5 < costs["lesson"]["seconds"] < 60 and 20 < costs["lesson"]["private_mb"] < 300
    assert {"device", "versions", "commit", "measured"} <= set(costs["lesson"])
    with pytest.raises(SystemExit):
        cost.main(["17"])
    assert "no lesson has the number 17" in capsys.readouterr().err


def test_a_lesson_that_fails_is_not_measured(course):
    notebook(course[0].notebook, "1 / 0")
    with pytest.raises(CellExecutionError):
        cost.main(["01"])
    assert cost.of(course[0]) == {}
