"""One run, one frame: what sweeps are made of, in the schema of all stored tables."""

import ast
import datetime
import functools
import io
import platform
import subprocess
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from course_utils import rules
from course_utils.checkpoints import Checkpoint, facts_of, kind_of, own, read, restore
from course_utils.checks import check_dataset, plain, shown
from course_utils.controls import FrozenHidden
from course_utils.data import load_dataset
from course_utils.device import use_device
from course_utils.doors import check_rule, takes_seed
from course_utils.network import MLP
from course_utils.rule import Rule
from course_utils.safely import opened, sealed, write_whole
from course_utils.settings import Settings
from course_utils.training import drive, evaluate, steps, train

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "results"
FACTS = ["device", "versions", "commit", "measured"]
SCHEMA = ["rule", "dataset", "sizes", "seed", "lr", "noise", "epoch", "samples", "seconds", "val_accuracy"]
SCHEMA += ["test_accuracy", *FACTS]


def make_rule(name, sizes, seed, knobs=None, **network):
    """A fresh network and rule. name: "Backprop", "FeedbackAlignment(feedback_scale=0.5)", "FrozenHidden(…)" of
    such a one for the control, a class, a function (net, seed) that makes a rule, or functools.partial of these;
    knobs: more arguments for it."""
    name = _control(name)
    if getattr(name, "func", None) is FrozenHidden:
        return FrozenHidden(make_rule(name.args[0], sizes, seed, knobs, **network))
    rule_class, arguments = read_call(name) if isinstance(name, str) else (name, {})
    rule_class = rules.ALL.get(rule_class, rule_class)
    if isinstance(rule_class, str):
        known = f"{', '.join(rules.ALL)}, with keyword=value, or FrozenHidden(…) of one"
        own = "for a rule of your own its class, or a function (net, seed) that makes it"
        raise ValueError(f"rule is {name!r}; use one of: {known}; {own}")
    if takes_seed(rule_class):
        arguments = {"seed": seed} | arguments
    return rule_class(MLP(sizes, seed=seed, **network), **arguments, **(knobs or {}))


def _control(rule):
    """ "FrozenHidden(…)" as functools.partial has it; another rule as it is."""
    is_one = isinstance(rule, str) and rule.startswith("FrozenHidden(") and rule.endswith(")")
    return functools.partial(FrozenHidden, rule[len("FrozenHidden(") : -1]) if is_one else rule


def named(rule, own):
    """What stands for a rule in a run: a name that the registry knows, for a name travels further than a class;
    else the class or function, or functools.partial of it. own: {name: class} beside the registry's."""
    rule = _control(rule)
    if isinstance(rule, str):
        kind, arguments = read_call(rule)
        return named(functools.partial(own[kind], **arguments), own) if kind in own else rule
    if isinstance(rule, functools.partial) and rule.func is FrozenHidden and len(rule.args) == 1:
        inside = named(rule.args[0], own)
        return f"FrozenHidden({inside})" if isinstance(inside, str) else functools.partial(FrozenHidden, inside)
    kind, given = getattr(rule, "func", rule), getattr(rule, "keywords", {})
    no_rule = isinstance(kind, type) and not issubclass(kind, Rule) or not hasattr(kind, "__name__")
    if no_rule or getattr(rule, "args", False):
        good = "classes, functions (net, seed), or functools.partial of these that names what it fixes"
        raise ValueError(f'rules holds {shown(rule)}; give names, with arguments as in "Pepita(dropout=0.1)", {good}')
    kind = next((name for name, known in rules.ALL.items() if known is kind), kind)
    if not given:
        return kind
    rule = functools.partial(rule.func, **{name: plain(value) for name, value in given.items()})
    return label(rule) if read_call(label(rule)) == (kind, rule.keywords) else rule


