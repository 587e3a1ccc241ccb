"""Many runs, one table: the measurements behind `results/`, and how a lesson reads them.

A sweep is a list of cells, each a function and its settings. A finished cell is a CSV in a folder, so a sweep that was
interrupted goes on where it was. joblib decides where the cells run: here, on all cores, or on a Dask cluster.
"""

import contextlib
import functools
import hashlib
import inspect
import itertools
import json
import os
import re
import time
from pathlib import Path

import pandas as pd
from joblib import Parallel, delayed
from tqdm.auto import tqdm

from course_utils import rules as registry
from course_utils.runs import RESULTS, SCHEMA, read_call, one_run
from course_utils.data import Dataset, load_dataset
from course_utils.device import current_device, use_device
from course_utils.rule import Rule


def best_lr(table):
    """{rule: the lr whose run ended with the best validation accuracy}, of a frame with several lr a rule."""
    last = table.groupby(["rule", "lr"]).tail(1)
    best = last.loc[last.groupby("rule").val_accuracy.idxmax()]
    return dict(zip(best.rule, best.lr, strict=True))


def sweep(
    rules, data="mnist", sizes=(784, 256, 10), lr=None, noise=0.0, seeds=5, *,
    noise_on="input", test=True, function=one_run, folder=None, threads=1, progress=True, **settings,
):  # fmt: skip
    """Train every rule at every lr and noise from every seed: one tidy frame in the results schema.

    rules: a name ("FeedbackAlignment", "NodePerturbation(draws=10)", "FrozenHidden(Backprop)"), a class, or a
    list or dictionary of these, such as `cu.rules.ALL`. data: a name, or what load_dataset gave for it. lr: a number,
    a list, None (the rule's own), or {rule: one of these}. noise: std, a number or a list, of the noise that
    training adds on the "input" or, by noise_on, the "activity". seeds: how many, or a list. test: look at the
    test set after the last step. function: what one cell does, `one_run` or another of the same first four
    arguments. settings: what else the function takes (epochs, batch_size, optimizer, network, knobs, …).

    Cells are divided by joblib: `with joblib.parallel_config(n_jobs=-1)` uses all cores, `backend="dask"` a Dask
    cluster; each uses `threads` threads of torch wherever it runs, so that the numbers are the same. A finished
    cell is a CSV in `folder` (default results/cells) and is not computed again unless its settings, or the source
    of its rule's class, have changed. Raises ValueError for what the rule, the network or `train` refuse.
    """
    if isinstance(data, Dataset):
        settings, data = settings | _limit_of(data), data.requested
    settings |= {"dataset": load_dataset(data).name, "test": test}
    cells = grid(rules, sizes, lr, noise, seeds, noise_on=noise_on, function=function, **settings)
    return pd.concat(run_cells(cells, folder, threads, progress), ignore_index=True)


def _limit_of(data):
    """{"limit": n} for the first n images of a dataset that load_dataset gave, which every worker loads by name."""
    whole = load_dataset(data.requested, device=data.x_train.device)
    if data.x_train.data_ptr() != whole.x_train.data_ptr() or data.x_test is not whole.x_test:
        raise ValueError(
            "a sweep's workers load their data by name; give a name or what cu.load_dataset returned, "
            "or make other data inside a function of your own: cu.sweep(…, function=my_cell)"
        )
    return {} if len(data.x_train) == len(whole.x_train) else {"limit": len(data.x_train)}


def grid(rules, sizes, lr=None, noise=0.0, seeds=5, *, noise_on="input", function=one_run, **settings):
    """The cells of a sweep, (function, settings) each, in the order of the frame."""
    if noise_on not in ("input", "activity"):
        raise ValueError(f'noise_on is {noise_on!r}; use "input" or "activity"')
    names = _as_list(list(rules.values()) if isinstance(rules, dict) else rules)
    names = [_name_of(rule) for rule in names]
    lrs = lr if isinstance(lr, dict) else dict.fromkeys(names, lr)
    if missing := [str(name) for name in names if name not in lrs]:
        raise ValueError(f"lr has no value for {', '.join(missing)}; add it, or give one lr for all")
    seeds = range(seeds) if isinstance(seeds, int) else seeds
    cells = []
    for name in names:
        for rate, std, seed in itertools.product(_as_list(lrs[name]), _as_list(noise), seeds):
            noises = {f"{noise_on}_noise": std} if std else {}
            one = {"name": name, "sizes": list(sizes), "lr": rate, "seed": seed, **settings, **noises}
            cells.append((function, one))
    return cells


def _as_list(value):
    return list(value) if isinstance(value, (list, tuple, range)) else [value]


def _name_of(rule):
    """Its name where the registry knows it, for a name travels further than a class; else the class."""
    known = isinstance(rule, type) and registry.ALL.get(rule.__name__) is rule
    return rule.__name__ if known else rule


def run_cells(cells, folder=None, threads=1, progress=True):
    """The frames of (function, settings) cells, in their order; finished ones are read from `folder`."""
    folder = Path(folder or (RESULTS / "cells" if RESULTS.is_dir() else "cells"))
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / file_name(function, settings) for function, settings in cells]
    waiting = {path.name: cell for path, cell in zip(paths, cells, strict=True) if not path.exists()}
    run = Parallel(return_as="generator_unordered")(
        delayed(_run)(name, function, settings, str(current_device()), threads)
        for name, (function, settings) in waiting.items()
    )
    with tqdm(run, total=len(waiting), desc="sweep", unit="cell", disable=not (progress and waiting)) as done:
        for name, frame in done:
            temporary = folder / f".{os.getpid()}.{name}"  # a reader sees a whole cell or none
            frame.to_csv(temporary, index=False)
            temporary.replace(folder / name)
    return [pd.read_csv(path, float_precision="round_trip")[SCHEMA] for path in paths]


def _run(name, function, settings, device, threads):
    """One cell on whichever machine this is: (its file's name, its frame, with the processor seconds it took)."""
    begin = time.process_time()
    with use_device(device, threads), contextlib.redirect_stdout(None):  # a run that diverges says so in its rows
        if load_dataset(settings.get("dataset", "mnist")).is_fallback:
            raise FileNotFoundError(f"this worker has no {settings['dataset']}: put its files where COURSE_DATA says")
        frame = function(**settings)
    return name, frame.assign(processor_seconds=time.process_time() - begin)


def file_name(function, settings):
    """The file of a cell: readable, and different for different settings, function or source of the rule."""
    rule = settings["name"]
    shown = rule if isinstance(rule, str) else rule.__name__
    sources = [_source(base) for base in _class_of(rule).__mro__ if issubclass(base, Rule) and base is not Rule]
    what = [f"{function.__module__}.{function.__name__}", {**settings, "name": shown}, sources]
    digest = hashlib.sha256(json.dumps(what, sort_keys=True, default=str).encode()).hexdigest()[:12]
    words = f"{shown} {'-'.join(map(str, settings['sizes']))} lr {settings['lr']} seed {settings['seed']}"
    return f"{re.sub(r'[^A-Za-z0-9.=-]+', '_', words)}_{digest}.csv"


def _class_of(rule):
    if isinstance(rule, type):
        return rule
    inner = rule.removeprefix("FrozenHidden(").removesuffix(")") if rule.startswith("FrozenHidden(") else rule
    return registry.ALL.get(read_call(inner)[0], Rule)


@functools.cache
def _source(rule_class):
    try:
        return inspect.getsource(rule_class)
    except (OSError, TypeError):
        return ""  # typed in somewhere; only its name is known
