"""What decides a number: the sources behind a run, by which a sweep knows whether a finished one still stands."""

import ast
import dis
import functools
import hashlib
import inspect
import json
import re
import sys
import types
from pathlib import Path

import torch

from course_utils import rules
from course_utils.data import Dataset
from course_utils.rule import Knob

# They draw, refuse or list, and change no number. Everything else of the course that a run imports counts, whole
# modules at a time: a needless measurement costs minutes, a stale number its reader's trust.
BESIDE = {"course_utils", "course_utils.rules", "course_utils.plots", "course_utils.checks"}
BY_MACHINE = {"__module__", "__doc__", "__dict__", "__weakref__", "__firstlineno__", "__static_attributes__"}
BY_MACHINE |= {"knobs", "live_knobs"}


def key(function, settings):
    """Twelve letters that differ for different settings, and when a source has changed that decides the numbers.

    That is: the function's, that of every rule that the settings name (a class, a teacher, one half of a mixture),
    and what these import of the course, as trees: neither comments nor docstrings count.
    """
    rule = settings["name"]
    metrics = settings.get("metrics") or {}
    settings = {**settings, "name": rule if isinstance(rule, str) else rule.__name__}
    settings |= {"metrics": sorted(metrics)} if metrics else {}
    settings = json.dumps(settings, default=_in_words, sort_keys=True)
    named = set(re.findall(r"\w+", settings))
    things = [function, rule, *metrics.values(), *(rules.ALL[name] for name in sorted(named & set(rules.ALL)))]
    what = [f"{function.__module__}.{function.__name__}", settings, behind([t for t in things if callable(t)])]
    return hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()[:12]


@functools.lru_cache(maxsize=1)  # a sweep asks once a run, for one and the same
def _digest(data):
    """A hash of all numbers of a dataset, and of its name."""
    digest = hashlib.sha256(data.name.encode())
    for t in data.tensors:
        digest.update(f"{t.dtype} {tuple(t.shape)}".encode() + t.cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _in_words(thing):
    return _digest(thing) if isinstance(thing, Dataset) else str(thing)


def behind(things):
    """{module: hash of its tree} of all modules behind these classes and functions; code where there is no file."""
    things = [part for thing in things for part in (thing.__mro__ if isinstance(thing, type) else [thing])]
    found = {f"typed {n} {t.__name__}": code_of(t) for n, t in enumerate(things) if is_typed(t)}
    waiting = [thing.__module__ for thing in things if not is_typed(thing)]
    while waiting:
        module = waiting.pop()
        if module in found or not _counts(module):
            continue
        path = Path(str(sys.modules[module].__file__))
        found[module], imports, words = _read(path, path.stat().st_mtime_ns)
        waiting += [*imports, *(rules.ALL[word].__module__ for word in words & set(rules.ALL))]
    return found


def is_typed(thing):
    """Typed in a notebook or a script, where the source at hand is not what was executed, or is much else besides."""
    module = getattr(thing, "__module__", "")
    no_file = getattr(sys.modules.get(module), "__file__", None) is None
    return module == "__main__" or (no_file and module not in sys.builtin_module_names)


def _counts(module):
    """Is it the course's, or a file of the reader's own?"""
    path = getattr(sys.modules.get(module), "__file__", None)
    installed = not path or "site-packages" in path or path.startswith((sys.prefix, sys.base_prefix))
    return module not in BESIDE and bool(path) and (module.startswith("course_utils.") or not installed)


@functools.cache
def _read(path, changed):
    """(hash, modules that it imports, strings in it) of a source file; `changed` tells the cache of an edit."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)) and ast.get_docstring(node) is not None:
            node.body = node.body[1:]
    imports = [alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names]
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            imports += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    words = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)}
    return hashlib.sha256(ast.dump(tree).encode()).hexdigest(), imports, words


def code_of(thing, seen=()):
    """What a class or function typed in does, in bytecode and values; and so for the helpers typed in that it names."""
    if id(thing) in seen:
        return "again"
    seen = (*seen, id(thing))
    thing = inspect.unwrap(getattr(thing, "__func__", thing))
    if isinstance(thing, property):
        return [code_of(part, seen) for part in (thing.fget, thing.fset)]
    if isinstance(thing, Knob):
        return {name: code_of(part, seen) for name, part in vars(thing).items()}
    if not callable(thing):
        return repr(thing)
    if not isinstance(thing, (type, types.FunctionType)) or not is_typed(thing):
        return f"{getattr(thing, '__module__', '')} {getattr(thing, '__qualname__', type(thing).__qualname__)}"
    if isinstance(thing, type):
        return {name: code_of(part, seen) for name, part in sorted(vars(thing).items()) if name not in BY_MACHINE}
    steps = [*_steps(thing.__code__)]
    names = sorted({name for operation, name in steps if operation in ("LOAD_GLOBAL", "LOAD_NAME")})
    helpers = {name: code_of(thing.__globals__[name], seen) for name in names if name in thing.__globals__}
    around = [code_of(cell.cell_contents, seen) for cell in thing.__closure__ or ()]
    return [steps, repr(thing.__defaults__), around, helpers]


def _steps(code):
    """(operation, argument) of a function's bytecode and of those inside it: without line numbers and docstrings."""
    for step in dis.get_instructions(code):
        if isinstance(step.argval, types.CodeType):
            yield from _steps(step.argval)
        else:  # strings, and so sets, are hashed anew in every process
            yield step.opname, sorted(map(repr, step.argval)) if isinstance(step.argval, frozenset) else step.argval
