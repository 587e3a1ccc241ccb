"""Measure the studies of the lessons: what study.yaml asks for, to the lesson's made/runs, made/rates, made/cost.yaml.

    python -m tools.results            every lesson's, from what has been measured already
    python -m tools.results 06 07      these lessons'
    python -m tools.results --fresh    from nothing
    python -m tools.results 28 29 --rules ZIL    these rules' files alone; the others', and the cost, stay as they are

study.yaml is a list of `blocks:`, each of them rules, sizes, lrs, seeds, epochs, …; `defaults:` holds for all blocks.
`rules: all` means every rule of the registry that can teach these sizes, and `also:` lists more.
The learning rate is chosen on validation (one seed, one epoch on 20,000 images, if search_epochs and search_images do
not say otherwise), unless only one is given. While the best rate of a rule stands at the edge of its grid, the next
one is tried, six times at most.
`confirm: 2` then runs the winner and the two smaller rates next to it for the whole length, again on validation, for
a short race prefers rates that are too high for a long one; `confirm_seeds: 3` takes the mean of three seeds, and of
rates within one standard error of the best the smallest. Then the seeds run.
`function: course_utils.studies.harder_worlds.online` names another function than `runs.one_run` for a block's runs;
keys that are not read here go to it. `targets:` and `judged:` are for the tests: what has to come out, for which rules.

The runs of all lessons are one sweep (see course_utils/sweeps.py): equal ones are computed once, and an interrupted
sweep goes on where it was. What a study took, in seconds of one processor core, is noted in made/cost.yaml.
"""

import argparse
import ast
import os
import pkgutil
import shutil
import time
from dataclasses import dataclass, field

import joblib
import pandas as pd

import course_utils as cu
from course_utils import runs, sweeps
from tools import cost, lessons, maps
from tools.lessons import chosen, study

FINISHED = runs.RESULTS / "finished"
NOT_IN_SEARCH = ("eval_every", "limit", "epochs", "test")
PHASES = {
    "search": "learning rates, on validation",
    "confirm": "the best of them and the next smaller ones, in runs of full length",
    "seeds": "all seeds at the chosen rates",
}
DIGITS = {"seconds": 2, "epoch": 4, "val_accuracy": 6, "test_accuracy": 6}
RESTS_ON = {"search": ["search"], "confirm": ["search", "confirm"], "seeds": ["seeds"]}
FURTHER = 6  # how often a grid may grow


@dataclass
class Block:
    """One block of a study: runs that search the rate, runs that confirm it, runs of all seeds; their frames."""

    rules: list
    sizes: list
    lrs: dict  # {rule: its rates, in the order in which they are tried}
    seeds: int
    confirm: int
    confirm_seeds: int
    search: dict
    settings: dict
    best: dict = field(default_factory=dict)  # {phase: {rule: lr}}
    frames: dict = field(default_factory=dict)
    walked: int = 0

    def rates(self, phase):
        """{rule: the rates that it runs at in this phase}."""
        if phase == "search":
            return {rule: lrs if len(lrs) > 1 else [] for rule, lrs in self.lrs.items()}
        first = self.best.get("search") or {rule: lrs[0] for rule, lrs in self.lrs.items()}
        if phase == "confirm" and not self.confirm:
            return dict.fromkeys(self.rules, [])
        if phase == "confirm":
            lower = {rule: sorted(lr for lr in self.lrs[rule] if lr <= best) for rule, best in first.items()}
            return {rule: lrs[-1 - self.confirm :] for rule, lrs in lower.items()}
        return self.best.get("confirm") or first

    def runs(self, phase):
        settings = self.search if phase == "search" else self.settings
        if phase == "confirm":
            settings = {name: value for name, value in settings.items() if name != "eval_every"} | {"test": False}
        seeds = {"search": 1, "confirm": self.confirm_seeds, "seeds": self.seeds}[phase]
        rates = self.rates(phase)
        rules = [rule for rule in self.rules if rates[rule] or rates[rule] is None]
        return sweeps.grid(rules, self.sizes, rates, seeds=seeds, **settings) if rules else []

    def walk_on(self, phase):
        """Add the next rate wherever the best stands at the edge of its grid; was there any?"""
        if self.walked == FURTHER or (self.confirm and phase == "search"):  # there the long race has the last word
            return False
        more = {rule: next_rate(self.lrs[rule], best) for rule, best in self.best.get(phase, {}).items()}
        for rule, rate in more.items():
            self.lrs[rule] += [rate] if rate else []
        self.walked += any(more.values())
        return any(more.values())


