"""The soak, in short: memory that stays is told from memory that grows."""

import pytest

from tools import soak


def test_a_few_rounds_of_both_stay_within_the_tolerance(capsys):
    assert soak.memory(cycles=12, draws=400)
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
    assert not soak.memory(cycles=20, draws=400)
