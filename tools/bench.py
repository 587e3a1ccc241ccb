"""How fast are the rules and the tools? `python tools/bench.py` prints one table, `--write` stores it too.

Everything is measured in one run, in rounds: each round times every candidate once, so that a slow moment of the
machine falls on all of them, and ratios are taken within a round. To add a rule, add a line to ENTRIES.
"""

import argparse
import math
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path

import pandas as pd
import torch
import torch.nn.functional as F
import torchvision
from torch import nn

import course_utils as cu
from course_utils.data import _find_or_download
from course_utils.sweeps import RESULTS, provenance
from course_utils.training import _make_optimizer

ROOT = Path(__file__).resolve().parent.parent
LR = 1e-3  # small: the timed steps see one batch again and again, and the weights must stay ordinary numbers
GOALS = {
    "step / its bare products": "≤ 1.6",
    "step / autograd + torch.optim": "≤ 0.9",
    "epoch: DataLoader / train": "≥ 5",
}
COLUMNS = ["measure", "rule", "unit", "goal", "cpu", "cpu_spread", "gpu", "gpu_spread"]
HEADER = """
Medians; spread: 25th to 75th percentile over the rounds. Ratios are taken within a round.
step: rule.step(x, y, optimizer) on one batch of 128, 784-500-10, with train's SGD of momentum 0.9.
Its bare products: the step's matrix products alone, each by torch.mm into a ready output, at the step's shapes
and in its operand order. No bias, activation, loss, check, allocation or optimiser is in that bound.
autograd + torch.optim: nn.Sequential, F.cross_entropy, loss.backward() and plain torch.optim.SGD, no momentum.
epoch: 55,000 images; train without evaluation; the DataLoader (torchvision's MNIST, ToTensor, no workers) feeds
the same rule.step, measured on 40 batches and scaled. Import and loads: each in a fresh process.
"""
FRESH_PROCESS = """
import time
marks = [time.perf_counter()]
import torch
marks.append(time.perf_counter())
import course_utils as cu
marks.append(time.perf_counter())
for _ in range(2):
    cu.load_dataset("mnist")
    marks.append(time.perf_counter())
print("marks", *marks)
"""


def layered_products(sizes, batch):
    """The matrix products of a rule with one sweep forward and one back: (kind, batch, inputs, outputs) each."""
    layers = [(batch, *layer) for layer in zip(sizes[:-1], sizes[1:], strict=True)]
    per_kind = {"forward": layers, "gradient": layers, "back": layers[1:]}  # no error goes back to the input
    return [(kind, *layer) for kind, group in per_kind.items() for layer in group]


def multiply_adds(products):
    """Σ batch · inputs · outputs: each product, of whatever kind, meets every weight once per example."""
    return sum(math.prod(shape) for _, *shape in products)


@dataclass
class Entry:
    """A rule to time: its class, the network's sizes, the batch, and the matrix products one step needs."""

    rule: type[cu.Rule]
    sizes: list[int]
    batch: int
    products: Callable[[list[int], int], list[tuple]] = layered_products


ENTRIES = [Entry(cu.rules.ALL[name], [784, 500, 10], 128) for name in ("Backprop", "FeedbackAlignment")]


def bare_products(products, device):
    """A call that runs the products and nothing else: operands ordered as in the rules, outputs allocated."""
    ready = []
    for kind, batch, inputs, outputs in products:
        shapes = (batch, inputs), (batch, outputs), (outputs, inputs)
        h, delta, w = (torch.randn(shape, device=device) for shape in shapes)
        left, right = {"forward": (h, w.T), "gradient": (delta.T, h), "back": (delta, w)}[kind]
        ready.append((left, right, left.new_empty(len(left), right.shape[1])))

    def run():
        for left, right, out in ready:
            torch.mm(left, right, out=out)

    return run


def rule_step(entry, device):
    """rule.step, with the optimiser that `train` makes."""
    rule = entry.rule(cu.MLP(entry.sizes, device=device))
    return partial(rule.step, optimizer=_make_optimizer(rule, "sgd", LR, 0.9))


def autograd_step(entry, device):
    """What a PyTorch program does: the same network as nn.Sequential, torch.optim.SGD as it comes (no momentum)."""
    layers: list[nn.Module] = []
    for inputs, outputs in zip(entry.sizes[:-1], entry.sizes[1:], strict=True):
        layers += [nn.Linear(inputs, outputs), nn.ReLU()]
    net = nn.Sequential(*layers[:-1]).to(device)
    optimizer = torch.optim.SGD(net.parameters(), lr=LR)

    def step(x, y):
        optimizer.zero_grad()
        loss = F.cross_entropy(net(x), y)
        loss.backward()
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


