"""Measure the tables behind the lessons: results/06.csv and results/06_lr.csv of lesson 06, and so on.

    python tools/results.py            every lesson's, from what has been measured already
    python tools/results.py 06 07      these lessons'
    python tools/results.py --fresh    from nothing

What to run stands in the lesson's front matter under `lesson: results:` (rules, sizes, lrs, epochs, …; or a list of
such blocks). `rules: all` means every rule of the registry, and `also:` lists more. The learning rate is chosen on
validation (one seed, one epoch on 20,000 images, if search_epochs and search_images do not say otherwise), unless
only one is given. `confirm: 2` then runs the winner and the two smaller rates next to it for the whole length, again
on validation, for a short race prefers rates that are too high for a long one. Then the seeds run.
`function: course_utils.worlds.online` names another function than `runs.one_run` for a block's cells; keys that
are not read here go to it.

The cells of all lessons are one sweep (see course_utils/sweeps.py): equal ones are computed once, and an interrupted
run goes on where it was. What a lesson took, in seconds of one processor core, is kept in results/cost.csv.
"""

import argparse
import os
import pkgutil
import shutil
import time
from dataclasses import dataclass, field
from pathlib import Path

import joblib
import pandas as pd
import yaml

import course_utils as cu
from course_utils import runs, sweeps

ROOT = Path(__file__).parent.parent
NOT_IN_SEARCH = ("eval_every", "limit", "epochs", "test")
PHASES = {
    "search": "learning rates, on validation",
    "confirm": "the best of them and the next smaller ones, in runs of full length",
    "seeds": "all seeds at the chosen rates",
}


@dataclass
class Block:
    """One block of a lesson: cells that search the rate, cells that confirm it, cells of all seeds; their frames."""

    lesson: str
    rules: list
    sizes: list
    lrs: list
    seeds: int
    confirm: int
    search: dict
    settings: dict
    best: dict = field(default_factory=dict)  # {phase: {rule: lr}}
    frames: dict = field(default_factory=dict)

    def rates(self, phase):
        """{rule: the rates that it runs at in this phase}."""
        if phase == "search":
            return dict.fromkeys(self.rules, self.lrs if len(self.lrs) > 1 else [])
        first = self.best.get("search") or dict.fromkeys(self.rules, self.lrs[0])
        if phase == "confirm" and not self.confirm:
            return dict.fromkeys(self.rules, [])
        if phase == "confirm":
            lower = {rule: sorted(lr for lr in self.lrs if lr <= best) for rule, best in first.items()}
            return {rule: lrs[-1 - self.confirm :] for rule, lrs in lower.items()}
        return self.best.get("confirm") or first

    def cells(self, phase):
        settings = self.search if phase == "search" else self.settings
        if phase == "confirm":
            settings = {name: value for name, value in settings.items() if name != "eval_every"} | {"test": False}
        seeds = self.seeds if phase == "seeds" else 1
        return sweeps.grid(self.rules, self.sizes, self.rates(phase), seeds=seeds, **settings)


def read_block(
    lesson, rules, sizes, lrs, seeds=5, also=(), confirm=0, search_images=20_000, search_epochs=1, **settings
):
    """A block as it stands in the front matter of `lesson` ("06")."""
    rules = [*(list(cu.rules.ALL) if rules == "all" else rules), *also]
    function = pkgutil.resolve_name(settings.pop("function", "course_utils.runs.one_run"))
    settings = {"dataset": "mnist", "test": True, "function": function, **settings}
    search = {name: value for name, value in settings.items() if name not in NOT_IN_SEARCH}
    search |= {"limit": search_images, "epochs": search_epochs, "test": False}
    return Block(lesson, rules, sizes, lrs, seeds, confirm, search, settings)


def blocks_of(number):
    """The blocks of lesson `number` ("06"); an empty list for a lesson that stores no results."""
    (path,) = (ROOT / "lessons").glob(f"{number}_*.md")
    found = yaml.safe_load(path.read_text().split("---\n")[1])["lesson"].get("results", [])
    return [read_block(number, **block) for block in (found if isinstance(found, list) else [found])]


def measure(blocks, phase, folder):
    """Run the cells of all blocks as one sweep and hand each block its frames."""
    parts = [block.cells(phase) for block in blocks]
    frames = iter(sweeps.run_cells([cell for part in parts for cell in part], folder))
    for block, part in zip(blocks, parts, strict=True):
        block.frames[phase] = [next(frames) for _ in part]
        if phase != "seeds" and part:
            block.best[phase] = sweeps.best_lr(pd.concat(block.frames[phase], ignore_index=True))


