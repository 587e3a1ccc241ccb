"""A slider is moved after the page has been run: no later cell may take a name that its drawing reads."""

import ast
import re
import symtable

import nbformat
import pytest

from tools import lessons

INSIDE = (ast.FunctionDef, ast.Lambda, ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)


def bound(node):
    """The global names that a cell binds; what it imports stays what it is and is not counted."""
    if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
        return {node.name}
    if isinstance(node, INSIDE):
        return set()
    own = {node.id} if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store) else set()
    return own.union(*map(bound, ast.iter_child_nodes(node)))


def read(source, name):
    """The global names that the function or class `name` of a cell reads, also in what stands inside of it."""

    def inside(table):
        own = {symbol.get_name() for symbol in table.get_symbols() if symbol.is_global() and symbol.is_referenced()}
        return own.union(*map(inside, table.get_children()))

    return set().union(
        *(inside(t) for t in symtable.symtable(source, name, "exec").get_children() if t.get_name() == name)
    )


def needed(cells, i, names):
    """Those names and all that what they are defined by reads, as things stand when cell i runs."""
    seen, todo = set(), set(names)
    while todo:
        name = todo.pop()
        seen.add(name)
        home = next((cell for cell in cells[i::-1] if name in bound(ast.parse(cell))), "")
        todo |= read(home, name) - seen
    return seen


def taken(cells):
    """(number of the slider's cell, name, number of the later cell that binds it anew)."""
    binds = [bound(ast.parse(cell)) for cell in cells]
    for i, cell in enumerate(cells):
        for call in (node for node in ast.walk(ast.parse(cell)) if isinstance(node, ast.Call)):
            drawn = [call.args[0]] if getattr(call.func, "attr", "") == "under_slider" else []
            drawn += [keyword.value for keyword in call.keywords if keyword.arg == "view"]
            names = {node.id for part in drawn for node in ast.walk(part) if isinstance(node, ast.Name)}
            for name in needed(cells, i, names) if names else ():
                if any(name in before for before in binds[: i + 1]):
                    yield from ((i, name, j) for j in range(i + 1, len(cells)) if name in binds[j])


def cells_of(lesson):
    book = nbformat.read(lesson.notebook, as_version=4)
    return [re.sub(r"^\s*[%!].*$", "", cell.source, flags=re.M) for cell in book.cells if cell.cell_type == "code"]


@pytest.mark.parametrize("lesson", lessons.all_lessons(), ids=lambda lesson: lesson.stem)
def test_what_a_slider_draws_stays_as_it_was(lesson):
    assert sorted(set(taken(cells_of(lesson)))) == []


@pytest.mark.parametrize(
    "later, found",
    [
        ("y = 3", [(2, "y", 3)]),
        ("for y in range(3): pass", [(2, "y", 3)]),
        ("def height(x): return 0", [(2, "height", 3)]),
        ("[y for y in range(3)]", []),
        ("def other(y): y = 3", []),
        ("z = 3", []),
        ("import math", []),
    ],
)
def test_a_name_taken_later_is_seen(later, found):
    first = "import math\ny = 1\ndef height(x): return math.sin(x) + y"
    cells = [first, "def draw(ax, x): ax.plot(height(x))", "lab = cu.under_slider(draw, [1, 2], 1)", later]
    assert list(taken(cells)) == found
