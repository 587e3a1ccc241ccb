"""The file of a run: when it is written, what is refused, and what a kill leaves."""

import io
import os
import pickle
import signal
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import AutogradRule, small_net
from helpers.checkpoints import HOW, cut, same_run, whole
from helpers.small_training import DATA, new_rule

import course_utils as cu
from course_utils import checkpoints, safely, training
from course_utils.rules import Backprop


def test_interrupted_between_steps_it_goes_on_there_and_within_one_from_the_last_row(tmp_path, monkeypatch):
    def interrupted(after, where):
        rule = new_rule()
        calls, original = [], rule.step

        def step(*arguments):
            calls.append(1)
            if len(calls) == after:
                raise KeyboardInterrupt
            return original(*arguments)

        monkeypatch.setattr(Backprop, "step", lambda self, *arguments: step(*arguments))
        assert cu.train(rule, DATA, **HOW, eval_every=64, checkpoint=where).status == "stopped"
        monkeypatch.undo()
        return checkpoints.read(where)["parts"]["history"]["samples"]

    assert (
        interrupted(15, tmp_path / "run") == 192
    )  # in the fifteenth step, after 219 samples; the last row stands there
    assert same_run(whole(eval_every=64), cu.resume(tmp_path / "run", new_rule(), DATA, progress=False))
    runner = training.steps(
        rule := new_rule(),
        DATA,
        training.Settings(epochs=3, lr=0.1, batch_size=16),
        checkpoints.Checkpoint(tmp_path / "b", rule, DATA),
    )
    for _ in range(6):
        next(runner)
    runner.close()
    assert same_run(whole(), cu.resume(tmp_path / "b", new_rule(), DATA, progress=False))


def test_it_is_written_at_the_start_at_each_row_when_long_ago_and_at_the_end(tmp_path, monkeypatch):
    written = []
    monkeypatch.setattr(checkpoints, "write_whole", lambda path, content: written.append(clock[0]))
    clock = [1000.0]
    monkeypatch.setattr(checkpoints.time, "monotonic", lambda: clock[0])
    rule = new_rule()
    Slow = type(
        "Slow",
        (Backprop,),
        {"step": lambda self, *a: (clock.__setitem__(0, clock[0] + 8), super(Slow, self).step(*a))[1]},
    )  # noqa: E731
    cu.train(Slow(rule.net), DATA, **{**HOW, "epochs": 1}, checkpoint=tmp_path / "run", eval_every=128)
    assert written == [1000, 1032, 1064, 1096, 1104]  # after 4 steps of 8 s; a row after 8; after 12; the end


def test_a_full_disk_in_the_middle_ends_no_run_and_one_at_the_start_is_said(tmp_path, monkeypatch, capsys):
    calls = []

    def full(path, content):
        calls.append(path)
        if len(calls) > limit:
            raise OSError(28, f"cannot write {path}")

    monkeypatch.setattr(checkpoints, "write_whole", full)
    limit = 1
    assert cu.train(new_rule(), DATA, **HOW, checkpoint=tmp_path / "run").status == "done"
    assert "cannot write" in capsys.readouterr().out
    limit = -1
    with pytest.raises(OSError, match="cannot write"):
        cu.train(new_rule(), DATA, **HOW, checkpoint=tmp_path / "run")


def test_a_run_that_had_not_ended_is_kept_when_another_begins_in_its_file(tmp_path, capsys):
    cut(tmp_path / "run")
    cu.train(new_rule(), DATA, **HOW, checkpoint=tmp_path / "run")
    assert "it is now" in capsys.readouterr().out
    assert same_run(whole(), cu.resume(tmp_path / "run.before", new_rule(), DATA, progress=False))
    cu.train(new_rule(), DATA, **HOW, checkpoint=tmp_path / "run")  # that one had
    assert capsys.readouterr().out == "" and len(list(tmp_path.iterdir())) == 2


# ---------------------------------------------------------------- what is refused


class Payload:
    def __reduce__(self):
        return (os.mkdir, ("/tmp/payload-was-run",))


def sealed(content, path):
    """Whoever wants to do harm can make the hash, too."""
    torch.save(content, stored := io.BytesIO())
    path.write_bytes(safely.sealed(stored.getvalue()))


