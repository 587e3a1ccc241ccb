"""An interrupt at any moment leaves nothing borrowed behind."""

import os
import signal
import sys
from itertools import count
from pathlib import Path

import pytest
import torch
from helpers import clusters, mutant, small_net
from helpers.small_training import DATA, new_rule, train

import course_utils as cu
from course_utils import controls, runs, safely, training
from course_utils.controls import FrozenHidden
from course_utils.live import LiveRun
from course_utils.rules import Backprop, KolenPollack, SignSymmetry
from course_utils.studies import harder_worlds
from course_utils.studies.harder_worlds import NoisyFeedback

FILES = {Path(module.__file__).name for module in (controls, safely, training, harder_worlds)}


def interrupted_at(moment, act, files=FILES):
    """Run act() and interrupt it at one of the lines of these files, counted as they come; was there such a one?"""
    left = [moment]

    def trace(frame, event, argument):
        if Path(frame.f_code.co_filename).name not in files and not frame.f_code.co_filename.startswith("<mutant"):
            return None
        if event == "line":
            left[0] -= 1
            if left[0] < 0:
                raise KeyboardInterrupt
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        act()
    except KeyboardInterrupt:
        pass
    finally:
        sys.settrace(before)
    return left[0] < 0


def moments(act, files=FILES):
    """Runs act(), interrupted at every moment in turn; yields each time it was."""
    for moment in count():
        if not interrupted_at(moment, act, files):
            return
        yield moment


# ---------------------------------------------------------------- wrappers


def moved(wrap):
    """At how many of the moments of a step the frozen layer is left moved."""
    rule = wrap(KolenPollack(small_net((7, 6, 3)), decay=0.1))
    x, y = torch.randn(5, 7, dtype=torch.float64), torch.arange(5) % 3
    hidden, readout = rule.net.weights[0].detach().clone(), rule.net.weights[1].detach().clone()
    optimizer, left = torch.optim.SGD(rule.parameters(), lr=0.1), 0
    for _ in moments(lambda: rule.step(x, y, optimizer)):
        left += not torch.equal(rule.net.weights[0], hidden)
    assert not torch.equal(rule.net.weights[1], readout)
    return left


def test_frozen_layers_have_not_moved_whenever_the_interrupt_comes(monkeypatch):
    assert moved(FrozenHidden) == 0
    monkeypatch.setattr(controls, "surely", mutant(safely.surely, "except KeyboardInterrupt:", "except ValueError:"))
    assert moved(FrozenHidden) > 0  # it came while the layer was put back
    monkeypatch.setattr(controls, "surely", in_turn)
    assert moved(FrozenHidden) > 0


def in_turn(put_back, act, *given):
    result = act(*given)
    put_back()
    return result


def test_gradients_are_put_back_whenever_the_interrupt_comes():
    rule = FrozenHidden(Backprop(small_net((7, 6, 3))))
    x, y = torch.randn(5, 7, dtype=torch.float64), torch.arange(5) % 3
    mine = [torch.ones_like(p) for p in rule.hidden_parameters()]
    for p, gradient in zip(rule.hidden_parameters(), mine, strict=True):
        p.grad = gradient
    for _ in moments(lambda: rule.backward(x, y)):
        assert all(p.grad is gradient for p, gradient in zip(rule.hidden_parameters(), mine, strict=True))


def left_noisy():
    """At how many moments of a step noise is left on the feedback; what it learns is far smaller."""
    rule = NoisyFeedback(KolenPollack(small_net((7, 6, 3)), decay=0.0), 1.0)
    x, y = torch.randn(5, 7, dtype=torch.float64), torch.arange(5) % 3
    feedback, optimizer = rule.feedback_weights[1], torch.optim.SGD(rule.parameters(), lr=1e-9)
    before = feedback.detach().clone()
    return sum((feedback - before).norm().item() > 1e-6 for _ in moments(lambda: rule.step(x, y, optimizer)))


def test_noise_on_feedback_goes_whenever_the_interrupt_comes(monkeypatch):
    assert left_noisy() == 0
    monkeypatch.setattr(harder_worlds, "surely", in_turn)
    assert left_noisy() > 0


