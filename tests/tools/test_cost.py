"""The README's lesson map quotes measured time and memory, and every lesson keeps within its limits."""

import importlib.util
import math
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import nbformat
import pandas as pd
import pytest
from nbclient.exceptions import CellExecutionError

ROOT = Path(__file__).parent.parent
LESSONS = sorted(path.stem for path in (ROOT / "notebooks").glob("[0-9]*.ipynb"))
LONGEST, LARGEST, BINDER = 90, 1_200, 2_000  # seconds; MB of private memory; MB that Binder gives a session
SERVER = 200  # MB for JupyterLab itself, beside the kernel


@pytest.fixture(scope="module")
def costs():
    table = pd.read_csv(ROOT / "results" / "lessons.csv")
    assert table.lesson.is_unique
    return table.set_index("lesson")


def minutes(seconds):
    """To the nearest half minute, at least one half."""
    return f"{max(0.5, round(2 * seconds / 60) / 2):g}"


def megabytes(private_mb):
    """Up to the next 50 MB."""
    return f"{50 * math.ceil(private_mb / 50)} MB"


def test_every_lesson_was_measured(costs):
    assert sorted(costs.index) == LESSONS, "measure: make cost, or make cost N=06 for one lesson"


@pytest.mark.parametrize("lesson", LESSONS)
def test_lesson_keeps_within_its_limits(costs, lesson):
    row = costs.loc[lesson]
    assert 0 < row.seconds <= LONGEST
    assert 100 < row.private_mb <= LARGEST
    assert row.private_mb <= row.resident_mb <= BINDER - SERVER
    assert row.device == "2 CPU threads"


@pytest.mark.parametrize("lesson", LESSONS)
def test_readme_and_lesson_say_what_was_measured(costs, lesson):
    """In the README: | 06 | [Feedback alignment](notebooks/…) | the question | 50 · 1 min | 850 MB |"""
    readme, row = (ROOT / "README.md").read_text(), costs.loc[lesson]
    (line,) = [line for line in readme.splitlines() if f"](notebooks/{lesson}.ipynb)" in line and line[0] == "|"]
    front = re.search(r"minutes: *{read: *(\d+), *run: *([\d.]+)}", (ROOT / "lessons" / f"{lesson}.md").read_text())
    quoted = [cell.strip() for cell in line.strip("| ").split("|")][-2:]
    assert quoted == [f"{front[1]} · {minutes(row.seconds)} min", megabytes(row.private_mb)]
    assert front[2] == minutes(row.seconds), f"lessons/{lesson}.md: write `run: {minutes(row.seconds)}`"


def test_rounding():
    assert [minutes(seconds) for seconds in (3, 44, 46, 74, 76, 90)] == ["0.5", "0.5", "1", "1", "1.5", "1.5"]
    assert [megabytes(mb) for mb in (846, 850, 851)] == ["850 MB", "850 MB", "900 MB"]


# ---------------------------------------------------------------- tools/lessons_cost.py


@pytest.fixture(scope="module")
def tool():
    spec = importlib.util.spec_from_file_location("lessons_cost", ROOT / "tools" / "lessons_cost.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def notebook(path, *sources):
    cells = [nbformat.v4.new_code_cell(source) for source in sources]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), path)


def test_memory_of_children_is_seen_and_private_is_not_shared(tool):
    hold = "import sys, time; x = bytearray(200_000_000); print(len(x), flush=True); time.sleep(60)"
    with tool.PeakMemory() as peak:
        with subprocess.Popen([sys.executable, "-c", hold], stdout=subprocess.PIPE) as child:
            assert child.stdout.readline() == b"200000000\n"
            for _ in range(200):
                if peak.private >= 200:
                    break
                peak.done.wait(0.05)
            child.kill()
    assert 200 <= peak.private <= peak.resident < 300


def test_one_lesson_is_measured_and_the_other_rows_stay(tool, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(tool, "NOTEBOOKS", tmp_path)
    monkeypatch.setattr(tool, "TABLE", tmp_path / "lessons.csv")
    monkeypatch.setattr(tool.torch, "set_num_threads", lambda count: None)
    monkeypatch.setattr(tool, "load_dataset", lambda name: SimpleNamespace(is_fallback=False))
    monkeypatch.setattr(tool.os, "environ", dict(tool.os.environ))
    for name in ("01_a", "02_b"):
        notebook(tmp_path / f"{name}.ipynb", "import os, time", "assert os.environ['CI'] == 'true'; time.sleep(0.5)")
    facts = {"seconds": 7.0, "private_mb": 1, "resident_mb": 2, "device": "d"}
    pd.DataFrame([{"lesson": n, **facts} for n in ("02_b", "01_a", "00_gone")]).to_csv(tool.TABLE, index=False)
    tool.main(["01"])
    table = pd.read_csv(tool.TABLE).set_index("lesson")
    assert list(table.index) == ["01_a", "02_b"] and table.seconds["02_b"] == 7
    assert 0.5 < table.seconds["01_a"] < 60 and 20 < table.private_mb["01_a"] < 300
    assert {"device", "versions", "commit", "measured"} <= set(table.columns)
    with pytest.raises(SystemExit):
        tool.main(["17"])
    assert "no lesson has the number 17" in capsys.readouterr().err


def test_a_lesson_that_fails_is_not_measured(tool, tmp_path):
    notebook(tmp_path / "01_a.ipynb", "1 / 0")
    with pytest.raises(CellExecutionError):
        tool.measure(tmp_path / "01_a.ipynb")
