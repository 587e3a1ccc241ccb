"""Long trials of what tests can only try for seconds. Exit status 1 when anything was found.

    python -m tools.soak kill --times 50          sweeps and kept runs, killed: is anything lost?
    python -m tools.soak interrupts --times 200   training of many kinds, interrupted: is anything left behind?
    python -m tools.soak memory --times 200       Train, Stop and Reset in a playground, and 10,000 draws of statistics:
                                                  at the end, is memory within 5 % of that after a tenth?

The moments are random in processor time, so that a busy machine tries the same ones.
"""

import argparse
import asyncio
import functools
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

import psutil
import torch

import course_utils as cu
from course_utils import checkpoints, runs
from course_utils.settings import Settings
from course_utils.studies.harder_worlds import NoisyFeedback
from course_utils.training import steps

SWEEP = {"data": "digits", "sizes": [784, 16, 10], "seeds": 8, "epochs": 1, "progress": False}
RUN = {"epochs": 4, "batch_size": 64, "input_noise": 0.1, "activity_noise": 0.1, "eval_every": 500, "progress": False}
# torch.func fails from then on where an interrupt meets it; `train` waits for the end of the step.
FORWARD_MODE = ("WeightForwardGradient", "ActivityForwardGradient")


def ended(act, seconds):
    """act() in a process of its own, ended after so many seconds of processor time, or None; was it?

    Nobody catches SIGPROF there, so the system ends the process between two instructions, as kill -9 does.
    """
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        signal.signal(signal.SIGPROF, signal.SIG_DFL)
        signal.setitimer(signal.ITIMER_PROF, seconds or 0)
        act()
        os._exit(0)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if status not in (0, -signal.SIGPROF):
        raise RuntimeError(f"the process ended with status {status}, which no kill explains")
    return status != 0


def processor_seconds(act):
    begin = time.process_time()
    result = act()
    return time.process_time() - begin, result


def killed_sweeps(times, folder, moments):
    """Faults of a sweep that is killed so many times and goes on each time; begun anew when it has come to its end."""
    faults: list[str] = []
    rules = ["Backprop", "FeedbackAlignment", "FrozenHidden(KolenPollack)"]
    seconds, whole = processor_seconds(lambda: cu.sweep(rules, folder=folder / "whole", **SWEEP))
    begun, kills = folder / "killed", 0
    while kills < times:
        before = {path.name for path in begun.glob("*.csv")}
        if not ended(lambda: cu.sweep(rules, folder=begun, **SWEEP), moments.uniform(0, seconds / 4)):
            shutil.rmtree(begun)
            continue
        kills += 1
        lost = before - {path.name for path in begun.glob("*.csv")}
        damaged = [path.name for path in begun.glob("*.csv") if runs.read_run(path) is None]
        faults += [f"sweep, kill {kills}: {name}" for name in [*lost, *damaged]]
    again = cu.sweep(rules, folder=begun, **SWEEP)
    columns = [name for name in whole if name not in ("seconds", "measured")]
    faults += [] if again[columns].equals(whole[columns]) else ["the sweep's numbers are others"]
    return faults + [f"left: {path.name}" for path in begun.iterdir() if path.name.startswith(".")]


def killed_runs(times, folder, moments):
    """Faults of a run that is kept after every step, killed so many times, and resumed each time."""
    faults: list[str] = []
    data, path = cu.load_dataset("digits"), folder / "run"
    new = functools.partial(runs.make_rule, "KolenPollack", [784, 32, 10], 0)
    checkpoints.SECONDS, whole = 0.0, new()

    def train(rule):
        cu.train(rule, data, checkpoint=path, **RUN)

    seconds, _ = processor_seconds(lambda: train(whole))
    kills, samples = 0, 0
    path.unlink()
    while kills < times:
        act = (lambda: cu.resume(path, progress=False)) if path.exists() else (lambda: train(new()))
        if not ended(act, moments.uniform(0, seconds / 4)):
            faults += faults_of(whole, cu.resume(path, progress=False)[1])
            path.unlink()
            samples = 0
            continue
        kills += 1
        if path.exists():
            now = checkpoints.read(path)["parts"]["history"]["samples"]
            faults += [f"run, kill {kills}: back from {samples} to {now} samples"] if now < samples else []
            samples = now
    faults += faults_of(whole, cu.resume(path, progress=False)[1] if path.exists() else whole)
    return faults + [f"left: {left.name}" for left in folder.glob(".run.*")]


def faults_of(whole, again):
    pairs = zip(whole.state_dict().values(), again.state_dict().values(), strict=True)
    return [] if all(torch.equal(*pair) for pair in pairs) else ["the resumed run's weights are others"]


def kill(times, moments):
    with tempfile.TemporaryDirectory() as folder:
        faults = killed_sweeps(times, Path(folder), moments)
        print(f"{times} kills of a sweep: {len(faults)} faults", flush=True)
        more = killed_runs(times, Path(folder), moments)
        print(f"{times} kills of a run that is kept: {len(more)} faults", flush=True)
    return faults + more


