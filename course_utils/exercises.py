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


# What a wrong answer most often is, tried in this order: (the name of the mistake, what undoes it)
MISTAKES = [
    ("the sign is turned round", lambda mine, _: -mine),
    ("it is the transpose", lambda mine, _: mine.T),
    ("it sums over the batch where the mean is asked (missing 1/batch)", lambda mine, batch: mine / batch),
    ("it takes the mean over the batch twice", lambda mine, batch: mine * batch),
    ("it is the transpose and sums over the batch (missing 1/batch)", lambda mine, batch: mine.T / batch),
    ("the sign is turned round and 1/batch is missing", lambda mine, batch: -mine / batch),
]


def check_update(mine, reference, shapes, mutants=None, trials=3, possible=None):
    """Try the learner's function against the reference on random float64 tensors; return the one to go on with.

    mine, reference: functions of the tensors named in `shapes`, {name: shape}, called by keyword; the first
    dimension of the first shape is the batch. mutants: {the name of a mistake: function}, likely wrong answers
    to compare with when the general ones (sign, transpose, sum for mean) do not explain it. possible: {name:
    function} that makes a value that can occur (a label of 0 or 1, a width above 0) of a random one.
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
        return f"✗ not yet: it returned a {type(answer).__name__}; a tensor of shape {tuple(expected.shape)} is asked"
    if _same(answer, expected):
        return None
    if answer.dtype != expected.dtype:
        return f"✗ not yet: yours holds {answer.dtype}; asked is the type of what you were given, {expected.dtype}"
    likely = _likely_mistake(answer, expected, given, mutants)
    if answer.shape != expected.shape:
        return f"✗ not yet: yours has shape {tuple(answer.shape)}, asked is {tuple(expected.shape)}{likely}"
    if answer.isnan().any():
        return f"✗ not yet: yours holds nan: 0/0, or a root, logarithm or arccos of what is outside its range{likely}"
    largest = (answer - expected).abs().max().item()
    yours, true = (_short(tensor.reshape(-1)[:3].tolist()) for tensor in (answer, expected))
    heads = f"\n  yours begins {yours}\n  true  begins {true}"
    return f"✗ not yet: yours and true differ by up to {largest:.3g}{heads}{likely}"


def _same(one, other):
    """Are they alike, to the last digits that both their types have?"""
    if not isinstance(one, torch.Tensor) or one.shape != other.shape:
        return False
    if one.is_floating_point() != other.is_floating_point():
        return False
    rtol, atol = (1e-9, 1e-12) if one.dtype == other.dtype else (1e-5, 1e-6)
    return torch.allclose(one.to(other.dtype), other, rtol=rtol, atol=atol)


def _likely_mistake(answer, expected, given, mutants):
    batch = len(next(iter(given.values())))
    for name, undo in MISTAKES:
        if (answer.ndim == 2 or "transpose" not in name) and _same(undo(answer, batch), expected):
            return f"\n  Likely: {name}."
    for name, mutant in mutants.items():
        with suppress(Exception):  # no explanation, but no reason to stop the notebook either
            wrong = mutant(**given)
            for more, undone in (("", 1), ("; and 1/batch is missing", batch), ("; and the sign is turned round", -1)):
                if _same(wrong * undone, answer):
                    return f"\n  Likely: {name}{more}."
    return ""
