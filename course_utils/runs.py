"""One run, one frame: what sweeps are made of, in the schema of all stored tables."""

import ast
import datetime
import functools
import platform
import subprocess
from pathlib import Path
from typing import Any

import torch

from course_utils import rules
from course_utils.controls import FrozenHidden
from course_utils.data import load_dataset
from course_utils.doors import takes_seed
from course_utils.network import MLP
from course_utils.training import evaluate, train

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "results"
FACTS = ["device", "versions", "commit", "measured"]
SCHEMA = ["rule", "dataset", "sizes", "seed", "lr", "noise", "epoch", "samples", "seconds", "val_accuracy"]
SCHEMA += ["test_accuracy", *FACTS]


def make_rule(name, sizes, seed, knobs=None, **network):
    """A fresh network and rule. name: "Backprop", "FeedbackAlignment(feedback_scale=0.5)", "FrozenHidden(…)" of
    such a one for the control, a class, or a function (net, seed) that makes a rule; knobs: more arguments for it."""
    if isinstance(name, str) and name.startswith("FrozenHidden(") and name.endswith(")"):
        return FrozenHidden(make_rule(name[len("FrozenHidden(") : -1], sizes, seed, knobs, **network))
    rule_class, arguments = read_call(name) if isinstance(name, str) else (name, {})
    rule_class = rules.ALL.get(rule_class, rule_class)
    if isinstance(rule_class, str):
        known = f"{', '.join(rules.ALL)}, with keyword=value, or FrozenHidden(…) of one"
        own = "for a rule of your own a function (net, seed) that returns cu.FrozenHidden(Mine(net, seed))"
        raise ValueError(f"rule is {name!r}; use one of: {known}; {own}")
    if takes_seed(rule_class):
        arguments = {"seed": seed} | arguments
    return rule_class(MLP(sizes, seed=seed, **network), **arguments, **(knobs or {}))


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
        "rule": name if isinstance(name, str) else name.__name__,
        "dataset": data.name,
        "sizes": " ".join(["-".join(map(str, rule.net.sizes)), *(network or {}).values()]),  # "784-500-10 tanh"
        "seed": seed,
        "lr": rule.lr if lr is None else lr,
        "noise": training.get("input_noise", 0.0) or training.get("activity_noise", 0.0),
        **provenance(data.x_train.device),
    }
    return frame.assign(**facts)[[*SCHEMA, *own]]


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