def write(number, blocks, folder):
    """results/NN.csv, results/NN_lr.csv; a line of what the last epochs reached."""
    for phases, name in ((("search", "confirm"), f"{number}_lr.csv"), (("seeds",), f"{number}.csv")):
        frames = [frame for block in blocks for phase in phases for frame in block.frames[phase]]
        if frames:
            digits = {"seconds": 2, "epoch": 4, "val_accuracy": 6, "test_accuracy": 6}
            table = pd.concat(frames, ignore_index=True).round(digits)
            temporary = ROOT / "results" / f".{name}"
            table.to_csv(temporary, index=False)
            temporary.replace(ROOT / "results" / name)
    last = table.dropna(subset=["test_accuracy"]).groupby(["sizes", "rule"]).test_accuracy
    print(f"\nresults/{number}.csv\n{(100 * last.agg(['mean', 'std', 'min', 'max'])).round(2).to_string()}")


def seconds_of(cell_list, folder):
    """Processor seconds of finished cells, as their files say; each file once."""
    paths = {folder / sweeps.file_name(*cell) for cell in cell_list}
    return sum(pd.read_csv(path).processor_seconds.iloc[0] for path in paths), len(paths)


def note_cost(blocks, folder):
    """Enter what each lesson took into results/cost.csv; a cell that two lessons share counts for the first."""
    path, rows, seen = ROOT / "results" / "cost.csv", [], set()
    for number in sorted({block.lesson for block in blocks}):
        mine = [c for b in blocks if b.lesson == number for phase in PHASES for c in b.cells(phase)]
        new = {sweeps.file_name(*cell): cell for cell in mine if sweeps.file_name(*cell) not in seen}
        seen |= set(new)
        seconds, count = seconds_of(new.values(), folder)
        facts = runs.provenance(cu.load_dataset("mnist").x_train.device)
        rows.append({"lesson": number, "cells": count, "core_seconds": round(seconds), **facts})
    table = pd.DataFrame(rows)
    if path.exists():
        old = pd.read_csv(path, dtype={"lesson": str})
        table = pd.concat([old[~old.lesson.isin(table.lesson)], table])
    table.sort_values("lesson").to_csv(path, index=False)


def announce(blocks, folder, jobs):
    """Say beforehand how much there is to do and how long it should take."""
    names: dict[str, set[str]] = {}
    for block in blocks:
        for phase in PHASES:
            found = {sweeps.file_name(*cell) for cell in block.cells(phase)}
            names.setdefault(block.lesson, set()).update(found)
            if phase != "seeds" and all((folder / name).exists() for name in found):
                measure([block], phase, folder)  # reads them: the rate is known, and so are the names of the rest
    everything = set().union(*names.values())
    waiting = {name for name in everything if not (folder / name).exists()}
    path = ROOT / "results" / "cost.csv"
    cost: dict = {}
    if path.exists():
        cost = pd.read_csv(path, dtype={"lesson": str}).set_index("lesson").core_seconds.to_dict()
    known = [number for number in names if number in cost]
    minutes = sum(cost[number] * len(names[number] & waiting) / len(names[number]) for number in known) / jobs / 60
    print(f"{len(everything)} cells for lessons {', '.join(names)}; {len(everything - waiting)} are finished")
    print(
        f"about {minutes:.0f} minutes on {jobs} cores, by what {len(known)} of {len(names)} lessons took the last time"
    )


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("lessons", nargs="*", help="numbers, such as 06; all when none is given")
    parser.add_argument("--fresh", action="store_true", help="forget the finished cells first")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="cells at once (all cores)")
    wanted = parser.parse_args(arguments)
    cu.setup(seed=0, device="cpu")
    if cu.load_dataset("mnist").is_fallback:
        raise SystemExit("results are measured on MNIST; it could not be loaded")
    folder = ROOT / "results" / "cells"
    if wanted.fresh:
        shutil.rmtree(folder, ignore_errors=True)
    numbers = wanted.lessons or sorted(path.name[:2] for path in (ROOT / "lessons").glob("[0-9]*.md"))
    blocks = [block for number in numbers for block in blocks_of(number)]
    announce(blocks, folder, wanted.jobs)
    begin = time.perf_counter()
    with joblib.parallel_config(n_jobs=wanted.jobs):
        for phase, meaning in PHASES.items():
            print(meaning)
            measure(blocks, phase, folder)
    for number in sorted({block.lesson for block in blocks}):
        write(number, [block for block in blocks if block.lesson == number], folder)
    note_cost(blocks, folder)
    print(f"\n{(time.perf_counter() - begin) / 60:.1f} minutes")


if __name__ == "__main__":
    main()
