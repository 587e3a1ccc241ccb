"""A run that is resumed is the run that was never interrupted; its file is whole at any moment."""

from dataclasses import replace

import pytest
import torch
from helpers import AutogradRule, Knobby, NoisyGradient, mutant, small_net
from helpers.checkpoints import HOW, cut, same_run, whole
from helpers.own_network import TwoLinear
from helpers.small_training import DATA, N, new_rule

import course_utils as cu
from course_utils import checkpoints, runs, training
from course_utils.rules import FeedbackAlignment, WeightPerturbation
from course_utils.studies.harder_worlds import NoisyFeedback

# Momentum, Adam's moments, order and noise, the rule's own generator, probes, rows and schedules in the middle.
SETTINGS = {
    "momentum": {},
    "adam": {"optimizer": "adam", "lr": 0.01},
    "noise": {"input_noise": [(0, 0.1), (200, 0.3)], "activity_noise": 0.2},
    "schedules": {"lr": [(0, 0.1), (170, 0.01)], "schedule": [(0, 1.0), (300, 0.5)]},
    "rows": {"eval_every": 40, "probe_every": 60},
}


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
@pytest.mark.parametrize("at", [16, 150, N, 2 * N + 16])
def test_a_resumed_run_is_the_run_that_was_never_interrupted(settings, at, tmp_path):
    cut(tmp_path / "run", at, **settings)
    assert same_run(whole(**settings), cu.resume(tmp_path / "run", data=DATA, rule=new_rule(), progress=False))
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


MUTANTS = {
    "order": (training, "_batches", "done = data.x_train.device, history.steps", "done = data.x_train.device, 0"),
    "generators": (checkpoints, "_put", "part.set_state(state)", "pass"),
    "optimiser": (checkpoints, "_put", "part.load_state_dict(state)", "pass"),
    "losses since the last row": (checkpoints, "_put", "part[:] = state", "pass"),
    "weights": (runs, "restore", "own[name].data, own[name].requires_grad = value.data, value.requires_grad", "pass"),
}


@pytest.mark.parametrize("what", MUTANTS)
def test_nothing_of_it_may_be_left_out(what, tmp_path, monkeypatch):
    module, name, old, new = MUTANTS[what]
    cut(tmp_path / "run", input_noise=0.1)
    monkeypatch.setattr(module, name, mutant(getattr(module, name), old, new))
    again = cu.resume(tmp_path / "run", data=DATA, rule=new_rule(), progress=False)
    assert not same_run(whole(input_noise=0.1), again)


# ---------------------------------------------------------------- rules


class Counts(AutogradRule):
    """It keeps in plain attributes and late buffers what it knows."""

    def __init__(self, net, seed=0, start=1.0):
        super().__init__(net, seed)
        self.traces, self.first, self.watched = {0: torch.zeros(2)}, start, [net.weights[0]]
        self.register_buffer("late", None)

    def step(self, x, y, optimizer):
        self.traces[0] += 1
        self.late = torch.ones(3) if self.late is None else self.late + self.first
        self.first = self.first + self.traces[0].sum().item() * self.late[0].item()
        assert self.watched[0] is self.net.weights[0]
        return super().step(x, y, optimizer)

    def change(self, gradient):
        return gradient * (1 + 1 / self.first)


class Inner(AutogradRule):
    """It moves a gain by an optimiser of its own."""

    def __init__(self, net, seed=0):
        super().__init__(net, seed)
        self.register_buffer("gain", torch.ones(()))
        self.mover = torch.optim.SGD([self.gain], lr=0.01, momentum=0.9)

    def change(self, gradient):
        self.gain.grad = torch.ones(())
        self.mover.step()
        return gradient * self.gain


MAKE = {
    "an optimiser of its own": lambda: new_rule(Inner),
    "draws": lambda: new_rule(NoisyGradient),
    "own state": lambda: Counts(small_net((12, 9, 4), dtype=torch.float32), start=0.5),
    "control": lambda: cu.FrozenHidden(new_rule(WeightPerturbation)),
    "wrapper that draws": lambda: NoisyFeedback(new_rule(FeedbackAlignment), 0.5),
    "float64": lambda: FeedbackAlignment(small_net((12, 9, 4))),
    "live knob": lambda: new_rule(Knobby),
}


@pytest.mark.parametrize("what", MAKE)
def test_what_a_rule_keeps_goes_on_where_it_was(what, tmp_path):
    parts = {name: getattr(DATA, name) for name in ("x_train", "x_val", "x_test")}
    own = replace(DATA, **{name: x.double() for name, x in parts.items()}) if what == "float64" else DATA
    how = {**HOW, **({"knobs": {"gain": [(0, 1.0), (200, 0.5)]}} if what == "live knob" else {})}
    rule, half = MAKE[what](), MAKE[what]()
    history = cu.train(rule, own, **how)
    cu.train(half, own, **how, stop_after=150, checkpoint=tmp_path / "run")
    assert same_run((history, rule), cu.resume(tmp_path / "run", data=own, progress=False, rule=MAKE[what]()))
    by_file = what in ("control", "float64")
    made = cu.resume(tmp_path / "run", None if by_file else MAKE[what](), own, progress=False)  # it has ended
    assert type(made[1]) is type(rule) and same_run((history, rule), made)


