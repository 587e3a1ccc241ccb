"""Many runs, one table: the measurements behind the lessons' stored tables, and how a lesson reads them.

A sweep is a list of runs, each a function and its settings. A finished run is a CSV in a folder, so a sweep that was
interrupted goes on where it was. joblib decides where they run: here, on all cores, or on a Dask cluster.
"""

import itertools
import os
import re
import sys
import time
from collections.abc import Iterable
from dataclasses import replace
from numbers import Integral
from pathlib import Path

import pandas as pd
from joblib import Parallel, delayed
from tqdm.auto import tqdm

from course_utils import rules as registry
from course_utils.checkpoints import loaded_as
from course_utils.checks import SEED, check_name, plain, require, shown, whole
from course_utils.data import Dataset, load_dataset
from course_utils.device import current_device, use_device
from course_utils.rule import Rule
from course_utils.runs import RESULTS, ROOT, SCHEMA, label, named, one_run, read_run, write_run
from course_utils.sources import key
from course_utils.training import train


def stored_results(number):
    """The stored runs of lesson `number` (6 or "06"), in that schema; FileNotFoundError says how to make them."""
    return read_tables(number, "runs")[SCHEMA]


def stored_rates(number):
    """The runs among which the learning rates of lesson `number` were chosen, on validation; in the same schema."""
    return read_tables(number, "rates")[SCHEMA]


def read_tables(number, kind):
    """All tables of one kind, "runs" or "rates": the study's blocks in their order, rules in the registry's."""
    number = f"{int(number):02d}"
    paths = {path.stem: path for path in sorted(ROOT.glob(f"lessons/{number}_*/made/{kind}/*.csv"))}
    if not paths:
        where = "in the course's repository, not in the installed package (clone it, then `pip install -e .` there)"
        mend = f"they are {where}; `make results N={number}` makes them"
        raise FileNotFoundError(f"lesson {number} has no stored {kind} here: {mend}")
    tables = [read_table(paths[name]) for name in dict.fromkeys([*registry.ALL, *paths]) if name in paths]
    return pd.concat(tables, ignore_index=True).sort_values("block", kind="stable", ignore_index=True)


def read_table(path):
    """The table of one file, with the facts about the machine, which stand on its top, in every row."""
    lines = Path(path).read_text(encoding="utf-8").splitlines()
    facts = dict(line.removeprefix("# ").split(": ", 1) for line in lines if line.startswith("# "))
    return pd.read_csv(path, skiprows=len(facts)).assign(**facts)


def accuracy_table(stored, by="rule"):
    """Test accuracy of stored runs in per cent, a row for each value of column `by` (or of several), in stored order.

    Columns: mean, std over the seeds, seeds, lr, measured. stored: a frame of `stored_results`.
    """
    final = stored.dropna(subset=["test_accuracy"]).groupby(by, sort=False)
    table = (100 * final.test_accuracy.agg(["mean", "std"])).round(2)
    return table.assign(seeds=final.size(), lr=final.lr.first(), measured=final.measured.first())


def train_stored(rule, data, rows, **settings):
    """Train as stored runs were: at their learning rate, for as many epochs. Returns the `History`.

    rows: those of one rule, from `stored_results`. settings: what else `train` takes, and what is to be different.
    """
    return train(rule, data, **{"lr": rows.lr.iloc[0], "epochs": rows.epoch.max(), **settings})


def final_accuracy(rule, data, epochs=1, lr=0.1, **settings):
    """Validation accuracy in per cent after training, in silence; settings: as of `train`."""
    return 100 * train(rule, data, epochs=epochs, lr=lr, progress=False, **settings).frame.val_accuracy.iloc[-1]


def best_lr(table):
    """{rule: the lr whose runs ended with the best validation accuracy}, of a frame with several lr a rule.

    With several seeds: by the mean, and of rates within one standard error of the best the smallest.
    """
    chosen = {}
    for rule, rates in table.groupby("rule", sort=False):
        last = rates.groupby(["lr", "seed"], sort=False).tail(1).groupby("lr", sort=False).val_accuracy
        mean, error = last.mean(), last.sem()
        best = mean.idxmax()  # the first of equals
        near = mean.index[mean >= mean[best] - error[best]]  # none with one seed, whose error is not known
        chosen[rule] = min(near, default=best)
    return chosen


def sweep(
    rules, data="mnist", sizes=(784, 256, 10), lr=None, noise=0.0, seeds=5, *,
    noise_on="input", test=True, function=one_run, folder=None, threads=1, progress=True, **settings,
):  # fmt: skip
    """Train every rule at every lr and noise from every seed: one tidy frame in the results schema.

    rules: a name ("FeedbackAlignment", "NodePerturbation(draws=10)", "FrozenHidden(Backprop)"), a class, a function
    (net, seed) that makes a rule, functools.partial of these, or several, such as `cu.rules.ALL`; names may also be
    those of classes in the same list, or typed in. data: a name or a `Dataset`; one of your own travels to the
    workers, and its finished runs stand as long as its numbers are the same. lr: a number, several, None (the rule's
    own), or {rule: one of these}. noise: std, a number or several, of the noise that training adds on the "input" or,
    by noise_on, the "activity". seeds: how many, or several. (Several: a list, an array, a range, …) test: look at the
    test set after the last step. function: what one run does, `one_run` or another of the same first four
    arguments. settings: what else the function takes (epochs, batch_size, optimizer, network, knobs, …).

    Runs are divided by joblib: `with joblib.parallel_config(n_jobs=-1)` uses all cores, `backend="dask"` a Dask
    cluster; each uses `threads` threads of torch wherever it is, so that the numbers are the same. A finished run is
    a CSV in `folder` (default results/finished) and is not computed again unless its settings have changed, or the
    code that decides its numbers: the rule, wherever it is written, the function, the course's core; or its file is
    not as it was written, which is said. Raises ValueError for what the rule, the network or `train` refuse, and
    where nothing would run.
    """
    if isinstance(data, Dataset):  # of one's own: another object, looked at anew, whatever was done to the first
        data, limit = loaded_as(data) or (replace(data), None)
        settings |= {} if limit is None else {"limit": limit}
    settings |= {"dataset": data if isinstance(data, Dataset) else load_dataset(data).name, "test": test}
    runs = grid(rules, sizes, lr, noise, seeds, noise_on=noise_on, function=function, **settings)
    return pd.concat(run_all(runs, folder, threads, progress), ignore_index=True)


