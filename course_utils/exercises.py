"""Checks for the learner: one line for a fact, and a fair trial for an update the learner wrote."""

import os
import re
from contextlib import suppress

import pandas as pd
import torch


def check(what, passed, got=None, data=None):
    """Print one line, ✓ or ✗, for a statement. Under CI (environment variable CI) a ✗ raises AssertionError.

    what: the statement. passed: whether it holds. got: the value it was judged by, printed. data: give the
    data set when the statement is about a real one; if the stand-in digits were loaded, it is skipped.
    """
    if data is not None and data.is_fallback:
        print(f"– skipped: {data.name} ({what})")
        return
    shown = "" if got is None else f"   (got {_short(got)})"
    print(f"{'✓' if passed else '✗'} {what}{shown}")
    if not passed and os.environ.get("CI", "").lower() not in ("", "0", "false"):
        raise AssertionError(f"{what}{shown}")


def beside(predictions, measured, digits=1):
    """A table of the learner's guesses beside the numbers measured; a row for each of `measured`.

    A guess may be a number, words ("about 90 %", read as 90), a range ((85, 95), shown as its middle) or None.
    """
    guesses = {name: _number_in(predictions.get(name)) for name in measured}
    return pd.DataFrame({"predicted": guesses, "measured": measured}).astype(float).round(digits)


def _number_in(guess):
    """The number that a guess means, whatever form it was written in; nan where there is none."""
    numbers = re.findall(r"(?<!\d)-?\d[\d,]*(?:\.\d+)?(?:e[-+]?\d+)?", guess) if isinstance(guess, str) else guess
    numbers = numbers if isinstance(numbers, (list, tuple)) else [numbers]
    with suppress(TypeError, ValueError, ZeroDivisionError):
        numbers = [float(n.replace(",", "") if isinstance(n, str) else n) for n in numbers]
        return sum(numbers) / len(numbers)
    return float("nan")


def _short(value):
    if isinstance(value, torch.Tensor) and value.numel() == 1:
        value = value.item()
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(_short, value)) + "]"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


# How far the numbers of a type may be off and still be right.
PRECISION = {torch.float64: 1e-7, torch.float32: 1e-5}
# What a wrong answer most often is, tried in this order: (the name of the mistake, what undoes it)
MISTAKES = [
    ("the sign is turned round", lambda mine, _: -mine),
    ("it is the transpose", lambda mine, _: mine.T),
    ("it sums over the batch where the mean is asked (missing 1/batch)", lambda mine, batch: mine / batch),
    ("it takes the mean over the batch twice", lambda mine, batch: mine * batch),
    ("it is the transpose and sums over the batch (missing 1/batch)", lambda mine, batch: mine.T / batch),
    ("the sign is turned round and 1/batch is missing", lambda mine, batch: -mine / batch),
    ("it is half of what is asked: a factor 2 is missing, or a ½ too many", lambda mine, _: 2 * mine),
    ("it is twice what is asked: a ½ is missing, or a factor 2 too many", lambda mine, _: mine / 2),
    ("the sign is turned round and it is half of what is asked", lambda mine, _: -2 * mine),
    ("the sign is turned round and it is twice what is asked", lambda mine, _: -mine / 2),
]


def check_update(mine, reference, shapes, mutants=None, trials=3, possible=None):
    """Try the learner's function against the reference on random float64 tensors; return the one to go on with.

    mine, reference: functions of the tensors named in `shapes`, {name: shape}, called by keyword; the first
    dimension of the first shape is the batch. mutants: {the name of a mistake: function}, likely wrong answers,
    with which yours is compared before the general ones (sign, transpose, sum for mean, factor 2).
    possible: {name: function} that makes a value that can occur (a label of 0 or 1, a width above 0) of a random one.
    Right is what agrees to 1e-7, in float32 to 1e-5. Where an input has the answer's shape, as a state before and after
    a step, the general mistakes are also looked for in the step alone.
    Never raises: prints ✓ and returns `mine`; or NOT DONE (it returned None); or what is wrong, with yours, the
    true value and the largest difference; in the last two cases it returns `reference`.
    """
    generator = torch.Generator().manual_seed(0)
    for _ in range(trials):
        given = {}
        for name, shape in shapes.items():
            values = torch.randn(shape, generator=generator, dtype=torch.float64)
            values = values + 0.1 * values.sign()  # away from 0, so that no wrong term hides behind a zero
            given[name] = possible[name](values) if name in (possible or {}) else values
        problem = _problem(mine, given, reference(**given), mutants or {})
        if problem:
            print(f"{problem}\n  The reference is used from here on.")
            return reference
    print(f"✓ yours equals the reference on {trials} random trials: your rule is used from here on")
    return mine


