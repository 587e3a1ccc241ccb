"""A lesson's Markdown: what in it is prose, where it links to, which wrong answers it lists; read into cells.

Wrong answers stand behind the folded solution that they spoil, as pairs (in the solution, instead of it):

    ```{slips} my_update
    - [" / len(x)", ""]
    ```
"""

import posixpath
import re
from dataclasses import dataclass

import jupytext
import yaml

from tools.lessons import Lesson

# What Markdown does not read as prose. Blocks hold no words that count; inline code and maths are one word.
FENCE = r"^[ \t]*(?P<fence>`{3,}|~{3,})[^\n]*\n.*?(?:^[ \t]*(?P=fence)|\Z)"
ENVIRONMENT = r"\\begin\{(?P<env>\w+\*?)\}.{0,4000}?\\end\{(?P=env)\}"
# No pattern may look further than to where the next of its kind begins: a long text of beginnings would take for ever.
BLOCKS = FENCE + rf"|\$\$.*?\$\$|{ENVIRONMENT}|<!--(?:(?!<!--).)*?-->"
CODE_SPAN = r"(?<!`)(?P<ticks>`+)(?!`)(?:(?!\n\s*\n).)+?(?<!`)(?P=ticks)(?!`)"
MATHS = r"(?<!\\)\$(?=\S)(?:\\.|[^$\\\n]|\n(?!\s*\n))+?(?<=\S)\$(?!\d)"
NOT_PROSE = re.compile(f"{BLOCKS}|{CODE_SPAN}|{MATHS}", re.M | re.S)
NO_WORDS = re.compile(rf"<details(?:(?!<details).)*?</details>|{BLOCKS}", re.M | re.S)

INSIDE_TAG = r"""(?:[^<>"']|"[^"]*"|'[^']*')*"""
MD_IMAGE = re.compile(r"!\[((?:[^\[\]]|\[[^\[\]]*\])*)\](?=[(\[])")
HTML_IMAGE = re.compile(rf"<img\b{INSIDE_TAG}>")
HTML_ALT = re.compile(r"""\balt\s*=\s*(["'])(.*?)\1""", re.S)
TARGETS = [
    re.compile(r"\]\(\s*<?([^)\s>]+)"),  # [text](target) and ![alt](target)
    re.compile(r"^ {0,3}\[(?!\^)[^\]\n]+\]:\s+<?([^\s>]+)", re.M),  # [name]: target
    re.compile(rf"""<\w{INSIDE_TAG}?\b(?:src|href)\s*=\s*["']?([^"'\s>]+)"""),
]
PLACEHOLDER = re.compile(r"\{\{([a-z_]+)\}\}")
SLIPS = re.compile(r"(?<!\n)\n*^```\{slips\}[ \t]*(\w*)[ \t]*\n((?:(?!```)[^\n]*\n)*)^```[ \t]*$", re.M)
IN_FOLD = r"(?:(?!<details|```).)*"
SOLUTION = re.compile(
    rf'<details class="solution">{IN_FOLD}```python\n(?P<code>(?:(?!```).)*)```(?:(?!<details).)*?</details>', re.S
)
FUNCTION = re.compile(r"^def (my_\w+)", re.M)


@dataclass
class Cell:
    """One cell of a lesson; `begins` says that it carries the mark of its part."""

    number: int
    type: str
    source: str
    tags: list[str]
    part: str
    begins: bool
    other_keys: list[str]


@dataclass
class Page:
    """A lesson as read: its text, what the front matter says, its cells."""

    lesson: Lesson
    text: str
    kind: str
    question: str
    minutes: dict
    cells: list[Cell]

    @property
    def where(self) -> str:
        """The source, as messages name it."""
        return f"lessons/{self.lesson.stem}/lesson.md"

    def exports(self, tag: str) -> list[Cell]:
        return [cell for cell in self.cells if cell.type == "code" and tag in cell.tags]


def read(lesson: Lesson, text: str) -> Page:
    """A MyST text as a page; a part lasts from its mark to the next."""
    notebook = jupytext.reads(text, fmt="md:myst")
    front = as_dict(notebook.metadata.get("lesson"))
    cells: list[Cell] = []
    part = "no part"
    for number, cell in enumerate(notebook.cells, 1):
        begins = "part" in cell.metadata
        part = str(cell.metadata.get("part", part))
        other = sorted(set(cell.metadata) - {"tags", "part"})
        tags = cell.metadata.get("tags", [])
        cells.append(Cell(number, cell.cell_type, cell.source, tags, part, begins, other))
    kind, question = (str(front.get(name, "None")) for name in ("kind", "question"))
    return Page(lesson, text, kind, question, as_dict(front.get("minutes")), cells)


def as_dict(value: object) -> dict:
    return value if isinstance(value, dict) else {}


# ---------------------------------------------------------------- prose


