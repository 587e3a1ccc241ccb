"""Many runs, one table: the measurements behind the lessons' stored tables, and how a lesson reads them.

A sweep is a list of runs, each a function and its settings. A finished run is a CSV in a folder, so a sweep that was
interrupted goes on where it was. joblib decides where they run: here, on all cores, or on a Dask cluster.
"""

import contextlib
import itertools
import os
import re
import time
from dataclasses import replace
from pathlib import Path

import pandas as pd
from joblib import Parallel, delayed
from tqdm.auto import tqdm

from course_utils import rules as registry
from course_utils.checks import check_name
from course_utils.data import Dataset, load_dataset
from course_utils.device import current_device, use_device
from course_utils.files import SOURCES
from course_utils.runs import RESULTS, ROOT, SCHEMA, one_run
from course_utils.sources import key
from course_utils.training import train


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
    paths = {path.stem: path for path in sorted(ROOT.glob(f"lessons/{number}_*/made/{kind}/*.csv"))}
    if not paths:
        raise FileNotFoundError(
            f"lesson {number} has no stored {kind} here: they are in the course's repository, not in the installed "
            f"package (clone it, then `pip install -e .` there); `make results N={number}` makes them"
        )
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

    rules: a name ("FeedbackAlignment", "NodePerturbation(draws=10)", "FrozenHidden(Backprop)"), a class, or a
    list or dictionary of these, such as `cu.rules.ALL`. data: a name or a `Dataset`; one of your own travels to the
    workers, and its finished runs stand as long as its numbers are the same. lr: a number,
    a list, None (the rule's own), or {rule: one of these}. noise: std, a number or a list, of the noise that
    training adds on the "input" or, by noise_on, the "activity". seeds: how many, or a list. test: look at the
    test set after the last step. function: what one run does, `one_run` or another of the same first four
    arguments. settings: what else the function takes (epochs, batch_size, optimizer, network, knobs, …).

    Runs are divided by joblib: `with joblib.parallel_config(n_jobs=-1)` uses all cores, `backend="dask"` a Dask
    cluster; each uses `threads` threads of torch wherever it is, so that the numbers are the same. A finished run is
    a CSV in `folder` (default results/finished) and is not computed again unless its settings have changed, or the
    code that decides its numbers: the rule, wherever it is written, the function, the course's core. Raises
    ValueError for what the rule, the network or `train` refuse.
    """
    data, limit = _for_workers(data) if isinstance(data, Dataset) else (load_dataset(data).name, {})
    settings |= {"dataset": data, "test": test, **limit}
    runs = grid(rules, sizes, lr, noise, seeds, noise_on=noise_on, function=function, **settings)
    return pd.concat(run_all(runs, folder, threads, progress), ignore_index=True)


def _for_workers(data):
    """(name, limit) of what load_dataset gave, for every worker to load; (data, {}) of one's own, which travel."""
    if data.requested in (*SOURCES, "digits"):
        device, loaded = data.x_train.device, load_dataset(data.requested)
        for limit in ({}, {"limit": min(len(data.x_train), len(loaded.x_train))}):
            loaded = load_dataset(data.requested, device=device, **limit)
            if all(map(_is_same, data.tensors, loaded.tensors)):
                return loaded.name, limit
    return replace(data), {}  # another object, which is looked at anew, whatever has been done to the first


def _is_same(one, other):
    return (one.data_ptr(), one.shape, one.stride()) == (other.data_ptr(), other.shape, other.stride())


def grid(rules, sizes, lr=None, noise=0.0, seeds=5, *, noise_on="input", function=one_run, **settings):
    """The runs of a sweep, (function, settings) each, in the order of the frame."""
    check_name("noise_on", noise_on, ("input", "activity"))
    names = _as_list(list(rules.values()) if isinstance(rules, dict) else rules)
    names = [_name_of(rule) for rule in names]
    lrs = lr if isinstance(lr, dict) else dict.fromkeys(names, lr)
    if missing := [str(name) for name in names if name not in lrs]:
        raise ValueError(f"lr has no value for {', '.join(missing)}; add it, or give one lr for all")
    seeds = range(seeds) if isinstance(seeds, int) else seeds
    runs = []
    for name in names:
        for rate, std, seed in itertools.product(_as_list(lrs[name]), _as_list(noise), seeds):
            noises = {f"{noise_on}_noise": std} if std else {}
            one = {"name": name, "sizes": list(sizes), "lr": rate, "seed": seed, **settings, **noises}
            runs.append((function, one))
    return runs


def _as_list(value):
    return list(value) if isinstance(value, (list, tuple, range)) else [value]


def _name_of(rule):
    """Its name where the registry knows it, for a name travels further than a class; else the class or function."""
    if not isinstance(rule, str) and not hasattr(rule, "__name__"):
        say = 'or functions (net, seed) that make a rule; arguments as in "NodePerturbation(draws=10)"'
        raise ValueError(f"rules holds {rule!r}; give names or classes, {say}")
    return next((name for name, known in registry.ALL.items() if known is rule), rule)


def run_all(runs, folder=None, threads=1, progress=True):
    """The frames of (function, settings) runs, in their order; finished ones are read from `folder`."""
    folder = Path(folder or (RESULTS / "finished" if RESULTS.is_dir() else "finished_runs"))
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / file_name(function, settings) for function, settings in runs]
    waiting = {path.name: run for path, run in zip(paths, runs, strict=True) if not path.exists()}
    frames = Parallel(return_as="generator_unordered")(
        delayed(_run)(name, function, settings, str(current_device()), threads)
        for name, (function, settings) in waiting.items()
    )
    with tqdm(frames, total=len(waiting), desc="sweep", unit="run", disable=not (progress and waiting)) as done:
        for name, frame in done:
            temporary = folder / f".{os.getpid()}.{name}"  # a reader sees a whole run or none
            frame.to_csv(temporary, index=False)
            temporary.replace(folder / name)
    # Some commits are all digits, or look like 12e4567.
    frames = [pd.read_csv(path, float_precision="round_trip", dtype={"commit": str}) for path in paths]
    return [frame[[*SCHEMA, *frame.columns.difference([*SCHEMA, "processor_seconds"], sort=False)]] for frame in frames]


def _run(name, function, settings, device, threads):
    """One run on whichever machine this is: (its file's name, its frame, with the processor seconds it took)."""
    begin = time.process_time()
    with use_device(device, threads), contextlib.redirect_stdout(None):  # a run that diverges says so in its rows
        if load_dataset(settings.get("dataset", "mnist")).is_fallback:
            raise FileNotFoundError(f"this worker has no {settings['dataset']}: put its files where COURSE_DATA says")
        frame = function(**settings)
    return name, frame.assign(processor_seconds=time.process_time() - begin)


def file_name(function, settings):
    """The file of a run: readable, and another one when anything has changed that decides its numbers."""
    rule = settings["name"] if isinstance(settings["name"], str) else settings["name"].__name__
    words = f"{rule} {'-'.join(map(str, settings['sizes']))} lr {settings['lr']} seed {settings['seed']}"
    return f"{re.sub(r'[^A-Za-z0-9.=-]+', '_', words)}_{key(function, settings)}.csv"
