"""How fast are the rules and the tools? `python -m tools.bench` prints one table, `--write` stores it too;
`--gpu` measures the steps on a GPU alone, for a machine whose processor is of no interest.

In one run, in rounds: each round times every candidate once, so that a slow moment falls on all of them, and
ratios are taken within a round. Every rule has its row; what else is worth one stands in `ENTRIES`.
"""

import argparse
import itertools
import math
import subprocess
import sys
import time
from collections import defaultdict
from functools import partial
from typing import NamedTuple

import pandas as pd
import torch
import torchvision
from torch import nn

import course_utils as cu
from course_utils import costs
from course_utils.files import find
from course_utils.runs import RESULTS, make_rule, provenance, read_call
from tools.lessons import write
from tools.products import products_of, replay

GOALS = {
    "step / bare products": "≤ 1.6",
    "step / autograd": "≤ 0.9",
    "DataLoader / train": "≥ 5",
    "epoch by train / bare products": "≤ 1.5",
}
GOAL_OF_TRIES = "≤ 2"  # of step over products, for rules that try and see: their noise is no product
COMPARABLE = 1.25  # autograd's step compares with a rule that multiplies at most so many times as much
COLUMNS = ["measure", "rule", "network", "unit", "goal", "cpu", "cpu_spread", "gpu", "gpu_spread"]
UNITS = {"step": "ms", "rate of bare products": "GFLOP/s", "matmul rate": "GFLOP/s"}
STARTS = ["import torch", "then import course_utils", "first load_dataset", "second load_dataset"]
HEADER = """
Medians; spread: 25th to 75th percentile over the rounds. Ratios are taken within a round.
network: sizes × batch. step: rule.step(x, y, optimizer) on one batch, with train's SGD of momentum 0.9.
matmul rate: torch.mm of two square float32 matrices, 1024 wide: what this machine can do at best.
bare products (the bound): the matrix products that the step was seen to make, by torch.mm and torch.bmm into ready
outputs, same shapes and order in memory; no bias, activation, loss, check, allocation or optimiser.
autograd: nn.Sequential, F.cross_entropy, loss.backward() and the same optimiser as torch makes it by default; for
rules that multiply about as much.
epoch, on the CPU: 55,000 images by train, without evaluation; or by the same rule.step fed by a DataLoader
(torchvision's MNIST, ToTensor, shuffled, no workers); or the bare products of so many steps. import, load: in a
fresh process.
"""
FRESH_PROCESS = """from timeit import timeit
lines = ["import torch", "import course_utils", *2 * ["from course_utils import data; data.load_dataset()"]]
print(*(timeit(line, number=1) for line in lines))
"""


class Entry(NamedTuple):
    """A rule to time, as `make_rule` reads it, and on what."""

    rule: str
    sizes: tuple[int, ...] = (784, 500, 10)
    batch: int = 128

    @property
    def network(self):
        return f"{'-'.join(map(str, self.sizes))} × {self.batch}"


ENTRIES = [
    *map(Entry, cu.rules.able((784, 500, 10))),
    Entry("DirectFeedbackAlignment", (784, 500, 500, 10)),
    *(Entry(f"NodePerturbation(draws={k})", (784, 256, 10)) for k in (1, 10, 100)),
    *(Entry(f"WeightPerturbation(draws={k}, noise='rademacher')", (784, 256, 10)) for k in (1, 10, 100)),
    Entry("PredictiveCoding(inference_steps=20)", (784, 256, 256, 10), 500),
]


def rule_step(entry, device):
    """rule.step, with the optimiser that `train` makes."""
    rule = make_rule(entry.rule, list(entry.sizes), 0, device=device)
    return partial(rule.step, optimizer=costs.sgd(rule))


def autograd_step(entry, device):
    """What a PyTorch program does, with torch's own choice of optimiser code."""
    layers = [f for pair in itertools.pairwise(entry.sizes) for f in (nn.Linear(*pair), nn.ReLU())]
    net = nn.Sequential(*layers[:-1]).to(device)
    optimizer = torch.optim.SGD(net.parameters(), lr=costs.LR, momentum=0.9)

    def step(x, y):
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(x), y).backward()
        optimizer.step()

    return step


def seconds(call, repeats, device):
    """Seconds per call. A GPU works behind Python's back, so the clock waits for it."""
    wait = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    wait()
    begin = time.perf_counter()
    for _ in range(repeats):
        call()
    wait()
    return (time.perf_counter() - begin) / repeats


class Candidate:
    """An entry ready to be timed: its step, the bare products of it, autograd's step or None, its multiplications."""

    def __init__(self, entry, device):
        x = torch.rand(entry.batch, entry.sizes[0], device=device)
        y = torch.randint(entry.sizes[-1], (entry.batch,), device=device)
        self.step, autograd = (partial(make(entry, device), x, y) for make in (rule_step, autograd_step))
        self.step()  # makes what is made only once
        products = products_of(self.step)
        self.bare = replay(products, device)
        self.work, others = (sum(p.multiplications for p in made) for made in (products, products_of(autograd)))
        self.autograd = autograd if self.work <= COMPARABLE * others else None
        for call in [self.bare, self.step, self.autograd or self.step] * 10:  # warm caches and allocators
            call()


