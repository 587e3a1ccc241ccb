"""One run, one frame: what sweeps are made of, in the schema of all stored tables."""

import ast
import datetime
import functools
import hashlib
import inspect
import platform
import subprocess
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from course_utils import rules
from course_utils.checkpoints import Checkpoint
from course_utils.checks import plain
from course_utils.controls import FrozenHidden
from course_utils.data import load_dataset
from course_utils.network import MLP
from course_utils.rule import Rule
from course_utils.safely import write_whole
from course_utils.training import drive, evaluate, steps, train

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "results"
FACTS = ["device", "versions", "commit", "measured"]
SCHEMA = ["rule", "dataset", "sizes", "seed", "lr", "noise", "epoch", "samples", "seconds", "val_accuracy"]
SCHEMA += ["test_accuracy", *FACTS]


def make_rule(name, sizes, seed, knobs=None, **network):
    """A fresh network and rule. name: "Backprop", "FeedbackAlignment(feedback_scale=0.5)", "FrozenHidden(…)" of
    such a one for the control, a class, or functools.partial of one; knobs: more arguments for the rule."""
    if isinstance(name, str) and name.startswith("FrozenHidden(") and name.endswith(")"):
        name = functools.partial(FrozenHidden, name[len("FrozenHidden(") : -1])
    if isinstance(name, functools.partial) and name.func is FrozenHidden:
        return FrozenHidden(make_rule(name.args[0], sizes, seed, knobs, **network))
    rule_class, arguments = read_call(name) if isinstance(name, str) else (name, {})
    rule_class = rules.ALL.get(rule_class, rule_class)
    if isinstance(rule_class, str):
        known = f"{', '.join(rules.ALL)}, with keyword=value, or FrozenHidden(…) of one"
        raise ValueError(f"rule is {name!r}; use one of: {known}; one of your own by its class")
    if takes_seed(rule_class):
        arguments = {"seed": seed} | arguments
    return rule_class(MLP(sizes, seed=seed, **network), **arguments, **(knobs or {}))


def takes_seed(rule_class):
    """Whether its __init__ takes a seed; a rule of one's own may have nothing to draw, or have its seed fixed."""
    fixed = rule_class.keywords if isinstance(rule_class, functools.partial) else {}
    taken = inspect.signature(rule_class).parameters.values()
    return "seed" not in fixed and any(p.name == "seed" or p.kind is p.VAR_KEYWORD for p in taken)


def named(rule, own):
    """What stands for a rule in a run: a name that the registry knows, for a name travels further than a class;
    else the class, or a `Given` of it. own: {name: class} beside the registry's."""
    if isinstance(rule, str):
        if rule.startswith("FrozenHidden(") and rule.endswith(")"):
            inside = named(rule[len("FrozenHidden(") : -1], own)
            return rule if isinstance(inside, str) else named(functools.partial(FrozenHidden, inside), own)
        kind, arguments = read_call(rule)
        return named(functools.partial(own[kind], **arguments), own) if kind in own else rule
    if isinstance(rule, type) and issubclass(rule, Rule):
        return next((name for name, known in rules.ALL.items() if known is rule), rule)
    if not isinstance(rule, functools.partial):
        good = 'names, classes derived from cu.Rule, or functools.partial of one; arguments as in "Pepita(dropout=0.1)"'
        raise ValueError(f"rules holds {' '.join(repr(rule).split()):.80}; give {good}")
    if rule.func is FrozenHidden and len(rule.args) == 1:
        inside = Given(FrozenHidden, named(*rule.args, own))
        return inside.__name__ if isinstance(inside.args[0], str) else inside
    kind = named(rule.func, own)
    if rule.args:
        raise ValueError(f"rules holds {rule!r}; give its arguments by name, without net: each run makes its own")
    given = Given(rule.func, **{name: plain(value) for name, value in rule.keywords.items()})
    if isinstance(kind, str) and read_call(given.__name__) == (kind, given.keywords):
        return given.__name__
    return given if given.keywords else kind


class Given(functools.partial):
    """A rule's class with arguments, called as one would write it."""

    @property
    def __name__(self):
        given = [*map(label, self.args), *(f"{name}={value!r}" for name, value in self.keywords.items())]
        text = f"{label(self.func)}({', '.join(given)})"
        return text if len(text) <= 200 else f"{text[:200]}…)"


