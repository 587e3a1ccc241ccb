"""Measure the table behind a lesson: `python tools/results.py 06` writes results/06.csv and results/06_lr.csv.

What to run stands in the lesson's front matter under `lesson: results:` (rules, sizes, lrs, epochs, …). The
learning rate is chosen on validation (one seed, one epoch on 20,000 images); then five seeds run at that rate.
"""

import sys
import time
from pathlib import Path

import yaml

import course_utils as cu
from course_utils import sweeps

ROOT = Path(__file__).parent.parent


def specification(number):
    """The `results` block of the front matter of lesson `number` ("06")."""
    (path,) = (ROOT / "lessons").glob(f"{number}_*.md")
    front_matter = path.read_text().split("---\n")[1]
    return yaml.safe_load(front_matter)["lesson"]["results"]


def main(number):
    spec = specification(number)
    names, sizes = spec.pop("rules"), spec.pop("sizes")
    lrs, seeds = spec.pop("lrs"), spec.pop("seeds", 5)
    cu.setup(seed=0)
    if cu.load_dataset("mnist").is_fallback:
        sys.exit("results are measured on MNIST; it could not be loaded")
    begin = time.perf_counter()
    print(f"lr search: {len(names)} rules x {len(lrs)} learning rates, one epoch on 20,000 images each")
    search, best = sweeps.choose_lr(names, sizes, lrs, **{**spec, "eval_every": None})
    print(f"chosen on validation: {best}\n{seeds} seeds x {spec['epochs']} epochs for each rule")
    table = sweeps.run_seeds(names, sizes, best, seeds=seeds, **spec)
    for frame, path in ((search, f"{number}_lr.csv"), (table, f"{number}.csv")):
        temporary = ROOT / "results" / f".{path}"
        frame.round({"seconds": 2, "epoch": 4}).to_csv(temporary, index=False)
        temporary.replace(ROOT / "results" / path)
    last = table.dropna(subset=["test_accuracy"]).groupby("rule").test_accuracy
    print((100 * last.agg(["mean", "std", "min", "max"])).round(2).to_string())
    print(f"{time.perf_counter() - begin:.0f} s; wrote results/{number}.csv and results/{number}_lr.csv")


if __name__ == "__main__":
    main(sys.argv[1])
