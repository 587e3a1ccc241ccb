"""What a lesson must not be: every check yields (cell number, what is wrong, how to mend it)."""

import ast
import io
import itertools
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import jupytext

from tools import elsewhere, markdown
from tools.markdown import PLACEHOLDER, Page

PARTS = "title objectives question theory toy rule facts exercise mnist measure play break brain sum".split()
OPTIONAL_PARTS = {"apply"}  # a rule put to use outside the course, anywhere in the order
REQUIRED = {
    "rule": PARTS,
    "tool": ["title", "objectives", "question", "sum"],
    "synthesis": ["title", "objectives", "question", "measure", "sum"],
}
EXPORTS = {"export": "rules", "export-study": "studies"}  # tag: folder of course_utils
TAGS = {*EXPORTS, *"exercise hint solution check widget setup hide-input".split()}
TAGS |= {"nbval-ignore-output", "nbval-check-output"}  # no tag that lets a cell fail or be skipped unseen

MAX_CELL_LINES, MAX_CODE_CELLS, MAX_CLASS_LINES, MAX_WORDS, MIN_ALT_WORDS = 25, 45, 40, 150, 4
NO_WORD_LIMIT = {"theory", "title", "objectives", "brain", "sum"}
NOT_CODE = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE}
NOT_CODE |= {tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}
# jupytext drops a mark that has no Markdown under it, and the part with it.
LOST_MARK = re.compile(r"^(\+\+\+[ \t]*\{.*\})[ \t]*\n\s*(?=\+\+\+|[`~]{3,}\{code-cell|\Z)", re.M)

Problem = tuple[int, str, str]


def problems(page: Page, root: Path) -> list[str]:
    """Every reason to refuse the lesson, with its cell and how to mend it."""
    reasons = [*check_front_matter(page), *check_parts(page), *check_cells(page), *check_prose(page)]
    reasons += [*check_markdown(page, root), *check_elsewhere(page), *check_slips(page), *check_exports(page)]
    parts = {0: "front matter"} | {cell.number: cell.part for cell in page.cells}
    return [
        f"{page.where}: cell {number} ({parts.get(number, 'end')}): {reason} — {mend}"
        for number, reason, mend in sorted(reasons)
    ]


def check_front_matter(page: Page) -> Iterator[Problem]:
    if page.kind not in REQUIRED:
        yield 0, f"kind is {page.kind!r}", f"write `kind:` {', '.join(REQUIRED)} under `lesson:`"
    for key in ("read", "run"):
        if not isinstance(page.minutes.get(key), (int, float)):
            yield 0, f"no minutes to {key}", "write `minutes: {read: 35, run: 1}` under `lesson:`"


def check_parts(page: Page) -> Iterator[Problem]:
    required, highest = REQUIRED.get(page.kind, []), 0
    marked = [cell for cell in page.cells if cell.begins]
    if not page.cells or not page.cells[0].begins:
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
            before = [cell.number for cell in page.cells if cell.part in required[:place]]
            mend = f'add `+++ {{"part": "{part}"}}` and its text after this cell'
            yield max(before, default=1), f"no part {part!r}", mend
    for match in itertools.islice(LOST_MARK.finditer(page.text), 5):  # each is looked up by reading the text again
        number = len(jupytext.reads(page.text[: match.start()], fmt="md:myst").cells) + 1
        mend = "put text under it, or give the code cell the option `:part:`"
        yield number, f"the mark {match[1]!r} has no text under it and is lost", mend


def check_cells(page: Page) -> Iterator[Problem]:
    code = [cell for cell in page.cells if cell.type == "code"]
    for cell in page.cells:
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
        if lines > MAX_CELL_LINES and not set(cell.tags) & set(EXPORTS):
            yield cell.number, f"{lines} lines of code", f"split it: {MAX_CELL_LINES} lines at most"
    for cell in code[MAX_CODE_CELLS : MAX_CODE_CELLS + 1]:
        yield cell.number, f"{len(code)} code cells", f"{MAX_CODE_CELLS} at most; this is the first too many"


def check_prose(page: Page) -> Iterator[Problem]:
    words, last, after_code = 0, 0, False
    for cell in page.cells:
        if cell.type == "code":
            if after_code and words > MAX_WORDS:
                yield last, f"{words} words between two code cells", f"cut, or run something by {MAX_WORDS}"
            words, after_code = 0, True
        elif cell.part not in NO_WORD_LIMIT:
            words, last = words + markdown.count_words(cell.source), cell.number


def check_markdown(page: Page, root: Path) -> Iterator[Problem]:
    for cell in page.cells:
        if cell.type != "markdown":
            continue
        for match in PLACEHOLDER.finditer(markdown.mask(cell.source)):
            mend = "known: {{repository}}, {{minutes}} and, in the first cell only, {{badges}}"
            yield cell.number, f"placeholder {match[0]} cannot be filled", mend
        for alt in markdown.alt_texts(cell.source):
            if len(alt.split()) < MIN_ALT_WORDS:
                mend = f"say what is to be seen, in {MIN_ALT_WORDS} words or more"
                yield cell.number, f"image with alt text {alt!r}", mend
        for _, _, target in markdown.relative_links(cell.source):
            file = markdown.linked_file(target, f"lessons/{page.lesson.stem}")
            leaves = file.startswith(("/", "..")) or not (root / file).resolve().is_relative_to(root.resolve())
            if leaves or not (root / file).exists():
                yield cell.number, f"broken link {target!r}", "name an existing file, seen from the lesson's folder"


def check_elsewhere(page: Page) -> Iterator[Problem]:
    texts = [(0, page.question), *((cell.number, cell.source) for cell in page.cells if cell.type == "markdown")]
    for number, source in texts:
        yield from ((number, *fault) for fault in dict.fromkeys(elsewhere.faults_of_markdown(source)))


def check_slips(page: Page) -> Iterator[Problem]:
    for cell in page.cells:
        solved = markdown.solutions(cell.source)
        try:
            slips = markdown.slips(cell.source)
        except ValueError as error:
            yield cell.number, str(error), 'write lines such as `- ["in the solution", "instead of it"]`'
            continue
        for name, pairs in slips.items():
            if name not in solved:
                mend = "put them behind the folded solution of the function they name, in its cell"
                yield cell.number, f"slips of {name!r} without its solution", mend
            for old, new in pairs if name in solved else []:
                if old == new or old not in solved[name]["code"]:
                    yield cell.number, f"the slip {old!r} changes nothing", f"quote the solution of {name} as it stands"


def check_exports(page: Page) -> Iterator[Problem]:
    for tag in EXPORTS:
        for place, cell in enumerate(page.exports(tag)):
            try:
                tree = ast.parse(cell.source)
                compile(tree, page.lesson.stem, "exec")
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