def next_rate(lrs, best):
    """The rate beyond `best`, as far from it as its neighbour is; None for one that stands inside."""
    lrs = sorted(lrs)
    if len(lrs) < 2 or lrs[0] < best < lrs[-1]:
        return None
    neighbour = lrs[1] if best == lrs[0] else lrs[-2]
    return float(f"{best * best / neighbour:.2g}")


def read_block(
    rules, sizes, lrs, seeds=5, also=(), confirm=0, confirm_seeds=1, search_images=20_000, search_epochs=1, **settings
):
    """A block as it stands in study.yaml."""
    rules = [*(cu.rules.able(sizes) if rules == "all" else rules), *also]
    function = pkgutil.resolve_name(settings.pop("function", "course_utils.runs.one_run"))
    settings = {"dataset": "mnist", "test": True, "function": function, **settings}
    search = {name: value for name, value in settings.items() if name not in NOT_IN_SEARCH}
    search |= {"limit": search_images, "epochs": search_epochs, "test": False}
    return Block(rules, sizes, {rule: list(lrs) for rule in rules}, seeds, confirm, confirm_seeds, search, settings)


def measure(blocks, phase):
    """Run the runs of all blocks as one sweep and hand each block its frames."""
    parts = [block.runs(phase) for block in blocks]
    frames = iter(sweeps.run_all([run for part in parts for run in part], FINISHED))
    for block, part in zip(blocks, parts, strict=True):
        block.frames[phase] = [next(frames) for _ in part]
        if phase != "seeds" and part:
            block.best[phase] = sweeps.best_lr(pd.concat(block.frames[phase], ignore_index=True))


def settle(blocks, phase):
    """Measure a phase, with what it rests on; the blocks that walked on from an edge and are not settled yet."""
    for part in RESTS_ON[phase]:
        measure(blocks, part)
    return [block for block in blocks if block.walk_on(phase)]


def only(rules, blocks):
    """The blocks with the runs of these rules, by the names of their classes; the blocks keep their numbers."""
    for block in blocks:
        block.rules = [rule for rule in block.rules if class_name(rule) in rules]
        block.lrs = {rule: block.lrs[rule] for rule in block.rules}
    return blocks


def write(lesson, blocks, whole=True):
    """The lesson's made/rates and made/runs, a file a rule; a line of what the last epochs reached."""
    for kind, phases in {"rates": ("search", "confirm"), "runs": ("seeds",)}.items():
        tables: dict[str, list] = {}
        for number, block in enumerate(blocks):
            for frame in (frame for phase in phases for frame in block.frames[phase]):
                tables.setdefault(class_name(frame.rule[0]), []).append(frame.assign(block=number))
        for name, frames in tables.items():
            write_table(pd.concat(frames, ignore_index=True), lesson.made / kind / f"{name}.csv")
        for path in (lesson.made / kind).glob("*.csv"):  # last: at no moment is there less than before
            if whole and path.stem not in tables:
                path.unlink()
    table = pd.concat(frame for block in blocks for frame in block.frames["seeds"])
    last = table.dropna(subset=["test_accuracy"]).groupby(["sizes", "rule"]).test_accuracy
    print(f"\nlessons/{lesson.stem}/made/runs\n{(100 * last.agg(['mean', 'std', 'min', 'max'])).round(2).to_string()}")