def test_feedback_that_is_drawn_anew_is_drawn_without_noise_after_an_interrupt(monkeypatch):
    rule = NoisyFeedback(SignSymmetry(small_net((7, 6, 3))), 1.0)
    x, y = torch.randn(5, 7, dtype=torch.float64), torch.arange(5) % 3
    assert hasattr(rule.rule, "draw_feedback")
    assert not any("draw_feedback" in vars(rule.rule) for _ in moments(lambda: rule.backward(x, y)))
    monkeypatch.setattr(harder_worlds, "surely", in_turn)
    assert any("draw_feedback" in vars(rule.rule) for _ in moments(lambda: rule.backward(x, y)))


# ---------------------------------------------------------------- the loop


def test_training_gives_back_what_it_borrows_whenever_the_interrupt_comes(monkeypatch):
    def left():
        rule = FrozenHidden(new_rule(KolenPollack))
        optimizer = torch.optim.SGD(rule.parameters(), lr=0.1)
        how = {"optimizer": optimizer, "lr": None, "activity_noise": 0.3, "epochs": 1, "batch_size": 16}
        few, hidden = clusters(n=16, n_val=8), rule.net.weights[0].detach().clone()
        for _ in moments(lambda: cu.train(rule, few, progress=False, **how)):
            moved = not torch.equal(rule.net.weights[0], hidden)
            yield moved or rule.net.activity_noise != 0 or optimizer.param_groups[0]["lr"] != 0.1

    found = list(left())
    assert len(found) > 100 and not any(found)
    monkeypatch.setattr(training, "_give_back", lambda *_: None)
    assert any(left())


def test_ctrl_c_waits_for_the_end_of_the_step_and_a_second_one_does_not():
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a process in the background ignores it

    def signalled(times, run):
        class Signalled(Backprop):
            ended = 0

            def step(self, x, y, optimizer):
                loss = super().step(x, y, optimizer)
                for _ in range(times if self.ended == 2 else 0):
                    os.kill(os.getpid(), signal.SIGINT)
                    torch.ones(3).sum().item()  # Python looks for signals between its own instructions
                self.ended += 1
                return loss

        rule = new_rule(Signalled)
        history = run(rule)
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
        return rule.ended, history.status, history.samples

    def by_slices(rule):
        live = LiveRun(type(rule), DATA, [12, 9, 4], {"lr": 0.1}, {}, {"epochs": 2, "batch_size": 16, "seed": 0})
        live.advance(lambda: True)
        rule.ended = live.rule.ended
        return live.history

    for run in (lambda rule: train(rule)[1], by_slices):
        assert signalled(1, run) == (3, "stopped", 48)
        assert signalled(2, run) == (2, "stopped", 32)


def test_an_interrupted_run_is_no_finished_run_of_a_sweep(tmp_path):
    class Interrupted(Backprop):
        steps = 0

        def step(self, x, y, optimizer):
            Interrupted.steps += 1
            if Interrupted.steps == 15:  # the second of two runs of ten steps
                raise KeyboardInterrupt
            return super().step(x, y, optimizer)

    with pytest.raises(KeyboardInterrupt):
        cu.sweep(Interrupted, "digits", [784, 8, 10], seeds=3, epochs=10 / 11, folder=tmp_path, progress=False)
    assert len(list(tmp_path.iterdir())) == 1
    assert cu.device.unattended.get() is False


def test_a_function_of_ones_own_lets_the_interrupt_pass_too(tmp_path):
    class Interrupted(Backprop):
        def step(self, x, y, optimizer):
            raise KeyboardInterrupt

    def mine(name, sizes, lr, seed, **settings):
        cu.train(Interrupted(cu.MLP(sizes)), cu.load_dataset("digits"), progress=False)
        return runs.one_run("Backprop", sizes, lr, seed, dataset="digits", epochs=0.1)

    with pytest.raises(KeyboardInterrupt):
        cu.sweep("Backprop", "digits", [784, 8, 10], seeds=1, function=mine, folder=tmp_path, progress=False)
    assert not list(tmp_path.iterdir())
