"""Build the notebooks and the exported rules from the lessons.

    python tools/build.py            lessons/NN_name.md → notebooks/NN_name.ipynb, course_utils/rules/name.py
    python tools/build.py --check    build in memory, compare bytes with what is on disk, write nothing

A lesson is read once into plain cells; every `check_…` yields (cell number, what is wrong, how to mend it).
If any lesson is refused, all the reasons are printed and nothing is written.
"""

import argparse
import ast
import hashlib
import io
import posixpath
import re
import sys
import tokenize
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import jupytext
import nbformat
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

ROOT = Path(__file__).resolve().parents[1]
PARTS = "title objectives question theory toy rule facts exercise mnist measure play break brain sum".split()
OPTIONAL_PARTS = {"apply"}  # a rule put to use outside the course, anywhere in the order
REQUIRED = {
    "rule": PARTS,
    "tool": ["title", "objectives", "question", "sum"],
    "synthesis": ["title", "objectives", "question", "measure", "sum"],
}
TAGS = set("export exercise hint solution check widget setup hide-input".split())
TAGS |= {"nbval-ignore-output", "nbval-check-output"}  # no tag that lets a cell fail or be skipped unseen

MAX_CELL_LINES, MAX_CODE_CELLS, MAX_CLASS_LINES, MAX_WORDS, MIN_ALT_WORDS = 25, 45, 40, 150, 4
NO_WORD_LIMIT = {"theory", "title", "objectives", "brain", "sum"}

# What Markdown does not read as prose. Blocks hold no words that count; inline code and maths are one word.
FENCE = r"^[ \t]*(?P<fence>`{3,}|~{3,})[^\n]*\n.*?(?:^[ \t]*(?P=fence)|\Z)"
BLOCKS = FENCE + r"|\$\$.*?\$\$|\\begin\{(?P<env>\w+\*?)\}.*?\\end\{(?P=env)\}|<!--.*?-->"
CODE_SPAN = r"(?<!`)(?P<ticks>`+)(?!`)(?:(?!\n\s*\n).)+?(?<!`)(?P=ticks)(?!`)"
MATHS = r"(?<!\\)\$(?=\S)(?:\\.|[^$\\\n]|\n(?!\s*\n))+?(?<=\S)\$(?!\d)"
NOT_PROSE = re.compile(f"{BLOCKS}|{CODE_SPAN}|{MATHS}", re.M | re.S)
NO_WORDS = re.compile(rf"<details.*?</details>|{BLOCKS}", re.M | re.S)

INSIDE_TAG = r"""(?:[^>"']|"[^"]*"|'[^']*')*"""
MD_IMAGE = re.compile(r"!\[((?:[^\[\]]|\[[^\]]*\])*)\](?=[(\[])")
HTML_IMAGE = re.compile(rf"<img\b{INSIDE_TAG}>")
HTML_ALT = re.compile(r"""\balt\s*=\s*(["'])(.*?)\1""", re.S)
TARGETS = [
    re.compile(r"\]\(\s*<?([^)\s>]+)"),  # [text](target) and ![alt](target)
    re.compile(r"^ {0,3}\[(?!\^)[^\]]+\]:\s+<?([^\s>]+)", re.M),  # [name]: target
    re.compile(rf"""<\w{INSIDE_TAG}?\b(?:src|href)\s*=\s*["']?([^"'\s>]+)"""),
]
NOT_CODE = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE}
NOT_CODE |= {tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}
LESSON_NAME = re.compile(r"\d\d_([a-z][a-z0-9_]*)")
PLACEHOLDER = re.compile(r"\{\{([a-z_]+)\}\}")
# jupytext drops a mark that has no Markdown under it, and the part with it.
LOST_MARK = re.compile(r"^(\+\+\+[ \t]*\{.*\})[ \t]*\n\s*(?=\+\+\+|[`~]{3,}\{code-cell|\Z)", re.M)

Problem = tuple[int, str, str]


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
class Lesson:
    """A lesson as read; `stem` is NN_name and `name` the module its export cells become."""

    stem: str
    name: str
    text: str
    kind: str
    minutes: dict
    cells: list[Cell]

    def exports(self) -> list[Cell]:
        return [cell for cell in self.cells if cell.type == "code" and "export" in cell.tags]


# ---------------------------------------------------------------- reading