def class_name(rule):
    """The class that a rule's name speaks of: "Pepita" of "FrozenHidden(Pepita(dropout=0))"."""
    node = ast.parse(rule, mode="eval").body
    while isinstance(node, ast.Call):
        node = node.args[0] if node.args else node.func
    return ast.unparse(node)


def write_table(table, path):
    """One file of runs; where they come from several days or machines, the lines on its top name all of them."""
    facts = [f"# {fact}: {' and '.join(sorted(set(table[fact])))}\n" for fact in runs.FACTS]
    rows = table[["block", *table.columns.drop(["block", *runs.FACTS])]].round(DIGITS)
    lessons.write(path, "".join(facts) + rows.to_csv(index=False))


def files_of(blocks, phases=PHASES):
    """The finished runs of blocks, or what their files will be called; each once."""
    return dict.fromkeys(FINISHED / sweeps.file_name(*run) for b in blocks for phase in phases for run in b.runs(phase))


def note_costs(studies):
    """Enter what each study took into its made/cost.yaml; a run that two lessons share counts for the first."""
    facts, seen = runs.provenance(cu.load_dataset("mnist").x_train.device), set()
    for lesson, blocks in studies.items():
        new = [path for path in files_of(blocks) if path not in seen]
        seen |= set(new)
        seconds = sum(runs.read_run(path).processor_seconds[0] for path in new)
        cost.note(lesson, "results", {"runs": len(new), "core_seconds": round(seconds), **facts})


def announce(studies, jobs):
    """Say beforehand how much there is to do and how long it should take."""
    every: set = set()
    waiting: set = set()
    minutes, known = 0.0, 0
    for lesson, blocks in studies.items():
        for block in blocks:  # what is finished is read: the rate is known, and so are the runs to come
            for phase in ("search", "confirm"):
                while all(path.exists() for path in files_of([block], RESTS_ON[phase])) and settle([block], phase):
                    pass
        mine = set(files_of(blocks))
        left = {path for path in mine if not path.exists()} - waiting
        seconds = cost.of(lesson).get("results", {}).get("core_seconds")
        minutes += (seconds or 0) * len(left) / len(mine) / jobs / 60
        known += seconds is not None
        every, waiting = every | mine, waiting | left
    print(f"{len(every)} runs for lessons {', '.join(lesson.number for lesson in studies)}; ", end="")
    print(f"{len(every) - len(waiting)} are finished")
    print(f"about {minutes:.0f} minutes on {jobs} cores, by what {known} of {len(studies)} lessons took the last time")


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("lessons", nargs="*", help="numbers, such as 06; all when none is given")
    parser.add_argument("--fresh", action="store_true", help="forget the finished runs first")
    parser.add_argument("--rules", nargs="+", help="names of classes: only theirs")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="runs at once (all cores)")
    options = parser.parse_args(arguments)
    cu.setup(seed=0, device="cpu")
    if cu.load_dataset("mnist").is_fallback:
        raise SystemExit("results are measured on MNIST; it could not be loaded")
    if options.fresh:
        shutil.rmtree(FINISHED, ignore_errors=True)
    studies = {lesson: [read_block(**block) for block in study(lesson)["blocks"]] for lesson in chosen(options.lessons)}
    if options.rules:
        studies = {lesson: only(options.rules, blocks) for lesson, blocks in studies.items()}
    studies = {lesson: blocks for lesson, blocks in studies.items() if any(block.rules for block in blocks)}
    announce(studies, options.jobs)
    begin = time.perf_counter()
    with joblib.parallel_config(n_jobs=options.jobs):
        for phase, meaning in PHASES.items():
            print(meaning)
            unsettled = [block for blocks in studies.values() for block in blocks]
            while unsettled:
                unsettled = settle(unsettled, phase)
    for lesson, blocks in studies.items():
        write(lesson, blocks, whole=not options.rules)
    if not options.rules:
        note_costs(studies)
    print(f"\n{(time.perf_counter() - begin) / 60:.1f} minutes")


if __name__ == "__main__":
    main()
    maps.write()  # the README quotes it