def measure_steps(entries, device, rounds, repeats):
    """{(measure, rule): one value a round} for the step of every entry."""
    calls = {}
    for e in entries:
        x = torch.rand(e.batch, e.sizes[0], device=device)
        y = torch.randint(e.sizes[-1], (e.batch,), device=device)
        calls[e.rule.__name__] = (
            bare_products(e.products(e.sizes, e.batch), device),
            partial(rule_step(e, device), x, y),
            partial(autograd_step(e, device), x, y),
        )
    for call in [call for group in calls.values() for call in group] * 10:  # warm caches and allocators
        call()
    values = defaultdict(list)
    for _ in range(rounds):
        for e in entries:
            name = e.rule.__name__
            bare, step, autograd = (seconds(call, repeats, device) for call in calls[name])
            values["step", name].append(1e3 * step)
            values["step / its bare products", name].append(step / bare)
            values["step / autograd + torch.optim", name].append(step / autograd)
            rate = 2e-9 * multiply_adds(e.products(e.sizes, e.batch)) / bare
            values["rate of the bare products", name].append(rate)
    return values


def measure_epochs(entry, device, rounds, batches):
    """{(measure, rule): values}: an epoch by `train`, and `batches` batches of a DataLoader scaled to an epoch."""
    data, folder = cu.load_dataset("mnist", device=device), _find_or_download("mnist")
    if data.is_fallback or folder is None:
        return {}
    images = torchvision.datasets.MNIST(folder.parent.parent, transform=torchvision.transforms.ToTensor())
    loader = torch.utils.data.DataLoader(images, batch_size=entry.batch, shuffle=True, num_workers=0)
    step, per_epoch = rule_step(entry, device), math.ceil(len(data.x_train) / entry.batch)

    def feed():
        for x, y in islice(loader, batches):
            step(x.flatten(1).to(device), y.to(device))

    values, name = defaultdict(list), entry.rule.__name__
    for _ in range(rounds):
        rule = entry.rule(cu.MLP(entry.sizes, device=device))
        train = cu.train(rule, data, epochs=1, lr=LR, batch_size=entry.batch, progress=False).seconds
        fed = seconds(feed, 1, device) * per_epoch / batches
        values["epoch by train", name].append(train)
        values["epoch by DataLoader", name].append(fed)
        values["epoch: DataLoader / train", name].append(fed / train)
    return values


def measure_starts(processes):
    """{(measure, ""): seconds}: import and loads, each value from a fresh process."""
    values = defaultdict(list)
    for _ in range(processes):
        run = subprocess.run(
            [sys.executable, "-c", FRESH_PROCESS], cwd=ROOT, capture_output=True, text=True, check=True
        )
        begin, torch_done, course_done, first, second = map(float, run.stdout.split("marks")[-1].split())
        values["import course_utils", ""].append(course_done - begin)
        values["  of it import torch", ""].append(torch_done - begin)
        values["first load_dataset", ""].append(first - course_done)
        values["second load_dataset", ""].append(second - first)
    return values


def tabulate(cpu, gpu):
    """One row a measure: the median, and the 25th to 75th percentile. gpu None: the column says so."""
    units = {"step": "ms", "rate of the bare products": "GFLOP/s"}
    rows = []
    for (measure, rule), values in cpu.items():
        unit = units.get(measure, "ratio" if "/ " in measure else "s")
        row = {"measure": measure, "rule": rule, "unit": unit, "goal": GOALS.get(measure, "")}
        for place, found in (("cpu", values), ("gpu", gpu and gpu.get((measure, rule)))):
            low, median, high = (
                f"{v:.3g}" for v in pd.Series(found or [math.nan]).quantile([0.25, 0.5, 0.75])
            )
            row[place], row[f"{place}_spread"] = (median, f"{low} – {high}") if found else ("", "")
        rows.append(row if gpu is not None else row | {"gpu": "no GPU here"})
    return pd.DataFrame(rows, columns=COLUMNS)


def run(entries, rounds=150, repeats=10, epochs=5, batches=40, processes=5):
    """The whole table: steps and epochs on the CPU, and on the GPU if there is one; then imports and loads."""
    found = []
    for device in ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]:
        found.append(measure_steps(entries, torch.device(device), rounds, repeats))
        for entry in entries:
            found[-1] |= measure_epochs(entry, torch.device(device), epochs, batches)
    return tabulate(found[0] | measure_starts(processes), found[1] if len(found) > 1 else None)


def main(arguments=None):
    parser = argparse.ArgumentParser(description="Measure speed and print one table.")
    parser.add_argument("--write", action="store_true", help="also write results/bench.csv")
    write = parser.parse_args(arguments).write
    torch.manual_seed(0)
    table = run(ENTRIES)
    facts = provenance(torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    facts["threads"] = torch.get_num_threads()
    print(HEADER, *(f"{name}: {value}" for name, value in facts.items()), sep="\n")
    print(table.to_string(index=False))
    if write:
        temporary = RESULTS / ".bench.csv"
        table.assign(**facts).to_csv(temporary, index=False)
        temporary.replace(RESULTS / "bench.csv")


if __name__ == "__main__":
    main()
