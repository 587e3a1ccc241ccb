"""What of a notebook its widgets need: a cell is taken when it was the last to bind a name that a taken cell uses."""

import ast
import dis
import json
from types import CodeType

TAKEN = {"setup", "export", "export-study", "widget"}
LOADS = {"LOAD_NAME", "LOAD_GLOBAL"}


def steps(code, module=True):
    """(name, does the cell bind it here?) in the order of the code; names of functions count where they are made."""
    for step in dis.get_instructions(code):
        if isinstance(step.argval, CodeType):
            yield from steps(step.argval, module=False)
        elif step.opname in LOADS or (module and step.opname == "STORE_NAME"):
            yield step.argval, step.opname == "STORE_NAME"


def completed(source):
    """The names whose attributes or items the cell sets: `Rule.step = step` completes Rule."""
    tree = ast.parse(source)
    targets = [target for node in tree.body if isinstance(node, ast.Assign) for target in node.targets]
    return {
        target.value.id
        for target in targets
        if isinstance(target, ast.Attribute | ast.Subscript) and isinstance(target.value, ast.Name)
    }


def names(source):
    """The names that a cell expects from the cells before it, and those that it binds."""
    expected, bound = set(), set()
    for name, binds in steps(compile(source, "cell", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)):
        if binds:
            bound.add(name)
        elif name not in bound:
            expected.add(name)
    return expected, bound


def needed(cells):
    """The indices of code cells, given as (source, tags), that the tagged ones need, themselves included."""
    expected, bound = zip(*(names(source) for source, _ in cells), strict=True)
    more_of = [completed(source) for source, _ in cells]
    taken = {i for i, (_, tags) in enumerate(cells) if TAKEN & set(tags)}
    ahead = list(taken)
    while ahead:
        i = ahead.pop()
        before = {name: [j for j in range(i) if name in bound[j]] for name in expected[i]}
        more = {found[-1] for found in before.values() if found}
        more |= {j for name, found in before.items() if found for j in range(found[-1], i) if name in more_of[j]}
        more -= taken
        taken |= more
        ahead += more
    return taken


def code_cells(notebook):
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


def source(cell):
    return "".join(cell["source"])


def widgets_only(text):
    """A notebook, as text, without the code cells that its widgets do not need."""
    notebook = json.loads(text)
    code = code_cells(notebook)
    taken = needed([(source(cell), cell["metadata"].get("tags", [])) for cell in code])
    dropped = [cell["id"] for i, cell in enumerate(code) if i not in taken]
    return json.dumps(notebook | {"cells": [cell for cell in notebook["cells"] if cell["id"] not in dropped]})
