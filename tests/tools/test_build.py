"""tools/build.py on small trees: what it makes, what it refuses, and that this repository is in step."""

import importlib.util
import json
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import nbformat
import pytest

ROOT = Path(__file__).resolve().parents[1]
spec = importlib.util.spec_from_file_location("build", ROOT / "tools" / "build.py")
assert spec and spec.loader
build = sys.modules["build"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(build)

PYPROJECT = '[project]\nname = "x"\n[project.urls]\nRepository = "https://github.com/someone/course"\n'

FRONT = """\
---
jupytext: {text_representation: {extension: .md, format_name: myst}}
kernelspec: {name: python3, display_name: Python 3 (ipykernel), language: python}
lesson:
  title: Toy rule
  kind: KIND
  minutes: {read: 35, run: 1}
---
"""

FIRST_EXPORT = "import math\n\n\nclass Toy:\n    def area(self):\n        return math.pi  # (1)"
SECOND_EXPORT = "class Other(Toy):\n    pass"

RULE = {
    "title": "# Toy rule\n\n{{badges}}\n\n{{minutes}}\n\n![the circuit, forward and back](figures/x.svg)",
    "objectives": "Derive it. See [measuring](02_measuring.md#angles) and [read me](../README.md).",
    "question": "How far?\n\n```{code-cell} ipython3\nmy_prediction = None\n```",
    "theory": "$$y_{{i}} = x \\tag{1}$$",
    "toy": "```{code-cell} ipython3\n:tags: [setup]\n:part: toy\n\nprint(1)\n```",
    "rule": "In the code.\n\n```{code-cell} ipython3\n:tags: [export]\n\n" + FIRST_EXPORT + "\n```\n\nand\n\n"
    "```{code-cell} ipython3\n:tags: [export]\n\n" + SECOND_EXPORT + "\n```",
    "facts": "Facts.",
    "exercise": "<details><summary>hint</summary>\n\n[see](https://example.org)\n\n</details>",
    "mnist": "Train.",
    "measure": "Measure.",
    "play": "Play.",
    "break": "Break.",
    "brain": "Brain.",
    "sum": "Sum.",
}
TOOL = {"title": "# Measuring", "objectives": "Measure.", "question": "What?", "sum": "That."}
SYNTHESIS = {"title": "# All", "objectives": "Compare.", "question": "Who?", "measure": "All.", "sum": "That."}

NB, RULE_FILE = "notebooks/06_toy_rule.ipynb", "course_utils/rules/toy_rule.py"


def lesson_text(parts, kind="rule"):
    """A lesson; a text that begins with a code cell carries its part in the cell's options."""
    marked = [t if t.startswith("```{") else f'+++ {{"part": "{name}"}}\n\n{t}' for name, t in parts.items()]
    return FRONT.replace("KIND", kind) + "\n" + "\n\n".join(marked) + "\n"


def write(root, name, text):
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode())
    return path


@pytest.fixture
def tree(tmp_path):
    """A repository with a tool lesson, a rule lesson, a template and a figure."""
    write(tmp_path, "pyproject.toml", PYPROJECT)
    write(tmp_path, "README.md", "read me")
    write(tmp_path, "course_utils/rules/__init__.py", "ALL = {}\n")
    write(tmp_path, "lessons/figures/x.svg", "<svg/>")
    write(tmp_path, "lessons/_template.md", "not a lesson")
    write(tmp_path, "lessons/02_measuring.md", lesson_text(TOOL, "tool"))
    write(tmp_path, "lessons/06_toy_rule.md", lesson_text(RULE))
    return tmp_path


def run(root, *options):
    return build.main(["--root", str(root), *options])


def change(root, **parts):
    """Write lesson 06 anew with some parts replaced; None leaves a part out."""
    new = {name: text for name, text in (RULE | parts).items() if text is not None}
    write(root, "lessons/06_toy_rule.md", lesson_text(new))


def cells(root, name=NB):
    return nbformat.read(root / name, as_version=4).cells


def code(source, tags=""):
    return f"```{{code-cell}} ipython3\n:tags: [{tags}]\n\n{source}\n```"