def label(thing):
    """What a rule, as `named` gives it, is called in the column `rule`; what a function is called."""
    return thing if isinstance(thing, str) else getattr(thing, "__name__", repr(thing))


def read_call(text):
    """("Name", {keyword: value}) of "Name" or "Name(keyword=value, …)"; (text, {}) of what is neither."""
    try:
        call: Any = ast.parse(text if text.endswith(")") else f"{text}()", mode="eval").body
        if call.args or any(k.arg is None for k in call.keywords):
            raise ValueError("every argument has to be written with its name")
        return ast.unparse(call.func), {k.arg: ast.literal_eval(k.value) for k in call.keywords}
    except (AttributeError, SyntaxError, ValueError):
        return text, {}


def one_run(name, sizes, lr, seed, dataset="mnist", limit=None, test=False, network=None, knobs=None, **training):
    """Train one rule once: a frame in the results schema, one row an evaluation. The test set is looked at
    once, after the last step, and only when `test` is true."""
    data = load_dataset(dataset, limit=limit)
    rule = make_rule(name, sizes, seed, knobs, **(network or {}))
    return run_rule(rule, name, data, lr, seed, test=test, network=network, **training)


def run_rule(rule, name, data, lr, seed, test=False, network=None, **training):
    """As `one_run`, for a rule and data that are made already; name: a string or class, for the column `rule`."""
    history = train(rule, data, lr=lr, seed=seed, progress=False, **training)
    frame = history.frame.assign(test_accuracy=float("nan"))
    if test:
        frame.loc[frame.index[-1], "test_accuracy"] = evaluate(rule, data.x_test, data.y_test)
    facts = {
        "rule": label(name),
        "dataset": data.name,
        "sizes": " ".join(["-".join(map(str, rule.net.sizes)), *(network or {}).values()]),  # "784-500-10 tanh"
        "seed": seed,
        "lr": rule.lr if lr is None else lr,
        "noise": training.get("input_noise", 0.0) or training.get("activity_noise", 0.0),
        **provenance(data.x_train.device),
    }
    return frame.assign(**facts)[SCHEMA]


MARK = b"# sha256: "  # on top of a finished run's file, with that of its name and of all the rest


def write_run(path, frame):
    """A finished run's file: whole, or not there."""
    table = frame.to_csv(index=False).encode()
    write_whole(path, b"\n".join([_mark(path, table), table]))


def fault_of(path):
    """What is wrong with the file of a finished run, in words; None for one that is as it was written."""
    if not path.is_file():
        return "it is missing"
    mark, _, table = path.read_bytes().partition(b"\n")
    fault = "it is not as a sweep wrote it: cut short, changed since, or another run's"
    return None if mark == _mark(path, table) else fault


def _mark(path, table):
    return MARK + hashlib.sha256(path.name.encode() + table).hexdigest().encode()


def read_run(path):
    """The frame of a finished run, `processor_seconds` included."""
    # Some commits are all digits, or look like 12e4567; a rule may be called NA.
    texts = dict.fromkeys(["rule", "dataset", "sizes", *FACTS], str)
    how: Any = {"dtype": texts, "keep_default_na": False, "na_values": [""], "encoding": "utf-8"}
    return pd.read_csv(path, skiprows=1, float_precision="round_trip", **how)


def resume(path, rule=None, data=None, *, optimizer=None, stop_after=None, progress=True):
    """Go on with the run of `train(…, checkpoint=path)`: (its `History`, its rule), as if it had never been stopped.

    Bit for bit, on the same machine with as many threads. A run that has ended is read; one that came to its stop_after
    goes on. rule, data, optimizer: as they were at the start, where the file cannot make them again, which ValueError
    says: a class not imported here, a network or data of one's own, an optimiser instance. ValueError also for a file
    that is none or is damaged, for other data and another device.
    """
    file = Checkpoint.of(path, rule, data)
    runner = steps(file.rule, file.data, file.settings(optimizer, stop_after), file)
    return drive(file.rule, runner, progress), file.rule


def provenance(device):
    """When, on what and with what a number was measured."""
    name = torch.cuda.get_device_name() if device.type == "cuda" else f"{torch.get_num_threads()} CPU threads"
    return {
        "device": name,
        "versions": f"torch {torch.__version__}, python {platform.python_version()}",
        "commit": _commit(),
        "measured": datetime.date.today().isoformat(),
    }


@functools.cache
def _commit():
    command = ["git", "describe", "--always", "--dirty"]
    try:
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
