"""How fast are the rules and the tools? `python tools/bench.py` prints one table, `--write` stores it too;
`--gpu` measures the steps on a GPU alone, for a machine whose processor is of no interest.

In one run, in rounds: each round times every candidate once, so that a slow moment falls on all of them, and
ratios are taken within a round. To add a rule, add an entry to ENTRIES.
"""

import argparse
import itertools
import math
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import pandas as pd
import torch
import torchvision
from torch import nn

import course_utils as cu
from course_utils.runs import RESULTS, provenance
from course_utils.data import _find_or_download
from course_utils.rules.weight_perturbation import AT_ONCE
from course_utils.training import _make_optimizer

LR = 1e-3  # small: the timed steps see one batch again and again, and the weights must stay ordinary numbers
GOALS = {"step / bare products": "≤ 1.6", "step / autograd": "≤ 0.9", "DataLoader / train": "≥ 5"}
GOAL_OF_TRIES = "≤ 2"  # of step over products, for rules that try and see: their noise is no product
COLUMNS = ["measure", "rule", "unit", "goal", "cpu", "cpu_spread", "gpu", "gpu_spread"]
STARTS = ["import torch", "then import course_utils", "first load_dataset", "second load_dataset"]
HEADER = """
Medians; spread: 25th to 75th percentile over the rounds. Ratios are taken within a round.
step: rule.step(x, y, optimizer) on one batch of 128, with train's SGD of momentum 0.9; 784-500-10, direct feedback
784-500-500-10, perturbation 784-256-10, predictive coding 784-256-256-10 in batches of 500,
without a goal over autograd's step: it settles for 20 sweeps first.
matmul rate: torch.mm of two square float32 matrices, 1024 wide: what this machine can do at best.
bare products (the bound): the step's matrix products by torch.mm into ready outputs, same shapes and order of
operands; no bias, activation, loss, check, allocation or optimiser.
products of its passes, for rules that try and see: what their passes would multiply if each were made in full; the
bare products are fewer where several passes share one.
autograd: nn.Sequential, F.cross_entropy, loss.backward() and the same optimiser as torch makes it by default.
epoch, on the CPU: 40 batches scaled to 55,000 images; by train without evaluation, or by the same rule.step
fed by a DataLoader (torchvision's MNIST, ToTensor, shuffled, no workers). import, load: in a fresh process.
"""
FRESH_PROCESS = """from timeit import timeit
lines = ["import torch", "import course_utils", *2 * ["from course_utils import data; data.load_dataset()"]]
print(*(timeit(line, number=1) for line in lines))
"""


def layered_products(sizes, batch):
    """The products of a rule with one sweep forward and one back: (kind, batch, inputs, outputs) each."""
    layers = [(batch, *layer) for layer in itertools.pairwise(sizes)]
    per_kind = {"forward": layers, "gradient": layers, "back": layers[1:]}  # no error goes back to the input
    return [(kind, *layer) for kind, group in per_kind.items() for layer in group]


def direct_products(sizes, batch):
    """As layered_products, but what goes back comes to each hidden layer straight from the output."""
    straight = [("back", batch, units, sizes[-1]) for units in sizes[1:-1]]
    return [product for product in layered_products(sizes, batch) if product[0] != "back"] + straight


def mirror_products(sizes, batch, patterns=128):
    """As layered_products, and what one mirror step adds for each layer with feedback: Y = Ξ Wᵀ, then Yᵀ Ξ."""
    mirrors = [(kind, patterns, *layer) for layer in itertools.pairwise(sizes[1:]) for kind in ("forward", "gradient")]
    return layered_products(sizes, batch) + mirrors


def multiply_adds(products):
    """Σ batch · inputs · outputs: each product, of whatever kind, meets every weight once per example."""
    return sum(math.prod(shape) for _, *shape in products)