def mask(source: str) -> str:
    """The Markdown with code, maths and comments blotted out, character for character."""
    return NOT_PROSE.sub(lambda match: re.sub(r"[^\n]", "\0", match[0]), source)


def count_words(source: str) -> int:
    """Words of prose: no displayed maths, fenced code, folds, images or HTML tags."""
    text = mask(MD_IMAGE.sub(" ", NO_WORDS.sub(" ", source)))
    text = re.sub(rf"<[/\w]{INSIDE_TAG}>", " ", text)
    return sum(1 for word in text.split() if re.search(r"\w|\0", word))


def alt_texts(source: str) -> list[str]:
    """What each image says in words; an empty text where it says nothing."""
    text = mask(source)
    html = [HTML_ALT.search(image[0]) for image in HTML_IMAGE.finditer(text)]
    return [image[1] for image in MD_IMAGE.finditer(text)] + [alt[2] if alt else "" for alt in html]


def replace_spans(source: str, spans: list[tuple[int, int, str]]) -> str:
    """`source` with each (start, end) replaced; from the back, so that positions stay true."""
    for start, end, new in sorted(spans, reverse=True):
        source = source[:start] + new + source[end:]
    return source


def fill(source: str, values: dict[str, str]) -> str:
    """Known {{placeholders}} replaced; unknown ones stay and are refused later."""
    known = [match for match in PLACEHOLDER.finditer(mask(source)) if match[1] in values]
    return replace_spans(source, [(*match.span(), values[match[1]]) for match in known])


# ---------------------------------------------------------------- links


def relative_links(source: str) -> list[tuple[int, int, str]]:
    """(start, end, target) of every link and image that names a file of this repository."""
    text = mask(source)
    links = [(*m.span(1), source[slice(*m.span(1))]) for pattern in TARGETS for m in pattern.finditer(text)]
    return [link for link in links if not re.match(r"#|//|[a-zA-Z][a-zA-Z0-9+.-]*:", link[2])]


def linked_file(target: str, folder: str) -> str:
    """The file that a link in `folder` means, seen from the root."""
    return posixpath.normpath(posixpath.join(folder, re.split(r"[#?]", target)[0]))


def to_notebook(source: str, lesson: Lesson) -> str:
    """Links as they must read in notebooks/: a lesson becomes its notebook."""

    def turn(target: str) -> str:
        file = linked_file(target, f"lessons/{lesson.stem}")
        notebook = re.sub(r"^lessons/(\d\d_\w+)/lesson\.md$", r"notebooks/\1.ipynb", file)
        return posixpath.relpath(notebook, "notebooks")

    return turn_links(source, turn)


def from_notebook(source: str, lesson: Lesson) -> str:
    """The other way round: links as they read in the lesson's folder."""

    def turn(target: str) -> str:
        file = linked_file(target, "notebooks")
        text = re.sub(r"^notebooks/(\d\d_\w+)\.ipynb$", r"lessons/\1/lesson.md", file)
        return posixpath.relpath(text, f"lessons/{lesson.stem}")

    return turn_links(source, turn)


def turn_links(source: str, turn) -> str:
    """Each relative link's file turned; an anchor behind it stays."""
    spans = []
    for start, end, target in relative_links(source):
        path = re.split(r"[#?]", target)[0]
        spans.append((start, end, turn(target) + target[len(path) :]))
    return replace_spans(source, spans)


# ---------------------------------------------------------------- exercises


def solutions(source: str) -> dict[str, re.Match]:
    """{function: the fold in which it is solved}; `["code"]` of a fold is the Python in it."""
    folds = {FUNCTION.search(fold["code"]): fold for fold in SOLUTION.finditer(source)}
    return {function[1]: fold for function, fold in folds.items() if function}


def slips(source: str) -> dict[str, list[list[str]]]:
    """{function: its wrong answers, each as [in the solution, instead of it]}; ValueError for anything else."""
    if "{slips}" in without_slips(source):
        raise ValueError("a fence of slips is not closed, or indented")
    listed: dict[str, list[list[str]]] = {}
    for name, text in SLIPS.findall(source):
        try:
            pairs = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise ValueError(f"the slips of {name!r} are no YAML: {' '.join(str(error).split())}") from None
        if not isinstance(pairs, list) or not all(is_pair(pair) for pair in pairs):
            raise ValueError(f"the slips of {name!r} are no list of pairs of texts")
        listed[name] = listed.get(name, []) + pairs
    return listed


def is_pair(pair: object) -> bool:
    return isinstance(pair, list) and len(pair) == 2 and all(isinstance(text, str) for text in pair)


def without_slips(source: str) -> str:
    return SLIPS.sub("", source)


def with_slips(source: str, before: str) -> str:
    """The slips of `before` put into `source`, each behind its solution; at the end when that is gone."""
    for fence in SLIPS.finditer(before):
        fold = solutions(source).get(fence[1])
        place = fold.end() if fold else len(source)
        source = source[:place] + fence[0] + source[place:]
    return source
