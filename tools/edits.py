"""What was edited in a notebook, carried back into the lesson that it was built from.

Cells are matched by their ids, which JupyterLab keeps. Only sources travel: front matter, part marks, tags and slips
stay as the lesson has them, and a cell that was added, removed or moved is for the lesson itself.
"""

import re

from nbformat import NotebookNode

from tools import markdown
from tools.markdown import Cell, Page

Values = dict[int, dict[str, str]]


def carried(page: Page, built: list[NotebookNode], edited: list[NotebookNode], values: Values) -> tuple[str, int]:
    """The lesson's text with the edited sources in it, and how many cells that changed.

    built: the notebook's cells as the lesson makes them; values: what the placeholders of a cell (by its number in
    `page`, where they are not filled) stand for. ValueError when the two notebooks do not hold the same cells.
    """
    built, edited = ([cell for cell in cells if cell.id != "on-colab"] for cells in (built, edited))
    if [cell.id for cell in built] != [cell.id for cell in edited]:
        raise ValueError(f"{page.where}: {difference(built, edited)}. Add, remove and move cells in the lesson.")
    text, position, sources = page.text, 0, []
    for cell, before, after in zip(page.cells, built, edited, strict=True):
        changed = before.source != after.source
        sources.append(in_lesson(cell, after.source, page, values) if changed else cell.source)
        text, position = replaced(text, position, cell.source, sources[-1])
    if [cell.source for cell in markdown.read(page.lesson, text).cells] != sources:
        raise ValueError(f"{page.where}: an edited cell holds fences or marks that would end it; edit the lesson")
    return text, sum(new != cell.source for cell, new in zip(page.cells, sources, strict=True))


def difference(built: list[NotebookNode], edited: list[NotebookNode]) -> str:
    """In what the notebooks differ, by the first words of their cells."""
    ids = {cell.id for cell in built}, {cell.id for cell in edited}
    new = [cell.source.split("\n")[0] for cell in edited if cell.id not in ids[0]]
    gone = [cell.source.split("\n")[0] for cell in built if cell.id not in ids[1]]
    return f"the notebook's cells are not the lesson's: only there {new}, only here {gone}"


def in_lesson(cell: Cell, source: str, page: Page, values: Values) -> str:
    """A notebook's source as the lesson has it: links seen from its folder, placeholders open, slips in place."""
    if cell.type != "markdown":
        return source
    source = markdown.from_notebook(source, page.lesson)
    for match in markdown.PLACEHOLDER.finditer(cell.source):
        if value := values[cell.number].get(match[1]):
            source = source.replace(value, match[0])
    return markdown.with_slips(source, cell.source)


def replaced(text: str, position: int, old: str, new: str) -> tuple[str, int]:
    """`text` with the next `old`, whole lines of it from `position` on, made `new`; and where that ends."""
    match = re.compile(rf"^{re.escape(old)}[ \t]*$", re.M).search(text, position) if old else None
    if match is None:
        return text, position
    return text[: match.start()] + new + text[match.end() :], match.start() + len(new)
