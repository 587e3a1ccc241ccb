"""The long trials, short: they run, find nothing, and find what they are made to find."""

import sys

import pytest
import torch

from course_utils import checkpoints, controls, training
from tools import soak

linux_alone = pytest.mark.skipif(sys.platform != "linux", reason="torch may be forked on Linux alone")


@linux_alone
@pytest.mark.parametrize("command, times", [("kill", "2"), ("interrupts", "6")])
def test_nothing_is_lost_and_nothing_left(command, times, monkeypatch, capsys):
    monkeypatch.setattr(checkpoints, "SECONDS", 30.0)  # the trial sets it; it is given back
    assert soak.main([command, "--times", times]) == 0
    assert "nothing lost, nothing left" in capsys.readouterr().out


@linux_alone
def test_what_is_left_is_found(monkeypatch, capsys):
    monkeypatch.setattr(training, "_give_back", lambda *_: None)
    assert soak.main(["interrupts", "--times", "4"]) == 1
    assert "left a rate" in capsys.readouterr().out
    monkeypatch.undo()
    monkeypatch.setattr(soak, "TRIED", [("control", "KolenPollack")])
    monkeypatch.setattr(controls, "surely", lambda put_back, act, *given: act(*given))
    assert soak.main(["interrupts", "--times", "2"]) == 1 and "left a moved weight" in capsys.readouterr().out


@linux_alone
def test_a_process_that_ends_by_itself_was_not_killed():
    assert soak.ended(lambda: None, None) is False
    assert soak.ended(lambda: [torch.ones(9).sum() for _ in range(10**9)], 0.01) is True
    with pytest.raises(RuntimeError, match="no kill explains"):
        soak.ended(lambda: soak.os._exit(3), None)


def test_a_few_rounds_of_both_stay_within_the_tolerance(capsys):
    assert soak.memory(12, draws=400) == []
    out = capsys.readouterr().out
    assert "12 times Train, Stop, Reset: " in out and "400 draws of the statistics: " in out


@pytest.mark.parametrize(("grows", "stays"), [(0.0, True), (0.04, True), (0.06, False), (-0.06, False)])
def test_memory_that_grows_is_told(grows, stays, capsys):
    """From the first tenth on: what is made once, and at once, does not count."""
    after = [100.0 + 100 * grows * k / 18 for k in range(19)]
    assert soak.stays("it", [1.0, 50.0, *after]) == stays
    assert f"{grows:+.2%}" in capsys.readouterr().out


def test_a_playground_that_keeps_its_runs_would_be_noticed(monkeypatch):
    """Forty megabytes a cycle, as a run that nobody lets go may hold."""
    kept, resident = [], soak.resident
    monkeypatch.setattr(soak, "resident", lambda: (kept.append(b"x" * 40_000_000), resident())[1])
    assert "memory: playground" in soak.memory(20, draws=400)
