"""Every rule that a lesson exports, one module a lesson. `ALL` maps a class's name to the class.

The modules are written by tools/build.py from the lessons; a rule added there appears here by itself.
"""

import importlib
import itertools
import math
import pkgutil

from course_utils.rule import Rule

ALL: dict[str, type[Rule]] = {}
for _module in sorted(module.name for module in pkgutil.iter_modules(__path__)):
    for _name, _class in vars(importlib.import_module(f"{__name__}.{_module}")).items():
        if isinstance(_class, type) and issubclass(_class, Rule) and _class.__module__.endswith(f".{_module}"):
            ALL[_name] = _class
globals().update(ALL)


def able(sizes):
    """The names of the rules that can teach a network of these layer sizes: some say the `largest`, in numbers."""
    numbers = sum((given + 1) * units for given, units in itertools.pairwise(sizes))
    return [name for name, rule_class in ALL.items() if numbers <= getattr(rule_class, "largest", math.inf)]


def __getattr__(name):
    raise AttributeError(f"there is no rule {name!r}; there are: {', '.join(sorted(ALL))}")