def repository(root: Path) -> str:
    """The public address, which stands in pyproject.toml and nowhere else."""
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    address = project.get("urls", {}).get("Repository", "").rstrip("/").removesuffix(".git")
    if not re.fullmatch(r"https://github\.com/[^/]+/[^/]+", address):
        raise SystemExit("pyproject.toml: [project.urls] Repository must read https://github.com/OWNER/REPO")
    return address


def badges(stem: str, address: str) -> str:
    """Binder, Colab and the source, as one line of Markdown."""
    slug = address.removeprefix("https://github.com/")
    binder = f"https://mybinder.org/v2/gh/{slug}/HEAD?urlpath=lab/tree/notebooks/{stem}.ipynb"
    colab = f"https://colab.research.google.com/github/{slug}/blob/main/notebooks/{stem}.ipynb"
    return (
        f"[![Open this lesson in Binder](https://mybinder.org/badge_logo.svg)]({binder})\n"
        f"[![Open this lesson in Colab](https://colab.research.google.com/assets/colab-badge.svg)]({colab})\n"
        f"[Source of this lesson]({address}/blob/main/lessons/{stem}.md)"
    )


# Colab opens a notebook without the repository around it. This cell, right after the title, brings it.
COLAB = """\
# Only on Colab: fetch the course around this notebook. Anywhere else this does nothing.
import sys

if "google.colab" in sys.modules:
    import os
    import subprocess

    address, course = "ADDRESS", "/content/REPOSITORY"
    clone = ["git", "clone", "--quiet", "--depth=1", address, course]
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "-e", course]
    for command in [] if os.path.exists(course) else [clone, install]:
        subprocess.run(command, check=True)
    sys.path.insert(0, course)  # the running kernel does not look for new packages
    os.chdir(f"{course}/notebooks")"""


def colab_cell(address: str) -> str:
    """The install cell's code for a repository; the folder is called as `git clone` would call it."""
    return COLAB.replace("ADDRESS", address).replace("REPOSITORY", address.rpartition("/")[2])


def mask(source: str) -> str:
    """The Markdown with code, maths and comments blotted out, character for character."""
    return NOT_PROSE.sub(lambda match: re.sub(r"[^\n]", "\0", match[0]), source)


def replace_spans(source: str, spans: list[tuple[int, int, str]]) -> str:
    """`source` with each (start, end) replaced; from the back, so that positions stay true."""
    for start, end, new in sorted(spans, reverse=True):
        source = source[:start] + new + source[end:]
    return source


def fill(source: str, values: dict[str, str]) -> str:
    """Known {{placeholders}} replaced; unknown ones stay and are refused later."""
    found = [m for m in PLACEHOLDER.finditer(mask(source)) if m[1] in values]
    return replace_spans(source, [(*m.span(), values[m[1]]) for m in found])


def as_dict(value: object) -> dict:
    return value if isinstance(value, dict) else {}


def read_lesson(path: Path, address: str) -> Lesson:
    """Read a MyST lesson; a part lasts from its mark to the next."""
    text = path.read_text(encoding="utf-8")
    notebook = jupytext.reads(text, fmt="md:myst")
    meta = as_dict(notebook.metadata.get("lesson"))
    minutes = as_dict(meta.get("minutes"))
    values = {"repository": address}
    if not list(check_minutes(minutes)):
        values["minutes"] = f"{minutes['read']:g} min to read · {minutes['run']:g} min to run"

    cells: list[Cell] = []
    part = "no part"
    for number, cell in enumerate(notebook.cells, 1):
        begins = "part" in cell.metadata
        part = str(cell.metadata.get("part", part))
        source = cell.source
        if cell.cell_type == "markdown":
            first = not any(earlier.type == "markdown" for earlier in cells)
            source = fill(source, values | ({"badges": badges(path.stem, address)} if first else {}))
        other = sorted(set(cell.metadata) - {"tags", "part"})
        cells.append(Cell(number, cell.cell_type, source, cell.metadata.get("tags", []), part, begins, other))
    return Lesson(path.stem, path.stem[3:], text, str(meta.get("kind")), minutes, cells)


# ---------------------------------------------------------------- refusing


def check_minutes(minutes: dict) -> Iterator[Problem]:
    for key in ("read", "run"):
        if not isinstance(minutes.get(key), (int, float)):
            yield 0, f"no minutes to {key}", "write `minutes: {read: 35, run: 1}` under `lesson:`"


def check_front_matter(lesson: Lesson) -> Iterator[Problem]:
    if lesson.kind not in REQUIRED:
        yield 0, f"kind is {lesson.kind!r}", f"write `kind:` {', '.join(REQUIRED)} under `lesson:`"
    yield from check_minutes(lesson.minutes)


