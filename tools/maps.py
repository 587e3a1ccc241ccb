"""The maps of the lessons and the table of accuracies, written between their marks; `tools.build` calls it.

<!-- by machine: lessons -->
<!-- end: lessons -->
"""

import csv
import functools
import itertools
import math
from collections.abc import Callable
from pathlib import Path

from tools import lessons
from tools.lessons import Lesson

START = "lessons/00_start_here/lesson.md"


def filled(root: Path) -> dict[str, str]:
    """{path: its text with every table made anew} of the documents that hold one."""
    documents: dict[str, str] = {}
    for name, tables in TABLES.items():
        if (root / name).exists():
            text = (root / name).read_text(encoding="utf-8")
            for mark, table in tables.items():
                text = put(text, mark, functools.partial(table, root))
            documents[name] = text
    return documents


def put(text: str, mark: str, table: Callable[[], list[str]]) -> str:
    """`text` with the table between its marks, if it has them."""
    begin, end = f"<!-- by machine: {mark} -->\n", f"<!-- end: {mark} -->"
    if begin not in text:
        return text
    before, _, rest = text.partition(begin)
    if end not in rest:
        raise ValueError(f"{begin.strip()} has no {end} after it")
    return "\n".join([before + begin, *table(), "", end + rest.partition(end)[2]])


# ---------------------------------------------------------------- the lessons


def readme_map(root: Path) -> list[str]:
    """The lessons that are written, with what they cost."""
    rows = ["| | Lesson | The question | read · run | memory |", "|---|---|---|---|---|"]
    for lesson in lessons.all_lessons(root):
        front = lesson.front
        minutes = "{read:g} · {run:g} min".format(**front["minutes"])
        link = f"[{lesson.title}](notebooks/{lesson.stem}.ipynb)"
        rows.append(f"| {lesson.number} | {link} | {front['question']} | {minutes} | {memory(lesson)} |")
    return rows


def memory(lesson: Lesson) -> str:
    """Private memory, up to the next 50 MB; a dash as long as it was not measured."""
    path = lesson.made / "cost.yaml"
    cost = lessons.read(path).get("lesson", {}) if path.exists() else {}
    return f"{50 * math.ceil(cost['private_mb'] / 50)} MB" if cost else "–"


def start_map(root: Path) -> list[str]:
    """All lessons by their parts; neighbours that are only planned share a row."""
    names, rows = lessons.parts(root), ["| | lesson | the question |", "|---|---|---|"]
    for part, members in itertools.groupby(lessons.outline(root), key=lambda lesson: lesson.part):
        rows.append(f"| **{part}** | **{names[part]}** | |")
        for written, neighbours in itertools.groupby(members, key=lambda lesson: lesson.source.exists()):
            group = list(neighbours)
            rows += [written_row(lesson) for lesson in group] if written else [planned_row(group)]
    return rows


def written_row(lesson: Lesson) -> str:
    itself = f"lessons/{lesson.stem}/lesson.md" == START
    link = lesson.title if itself else f"[{lesson.title}](../{lesson.stem}/lesson.md)"
    return f"| {lesson.number} | {link} | {lesson.front['question']} |"


def planned_row(group: list[Lesson]) -> str:
    numbers = "–".join(dict.fromkeys([group[0].number, group[-1].number]))
    return f"| {numbers} | {' · '.join(lesson.title for lesson in group)} | *planned* |"


# ---------------------------------------------------------------- the accuracies


def accuracies(root: Path) -> list[str]:
    """What each rule reached that has a target and a frozen control below it, and what the control reached."""
    rows = ["| network | rule | lesson | test | frozen hidden |", "|---|---|---|---|---|"]
    for lesson in lessons.all_lessons(root):
        targets: dict[str, dict] = {}  # the first of each class: what follows are its variants
        for target in lessons.study(lesson).get("targets", []):
            if "at_least" in target and frozen(target):
                targets.setdefault(target["rule"].partition("(")[0], target)
        rows += [row for target in targets.values() for row in accuracy_row(lesson, target)]
    return rows


def frozen(target: dict) -> list[str]:
    return [rule for rule in target.get("above", {}) if rule.startswith("FrozenHidden(")]


def accuracy_row(lesson: Lesson, target: dict) -> list[str]:
    """One row, or none before both are measured; backprop's frozen control comes before the rule's own."""
    home = lessons.find(target.get("control_lesson", lesson.number), lesson.root)
    rule = reached(lesson, [target["rule"]])
    control = reached(home, ["FrozenHidden(Backprop)", *frozen(target)], rule[0]) if rule else None
    if not rule or not control:
        return []
    return [f"| {rule[0]} | `{target['rule']}` | {lesson.number} | {rule[1]:.2f} | {control[1]:.2f} |"]


def reached(lesson: Lesson, rules: list[str], sizes: str = "") -> tuple[str, float] | None:
    """Sizes, and per cent of the test images after the last epoch, in the first block of the first of these rules."""
    runs = sorted(last_accuracies(lesson).items())
    for rule in rules:
        for (_, name, network), values in runs:
            if name == rule and sizes in ("", network):
                return network, 100 * sum(values) / len(values)
    return None


def last_accuracies(lesson: Lesson) -> dict[tuple[int, str, str], list[float]]:
    """{(block, rule, sizes): the test accuracies of the lesson's stored runs, one a seed}."""
    runs: dict[tuple[int, str, str], list[float]] = {}
    for path in sorted((lesson.made / "runs").glob("*.csv")):
        lines = path.read_text(encoding="utf-8").splitlines()
        for row in csv.DictReader(line for line in lines if not line.startswith("# ")):
            if row["test_accuracy"]:
                run = int(row["block"]), row["rule"], row["sizes"]
                runs.setdefault(run, []).append(float(row["test_accuracy"]))
    return runs


TABLES = {"README.md": {"lessons": readme_map, "accuracies": accuracies}, START: {"lessons": start_map}}


def write(root: Path = lessons.ROOT) -> None:
    """Make the tables anew after a measurement."""
    for name, text in filled(root).items():
        lessons.write(root / name, text)