@dataclass
class Entry:
    """A rule to time: its class, the network's sizes, the batch, the matrix products one step needs, its knobs;
    passes: how many full forward passes the rule makes, where some of their products are shared."""

    rule: type[cu.Rule]
    sizes: list[int]
    batch: int
    products: Callable[[list[int], int], list[tuple]] = layered_products
    knobs: dict = field(default_factory=dict)
    passes: int = 0

    @property
    def name(self):
        given = ", ".join(f"{knob}={value!r}" for knob, value in self.knobs.items())
        return f"{self.rule.__name__}({given})" if given else self.rule.__name__


def unit_noise_products(draws, passes):
    """Of a rule that tries units: the draws share the first product and the gradient's; each makes so many passes."""

    def products(sizes, batch):
        layers = [(batch, *layer) for layer in itertools.pairwise(sizes)]
        tries = [("forward", draws * batch, *layer[1:]) for layer in layers[1:]] * passes
        credit = [("credit", batch, draws, units) for units in sizes[1:] if draws > 1]
        return [*(("forward", *s) for s in layers), *tries, *credit, *(("gradient", *s) for s in layers)]

    return products


def weight_noise_products(draws):
    """Of a rule that tries weights: a pass here for each part of the draws; both tries of a draw share the first
    product; the weighted mean of the directions."""

    def products(sizes, batch):
        (inputs, units), *later = itertools.pairwise(sizes)
        numbers = [n for i, o in itertools.pairwise(sizes) for n in (i * o, o)]
        parts = math.ceil(draws / (AT_ONCE // sum(numbers)))
        here = [("forward", batch, *layer) for layer in itertools.pairwise(sizes)] * parts
        tries = [
            ("forward", batch, inputs, draws * units),
            *(("forward", draws * batch, *layer) for layer in later * 2),
        ]
        return [*here, *tries, *(("back", 1, n, draws) for n in numbers)]

    return products


def full_products(sizes, batch, passes):
    """The products of so many forward passes, each made in full, and of one gradient."""
    layers = [(batch, *layer) for layer in itertools.pairwise(sizes)]
    return [*(("forward", *s) for s in layers * passes), *(("gradient", *s) for s in layers)]


def settling_products(sweeps):
    """Of predictive coding: what a sweep multiplies leaves out the first layer, whose prediction stands still."""

    def products(sizes, batch):
        layers = [(batch, *layer) for layer in itertools.pairwise(sizes)]
        moving = layers[1:] or layers  # without hidden layers a sweep predicts the output again
        sweep = [("back", *s) for s in layers[1:]] + [("forward", *s) for s in moving]
        return [*(("forward", *s) for s in layers), *sweep * sweeps, *(("gradient", *s) for s in layers)]

    return products


def incremental_products(sweeps):
    """Of incremental predictive coding: as settling_products, with a gradient and new predictions at every sweep."""

    def products(sizes, batch):
        layers = [(batch, *layer) for layer in itertools.pairwise(sizes)]
        moving = [("forward", *s) for s in layers[1:] or layers]  # without hidden layers the output is predicted again
        ahead, anew = [("forward", *s) for s in layers], [("forward", *layers[0]), *moving]
        sweep = [("back", *s) for s in layers[1:]] + moving + [("gradient", *s) for s in layers]
        return [*ahead, *(sweep + anew) * (sweeps - 1), *sweep]

    return products


def two_streams_products(sweeps):
    """Of bidirectional predictive coding: both streams once, then sweeps in which the image is V_1 times itself."""

    def products(sizes, batch):
        layers = [(batch, *layer) for layer in itertools.pairwise(sizes)]
        pixels, *between = layers
        square = [("forward", sizes[1], sizes[0], sizes[1]), ("back", *pixels)]
        start = [("forward", *layer) for layer in layers] + [("back", *layer) for layer in layers[1:]] + square
        inner = [(kind, *layer) for layer in between for kind in ("forward", "back")]  # predict up; hear from above
        inner += [(kind, *layer) for layer in between[:-1] for kind in ("forward", "back")]  # the same, down
        sweep = [*inner, ("forward", batch, sizes[1], sizes[1])]
        end = [("back", *pixels), *(("gradient", *layer) for layer in layers * 2)]
        return start + sweep * sweeps * (len(sizes) > 2) + end

    return products


def pepita_products(sizes, batch):
    """Two passes, but the second's first product has as many columns as there are outputs, and the network is given
    W₁F; the second input; the gradients."""
    layers = [(batch, *layer) for layer in itertools.pairwise(sizes)]
    ends, units = (sizes[0], sizes[-1]), sizes[1]
    nudge = [("forward", batch, ends[1], ends[0]), ("forward", units, *ends), ("forward", batch, ends[1], units)]
    second = [("forward", *layer) for layer in layers[1:]]
    return [*(("forward", *s) for s in layers), *nudge, *second, *(("gradient", *s) for s in layers)]


def forward_forward_products(sizes, batch):
    """Layer 1's image once for all passes, its label pixels apart; true pair, false pair, no label; no way back."""
    *hidden, readout = itertools.pairwise(sizes)
    first = [("forward", batch, *sizes[:2]), ("forward", 3 * batch, sizes[-1], sizes[1])]
    credit = [("gradient", batch, *sizes[:2]), ("gradient", 2 * batch, sizes[-1], sizes[1])] if hidden else []
    between = [(kind, n * batch, *s) for s in hidden[1:] for kind, n in (("forward", 3), ("gradient", 2))]
    return [*first, *credit, *between, ("forward", batch, *readout), ("gradient", batch, *readout)]


ENTRIES = [Entry(cu.rules.ALL[name], [784, 500, 10], 128) for name in ("Backprop", "FeedbackAlignment", "KolenPollack")]
_knobs: dict
for _magnitude in ("uniform", "fixed_magnitude", "batch_magnitude"):
    _knobs = {"magnitude": _magnitude}
    ENTRIES.append(Entry(cu.rules.ALL["SignSymmetry"], [784, 500, 10], 128, knobs=_knobs))
ENTRIES.append(Entry(cu.rules.ALL["WeightMirror"], [784, 500, 10], 128, mirror_products))
for _name in ("DirectFeedbackAlignment", "ErrorSignDFA", "DirectRandomTargetProjection"):
    ENTRIES.append(Entry(cu.rules.ALL[_name], [784, 500, 500, 10], 128, direct_products))
for _draws in (1, 10, 100):
    for _name, _passes in (("NodePerturbation", 2), ("ActivityForwardGradient", 1)):
        _products = unit_noise_products(_draws, _passes)
        _all = 1 + _passes * _draws
        ENTRIES.append(Entry(cu.rules.ALL[_name], [784, 256, 10], 128, _products, {"draws": _draws}, _all))
    _knobs = {"draws": _draws, "noise": "rademacher"}
    _products = weight_noise_products(_draws)
    _all = 1 + 2 * _draws
    ENTRIES.append(Entry(cu.rules.ALL["WeightPerturbation"], [784, 256, 10], 128, _products, _knobs, _all))
for _name, _batch, _sweeps, _products in (
    ("PredictiveCoding", 500, 20, settling_products),
    ("IncrementalPredictiveCoding", 128, 8, incremental_products),
    ("LearnedFeedbackPC", 128, 8, incremental_products),
    ("BidirectionalPredictiveCoding", 128, 8, two_streams_products),
):
    _knobs = {"inference_steps": _sweeps}
    ENTRIES.append(Entry(cu.rules.ALL[_name], [784, 256, 256, 10], _batch, _products(_sweeps), _knobs))
ENTRIES.append(Entry(cu.rules.ALL["Pepita"], [784, 500, 10], 128, pepita_products))
ENTRIES.append(Entry(cu.rules.ALL["ForwardForward"], [784, 500, 500, 10], 128, forward_forward_products))


def bare_products(products, device):
    """A call that runs the products and nothing else: operands ordered as in the rules, outputs allocated."""
    ready = []
    for kind, batch, inputs, outputs in products:
        if kind == "credit":  # Σ over draws, for every example: a batch of row times matrix
            left, right = (
                torch.randn(batch, 1, inputs, device=device),
                torch.randn(batch, inputs, outputs, device=device),
            )
            ready.append((torch.bmm, left, right, left.new_empty(batch, 1, outputs)))
            continue
        shapes = (batch, inputs), (batch, outputs), (outputs, inputs)
        h, delta, w = (torch.randn(shape, device=device) for shape in shapes)
        left, right = {"forward": (h, w.T), "gradient": (delta.T, h), "back": (delta, w)}[kind]
        ready.append((torch.mm, left, right, left.new_empty(len(left), right.shape[1])))
    return lambda: [product(left, right, out=out) for product, left, right, out in ready]


def rule_step(entry, device):
    """rule.step, with the optimiser that `train` makes."""
    rule = entry.rule(cu.MLP(entry.sizes, device=device), **entry.knobs)
    return partial(rule.step, optimizer=_make_optimizer(rule, "sgd", LR, 0.9))


def autograd_step(entry, device):
    """What a PyTorch program does, with torch's own choice of optimiser code."""
    layers = [f for pair in itertools.pairwise(entry.sizes) for f in (nn.Linear(*pair), nn.ReLU())]
    net = nn.Sequential(*layers[:-1]).to(device)
    optimizer = torch.optim.SGD(net.parameters(), lr=LR, momentum=0.9)

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


def measure_steps(entries, device, rounds, repeats):
    """{(measure, rule): one value a round} for every entry's step."""
    values, candidates = defaultdict(list), []
    for e in entries:
        x = torch.rand(e.batch, e.sizes[0], device=device)
        y = torch.randint(e.sizes[-1], (e.batch,), device=device)
        steps = partial(rule_step(e, device), x, y), partial(autograd_step(e, device), x, y)
        calls = [bare_products(e.products(e.sizes, e.batch), device), *steps]
        if e.passes:
            calls.append(bare_products(full_products(e.sizes, e.batch, e.passes), device))
        candidates.append((e.name, multiply_adds(e.products(e.sizes, e.batch)), calls))
        for call in calls * 10:  # warm caches and allocators
            call()
    for name, work, calls in candidates * rounds:
        bare, step, autograd, *full = (seconds(call, repeats, device) for call in calls)
        values["step", name].append(1e3 * step)
        values["step / bare products", name].append(step / bare)
        values["step / autograd", name].append(step / autograd)
        if full:
            values["step / products of its passes", name].append(step / full[0])
        values["rate of bare products", name].append(2e-9 * work / bare)
    return values


def measure_matmul(device, rounds, width=1024):
    """{(measure, ""): one value a round}: one large product, to tell this machine from others."""
    a, b = torch.randn(2, width, width, device=device)
    call = partial(torch.mm, a, b, out=torch.empty_like(a))
    seconds(call, 3, device)  # warm up
    return {("matmul rate", ""): [2e-9 * width**3 / seconds(call, 1, device) for _ in range(rounds)]}


def measure_epochs(entry, folder, rounds, batches):
    """An epoch by `train` and by a DataLoader, on the CPU only: History's clock does not wait for a GPU."""
    cpu, values, name = torch.device("cpu"), defaultdict(list), entry.rule.__name__
    data = cu.load_dataset("mnist", device=cpu)
    images = torchvision.datasets.MNIST(folder.parent.parent, transform=torchvision.transforms.ToTensor())
    loader = torch.utils.data.DataLoader(images, batch_size=entry.batch, shuffle=True, num_workers=0)
    step, part = rule_step(entry, cpu), batches / math.ceil(len(data.x_train) / entry.batch)

    def feed():
        for x, y in itertools.islice(loader, batches):
            step(x.flatten(1), y)

    for _ in range(rounds):
        rule = entry.rule(cu.MLP(entry.sizes, device=cpu))
        train = cu.train(rule, data, epochs=part, lr=LR, batch_size=entry.batch, progress=False).seconds / part
        fed = seconds(feed, 1, cpu) / part
        values["epoch by train", name].append(train)
        values["epoch by DataLoader", name].append(fed)
        values["DataLoader / train", name].append(fed / train)
    return values


def measure_starts(processes):
    """{(measure, ""): one value a process}: imports and loads."""
    values, command = defaultdict(list), [sys.executable, "-c", FRESH_PROCESS]
    for _ in range(processes):
        last_line = subprocess.check_output(command, cwd=RESULTS.parent, text=True).splitlines()[-1]
        for measure, value in zip(STARTS, map(float, last_line.split()), strict=True):
            values[measure, ""].append(value)
    return values


def tabulate(cpu, gpu):
    """One row a measure: median, and 25th to 75th percentile. gpu None: the column says so."""
    units = {"step": "ms", "rate of bare products": "GFLOP/s", "matmul rate": "GFLOP/s"}
    rows = []
    for key, values in cpu.items():
        of_tries = key[0].startswith("step / ") and "products" in key[0] and "draws=" in key[1]
        goal = GOAL_OF_TRIES if of_tries else GOALS.get(key[0], "")
        if key[0] == "step / autograd" and "inference_steps" in key[1]:
            goal = ""
        row = [*key, units.get(key[0], "ratio" if " / " in key[0] else "s"), goal]
        for found in (values, gpu and gpu.get(key)):
            low, median, high = (f"{v:.3g}" for v in pd.Series(found or [0.0]).quantile([0.25, 0.5, 0.75]))
            row += [median, f"{low} – {high}"] if found else ["" if gpu else "no GPU here", ""]
        rows.append(row)
    return pd.DataFrame(rows, columns=COLUMNS)


def measure_device(kind, entries, rounds=30, repeats=5):
    """What one device can do, and every entry's step there."""
    device = torch.device(kind)
    return measure_matmul(device, rounds) | measure_steps(entries, device, rounds, repeats)


def run(entries, rounds=30, repeats=5, epochs=15, batches=40, processes=5):
    """The whole table: steps on the CPU, and on a GPU if there is one; epochs; imports and loads."""
    cpu = measure_device("cpu", entries, rounds, repeats)
    gpu = measure_device("cuda", entries, rounds, repeats) if torch.cuda.is_available() else None
    folder = _find_or_download("mnist")  # None where there is no MNIST and no network
    for entry in [e for e in entries if not e.knobs] if folder else []:
        cpu |= measure_epochs(entry, folder, epochs, batches)
    return tabulate(cpu | measure_starts(processes), gpu)


def main(arguments=None):
    parser = argparse.ArgumentParser(description="Measure speed and print one table.")
    parser.add_argument("--write", action="store_true", help="also store it: results/bench.csv")
    parser.add_argument("--gpu", action="store_true", help="steps on a GPU alone: results/bench_gpu.csv")
    wanted = parser.parse_args(arguments)
    name = "bench_gpu.csv" if wanted.gpu else "bench.csv"
    if wanted.gpu and not torch.cuda.is_available():
        raise SystemExit("torch sees no GPU here")
    if wanted.gpu:
        found = measure_device("cuda", ENTRIES)
        table = tabulate(found, found).drop(columns=["cpu", "cpu_spread"])
    else:
        table = run(ENTRIES)
    facts = provenance(torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    print(HEADER, " · ".join(f"{k} {v}" for k, v in facts.items()), table.to_string(index=False), sep="\n")
    if wanted.write:
        table.assign(**facts).to_csv(RESULTS / name, index=False)


if __name__ == "__main__":
    main()