DAMAGES = {
    "cut": lambda path: path.write_bytes(path.read_bytes()[:-100]),
    "one bit": lambda path: path.write_bytes(path.read_bytes()[:900] + b"\xff\x00" + path.read_bytes()[902:]),
    "empty": lambda path: path.write_bytes(b""),
    "a text": lambda path: path.write_text("epoch,samples\n1,2\n"),
    "a pickle": lambda path: path.write_bytes(pickle.dumps(Payload())),
    "a pickle under its hash": lambda path: path.write_bytes(safely.sealed(pickle.dumps(Payload()))),
    "a pickle in torch's file": lambda path: sealed({"parts": Payload()}, path),
    "weights": lambda path: torch.save(new_rule().state_dict(), path),
    "another archive": lambda path: np.savez(path.open("wb"), np.arange(3)),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_or_foreign_file_is_named_and_never_overwritten_nor_run(damage, tmp_path):
    cut(tmp_path / "run")
    DAMAGES[damage](tmp_path / "run")
    before = (tmp_path / "run").read_bytes()
    for use in (lambda: cu.resume(tmp_path / "run"), lambda: cut(tmp_path / "run")):
        with pytest.raises(ValueError, match="run is no checkpoint, or is damaged"):
            use()
    assert (tmp_path / "run").read_bytes() == before and not Path("/tmp/payload-was-run").exists()


def test_what_is_missing_is_said(tmp_path):
    with pytest.raises(FileNotFoundError, match="nothing"):
        cu.resume(tmp_path / "nothing")

    class Own(Backprop):
        pass

    cut(tmp_path / "run", make=lambda: Own(small_net((12, 9, 4), dtype=torch.float32)))
    with pytest.raises(ValueError, match=r"run had a rule of its own; hand it over as it began: rule="):
        cu.resume(tmp_path / "run", data=DATA)
    with pytest.raises(ValueError, match=r"run had a data of its own; hand it over as it began: data="):
        cu.resume(tmp_path / "run", rule=new_rule(Own))
    for other in (replace(DATA, x_train=DATA.x_train + 1), replace(DATA, y_val=DATA.y_val.flip(0))):
        with pytest.raises(ValueError, match="the run's data was another one"):
            cu.resume(tmp_path / "run", rule=new_rule(Own), data=other)
    others = new_rule(Own, sizes=(12, 8, 4)), new_rule(Own, sizes=(12, 9, 9, 4)), cu.FrozenHidden(new_rule(Own))
    for rule in (*others, new_rule()):
        with pytest.raises(ValueError, match="the run's rule was another one, .*; hand over that one"):
            cu.resume(tmp_path / "run", rule=rule, data=DATA)
    for rule in (Backprop, 3, new_rule().net):
        with pytest.raises(ValueError, match="rule is "):
            cu.resume(tmp_path / "run", rule=rule, data=DATA)
    with pytest.raises(ValueError, match="data is "):
        cu.resume(tmp_path / "run", rule=new_rule(), data=(DATA.x_train, DATA.y_train))


def test_what_cannot_be_kept_is_refused_before_the_first_step(tmp_path):
    class Remembers(AutogradRule):
        def __init__(self, net, memory):
            super().__init__(net)
            self.memory = memory

    net = small_net((12, 9, 4), dtype=torch.float32)
    for held, words in {
        "an object": (Payload(), "keeps tensors, numbers, texts, and lists of these, and no .*mkdir"),
        "a generator in a list": ([torch.Generator()], "keeps tensors.*Generator"),
        "a part among others": ([net.weights[0], 0.5], "cannot keep Remembers.memory"),
        "momentum by parameter": ({net.weights[0]: torch.ones(1)}, "cannot keep Remembers.memory"),
    }.values():
        rule = Remembers(net, held)
        with pytest.raises(ValueError, match=words):
            cu.train(rule, DATA, **HOW, checkpoint=tmp_path / "run")
    assert torch.equal(net.weights[0], small_net((12, 9, 4), dtype=torch.float32).weights[0])
    assert not list(tmp_path.iterdir())


def test_a_scheduler_of_torch_is_refused_for_its_place_is_not_in_the_file(tmp_path):
    rule = new_rule()
    optimizer = torch.optim.SGD(rule.parameters(), lr=0.1)
    torch.optim.lr_scheduler.StepLR(optimizer, 5)
    how = {**HOW, "lr": None, "schedule": "constant", "optimizer": optimizer}
    with pytest.raises(ValueError, match="where a scheduler of torch stands"):
        cu.train(rule, DATA, **how, checkpoint=tmp_path / "run")


# ---------------------------------------------------------------- kill -9


def killed_at(moment, path):
    """A process that trains, keeps its run after every step, and is killed at a line of `write_whole`."""
    left = [moment]

    def trace(frame, event, argument):
        if frame.f_code.co_filename != safely.__file__:
            return None
        left[0] -= event == "line"
        if left[0] < 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return trace

    child = os.fork()
    if child == 0:
        checkpoints.SECONDS = 0.0
        sys.settrace(trace)
        cu.train(new_rule(), DATA, **HOW, checkpoint=path)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.mark.skipif(sys.platform != "linux", reason="torch may be forked on Linux alone")
@pytest.mark.parametrize("round", range(3))
def test_killed_at_any_line_while_it_is_written_it_is_whole(round, tmp_path):
    moments = range(30 + round, 200, 31)  # the first writing takes less than thirty lines
    for moment in moments:
        assert killed_at(moment, tmp_path / "run") == -signal.SIGKILL
        assert same_run(whole(), cu.resume(tmp_path / "run", new_rule(), DATA, progress=False))
        assert [path.name for path in tmp_path.iterdir()] == ["run"]  # what the killed one left is gone
