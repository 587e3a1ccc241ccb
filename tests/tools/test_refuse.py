"""What the build refuses, each fault in a small course: it names the cell, what is wrong and how to mend it."""

import pytest
from helpers import small_course as course
from helpers.small_course import CELL, EXERCISE, NOTEBOOK, RULE, change, code, lesson_text, run, write


@pytest.fixture
def tree(tmp_path):
    return course.small_course(tmp_path)


LONG_CLASS = "import math\n\n\nclass Long:\n" + "\n".join(f"    a{k} = {k}" for k in range(40))
LONG_CELL = code("\n".join(f"a{k} = 1" for k in range(26)))
WORDS = "{}\n\n{}\n\n{}".format(CELL, "word " * 151, CELL)


def slips(name, pairs):
    """The exercise with other slips."""
    return dict(exercise=EXERCISE.split("{slips}")[0] + f"{{slips}} {name}\n{pairs}\n```")


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
    "no alt": (dict(facts="![](made/x.svg)"), "cell 11 (facts)", "image with alt text ''"),
    "short alt": (dict(facts="![a fine circuit](made/x.svg)"), "(facts)", "image with alt text 'a fine circ"),
    "html alt": (dict(facts='<img src="made/x.svg">'), "cell 11 (facts)", "image with alt text ''"),
    "broken link": (dict(facts="[a](nowhere.md)"), "cell 11 (facts)", "broken link 'nowhere.md'"),
    "broken image": (dict(facts="![one two three four](y.svg)"), "(facts)", "broken link 'y.svg'"),
    "html link": (dict(facts='<a href="../07_gone/lesson.md">x</a>'), "(facts)", "broken link '../07_gone/lesson.md'"),
    "leaves the tree": (dict(facts="[a](../../../)"), "(facts)", "broken link '../../../'"),
    "root path": (dict(facts="[a](/)"), "(facts)", "broken link '/'"),
    "placeholder": (dict(facts="{{minute}}"), "cell 11 (facts)", "placeholder {{minute}} cannot"),
    "late badges": (dict(facts="{{badges}}"), "cell 11 (facts)", "placeholder {{badges}} cannot"),
    "long class": (dict(rule="R.\n\n" + code(LONG_CLASS, "export")), "cell 8 (rule)", "class Long has 41 lines"),
    "no imports": (dict(rule="R.\n\n" + code("x = 1", "export")), "cell 8 (rule)", "does not begin with imports"),
    "relative": (dict(rule="R.\n\n" + code("from . import x", "export")), "(rule)", "relative import"),
    "root": (dict(rule="R.\n\n" + code("import course_utils as cu", "export")), "(rule)", "package root"),
    "from root": (dict(rule="R.\n\n" + code("from course_utils import x", "export")), "(rule)", "package root"),
    "for Colab": (dict(facts="F.\n\n" + code("'google.colab'")), "cell 12 (facts)", "a cell for Colab"),
    "study": (dict(facts="F.\n\n" + code("from course_utils import x", "export-study")), "(facts)", "package root"),
    "long study": (dict(facts="F.\n\n" + code(LONG_CLASS, "export-study")), "(facts)", "class Long has 41 lines"),
    "slips alone": (dict(exercise="E.\n\n```{slips} my_identity\n- [a, b]\n```"), "(exercise)", "without its solution"),
    "misnamed slips": (slips("my_idntity", '- ["return x", "return -x"]'), "(exercise)", "without its solution"),
    "unnamed slips": (slips("", '- ["return x", "return -x"]'), "(exercise)", "without its solution"),
    "idle slip": (slips("my_identity", '- ["return y", "return -x"]'), "(exercise)", "'return y' changes nothing"),
    "single slip": (slips("my_identity", '- ["return x"]'), "(exercise)", "no list of pairs"),
    "slips of numbers": (slips("my_identity", "- [1, 2]"), "(exercise)", "no list of pairs"),
    "no YAML": (slips("my_identity", '- ["return'), "(exercise)", "are no YAML"),
    "open slips": (dict(exercise=EXERCISE.removesuffix("```")), "(exercise)", "not closed"),
    "magic": (dict(rule="R.\n\n" + code("%time 1", "export")), "cell 8 (rule)", "does not compile"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_refuses(tree, capsys, fault):
    parts, where, reason = FAULTS[fault]
    change(tree, **parts)
    assert run(tree) == 1
    lines = [line for line in capsys.readouterr().out.splitlines() if reason in line]
    assert lines and lines[0].startswith("lessons/06_toy_rule/lesson.md: cell ")
    assert where in lines[0] and " — " in lines[0]
    assert not (tree / NOTEBOOK).exists()


FRONT_FAULTS = {
    "kind": ("kind: rule", "kind: poem", "cell 0 (front matter): kind is 'poem'"),
    "no kind": ("  kind: rule\n", "", "cell 0 (front matter): kind is 'None'"),
    "minutes": ("read: 35, run: 1", "read: 35", "cell 0 (front matter): no minutes to run"),
    "no minutes": ("  minutes: {read: 35, run: 1}\n", "", "cell 0 (front matter): no minutes to read"),
    "yaml": ("question: How far?", "question: [", "cell 0 (source): unreadable"),
    "tags": (":tags: [export]", ":tags: export", "'export' is not of type 'array'"),
    "no mark": ('+++ {"part": "title"}', "", "cell 1 (no part): belongs to no part"),
}


@pytest.mark.parametrize("fault", FRONT_FAULTS)
def test_refuses_source(tree, capsys, fault):
    old, new, message = FRONT_FAULTS[fault]
    path = tree / "lessons/06_toy_rule/lesson.md"
    assert old in path.read_text()
    write(tree, "lessons/06_toy_rule/lesson.md", path.read_text().replace(old, new))
    assert run(tree) == 1
    assert message in capsys.readouterr().out


def test_refuses_parts_out_of_order(tree, capsys):
    names = list(RULE)
    names[6], names[7] = names[7], names[6]
    write(tree, "lessons/06_toy_rule/lesson.md", lesson_text({name: RULE[name] for name in names}))
    assert run(tree) == 1
    assert "cell 12 (facts): part 'facts' is out of order" in capsys.readouterr().out


def test_refuses_folders_and_names_that_make_no_lesson(tree, capsys):
    write(tree, "lessons/05_stranger/lesson.md", lesson_text(RULE))
    outline = (tree / "lessons/outline.yaml").read_text()
    more = "  8_short: {part: III, title: Short}\n  09_toy_rule: {part: III, title: Again}\n"
    write(tree, "lessons/outline.yaml", outline + more)
    assert run(tree) == 1
    out = capsys.readouterr().out
    assert "lessons/05_stranger: not in the outline" in out
    assert "8_short: not NN_name" in out
    assert "two lessons are called toy_rule" in out


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