def check_parts(lesson: Lesson) -> Iterator[Problem]:
    required, highest = REQUIRED.get(lesson.kind, []), 0
    marked = [cell for cell in lesson.cells if cell.begins]
    if not lesson.cells or not lesson.cells[0].begins:
        yield 1, "belongs to no part", 'begin the lesson with `+++ {"part": "title"}`'
    for cell in marked:
        if cell.part not in {*PARTS, *OPTIONAL_PARTS}:
            yield cell.number, f"unknown part {cell.part!r}", f"the parts are {' '.join(PARTS)}"
        elif cell.part in required:
            place = required.index(cell.part)
            if place < highest:
                yield cell.number, f"part {cell.part!r} is out of order", f"the order is {' '.join(required)}"
            highest = max(highest, place)
    for place, part in enumerate(required):
        if part not in {cell.part for cell in marked}:
            before = [cell.number for cell in lesson.cells if cell.part in required[:place]]
            mend = f'add `+++ {{"part": "{part}"}}` and its text after this cell'
            yield max(before, default=1), f"no part {part!r}", mend
    for match in LOST_MARK.finditer(lesson.text):
        number = len(jupytext.reads(lesson.text[: match.start()], fmt="md:myst").cells) + 1
        mend = "put text under it, or give the code cell the option `:part:`"
        yield number, f"the mark {match[1]!r} has no text under it and is lost", mend


def check_cells(lesson: Lesson) -> Iterator[Problem]:
    code = [cell for cell in lesson.cells if cell.type == "code"]
    for cell in lesson.cells:
        if cell.type == "raw":
            yield cell.number, "a raw cell", "make it Markdown or code"
        for key in cell.other_keys:
            yield cell.number, f"unknown cell option {key!r}", "the options are `part` and `tags`"
        for tag in set(cell.tags) - TAGS:
            yield cell.number, f"unknown tag {tag!r}", f"the tags are {', '.join(sorted(TAGS))}"
    for cell in code:
        if "google.colab" in cell.source:
            yield cell.number, "a cell for Colab", "delete it: the build writes one into every notebook"
        lines = cell.source.count("\n") + 1
        if lines > MAX_CELL_LINES and "export" not in cell.tags:
            yield cell.number, f"{lines} lines of code", f"split it: {MAX_CELL_LINES} lines at most"
    for cell in code[MAX_CODE_CELLS : MAX_CODE_CELLS + 1]:
        yield cell.number, f"{len(code)} code cells", f"{MAX_CODE_CELLS} at most; this is the first too many"


def count_words(source: str) -> int:
    """Words of prose: no displayed maths, fenced code, folds, images or HTML tags."""
    text = mask(MD_IMAGE.sub(" ", NO_WORDS.sub(" ", source)))
    text = re.sub(rf"<[/\w]{INSIDE_TAG}>", " ", text)
    return sum(1 for word in text.split() if re.search(r"\w|\0", word))


def check_prose(lesson: Lesson) -> Iterator[Problem]:
    words, last, seen_code = 0, 0, False
    for cell in lesson.cells:
        if cell.type == "code":
            if seen_code and words > MAX_WORDS:
                yield last, f"{words} words between two code cells", f"cut, or run something by {MAX_WORDS}"
            words, seen_code = 0, True
        elif cell.part not in NO_WORD_LIMIT:
            words, last = words + count_words(cell.source), cell.number


def check_markdown(lesson: Lesson, root: Path) -> Iterator[Problem]:
    for cell in lesson.cells:
        if cell.type != "markdown":
            continue
        text = mask(cell.source)
        for match in PLACEHOLDER.finditer(text):
            mend = "known: {{repository}}, {{minutes}} and, in the first cell only, {{badges}}"
            yield cell.number, f"placeholder {match[0]} cannot be filled", mend
        html_alts = [HTML_ALT.search(image[0]) for image in HTML_IMAGE.finditer(text)]
        alts = [image[1] for image in MD_IMAGE.finditer(text)] + [alt[2] if alt else "" for alt in html_alts]
        for alt in alts:
            if len(alt.split()) < MIN_ALT_WORDS:
                mend = f"say what is to be seen, in {MIN_ALT_WORDS} words or more"
                yield cell.number, f"image with alt text {alt!r}", mend
        for _, _, target in relative_links(cell.source):
            file = linked_file(target)
            if file.startswith(("/", "..")) or not (root / file).exists():
                yield cell.number, f"broken link {target!r}", "name an existing file, seen from lessons/"