# ---------------------------------------------------------------- what it makes


def test_notebook_is_clean_valid_and_byte_stable(tree):
    assert run(tree) == 0
    made = (tree / NB).read_bytes()
    assert run(tree) == 0 and (tree / NB).read_bytes() == made
    notebook = json.loads(made)
    nbformat.validate(nbformat.reads(made.decode(), as_version=4))
    assert made.endswith(b"}\n") and b"\r" not in made and made.startswith(b'{\n "cells"')
    assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5)
    assert notebook["metadata"] == {
        "kernelspec": {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    for cell in notebook["cells"]:
        assert set(cell["metadata"]) <= {"tags"} or cell["id"] == "on-colab"
        if cell["cell_type"] == "code":
            assert cell["outputs"] == [] and cell["execution_count"] is None
    assert not (tree / "notebooks/_template.ipynb").exists()


def test_windows_line_ends_make_the_same_notebook(tree):
    assert run(tree) == 0
    source = tree / "lessons/06_toy_rule.md"
    source.write_bytes(source.read_bytes().replace(b"\n", b"\r\n"))
    assert run(tree, "--check") == 0


def test_only_the_edited_cell_gets_a_new_id(tree):
    run(tree)
    before = [cell.id for cell in cells(tree)]
    change(tree, facts="Other facts.")
    run(tree)
    after = [cell.id for cell in cells(tree)]
    differ = [k for k, (old, new) in enumerate(zip(before, after, strict=True)) if old != new]
    assert [cells(tree)[k].source for k in differ] == ["Other facts."]


def test_equal_cells_get_different_ids(tree):
    change(tree, facts="Same.", mnist="Same.", play="Same.")
    run(tree)
    ids = [cell.id for cell in cells(tree) if cell.source == "Same."]
    assert ids == [ids[0], f"{ids[0]}-2", f"{ids[0]}-3"] and len(ids[0]) == 8


def test_links_lead_from_the_notebooks(tree):
    html = '<img alt="the same circuit once more" src="figures/x.svg"> <a href="02_measuring.md">m</a>'
    code = "`[a](b.md)` and $f[0](x)$\n\n```md\n[a](b.md)\n```\n"
    nested = "[![the circuit as a link](figures/x.svg)](02_measuring.md)\n\n[named]: ../README.md"
    other = "[t](_template.md) [m](mailto:a@b.c) [h](#here) [w](https://a.b/c.md)"
    change(tree, facts="\n\n".join([html, code, nested, other]))
    assert run(tree) == 0
    text = "\n".join(cell.source for cell in cells(tree))
    assert "![the circuit, forward and back](../lessons/figures/x.svg)" in text
    assert "[measuring](02_measuring.ipynb#angles) and [read me](../README.md)" in text
    assert html.replace("figures", "../lessons/figures").replace(".md", ".ipynb") in text
    assert code.strip() in text
    assert "](../lessons/figures/x.svg)](02_measuring.ipynb)\n\n[named]: ../README.md" in text
    assert other.replace("_template", "../lessons/_template") in text


def test_badges_and_links_come_from_the_one_address(tree):
    change(tree, sum="[Report]({{repository}}/issues), not `{{repository}}`.")
    assert run(tree) == 0
    title, last = cells(tree)[0].source, cells(tree)[-1].source
    assert "https://mybinder.org/v2/gh/someone/course/HEAD?urlpath=lab/tree/" + NB in title
    assert "https://colab.research.google.com/github/someone/course/blob/main/" + NB in title
    assert "https://github.com/someone/course/blob/main/lessons/06_toy_rule.md" in title
    assert "35 min to read · 1 min to run" in title and "{{" not in title
    assert last == "[Report](https://github.com/someone/course/issues), not `{{repository}}`."

    write(tree, "pyproject.toml", PYPROJECT.replace("someone/course", "else/where"))
    assert run(tree) == 0
    assert "someone" not in (tree / NB).read_text() and "gh/else/where/HEAD" in cells(tree)[0].source


def test_address_that_makes_no_badges_is_named(tree):
    write(tree, "pyproject.toml", PYPROJECT.replace("https://github.com/someone/course", "nowhere"))
    with pytest.raises(SystemExit, match="Repository must read"):
        run(tree)


def test_exported_module_is_the_export_cells(tree):
    assert run(tree) == 0
    text = (tree / RULE_FILE).read_text()
    header = "# Exported from lessons/06_toy_rule.md. Edit the lesson, not this file.\n\n"
    assert text == header + FIRST_EXPORT + "\n\n\n" + SECOND_EXPORT + "\n"
    shown = [cell.source for cell in cells(tree) if "export" in cell.metadata.get("tags", [])]
    assert shown == [FIRST_EXPORT, SECOND_EXPORT]
    namespace: dict = {}
    exec(compile(text, RULE_FILE, "exec"), namespace)
    assert namespace["Other"]().area() == pytest.approx(3.14159, abs=1e-4)
    assert not (tree / "course_utils/rules/measuring.py").exists()


def colab(root, name=NB):
    """The one cell that the build itself writes."""
    (cell,) = [cell for cell in cells(root, name) if cell.id == "on-colab"]
    return cell


def test_install_cell_follows_the_title_of_every_notebook(tree):
    assert run(tree) == 0
    for name in (NB, "notebooks/02_measuring.ipynb"):
        title, second = cells(tree, name)[:2]
        assert title.source.startswith("# ") and second == colab(tree)
    assert colab(tree).metadata == {"tags": ["setup", "hide-input"], "jupyter": {"source_hidden": True}}
    assert set(colab(tree).metadata.tags) <= build.TAGS
    assert 'address, course = "https://github.com/someone/course", "/content/course"' in colab(tree).source
    assert max(map(len, colab(tree).source.splitlines())) <= 100


def test_install_cell_does_nothing_outside_colab(tree, monkeypatch):
    run(tree)
    monkeypatch.delitem(sys.modules, "google.colab", raising=False)
    monkeypatch.setattr(subprocess, "run", None)
    before, path, folder = set(sys.modules), list(sys.path), Path.cwd()
    namespace: dict = {}
    exec(colab(tree).source, namespace)
    assert set(namespace) - {"__builtins__"} == {"sys"}
    assert (set(sys.modules), sys.path, Path.cwd()) == (before, path, folder)


def test_install_cell_fetches_the_course_on_colab(tree, monkeypatch, tmp_path):
    """In a world where google.colab is imported, /content is a folder of ours, and git and pip are listened to."""
    run(tree)
    calls: list = []

    def listen(command, check):
        calls.append(command)
        assert check
        if command[0] == "git":
            assert command[1] == "clone" and command[-2] == "https://github.com/someone/course"
            shutil.copytree(tree / "notebooks", f"{command[-1]}/notebooks")

    course = str(tmp_path / "content" / "course")
    monkeypatch.setitem(sys.modules, "google.colab", ModuleType("google.colab"))
    monkeypatch.setattr(subprocess, "run", listen)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.chdir(tmp_path)
    for _ in range(2):  # a learner may run it twice
        exec(colab(tree).source.replace("/content/course", course), {})
        assert Path.cwd() == Path(course, "notebooks") and sys.path[0] == course
        assert [command[0] for command in calls] == ["git", sys.executable]
    assert calls[1][1:] == ["-m", "pip", "install", "--quiet", "--no-deps", "-e", course]


def test_parts_of_each_kind(tree):
    write(tree, "lessons/28_all.md", lesson_text(SYNTHESIS, "synthesis"))
    free = {"title": "# T", "play": "Play.", "objectives": "O.", "toy": "Toy.", "question": "Q?", "sum": "S."}
    write(tree, "lessons/02_measuring.md", lesson_text(free, "tool"))
    assert run(tree) == 0 and (tree / "notebooks/28_all.ipynb").exists()


# ---------------------------------------------------------------- --check


def test_check_passes_after_a_build_and_writes_nothing(tree, capsys):
    assert run(tree, "--check") == 1 and not (tree / NB).exists()
    run(tree)
    assert run(tree, "--check") == 0
    assert "3 files checked, 0 out of date, 0 left over" in capsys.readouterr().out


@pytest.mark.parametrize("name", [NB, RULE_FILE])
def test_check_finds_drift(tree, capsys, name):
    run(tree)
    path = tree / name
    path.write_bytes(path.read_bytes() + b"\n")
    assert run(tree, "--check") == 1
    assert f"{name}: not what its lesson makes" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["notebooks/07_gone.ipynb", "course_utils/rules/gone.py"])
def test_check_finds_left_over_files(tree, capsys, name):
    run(tree)
    write(tree, name, "")
    assert run(tree, "--check") == 1
    assert f"{name}: no lesson makes this file" in capsys.readouterr().out


def test_this_repository_is_in_step(capsys):
    assert run(ROOT, "--check") == 0, capsys.readouterr().out


# ---------------------------------------------------------------- what it refuses

CELL = "```{code-cell} ipython3\npass\n```"
LONG_CLASS = "import math\n\n\nclass Long:\n" + "\n".join(f"    a{k} = {k}" for k in range(40))
LONG_CELL = code("\n".join(f"a{k} = 1" for k in range(26)))
WORDS = "{}\n\n{}\n\n{}".format(CELL, "word " * 151, CELL)

FAULTS = {
    "missing part": (dict(toy=None), "cell 5 (theory)", "no part 'toy'"),
    "unknown part": (dict(toy='Toy.\n\n+++ {"part": "toys"}\n\nToys.'), "(toys)", "unknown part 'toys'"),
    "lost mark": (dict(facts=CELL + '\n\n+++ {"part": "facts"}\n\n' + CELL), "(rule)", "is lost"),
    "unknown tag": (dict(facts="F.\n\n" + code("1", "exprot")), "cell 12 (facts)", "unknown tag 'exprot'"),
    "nbval-skip": (dict(facts="F.\n\n" + code("1", "nbval-skip")), "(facts)", "unknown tag 'nbval-skip'"),
    "may raise": (dict(facts="F.\n\n" + code("1", "raises-exception")), "(facts)", "unknown tag 'raises-exc"),
    "unknown option": (dict(facts="F.\n\n" + CELL.replace("pass", ":tag: [a]\n\npass")), "(facts)", "option 'tag'"),
    "raw cell": (dict(facts="F.\n\n```{raw-cell}\nx\n```"), "cell 12 (facts)", "raw cell"),
    "long cell": (dict(facts="F.\n\n" + LONG_CELL), "cell 12 (facts)", "26 lines of code"),
    "many cells": (dict(facts="F.\n\n" + "\n\n".join([CELL] * 42)), "cell 53 (facts)", "46 code cells"),
    "prose": (dict(facts="F.\n\n" + WORDS), "cell 13 (facts)", "151 words between two code cells"),
    "no alt": (dict(facts="![](figures/x.svg)"), "cell 11 (facts)", "image with alt text ''"),
    "short alt": (dict(facts="![a fine circuit](figures/x.svg)"), "(facts)", "image with alt text 'a fine circ"),
    "html alt": (dict(facts='<img src="figures/x.svg">'), "cell 11 (facts)", "image with alt text ''"),
    "broken link": (dict(facts="[a](nowhere.md)"), "cell 11 (facts)", "broken link 'nowhere.md'"),
    "broken image": (dict(facts="![one two three four](y.svg)"), "(facts)", "broken link 'y.svg'"),
    "html link": (dict(facts='<a href="07_gone.md">x</a>'), "(facts)", "broken link '07_gone.md'"),
    "leaves the tree": (dict(facts="[a](../../)"), "(facts)", "broken link '../../'"),
    "root path": (dict(facts="[a](/)"), "(facts)", "broken link '/'"),
    "placeholder": (dict(facts="{{minute}}"), "cell 11 (facts)", "placeholder {{minute}} cannot"),
    "late badges": (dict(facts="{{badges}}"), "cell 11 (facts)", "placeholder {{badges}} cannot"),
    "long class": (dict(rule="R.\n\n" + code(LONG_CLASS, "export")), "cell 8 (rule)", "class Long has 41 lines"),
    "no imports": (dict(rule="R.\n\n" + code("x = 1", "export")), "cell 8 (rule)", "does not begin with imports"),
    "relative": (dict(rule="R.\n\n" + code("from . import x", "export")), "(rule)", "relative import"),
    "root": (dict(rule="R.\n\n" + code("import course_utils as cu", "export")), "(rule)", "package root"),
    "from root": (dict(rule="R.\n\n" + code("from course_utils import x", "export")), "(rule)", "package root"),
    "for Colab": (dict(facts="F.\n\n" + code("'google.colab'")), "cell 12 (facts)", "a cell for Colab"),
    "magic": (dict(rule="R.\n\n" + code("%time 1", "export")), "cell 8 (rule)", "does not compile"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_refuses(tree, capsys, fault):
    parts, where, reason = FAULTS[fault]
    change(tree, **parts)
    assert run(tree) == 1
    lines = [line for line in capsys.readouterr().out.splitlines() if reason in line]
    assert lines and lines[0].startswith("lessons/06_toy_rule.md: cell ")
    assert where in lines[0] and " — " in lines[0]
    assert not (tree / NB).exists()


FRONT_FAULTS = {
    "kind": ("kind: rule", "kind: poem", "cell 0 (front matter): kind is 'poem'"),
    "no kind": ("  kind: rule\n", "", "cell 0 (front matter): kind is 'None'"),
    "minutes": ("read: 35, run: 1", "read: 35", "cell 0 (front matter): no minutes to run"),
    "no minutes": ("  minutes: {read: 35, run: 1}\n", "", "cell 0 (front matter): no minutes to read"),
    "yaml": ("title: Toy rule", "title: [", "cell 0 (source): unreadable"),
    "tags": (":tags: [export]", ":tags: export", "'export' is not of type 'array'"),
    "no mark": ('+++ {"part": "title"}', "", "cell 1 (no part): belongs to no part"),
}


@pytest.mark.parametrize("fault", FRONT_FAULTS)
def test_refuses_source(tree, capsys, fault):
    old, new, message = FRONT_FAULTS[fault]
    path = tree / "lessons/06_toy_rule.md"
    assert old in path.read_text()
    write(tree, "lessons/06_toy_rule.md", path.read_text().replace(old, new))
    assert run(tree) == 1
    assert message in capsys.readouterr().out


def test_refuses_parts_out_of_order(tree, capsys):
    names = list(RULE)
    names[6], names[7] = names[7], names[6]
    write(tree, "lessons/06_toy_rule.md", lesson_text({name: RULE[name] for name in names}))
    assert run(tree) == 1
    assert "cell 12 (facts): part 'facts' is out of order" in capsys.readouterr().out


def test_refuses_file_names_that_make_no_lesson(tree, capsys):
    write(tree, "lessons/7_short.md", "x")
    write(tree, "lessons/07_toy_rule.md", lesson_text(RULE))
    assert run(tree) == 1
    out = capsys.readouterr().out
    assert "lessons/7_short.md: cell 0 (file name)" in out
    assert "another lesson makes course_utils/rules/toy_rule.py" in out


def test_reports_every_fault_at_once(tree, capsys):
    change(tree, facts="[a](b.md)", play="![](c.svg)")
    assert run(tree) == 1
    assert len(capsys.readouterr().out.splitlines()) == 3


def test_what_does_not_count(tree):
    """Free: theory's prose, folds, fences, maths; long export cells; docstrings, comments, imports."""
    quiet = '    """' + "long\n" * 30 + '    """\n    # why\n\n    import math\n'
    cls = "import math\n\n\nclass Long:\n" + quiet + "\n".join(f"    a{k} = {k}" for k in range(39))
    uncounted = "$$" + "x y " * 200 + "$$\n\n```\n" + "w " * 200 + "\n```\n\n<details>" + "w " * 200 + "</details>"
    change(
        tree,
        theory=f"{CELL.replace('pass', ':part: theory')}\n\n" + "word " * 400,
        rule="R.\n\n" + code(cls, "export"),
        facts=f"F.\n\n{CELL}\n\n" + "word " * 149 + uncounted + f"\n\n{CELL}",
    )
    assert run(tree) == 0