def label(thing):
    """What a rule, as `named` gives it, is called in the column `rule`, as one would write it; or a function."""
    if not isinstance(thing, functools.partial):
        return thing if isinstance(thing, str) else getattr(thing, "__name__", repr(thing))
    given = [*map(label, thing.args), *(f"{name}={value!r}" for name, value in thing.keywords.items())]
    return f"{label(thing.func)}({', '.join(given)})"[:200]


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
    """As `one_run`, for a rule and data that are made already; name: a string or class, for the column `rule`.

    The frame ends with val_loss and test_loss where targets are values, and with a column for each of `metrics`.
    """
    history = train(rule, data, lr=lr, seed=seed, progress=False, **training)
    losses = ["val_loss", "test_loss"] if data.y_train.is_floating_point() else []
    own, tested = [*losses, *(training.get("metrics") or {})], losses[-1] if losses else "test_accuracy"
    frame = history.frame.assign(**dict.fromkeys({"test_accuracy", tested}, float("nan")))
    if test:
        frame.loc[frame.index[-1], tested] = evaluate(rule, data.x_test, data.y_test)
    facts = {
        "rule": label(name),
        "dataset": data.name,
        "sizes": " ".join(["-".join(map(str, rule.net.sizes)), *(network or {}).values()]),  # "784-500-10 tanh"
        "seed": seed,
        "lr": rule.lr if lr is None else lr,
        "noise": training.get("input_noise", 0.0) or training.get("activity_noise", 0.0),
        **provenance(data.x_train.device),
    }
    return frame.assign(**facts)[[*SCHEMA, *own]]


def write_run(path, frame):
    """A finished run's file: whole, or not there. On top stands a hash of its name and of all the rest."""
    write_whole(path, sealed(frame.to_csv(index=False).encode(), path.name))


def read_run(path):
    """The frame of a finished run, with `processor_seconds` in its last column; None unless it is as it was written."""
    table = opened(path.read_bytes(), path.name) if path.is_file() else None
    # Some commits are all digits, or look like 12e4567; a rule may be called NA.
    texts = dict.fromkeys(["rule", "dataset", "sizes", *FACTS], str)
    how: Any = {"dtype": texts, "keep_default_na": False, "na_values": [""], "encoding": "utf-8"}
    return None if table is None else pd.read_csv(io.BytesIO(table), float_precision="round_trip", **how)


def resume(path, rule=None, data=None, *, optimizer=None, metrics=None, stop_after=None, progress=True):
    """Go on with the run of `train(…, checkpoint=path)`: (its `History`, its rule), as if it had never been stopped.

    Bit for bit, on the same machine with as many threads. A run that has ended is read; one that came to its stop_after
    goes on. rule, data, optimizer, metrics: as they were at the start, where the file does not hold them, which
    ValueError says: a rule, a network or data of one's own, an optimiser instance, functions. ValueError also for a
    file that is none or is damaged, for other data and another device.
    """
    found = read(path)
    if own(optimizer, metrics) != found["own"]:
        raise ValueError(f"{path}: the run had of its own {found['own']}; hand over the same: optimizer=…, metrics=…")
    with use_device(found["are"]["data"][0], torch.get_num_threads()):
        for name, given in {"rule": rule, "data": data}.items():
            if given is None and found["made"][name] is None:
                raise ValueError(f"{path}: the run had a {name} of its own; hand it over as it began: {name}=…")
        rule = make_rule(**found["made"]["rule"]) if rule is None else rule
        data = load_dataset(*found["made"]["data"]) if data is None else data
    check_rule(rule)
    check_dataset(data)
    for name, are in {"rule": kind_of(rule), "data": facts_of(data)}.items():
        if are != (had := found["are"][name]):
            raise ValueError(f"{path}: the run's {name} was another one, {shown(had)}; hand over that one: {name}=…")
    settings, done = found["settings"] | {"metrics": metrics}, found["parts"]["history"]["samples"]
    settings |= {"optimizer": optimizer} if optimizer else {}
    if stop_after or done >= (settings["stop_after"] or 0):  # a pause that it has made is over
        settings["stop_after"] = stop_after
    restore(rule, found["state"])
    return drive(rule, steps(rule, data, Settings(**settings), Checkpoint(path, rule, data, found)), progress), rule


def provenance(device):
    """When, on what and with what a number was measured."""
    name = torch.cuda.get_device_name() if device.type == "cuda" else f"{torch.get_num_threads()} CPU threads"
    return {
        "device": name,
        "versions": f"torch {torch.__version__}, python {platform.python_version()}",
        "commit": commit(),
        "measured": datetime.date.today().isoformat(),
    }


@functools.cache
def commit():
    """The commit that these sources are, "unknown" outside git."""
    command = ["git", "describe", "--always", "--dirty"]
    try:
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