def test_a_run_may_pause_more_than_once(tmp_path):
    cut(tmp_path / "run", 64)
    cu.resume(tmp_path / "run", new_rule(), DATA, stop_after=128, progress=False)
    assert checkpoints.read(tmp_path / "run")["settings"]["stop_after"] == 128
    assert same_run(whole(), cu.resume(tmp_path / "run", new_rule(), DATA, progress=False))


def test_rule_and_data_are_made_by_the_file(tmp_path):
    few = cu.load_dataset("digits", limit=300)
    make = lambda: cu.FrozenHidden(cu.rules.Layered(cu.MLP([784, 8, 7, 10], "tanh", seed=3), seed=5, hidden="Pepita"))  # noqa: E731
    rule = make()
    history = cu.train(rule, few, epochs=2, progress=False)
    cu.train(make(), few, epochs=2, stop_after=200, checkpoint=str(tmp_path / "deep" / "run"), progress=False)
    again, made = cu.resume(str(tmp_path / "deep" / "run"), progress=False)
    assert same_run((history, rule), (again, made)) and made.title == rule.title
    assert type(made.rule.parts[0]) is cu.rules.Pepita and made.rule.seed == 5 and made.net.activation_name == "tanh"


def test_an_optimiser_of_ones_own_is_handed_over_and_goes_on(tmp_path):
    def run(stop_after=None, **more):
        rule = new_rule()
        optimizer = torch.optim.RMSprop(rule.parameters(), lr=0.01, momentum=0.5)
        return rule, optimizer, {**HOW, "lr": None, "optimizer": optimizer, "stop_after": stop_after, **more}

    rule, optimizer, how = run()
    history = cu.train(rule, DATA, **how)
    half, _, its_how = run(150, checkpoint=tmp_path / "run")
    cu.train(half, DATA, **its_how)
    again, optimizer, _ = run()
    with pytest.raises(ValueError, match="the run had of its own .*RMSprop.*; hand over the same: optimizer="):
        cu.resume(tmp_path / "run", rule=again, data=DATA)
    assert same_run((history, rule), cu.resume(tmp_path / "run", again, DATA, optimizer=optimizer, progress=False))
    assert optimizer.param_groups[0]["lr"] == 0.01


# ---------------------------------------------------------------- what else people bring


def test_metrics_are_handed_over_and_go_on(tmp_path):
    how = {"metrics": {"mean": lambda rule, x, y: rule.net.weights[0].mean()}, "eval_every": 60}
    cut(tmp_path / "run", **how)
    for metrics in (None, {"other": how["metrics"]["mean"]}):
        with pytest.raises(ValueError, match=r"the run had of its own .*\['mean'\].*; hand over the same: .*metrics="):
            cu.resume(tmp_path / "run", new_rule(), DATA, metrics=metrics)
    again = cu.resume(tmp_path / "run", new_rule(), DATA, metrics=how["metrics"], progress=False)
    assert same_run(whole(**how), again) and again[0].frame["mean"].notna().all()


def test_values_as_targets_data_and_a_network_of_ones_own_go_on(tmp_path):
    x = torch.randn(200, 7, generator=torch.Generator().manual_seed(0))
    mine = lambda: cu.Dataset.of(x.numpy(), x[:, :3].sin().numpy())  # noqa: E731
    net = lambda: cu.MLP([7, 9, 3], loss="squared_error")  # noqa: E731
    rule, path, how = FeedbackAlignment(net()), tmp_path / "run", {"epochs": 2, "lr": 0.01, "progress": False}
    history = cu.train(rule, mine(), **how)
    cu.train(FeedbackAlignment(net()), mine(), **how, stop_after=128, checkpoint=path)
    assert same_run((history, rule), cu.resume(path, data=mine(), progress=False))
    assert history.frame.val_loss.notna().all() and history.frame.val_accuracy.isna().all()


def test_a_network_of_ones_own_goes_on(tmp_path):
    make = lambda: AutogradRule(TwoLinear())  # noqa: E731
    cut(tmp_path / "run", make=make)
    with pytest.raises(ValueError, match="had a rule of its own"):
        cu.resume(tmp_path / "run", data=DATA)
    assert same_run(whole(make), cu.resume(tmp_path / "run", make(), DATA, progress=False))


def test_what_is_frozen_stays_frozen_in_a_rule_that_the_file_makes(tmp_path):
    def make():
        rule = new_rule(FeedbackAlignment)
        rule.net.weights[0].requires_grad_(False)
        return rule

    cut(tmp_path / "run", make=make)
    history, rule = cu.resume(tmp_path / "run", data=DATA, progress=False)
    assert same_run(whole(make), (history, rule)) and not rule.net.weights[0].requires_grad
