"""What decides a number: the code behind a run, by which a sweep knows whether a finished one still stands.

It is looked at twice. In memory: the function, the rule, the settings and what these name, as bytecode and values, for
a class typed in has no file, and an imported one may have been patched, or its file edited after it was read. And in
the files these come from, with what they import of the course, as trees: whole modules at a time, for a needless
measurement costs minutes, a stale number its reader's trust. Neither comments nor docstrings count.
"""

import ast
import dis
import functools
import hashlib
import json
import re
import sys
import types
import uuid
from pathlib import Path

import joblib
import torch

from course_utils import rules
from course_utils.arrays import digest
from course_utils.checks import plain
from course_utils.data import Dataset

# They draw, refuse or list, and change no number. Everything else of the course that a run meets counts.
BESIDE = {"course_utils", "course_utils.rules", "course_utils.plots", "course_utils.checks"}
# What is around functions, and where it keeps them.
AROUND = types.MethodType | classmethod | staticmethod | property | functools.cached_property | functools.partial
CACHED = type(functools.cache(len))
INSIDE = ("__func__", "__self__", "__wrapped__", "fget", "fset", "func", "args", "keywords")
SIMPLE = (type(None), bool, int, float, complex, str, bytes)


def key(function, settings):
    """Twelve letters that differ for different settings, and when code or values have changed behind the numbers.

    Behind them are the function, every rule that the settings hold or name (a class, a teacher, one half of a
    mixture), and all that these use. function, settings: as in `sweeps.run_all`.
    """
    named = set(re.findall(r"\w+", repr(settings))) & set(rules.ALL)
    memory = Memory()
    what = [memory.of(thing) for thing in (function, settings, *(rules.ALL[name] for name in sorted(named)))]
    return _hash(json.dumps([what, sorted(files_of(memory.modules).items())]))[:12]


def files_of(modules):
    """{module: hash of its tree} of all of the course's and the reader's own modules behind these."""
    found, waiting = {}, list(modules)
    while waiting:
        module = waiting.pop()
        if module not in found and _counts(module):
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
    return _hash(ast.dump(tree)), imports, words


@functools.lru_cache(maxsize=1)  # a sweep asks once a run, for the same
def _numbers_of(data):
    return digest(*data.tensors)


class Memory:
    """What things are, as they lie in memory now; `modules` collects those from whose files they come."""

    def __init__(self):
        self.modules = {"course_utils.runs"}  # and so the core, by whatever way code comes to it
        self.seen = {}  # id → (number, the thing itself, so that no other one gets its id)

    def of(self, thing, names=()):
        """A thing as nested lists of strings: equal when it, and all it names, does the same. names: of a module."""
        thing = plain(thing)
        if isinstance(thing, SIMPLE):
            return repr(thing)
        if isinstance(thing, types.ModuleType):
            return self.module(thing, names)
        if id(thing) in self.seen:
            return f"again {self.seen[id(thing)][0]}"
        self.seen[id(thing)] = len(self.seen), thing
        if isinstance(thing, torch.Tensor):
            return digest(thing)
        if isinstance(thing, Dataset):
            return [thing.name, _numbers_of(thing)]
        if isinstance(thing, dict):
            return [[self.of(name), self.of(thing[name])] for name in sorted(thing, key=repr)]
        if isinstance(thing, (list, tuple)):
            return [self.of(part) for part in thing]
        if isinstance(thing, (set, frozenset)):
            return sorted(map(repr, thing))
        if isinstance(thing, type):
            return self.kind(thing)
        if isinstance(thing, types.FunctionType):
            return self.function(thing)
        if isinstance(thing, (AROUND, CACHED)):
            return [type(thing).__name__, *(self.of(getattr(thing, name, None)) for name in INSIDE)]
        return [self.of(type(thing)), self.state(thing)]

    def state(self, thing):
        """What an object holds; where nobody can tell, what never comes again."""
        if isinstance(thing, torch.nn.Module) or is_typed(type(thing)) or _counts(type(thing).__module__):
            return self.of(getattr(thing, "__dict__", {}))
        try:
            return joblib.hash(thing)
        except Exception:  # it cannot be pickled, for whatever reason of its own
            return uuid.uuid4().hex

    def kind(self, thing):
        if not self.inside(thing):
            return f"{thing.__module__}.{thing.__qualname__}"
        by_machine = [n for n, part in vars(thing).items() if n.startswith("__") and not callable(part)]
        by_machine += ["knobs", "live_knobs", "_abc_impl"]
        parts = {name: part for name, part in vars(thing).items() if name not in by_machine}
        return [*map(self.of, thing.__bases__), self.of(parts)]

    def function(self, thing):
        around = [self.of(cell.cell_contents) for cell in thing.__closure__ or () if cell != types.CellType()]
        name = f"{thing.__module__}.{thing.__qualname__}"
        if not self.inside(thing):
            return [name, *around]
        steps, uses, names = _steps(thing.__code__)
        self.modules |= {rules.ALL[name].__module__ for name in names & set(rules.ALL)}
        known = {name: thing.__globals__[name] for name in uses if name in thing.__globals__}
        defaults = self.of([thing.__defaults__, thing.__kwdefaults__]) if is_typed(thing) else []
        if not is_typed(thing):  # the rest stands in its file; and some of it, as a cache, changes all the time
            known = {name: value for name, value in known.items() if callable(value) or _is_lasting(value)}
        return [steps, around, defaults, [[name, self.of(known[name], names)] for name in sorted(known)]]

    def module(self, module, names):
        """A module of which code uses `names`, some of them perhaps those of others."""
        self.modules.add(module.__name__)
        if not (_counts(module.__name__) or module.__name__ in BESIDE) or id(module) in self.seen:
            return module.__name__
        self.seen[id(module)] = len(self.seen), module
        used = {name: vars(module)[name] for name in sorted(names) if name in vars(module)}
        return [module.__name__, {n: self.of(v, names) for n, v in used.items() if callable(v) or _is_lasting(v)}]

    def inside(self, thing):
        """Whether the code of a class or function is to be looked at."""
        self.modules.add(thing.__module__)
        return is_typed(thing) or _counts(thing.__module__)


def _is_lasting(value):
    """A constant or a module: nothing that a run writes into."""
    if isinstance(value, tuple):
        return all(map(_is_lasting, value))
    return isinstance(value, (*SIMPLE, types.ModuleType))


@functools.cache
def _steps(code):
    """Of a function's bytecode and of those inside it: (hash, names of globals that it uses, all names in it)."""
    steps: list[str] = []
    uses: set[str] = set()
    names: set[str] = set()
    for step in dis.get_instructions(code):
        if isinstance(step.argval, types.CodeType):
            inner = _steps(step.argval)
            steps, uses, names = [*steps, inner[0]], uses | inner[1], names | inner[2]
        else:  # strings, and so sets, are hashed anew in every process
            value = sorted(map(repr, step.argval)) if isinstance(step.argval, frozenset) else step.argval
            steps.append(repr((step.opname, value)))
            names |= {step.argval} if isinstance(step.argval, str) else set()
            uses |= {step.argval} if step.opname in ("LOAD_GLOBAL", "LOAD_NAME") else set()
    return _hash(json.dumps(steps)), uses, names


def _hash(text):
    return hashlib.sha256(text.encode()).hexdigest()