def check_exports(lesson: Lesson) -> Iterator[Problem]:
    for place, cell in enumerate(lesson.exports()):
        try:
            tree = ast.parse(cell.source)
            compile(tree, lesson.stem, "exec")
        except SyntaxError as error:
            yield cell.number, f"export cell does not compile: {error}", "plain Python only, no magics"
            continue
        if place == 0 and not (tree.body and isinstance(tree.body[0], (ast.Import, ast.ImportFrom))):
            yield cell.number, "the first export cell does not begin with imports", "move them to its top"
        for node in ast.walk(tree):
            yield from ((cell.number, *bad) for bad in bad_import(node))
            if isinstance(node, ast.ClassDef):
                lines = count_code(cell.source, node)
                if lines > MAX_CLASS_LINES:
                    mend = f"{MAX_CLASS_LINES} at most, not counting docstrings, comments, imports"
                    yield cell.number, f"class {node.name} has {lines} lines of code", mend


def bad_import(node: ast.AST) -> Iterator[tuple[str, str]]:
    """The package root imports the rules, so a rule that imports the root would go round in a circle."""
    mend = "write `from course_utils.rule import Rule`, absolute and never from the package root"
    if isinstance(node, ast.ImportFrom) and node.level > 0:
        yield "relative import in an export cell", mend
    elif isinstance(node, ast.ImportFrom) and node.module == "course_utils":
        yield "import from the package root in an export cell", mend
    elif isinstance(node, ast.Import) and any(alias.name == "course_utils" for alias in node.names):
        yield "import of the package root in an export cell", mend