def grid(rules, sizes, lr=None, noise=0.0, seeds=5, *, noise_on="input", function=one_run, **settings):
    """The runs of a sweep, (function, settings) each, in the order of the frame."""
    check_name("noise_on", noise_on, ("input", "activity"))
    rules, noise, sizes = _listed("rules", rules), _listed("noise", noise), _listed("sizes", sizes)
    seeds = range(require("seeds", seeds, whole(1))) if isinstance(seeds, Integral) else _listed("seeds", seeds)
    known = [*vars(sys.modules["__main__"]).values(), *rules]  # what a name may mean, besides the registry's
    own = {kind.__name__: kind for kind in known if isinstance(kind, type) and issubclass(kind, Rule)}
    own = {name: kind for name, kind in own.items() if name not in registry.ALL}
    names = [named(rule, own) for rule in rules]
    rates = {label(named(rule, own)): rate for rule, rate in lr.items()} if isinstance(lr, dict) else {}
    if missing := [label(name) for name in names if isinstance(lr, dict) and label(name) not in rates]:
        raise ValueError(f"lr has no value for {', '.join(missing)}; add it, or give one lr for all")
    runs = []
    for name in names:
        mine = _listed("lr", rates.get(label(name), lr))
        for rate, std, seed in itertools.product(mine, noise, seeds):
            noises = {f"{noise_on}_noise": std} if std else {}
            seed = require("seeds", seed, SEED)
            runs.append((function, {"name": name, "sizes": sizes, "lr": rate, "seed": seed, **settings, **noises}))
    return runs


def _listed(what, value):
    """One value or several, as a list of Python's own: arrays, series, ranges, the values of a dictionary."""
    value = list(value.values()) if isinstance(value, dict) else value
    value = value.tolist() if hasattr(value, "tolist") else value
    listed = [plain(v) for v in value] if isinstance(value, Iterable) and not isinstance(value, str) else [value]
    if not listed:
        raise ValueError(f"{what} is {shown(value)}: nothing would run; give one or more")
    return listed


def run_all(runs, folder=None, threads=1, progress=True):
    """The frames of (function, settings) runs, in their order; finished ones are read from `folder`."""
    folder = Path(folder or (RESULTS / "finished" if RESULTS.is_dir() else "finished_runs"))
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / file_name(function, settings) for function, settings in runs]
    waiting = {path: run for path, run in zip(paths, runs, strict=True) if read_run(path) is None}
    for path in filter(Path.exists, waiting):
        print(f"{path} is not as a sweep wrote it (cut short, changed since, or another run's); it is computed again")
    frames = Parallel(return_as="generator_unordered")(
        delayed(_run)(path.name, function, settings, str(current_device()), threads, os.getpid())
        for path, (function, settings) in waiting.items()
    )
    with tqdm(frames, total=len(waiting), desc="sweep", unit="run", disable=not (progress and waiting)) as done:
        for name, frame in done:
            write_run(folder / name, frame)
    return [read_run(path).drop(columns="processor_seconds") for path in paths]


def _run(name, function, settings, device, threads, caller=None):
    """One run on whichever machine this is: (its file's name, its frame, with the processor seconds it took)."""
    begin = time.process_time()
    with use_device(device, threads):
        if load_dataset(settings.get("dataset", "mnist")).is_fallback:
            raise FileNotFoundError(f"this worker has no {settings['dataset']}: put its files where COURSE_DATA says")
        of_the_course = isinstance(settings["name"], str) and function.__module__.startswith("course_utils.")
        if of_the_course and os.getpid() != caller and file_name(function, settings) != name:  # it travels by name
            raise RuntimeError("a worker has other code of the course than its caller: start it anew, with the same")
        frame = function(**settings)
    columns = [*getattr(frame, "columns", ())]
    missing = [name for name in SCHEMA if name not in columns]
    if missing or not len(frame):
        what = f"a {type(frame).__name__} without {', '.join(missing) or 'rows'}"
        raise ValueError(f"{label(function)} returned {what}; a run returns a frame with {', '.join(SCHEMA)}")
    frame = frame[[*SCHEMA, *(column for column in columns if column not in SCHEMA)]]
    return name, frame.assign(processor_seconds=time.process_time() - begin)


def file_name(function, settings):
    """The file of a run: readable, and another one when anything has changed that decides its numbers."""
    who, sizes = label(settings["name"]), "-".join(map(str, settings["sizes"]))
    words = f"{who} {sizes} lr {settings['lr']} seed {settings['seed']}"
    return f"{re.sub(r'[^A-Za-z0-9.=-]+', '_', words)[:120]}_{key(function, settings)}.csv"
