"""A lesson made from the template in a copy of the course: four files, a line, a command, and its tests are green."""

import shutil
import subprocess
import sys
from dataclasses import replace

import matplotlib.pyplot as plt
import nbformat
import pytest
import torch

import course_utils as cu
from tools import refuse
from tools.lessons import ROOT, Lesson

TEMPLATE = Lesson(ROOT / "lessons" / "_template")
NEW = "35_lost_messages"  # after the last planned one, so that no lesson ever takes its number
# Of all tests those that a new lesson could break: what is named after it, and what looks at the course as a whole;
# without the slow ones that look at a course, a rule or a stored row of their own.
SELECTION = """
def pytest_collection_modifyitems(items):
    new = ("35_", "lost_messages", "LostMessages")
    own = ("a_row_run_again", "is_measured", "not_measured", "memory_of_children", "rule_of_ones_own")
    items[:] = [
        item for item in items
        if any(name in item.nodeid for name in new) or not ("[" in item.name or any(name in item.name for name in own))
    ]
"""


def call(course, *words):
    done = subprocess.run([sys.executable, "-m", *words], cwd=course, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def course(tmp_path_factory):
    """A copy of the tracked files in which the template has become lesson 35."""
    course = tmp_path_factory.mktemp("course")
    names = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in filter(None, names.split("\0")):
        if (ROOT / name).exists():
            (course / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, course / name)
    shutil.copytree(course / "lessons/_template", course / "lessons" / NEW)
    outline = course / "lessons/outline.yaml"
    outline.write_text(f"{outline.read_text()}  {NEW}: {{part: VIII, title: Lost messages}}\n")
    call(course, "tools.build")
    call(course, "tools.figures", "35")
    return course


def test_nothing_else_is_edited_and_every_test_it_could_break_is_green(course):
    (course / "selection.py").write_text(SELECTION)
    names = ("build", "documents", "lessons", "maps", "figures", "house", "readme", "cost")
    tests = ["tests/contract", *(f"tests/tools/test_{name}.py" for name in names)]
    all_rules = [course / f"lessons/{name}" for name in ("28_grand_comparison", "29_harder_worlds", "30_hybrids")]
    verdicts = [path.relative_to(course) for lesson in all_rules for path in lesson.glob("test_*verdicts.py")]
    words = ["pytest", "-p", "selection", "-p", "no:cacheprovider", *tests, *map(str, verdicts), f"lessons/{NEW}"]
    assert len(verdicts) == 3 and " passed" in call(course, *words)


def test_it_is_on_the_maps_and_its_rule_is_exported(course):
    link = "[Lost messages](notebooks/35_lost_messages.ipynb)"
    assert (course / "README.md").read_text().count(link) == 1
    assert "[Lost messages](35_lost_messages.ipynb)" in (course / "notebooks/00_start_here.ipynb").read_text()
    assert "class LostMessages(Rule)" in (course / "course_utils/rules/lost_messages.py").read_text()
    assert not list(course.glob("notebooks/*template*"))


def test_its_products_pass_the_linter(course):
    call(course, "ruff", "check", "--quiet", f"notebooks/{NEW}.ipynb", "course_utils/rules/lost_messages.py")


def test_it_runs_from_top_to_bottom_on_the_digits(course, monkeypatch):
    digits = replace(cu.load_dataset("digits", device="cpu"), requested="mnist")
    monkeypatch.setattr(cu, "load_dataset", lambda name, limit=None: digits)
    monkeypatch.setattr(cu, "setup", lambda seed: "cpu")
    monkeypatch.setenv("CI", "true")
    torch.manual_seed(0)
    namespace: dict = {}
    for cell in nbformat.read(course / f"notebooks/{NEW}.ipynb", 4).cells:
        if cell.cell_type == "code":
            exec(cell.source, namespace)
    plt.close("all")
    assert namespace["lab"].message.value == "" and namespace["lab"].history.samples > 0
    assert issubclass(namespace["LostMessages"], cu.Rule)


def test_the_template_uses_every_part_and_explains_it():
    text = TEMPLATE.source.read_text()
    assert text.count('+++ {"part": ') == len(refuse.PARTS)
    for part, name in zip(text.split('+++ {"part": "')[1:], refuse.PARTS, strict=True):
        assert part.startswith(f'{name}"}}') and "<!--" in part, name
