"""The long trials, short: they run, find nothing, and find what they are made to find."""

import sys

import pytest
import torch

from course_utils import checkpoints, controls, training
from tools import soak

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="torch may be forked on Linux alone")


@pytest.mark.parametrize("command, times", [("kill", "2"), ("interrupts", "6")])
def test_nothing_is_lost_and_nothing_left(command, times, monkeypatch, capsys):
    monkeypatch.setattr(checkpoints, "SECONDS", 30.0)  # the trial sets it; it is given back
    assert soak.main([command, "--times", times]) == 0
    assert "nothing lost, nothing left" in capsys.readouterr().out


def test_what_is_left_is_found(monkeypatch, capsys):
    monkeypatch.setattr(training, "_give_back", lambda *_: None)
    assert soak.main(["interrupts", "--times", "4"]) == 1
    assert "left a rate" in capsys.readouterr().out
    monkeypatch.undo()
    monkeypatch.setattr(soak, "TRIED", [("control", "KolenPollack")])
    monkeypatch.setattr(controls, "surely", lambda put_back, act: act())
    assert soak.main(["interrupts", "--times", "2"]) == 1 and "left a moved weight" in capsys.readouterr().out


def test_a_process_that_ends_by_itself_was_not_killed():
    assert soak.ended(lambda: None, None) is False
    assert soak.ended(lambda: [torch.ones(9).sum() for _ in range(10**9)], 0.01) is True
    with pytest.raises(RuntimeError, match="no kill explains"):
        soak.ended(lambda: soak.os._exit(3), None)