def measure_steps(entries, device, rounds, repeats):
    """{(measure, rule, network): one value a round} for every entry's step."""
    values, candidates = defaultdict(list), [(entry, Candidate(entry, device)) for entry in entries]
    for entry, candidate in candidates * rounds:
        key, step = (entry.rule, entry.network), seconds(candidate.step, repeats, device)
        bare = seconds(candidate.bare, repeats, device)
        values["step", *key].append(1e3 * step)
        values["step / bare products", *key].append(step / bare)
        if candidate.autograd:
            values["step / autograd", *key].append(step / seconds(candidate.autograd, repeats, device))
        values["rate of bare products", *key].append(2e-9 * candidate.work / bare)
    return values


def measure_matmul(device, rounds, width=1024):
    """{(measure, "", ""): one value a round}: one large product, to tell this machine from others."""
    a, b = torch.randn(2, width, width, device=device)
    call = partial(torch.mm, a, b, out=torch.empty_like(a))
    seconds(call, 3, device)  # warm up
    return {("matmul rate", "", ""): [2e-9 * width**3 / seconds(call, 1, device) for _ in range(rounds)]}


def measure_epochs(entry, folder, rounds, limit=None):
    """An epoch by `train`, by a DataLoader and by bare products, on the CPU: History's clock waits for no GPU."""
    cpu, values = torch.device("cpu"), defaultdict(list)
    data = cu.load_dataset("mnist", limit=limit, device=cpu)
    images = torchvision.datasets.MNIST(folder.parent.parent, transform=torchvision.transforms.ToTensor())
    images = torch.utils.data.Subset(images, range(len(data.x_train)))
    loader = torch.utils.data.DataLoader(images, batch_size=entry.batch, shuffle=True, num_workers=0)
    candidate, step = Candidate(entry, cpu), rule_step(entry, cpu)
    steps = math.ceil(len(images) / entry.batch)

    def feed():
        for x, y in loader:
            step(x.flatten(1), y)

    for _ in range(rounds):
        rule = make_rule(entry.rule, list(entry.sizes), 0, device=cpu)
        train = cu.train(rule, data, epochs=1, lr=costs.LR, batch_size=entry.batch, progress=False).seconds
        bare, fed = steps * seconds(candidate.bare, steps, cpu), seconds(feed, 1, cpu)
        for measure, value in {
            "epoch by train": train,
            "epoch by DataLoader": fed,
            "DataLoader / train": fed / train,
            "epoch by train / bare products": train / bare,
        }.items():
            values[measure, entry.rule, entry.network].append(value)
    return values


def measure_starts(processes):
    """{(measure, "", ""): one value a process}: imports and loads."""
    values, command = defaultdict(list), [sys.executable, "-c", FRESH_PROCESS]
    for _ in range(processes):
        last_line = subprocess.check_output(command, cwd=RESULTS.parent, text=True).splitlines()[-1]
        for measure, value in zip(STARTS, map(float, last_line.split()), strict=True):
            values[measure, "", ""].append(value)
    return values


def goal_of(measure, rule):
    tries = rule and "draws" in cu.rules.ALL[read_call(rule)[0]].knobs
    return GOAL_OF_TRIES if tries and measure == "step / bare products" else GOALS.get(measure, "")


def tabulate(cpu, gpu):
    """One row a measure: median, and 25th to 75th percentile. gpu None: the column says so."""
    rows = []
    for (measure, rule, network), values in cpu.items():
        row = [measure, rule, network, UNITS.get(measure, "ratio" if " / " in measure else "s"), goal_of(measure, rule)]
        for sample in (values, gpu and gpu.get((measure, rule, network))):
            low, median, high = (f"{v:.3g}" for v in pd.Series(sample or [0.0]).quantile([0.25, 0.5, 0.75]))
            row += [median, f"{low} – {high}"] if sample else ["" if gpu else "no GPU here", ""]
        rows.append(row)
    return pd.DataFrame(rows, columns=COLUMNS)


def measure_device(kind, entries, rounds=30, repeats=5):
    """What one device can do, and every entry's step there."""
    device = torch.device(kind)
    return measure_matmul(device, rounds) | measure_steps(entries, device, rounds, repeats)


def run(entries, rounds=30, repeats=5, epochs=15, processes=5, limit=None):
    """The whole table: steps on the CPU, and on a GPU if there is one; the first entry's epochs; imports, loads."""
    cpu = measure_device("cpu", entries, rounds, repeats)
    gpu = measure_device("cuda", entries, rounds, repeats) if torch.cuda.is_available() else None
    folder = find("mnist")  # None where there is no MNIST and no network
    if folder:
        cpu |= measure_epochs(entries[0], folder, epochs, limit)
    return tabulate(cpu | measure_starts(processes), gpu)


def main(arguments=None):
    parser = argparse.ArgumentParser(description="Measure speed and print one table.")
    parser.add_argument("--write", action="store_true", help="also store it: results/bench.csv")
    parser.add_argument("--gpu", action="store_true", help="steps on a GPU alone: results/bench_gpu.csv")
    options = parser.parse_args(arguments)
    name = "bench_gpu.csv" if options.gpu else "bench.csv"
    if options.gpu and not torch.cuda.is_available():
        raise SystemExit("torch sees no GPU here")
    if options.gpu:
        values = measure_device("cuda", ENTRIES)
        table = tabulate(values, values).drop(columns=["cpu", "cpu_spread"])
    else:
        table = run(ENTRIES)
    facts = provenance(torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    print(HEADER, " · ".join(f"{k} {v}" for k, v in facts.items()), table.to_string(index=False), sep="\n")
    if options.write:
        write(RESULTS / name, table.assign(**facts).to_csv(index=False))


if __name__ == "__main__":
    main()
