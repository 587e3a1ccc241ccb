"""What a lesson is: its number, its name, where everything of it stands. Every tool and every test asks here.

    for lesson in all_lessons():            # those that are written, in their order
        print(lesson.number, lesson.title, lesson.front["question"], lesson.made)
    study(find(6))["blocks"]                # what is measured, the defaults merged into every block

Number, name, part and title stand in lessons/outline.yaml; kind, question and minutes in the lesson's front matter.
"""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Lesson:
    """One lesson of the outline; `part` is the Roman number of its part, `stem` 06_feedback_alignment."""

    folder: Path
    part: str = ""
    title: str = ""

    @property
    def stem(self) -> str:
        return self.folder.name

    @property
    def number(self) -> str:
        return self.stem[:2]

    @property
    def name(self) -> str:
        return self.stem[3:]

    @property
    def root(self) -> Path:
        return self.folder.parents[1]

    @property
    def source(self) -> Path:
        return self.folder / "lesson.md"

    @property
    def study(self) -> Path:
        return self.folder / "study.yaml"

    @property
    def figures(self) -> Path:
        return self.folder / "figures.py"

    @property
    def test(self) -> Path:
        return self.folder / f"test_{self.name}.py"

    @property
    def made(self) -> Path:
        return self.folder / "made"

    @property
    def notebook(self) -> Path:
        return self.root / "notebooks" / f"{self.stem}.ipynb"

    @property
    def module(self) -> Path:
        """Where cells tagged `export` go, if there are any."""
        return self.root / "course_utils" / "rules" / f"{self.name}.py"

    @property
    def study_module(self) -> Path:
        """Where cells tagged `export-study` go, if there are any."""
        return self.root / "course_utils" / "studies" / f"{self.name}.py"

    @property
    def front(self) -> dict:
        """kind, question and minutes, as the front matter has them."""
        return yaml.safe_load(self.source.read_text(encoding="utf-8").split("---\n")[1])["lesson"]


def outline(root: Path = ROOT) -> list[Lesson]:
    """Every lesson of the course, written or planned."""
    folder = root / "lessons"
    return [Lesson(folder / stem, **words) for stem, words in read(folder / "outline.yaml")["lessons"].items()]


def parts(root: Path = ROOT) -> dict[str, str]:
    """The names of the course's parts: {"I": "The problem", …}."""
    return read(root / "lessons" / "outline.yaml")["parts"]


def all_lessons(root: Path = ROOT) -> list[Lesson]:
    """The lessons that are written."""
    return [lesson for lesson in outline(root) if lesson.source.exists()]


def find(number: str | int, root: Path = ROOT) -> Lesson:
    """The lesson of a number, "06" or 6."""
    lessons = {lesson.number: lesson for lesson in all_lessons(root)}
    if f"{number:0>2}" in lessons:
        return lessons[f"{number:0>2}"]
    raise ValueError(f"no lesson has the number {number}; there are {', '.join(lessons)}")


def chosen(numbers: Iterable[str | int] = (), root: Path = ROOT) -> list[Lesson]:
    """The lessons of these numbers; all that are written when none is given."""
    return [find(number, root) for number in numbers] or all_lessons(root)


def study(lesson: Lesson) -> dict:
    """The lesson's study.yaml, `defaults` merged into every block; a lesson that measures nothing has no blocks."""
    words = read(lesson.study) if lesson.study.exists() else {}
    defaults = words.pop("defaults", {})
    return words | {"blocks": [defaults | block for block in words.get("blocks", [])]}


def write(path: Path, content: str | bytes) -> None:
    """Write a file so that whoever reads it, and whoever kills us, finds the old one or the new one, and that whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{os.getpid()}.{path.name}")
    try:
        with temporary.open("wb") as stream:
            stream.write(content.encode() if isinstance(content, str) else content)
            stream.flush()
            os.fsync(stream.fileno())  # else a power cut may leave the new name on an empty file
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def read(path: Path) -> dict:
    return yaml.safe_load(path.read_text(encoding="utf-8")) or {}
