"""Does memory stay? Long runs that no test has the time for: `python -m tools.soak memory`.

memory       200 times Train, Stop and Reset in a playground, and 10,000 draws of the gradient's statistics; the
             resident memory at the end has to be within 5 % of what it is after the first tenth
"""

import argparse
import asyncio
import sys

import psutil

import course_utils as cu

TOLERANCE = 0.05  # of the memory after the first tenth, when all that is made once has been made


def resident() -> float:
    """What this process holds now, in MB."""
    return psutil.Process().memory_info().rss / 1e6


async def playground_cycles(count: int, steps: int = 20) -> list[float]:
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


def statistics(draws: int, parts: int = 10) -> list[float]:
    """Memory after each part of so many draws of a rule's statistics."""
    data = cu.load_dataset("digits")
    rule = cu.rules.WeightPerturbation(cu.MLP([784, 64, 10]))
    held = []
    for _ in range(parts):
        cu.metrics.gradient_statistics(rule, data.x_train[:64], data.y_train[:64], draws=draws // parts)
        held.append(resident())
    return held


def stays(what: str, held: list[float]) -> bool:
    """Print how the memory went; whether it stayed within the tolerance."""
    first, *_, last = held[len(held) // 10 :]
    most, change = max(held), last / first - 1
    print(f"{what}: {first:.1f} MB after a tenth, {last:.1f} at the end, {most:.1f} at most: {change:+.2%}")
    return abs(change) <= TOLERANCE


def memory(cycles: int = 200, draws: int = 10_000) -> bool:
    """The two runs; whether both stayed."""
    first = stays(f"{cycles} times Train, Stop, Reset", asyncio.run(playground_cycles(cycles)))
    return stays(f"{draws:,} draws of the statistics", statistics(draws)) and first


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["memory"])
    parser.parse_args(arguments)
    cu.setup(seed=0, device="cpu")
    return 0 if memory() else 1


if __name__ == "__main__":
    sys.exit(main())