def _problem(mine, given, expected, mutants):
    """None when the learner's answer is right, else what is wrong with it, in words."""
    try:
        answer = mine(**{name: value.clone() for name, value in given.items()})
    except Exception as error:  # the learner's code may fail in any way, and the notebook must go on
        return f"✗ not yet: it stopped with {type(error).__name__}: {error}"
    if answer is None:
        return "NOT DONE: your function returned None."
    if not isinstance(answer, torch.Tensor):
        asked = f"✗ not yet: it returned a {type(answer).__name__}; a tensor of shape {tuple(expected.shape)} is asked"
        return asked + _right_numbers(answer, expected)
    if answer.dtype not in {*PRECISION, expected.dtype}:
        return f"✗ not yet: yours holds {answer.dtype}; asked is the type of what you were given, {expected.dtype}"
    if _same(answer, expected):
        return None
    likely = _likely_mistake(answer, expected, given, mutants)
    if answer.shape != expected.shape:
        return f"✗ not yet: yours has shape {tuple(answer.shape)}, asked is {tuple(expected.shape)}{likely}"
    if answer.isnan().any():
        return f"✗ not yet: yours holds nan: 0/0, or a root, logarithm or arccos of what is outside its range{likely}"
    largest = (answer - expected).abs().max().item()
    yours, true = (_short(tensor.reshape(-1)[:3].tolist()) for tensor in (answer, expected))
    heads = f"\n  yours begins {yours}\n  true  begins {true}"
    return f"✗ not yet: yours and true differ by up to {largest:.3g}{heads}{likely}"


def _right_numbers(answer, expected):
    """How a number, a list or an array that is right but for its type becomes a tensor; else nothing."""
    with suppress(Exception):  # what is no numbers at all
        if _same(torch.as_tensor(answer, dtype=expected.dtype), expected):
            return ". The numbers are right: hand them to torch.as_tensor(…), since the network goes on with tensors."
    return ""


def _same(one, other):
    """Equal but for rounding, in the coarser type of the two: what float32 holds is right to seven digits."""
    if not isinstance(one, torch.Tensor) or one.shape != other.shape or one.dtype not in {*PRECISION, other.dtype}:
        return False
    share, scale = PRECISION.get(one.dtype, 0.0), max(1.0, other.abs().max().item()) if other.numel() else 1.0
    return torch.allclose(one.to(other.dtype), other, rtol=share, atol=share * scale)


def _likely_mistake(answer, expected, given, mutants):
    batch = len(next(iter(given.values())))
    for name, mutant in mutants.items():
        with suppress(Exception):  # no explanation, but no reason to stop the notebook either
            wrong = torch.as_tensor(mutant(**given))
            for more, undone in (("", 1), ("; and 1/batch is missing", batch), ("; and the sign is turned round", -1)):
                if _same(answer, wrong * undone):
                    return f"\n  Likely: {name}{more}."
    for what, start in [("it", 0), *((f"the step from {name}", value) for name, value in given.items())]:
        if torch.is_tensor(start) and not start.shape == answer.shape == expected.shape:
            continue
        if what != "it" and _same(answer + start, expected):
            return f"\n  Likely: it is {what} alone; {what.split()[-1]} after the step is asked."
        for name, undo in MISTAKES:
            if (answer.ndim == 2 or "transpose" not in name) and _same(undo(answer - start, batch), expected - start):
                return f"\n  Likely: {name if what == 'it' else f'in {what}, {name}'}."
    return ""
