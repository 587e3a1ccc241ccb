"""The house keeps its shape: small files, a small core, arrows that point one way."""

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "course_utils"
FILE_LINES, PACKAGE_LINES, CORE_LINES = 250, 4_177, 1000  # the package as it stands: it may shrink, not grow
# What a reader of one training step meets; beside it the words of a refusal and the files on the disk.
CORE = ["data", "device", "network", "rule", "settings", "training", "history"]
BESIDE = ["arrays", "checkpoints", "checks", "doors", "evaluation", "feedback", "files", "metrics", "safely"]
EXPORTED = {"rules", "studies"}  # by machine, from the lessons
HAND_WRITTEN = ["course_utils/*.py", "tools/*.py", "tools/*.sh", "tests/**/*.py", "lessons/*/*.py", "Makefile"]


def lines(path):
    return len(path.read_text(encoding="utf-8").splitlines())


def modules():
    """name → file of all that is importable in the package, exported code included."""
    files = {path.relative_to(ROOT).with_suffix(""): path for path in PACKAGE.rglob("*.py")}
    return {".".join(parts.parts).removesuffix(".__init__"): path for parts, path in files.items()}


def imported(path):
    """Full names of the modules that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            package = path.parent.relative_to(ROOT).parts[: -node.level + 1 or None] if node.level else ()
            base = ".".join([*package, *filter(None, [node.module])])
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)


def arrows():
    """module → the modules of the package that it imports; `__init__` opens all doors and counts as outside."""
    known = modules()
    return {name: {to for to in imported(path) if to in known} - {"course_utils", name} for name, path in known.items()}


def inner_arrows():
    return {name: to for name, to in arrows().items() if name != "course_utils"}


@pytest.mark.parametrize("pattern", HAND_WRITTEN)
def test_no_file_by_hand_is_long(pattern):
    sizes = {path.relative_to(ROOT).as_posix(): lines(path) for path in ROOT.glob(pattern)}
    too_long = {name: size for name, size in sizes.items() if size > FILE_LINES}
    assert sizes and not too_long, too_long


def test_the_package_stays_small():
    sizes = {path.stem: lines(path) for path in PACKAGE.glob("*.py")}
    assert sum(sizes.values()) <= PACKAGE_LINES, sizes


def test_the_core_can_be_read_in_one_sitting():
    sizes = {name: lines(PACKAGE / f"{name}.py") for name in CORE}
    assert sum(sizes.values()) <= CORE_LINES, sizes


def test_no_import_runs_in_a_circle():
    try:
        TopologicalSorter(inner_arrows()).prepare()
    except CycleError as error:
        pytest.fail(" → ".join(error.args[1]))


def test_the_package_imports_no_tool_lesson_or_test():
    for name, path in modules().items():
        tops = {module.split(".")[0] for module in imported(path)}
        assert not tops & {"tools", "lessons", "tests", "helpers"}, name


def test_the_core_imports_only_the_core_and_what_stands_beside_it():
    core, beside = ({f"course_utils.{name}" for name in names} for names in (CORE, BESIDE))
    others = {name: to - core - beside for name, to in arrows().items() if name in core}
    assert not any(others.values()), others


def test_the_package_outside_studies_needs_no_study():
    for name, to in inner_arrows().items():
        if not name.startswith("course_utils.studies"):
            assert not [module for module in to if module.startswith("course_utils.studies")], name


def test_only_the_playground_knows_widgets():
    with_widgets = [name for name, path in modules().items() if "ipywidgets" in set(imported(path))]
    assert with_widgets == ["course_utils.playground"]


def test_relative_imports_are_seen(tmp_path, monkeypatch):
    """Else a circle could hide behind dots."""
    monkeypatch.setitem(globals(), "ROOT", tmp_path)
    file = tmp_path / "course_utils" / "rules" / "one.py"
    file.parent.mkdir(parents=True)
    file.write_text("from ..rule import Rule\nfrom . import two\nimport course_utils.data as d\n")
    assert {"course_utils.rule", "course_utils.rules.two", "course_utils.data"} <= set(imported(file))