def count_code(source: str, cls: ast.ClassDef) -> int:
    """Lines of a class without docstrings, comments, blank lines and imports."""
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in NOT_CODE:
            lines |= set(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(cls):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            lines -= set(range(node.lineno, (node.end_lineno or node.lineno) + 1))
        if isinstance(node, (ast.ClassDef, ast.FunctionDef)) and ast.get_docstring(node):
            text = node.body[0]
            lines -= set(range(text.lineno, (text.end_lineno or text.lineno) + 1))
    return sum(cls.lineno <= line <= (cls.end_lineno or cls.lineno) for line in lines)


def problems(lesson: Lesson, root: Path) -> list[str]:
    """Every reason to refuse the lesson, with its cell and how to mend it."""
    found = [*check_front_matter(lesson), *check_parts(lesson), *check_cells(lesson), *check_prose(lesson)]
    found += [*check_markdown(lesson, root), *check_exports(lesson)]
    parts = {0: "front matter"} | {cell.number: cell.part for cell in lesson.cells}
    return [
        f"lessons/{lesson.stem}.md: cell {number} ({parts.get(number, 'end')}): {reason} — {mend}"
        for number, reason, mend in sorted(found)
    ]


# ---------------------------------------------------------------- links


def relative_links(source: str) -> list[tuple[int, int, str]]:
    """(start, end, target) of every link and image that names a file of this repository."""
    text = mask(source)
    found = [(*m.span(1), source[slice(*m.span(1))]) for pattern in TARGETS for m in pattern.finditer(text)]
    return [link for link in found if not re.match(r"#|//|[a-zA-Z][a-zA-Z0-9+.-]*:", link[2])]


def linked_file(target: str) -> str:
    """The file a link in lessons/ means, seen from the root."""
    return posixpath.normpath(posixpath.join("lessons", re.split(r"[#?]", target)[0]))


def from_notebooks(target: str) -> str:
    """A link written in lessons/ as it must read in notebooks/: a lesson becomes its notebook."""
    file, path = linked_file(target), re.split(r"[#?]", target)[0]
    folder, stem = posixpath.split(file.removesuffix(".md"))
    is_lesson = folder == "lessons" and file.endswith(".md") and LESSON_NAME.fullmatch(stem)
    return (f"{stem}.ipynb" if is_lesson else posixpath.relpath(file, "notebooks")) + target[len(path) :]


# ---------------------------------------------------------------- writing


def notebook_text(lesson: Lesson, address: str) -> str:
    """The .ipynb: no outputs, and ids made from the source, so that a diff shows only what was edited.

    One cell is not the lesson's own, `colab_cell`, whose id says so.
    """
    kernel = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
    notebook = new_notebook(metadata={"kernelspec": kernel, "language_info": {"name": "python"}})
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    times: dict[str, int] = {}
    for cell in lesson.cells:
        source = cell.source
        if cell.type == "markdown":
            links = [(start, end, from_notebooks(target)) for start, end, target in relative_links(source)]
            source = replace_spans(source, links)
        digest = hashlib.sha1(f"{cell.type}\0{source}".encode(), usedforsecurity=False).hexdigest()[:8]
        times[digest] = times.get(digest, 0) + 1
        new = new_code_cell if cell.type == "code" else new_markdown_cell
        metadata: dict[str, object] = {"tags": cell.tags} if cell.tags else {}
        if "hide-input" in cell.tags:
            metadata["jupyter"] = {"source_hidden": True}  # what JupyterLab itself goes by
        identity = digest if times[digest] == 1 else f"{digest}-{times[digest]}"
        notebook.cells.append(new(source, id=identity, metadata=metadata))
    hidden = {"tags": ["setup", "hide-input"], "jupyter": {"source_hidden": True}}
    notebook.cells.insert(1, new_code_cell(colab_cell(address), id="on-colab", metadata=hidden))
    nbformat.validate(notebook)
    return nbformat.writes(notebook, indent=1).rstrip("\n") + "\n"


def rule_text(lesson: Lesson) -> str:
    """The module made of the export cells."""
    header = f"# Exported from lessons/{lesson.stem}.md. Edit the lesson, not this file.\n\n"
    return header + "\n\n\n".join(cell.source.strip("\n") for cell in lesson.exports()) + "\n"


def build(root: Path) -> tuple[dict[str, str], list[str]]:
    """All products as {path: text}, and all refusals."""
    products: dict[str, str] = {}
    refusals: list[str] = []
    address = repository(root)
    for path in sorted((root / "lessons").glob("[!_]*.md")):
        where = f"lessons/{path.name}: cell 0"
        if not LESSON_NAME.fullmatch(path.stem):
            refusals.append(f"{where} (file name): not NN_name.md — rename it, or begin it with _")
            continue
        try:
            lesson = read_lesson(path, address)
        except Exception as error:  # YAML, JSON or schema: whoever gave up, the author needs its words
            reason = " ".join(str(error).split())[:200]
            refusals.append(f"{where} (source): unreadable: {reason} — mend the YAML or JSON there")
            continue
        refused = problems(lesson, root)
        rule = f"course_utils/rules/{lesson.name}.py"
        if rule in products:
            refused.append(f"{where} (file name): another lesson makes {rule} — rename one of them")
        refusals += refused
        if not refused:
            products[f"notebooks/{lesson.stem}.ipynb"] = notebook_text(lesson, address)
            if lesson.exports():
                products[rule] = rule_text(lesson)
    return products, refusals


def out_of_date(root: Path, products: dict[str, str]) -> list[str]:
    """Products that are missing or differ by a byte from what the lessons make."""
    paths = {name: root / name for name in products}
    return [n for n, path in paths.items() if not path.exists() or path.read_bytes() != products[n].encode()]


def stale(root: Path, products: dict[str, str]) -> list[str]:
    """Files whose lesson is gone. rules/__init__.py is written by hand."""
    present = [*root.glob("notebooks/*.ipynb"), *root.glob("course_utils/rules/*.py")]
    names = {path.relative_to(root).as_posix() for path in present if path.name != "__init__.py"}
    return sorted(names - set(products))


def main(argv: list[str] | None = None) -> int:
    """Build or check one tree; 0 when all is well."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("--check", action="store_true", help="write nothing; fail if a file is out of date")
    parser.add_argument("--root", type=Path, default=ROOT, help="the tree to build")
    args = parser.parse_args(argv)
    products, refusals = build(args.root)
    if refusals:
        print("\n".join(refusals))
        return 1
    changed, left_over = out_of_date(args.root, products), stale(args.root, products)
    for name in left_over:
        print(f"{name}: no lesson makes this file — delete it")
    if args.check:
        for name in changed:
            print(f"{name}: not what its lesson makes — run `python tools/build.py`")
        print(f"{len(products)} files checked, {len(changed)} out of date, {len(left_over)} left over")
        return int(bool(changed or left_over))
    for name in changed:
        (args.root / name).parent.mkdir(parents=True, exist_ok=True)
        (args.root / name).write_bytes(products[name].encode())
    print(f"{len(products)} files built, {len(changed)} changed")
    return 0


if __name__ == "__main__":
    sys.exit(main())
