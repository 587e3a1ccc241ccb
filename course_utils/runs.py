"""One run, one frame: the cells that sweeps are made of, in the schema of all stored tables."""

import ast
import datetime
import functools
import platform
import subprocess
from pathlib import Path

import pandas as pd
import torch

from course_utils import rules
from course_utils.data import load_dataset
from course_utils.network import MLP
from course_utils.rule import FrozenHidden
from course_utils.training import evaluate, train

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "results"
FACTS = ["device", "versions", "commit", "measured"]  # about the machine: once a file, not in every row
SCHEMA = ["rule", "dataset", "sizes", "seed", "lr", "noise", "epoch", "samples", "seconds", "val_accuracy"]
SCHEMA += ["test_accuracy", *FACTS]
DIGITS = {"seconds": 2, "epoch": 4, "val_accuracy": 6, "test_accuracy": 6}


def stored_results(number):
    """The stored runs of lesson `number` (an int or "06"), in the schema above; FileNotFoundError says how to
    make them."""
    return read_tables(number, "runs")[SCHEMA]


def stored_rates(number):
    """The runs among which the learning rates of lesson `number` were chosen, on validation; in the same schema."""
    return read_tables(number, "rates")[SCHEMA]


def read_tables(number, kind):
    """All tables of one kind, "runs" or "rates": the study's blocks in their order, rules in the registry's."""
    number = f"{int(number):02d}"
    if not (ROOT / "lessons").is_dir():
        raise FileNotFoundError(
            f"the {kind} of lesson {number} are in the course's repository, not in the installed package: "
            "clone it, and install it from there with `pip install -e .`"
        )
    order = {name: place for place, name in enumerate(rules.ALL)}
    paths = (ROOT / "lessons").glob(f"{number}_*/made/{kind}/*.csv")
    tables = [
        read_table(path) for path in sorted(paths, key=lambda path: (order.get(path.stem, len(order)), path.stem))
    ]
    if not tables:
        raise FileNotFoundError(f"lesson {number} has no stored {kind}: make them with `make results N={number}`")
    return pd.concat(tables, ignore_index=True).sort_values("block", kind="stable", ignore_index=True)


def read_table(path):
    """The table of one file, with the facts on its top in every row again."""
    lines = Path(path).read_text(encoding="utf-8").splitlines()
    facts = dict(line.removeprefix("# ").split(": ", 1) for line in lines if line.startswith("# "))
    return pd.read_csv(path, skiprows=len(facts)).assign(**facts)


def write_table(table, path):
    """One file of runs, written whole or not at all; rows of several days or machines name all of them on top."""
    facts = [f"# {fact}: {' and '.join(sorted(set(table[fact])))}\n" for fact in FACTS]
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}")
    temporary.write_text("".join(facts) + table.drop(columns=FACTS).round(DIGITS).to_csv(index=False), encoding="utf-8")
    temporary.replace(path)


def class_name(rule):
    """The class that a rule's name speaks of: "Pepita" of "FrozenHidden(Pepita(dropout=0))"."""
    node = ast.parse(rule, mode="eval").body
    while isinstance(node, ast.Call):
        node = node.args[0] if node.args else node.func
    return ast.unparse(node)


def make_rule(name, sizes, seed, knobs=None, **network):
    """A fresh network and rule. name: "Backprop", "FeedbackAlignment(feedback_scale=0.5)", "FrozenHidden(…)" of
    such a one for the control, or a class; knobs: more arguments for the rule."""
    if isinstance(name, type):
        return name(MLP(sizes, seed=seed, **network), seed=seed, **(knobs or {}))
    framed = name.startswith("FrozenHidden(") and name.endswith(")")
    inner = name.removeprefix("FrozenHidden(").removesuffix(")") if framed else name
    rule_class, written = read_call(inner)
    if rule_class not in rules.ALL:
        raise ValueError(
            f"rule is {name!r}; use one of: {', '.join(rules.ALL)}, with keyword=value, or FrozenHidden(…) of one"
        )
    rule = rules.ALL[rule_class](MLP(sizes, seed=seed, **network), seed=seed, **written, **(knobs or {}))
    return rule if inner == name else FrozenHidden(rule)


def read_call(text):
    """("Name", {keyword: value}) of "Name" or "Name(keyword=value, …)"."""
    try:
        call = ast.parse(text, mode="eval").body
        function = call.func if isinstance(call, ast.Call) else call
        keywords = call.keywords if isinstance(call, ast.Call) else []
        if (isinstance(call, ast.Call) and call.args) or any(k.arg is None for k in keywords):
            raise ValueError("every argument has to be written with its name")
        return ast.unparse(function), {str(k.arg): ast.literal_eval(k.value) for k in keywords}
    except (SyntaxError, ValueError):
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
    frame = history.frame[["epoch", "samples", "seconds", "val_accuracy"]].copy()
    frame["test_accuracy"] = float("nan")
    if test:
        frame.loc[frame.index[-1], "test_accuracy"] = evaluate(rule, data.x_test, data.y_test)
    noise = training.get("input_noise", 0.0) or training.get("activity_noise", 0.0)
    facts = {
        "rule": name if isinstance(name, str) else name.__name__,
        "dataset": data.name,
        "sizes": " ".join(["-".join(map(str, rule.net.sizes)), *(network or {}).values()]),  # "784-500-10 tanh"
        "seed": seed,
        "lr": rule.lr if lr is None else lr,
        "noise": noise,
        **provenance(data.x_train.device),
    }
    return frame.assign(**facts)[SCHEMA]


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
    try:
        shown = subprocess.run(
            ["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True, check=True
        )
        return shown.stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
