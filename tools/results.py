"""Measure the table behind a lesson: `python tools/results.py 06` writes results/06.csv and results/06_lr.csv.

What to run stands in the lesson's front matter under `lesson: results:` (rules, sizes, lrs, epochs, …; or a list of
such blocks). The learning rate is chosen on validation (one seed, one epoch on 20,000 images, if search_epochs and
search_images do not say otherwise), unless only one is given; then the seeds run at that rate. Keys that are not
read here go to `sweeps.run_cell`.
"""

import sys
import time
from pathlib import Path

import pandas as pd
import yaml

import course_utils as cu
from course_utils import sweeps

ROOT = Path(__file__).parent.parent


def specification(number):
    """The `results` blocks of the front matter of lesson `number` ("06"), a list."""
    (path,) = (ROOT / "lessons").glob(f"{number}_*.md")
    front_matter = path.read_text().split("---\n")[1]
    found = yaml.safe_load(front_matter)["lesson"]["results"]
    return found if isinstance(found, list) else [found]


def run_block(rules, sizes, lrs, seeds=5, search_images=20_000, search_epochs=1, **settings):
    """(rows of the lr search or None, rows of the seeds) for one block."""
    if len(lrs) > 1:
        each = f"{search_epochs} epochs on {search_images:,} images each"
        print(f"lr search: {len(rules)} rules x {len(lrs)} learning rates, {each}")
        short = {name: value for name, value in settings.items() if name not in ("eval_every", "limit", "epochs")}
        search, best = sweeps.choose_lr(rules, sizes, lrs, limit=search_images, epochs=search_epochs, **short)
        print(f"chosen on validation: {best}")
    else:
        search, best = None, dict.fromkeys(rules, lrs[0])
    print(f"{seeds} seeds x {settings['epochs']} epochs for each of {len(rules)} rules, {sizes}")
    return search, sweeps.run_seeds(rules, sizes, best, seeds=seeds, **settings)


def main(number):
    cu.setup(seed=0)
    if cu.load_dataset("mnist").is_fallback:
        sys.exit("results are measured on MNIST; it could not be loaded")
    begin = time.perf_counter()
    searches, tables = zip(*(run_block(**block) for block in specification(number)), strict=True)
    table = pd.concat(tables, ignore_index=True)
    search = [rows for rows in searches if rows is not None]
    for frames, path in ((search, f"{number}_lr.csv"), (tables, f"{number}.csv")):
        if not frames:
            continue
        frame = pd.concat(frames, ignore_index=True)
        temporary = ROOT / "results" / f".{path}"
        frame.round({"seconds": 2, "epoch": 4}).to_csv(temporary, index=False)
        temporary.replace(ROOT / "results" / path)
    last = table.dropna(subset=["test_accuracy"]).groupby(["sizes", "rule"]).test_accuracy
    print((100 * last.agg(["mean", "std", "min", "max"])).round(2).to_string())
    print(f"{time.perf_counter() - begin:.0f} s; wrote results/{number}.csv{f' and {number}_lr.csv' if search else ''}")


if __name__ == "__main__":
    main(sys.argv[1])