KINDS = {
    "plain": lambda name: runs.make_rule(name, [784, 16, 10], 0),
    "control": lambda name: runs.make_rule(f"FrozenHidden({name})", [784, 16, 10], 0),
    "noisy feedback": lambda name: NoisyFeedback(runs.make_rule(name, [784, 16, 10], 0), 1.0),
}
TRIED = [("plain", name) for name in cu.rules.able([784, 16, 10]) if name != "BidirectionalPredictiveCoding"]
TRIED += [("control", name) for name in ("KolenPollack", "WeightMirror", "IncrementalPredictiveCoding", "Backprop")]
TRIED += [("noisy feedback", name) for name in ("FeedbackAlignment", "SignSymmetry", "DirectFeedbackAlignment")]


def by_hand(rule, data, settings):
    """A loop over `steps`, as people write it: the interrupt comes at once, wherever that is."""
    for _ in steps(rule, data, Settings(**settings)):
        pass


def interrupts(times, moments):
    """Faults after as many interrupts, of `train` and of loops by hand, of each kind of rule in turn."""
    faults: list[str] = []
    data, returned = cu.load_dataset("digits", limit=500), 0
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a process in the background ignores it
    signal.signal(signal.SIGPROF, lambda *_: os.kill(os.getpid(), signal.SIGINT))
    for number in range(times):
        kind, name = TRIED[number % len(TRIED)]
        rule = KINDS[kind](name)
        optimizer = torch.optim.SGD(rule.parameters(), lr=1e-3, momentum=0.5)
        still = [p.detach().clone() for p in lasting(kind, rule)]
        how = {"optimizer": optimizer, "lr": None, "activity_noise": 0.1, "probe_every": 64, "batch_size": 32}
        signal.setitimer(signal.ITIMER_PROF, moments.uniform(0.001, 0.2))
        try:
            if number % 2 or name in FORWARD_MODE:
                returned += cu.train(rule, data, epochs=1_000, progress=False, **how).status == "stopped"
            else:
                by_hand(rule, data, {"epochs": 1_000, **how})
        except KeyboardInterrupt:
            pass
        left = {
            "activity noise": rule.net.activity_noise != 0,
            "a rate": optimizer.param_groups[0]["lr"] != 1e-3,
            "a drawn feedback": "draw_feedback" in vars(getattr(rule, "rule", rule)),
            "a moved weight": not all(torch.equal(*pair) for pair in zip(lasting(kind, rule), still, strict=True)),
            "no second run": cu.train(rule, data, epochs=0.1, progress=False, **how).status != "done",
            "a handler": signal.getsignal(signal.SIGINT) is not signal.default_int_handler,
        }
        faults += [f"{kind} {name}: left {what}" for what, is_left in left.items() if is_left]
    print(f"{times} interrupts: {returned} histories returned by train, else loops by hand; {len(faults)} faults")
    return faults


def lasting(kind, rule):
    """What training may not move: the control's hidden layers, what feedback is made of (its signs may follow W's)."""
    own = rule.rule.state_dict(keep_vars=True) if kind == "noisy feedback" else {}
    fixed = [b for name, b in own.items() if not name.startswith(("net.", "_"))]
    return list(rule.hidden_parameters()) if kind == "control" else fixed


TOLERANCE = 0.05  # of the memory after the first tenth, when all that is made once has been made


def resident():
    """What this process holds now, in MB."""
    return psutil.Process().memory_info().rss / 1e6


async def playground_cycles(count, steps=20):
    """Memory after each of so many Train, Stop and Reset of one playground, as a notebook's event loop runs them."""
    lab = cu.playground(cu.rules.FeedbackAlignment, data=cu.load_dataset("digits"))
    held = []
    for _ in range(count):
        lab.train.click()
        task = lab.task
        while lab.history.steps < steps:
            await asyncio.sleep(0)
        lab.show_code.click()
        lab.stop.click()
        await task  # type: ignore[misc]  # there is one, for there is a loop
        lab.reset.click()
        held.append(resident())
    return held


def statistics(draws, parts=10):
    """Memory after each part of so many draws of a rule's statistics."""
    data = cu.load_dataset("digits")
    rule = cu.rules.WeightPerturbation(cu.MLP([784, 64, 10]))
    held = []
    for _ in range(parts):
        cu.metrics.gradient_statistics(rule, data.x_train[:64], data.y_train[:64], draws=draws // parts)
        held.append(resident())
    return held


def stays(what, held):
    """Print how the memory went; whether it stayed within the tolerance."""
    first, *_, last = held[len(held) // 10 :]
    most, change = max(held), last / first - 1
    print(f"{what}: {first:.1f} MB after a tenth, {last:.1f} at the end, {most:.1f} at most: {change:+.2%}")
    return abs(change) <= TOLERANCE


def memory(times, moments=None, draws=10_000):
    """Faults of the two runs: the one whose memory does not stay."""
    cycles = stays(f"{times} times Train, Stop, Reset", asyncio.run(playground_cycles(times)))
    drawn = stays(f"{draws:,} draws of the statistics", statistics(draws))
    return [f"memory: {what}" for what, stayed in {"playground": cycles, "statistics": drawn}.items() if not stayed]


COMMANDS = {"kill": kill, "interrupts": interrupts, "memory": memory}


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=COMMANDS)
    parser.add_argument("--times", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    options = parser.parse_args(arguments)
    cu.setup(seed=0, device="cpu", threads=1)  # a forked process may not use more
    faults = COMMANDS[options.command](options.times, random.Random(options.seed))
    print("\n".join(faults) or "nothing lost, nothing left")
    return bool(faults)


if __name__ == "__main__":
    raise SystemExit(main())
