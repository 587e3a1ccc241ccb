"""Numbers of one's own in history, sweep and playground; what is said of a rule that is none, or teaches nothing."""

import pytest
import torch
from helpers import AutogradRule, clusters
from helpers.small_training import DATA, new_rule, repeat, same_weights, train
from torch import nn

import course_utils as cu
from course_utils import sources
from course_utils.controls import Around
from course_utils.runs import one_run
from course_utils.settings import Settings
from course_utils.training import steps


def sparsity(rule, x, y):
    """Share of silent units."""
    return (rule.net.activations(x)[1] == 0).float().mean()


def noisy(rule, x, y):
    """As careless as can be: it leaves gradients, takes the rule's random numbers and writes into a weight."""
    rule.net.loss(rule.net(x), y).backward()
    with torch.no_grad():
        rule.net.weights[0].add_(1.0)
    return torch.rand((), generator=rule.generator).item()


def test_a_column_of_the_history_each_and_no_trace_left():
    rule, history = train(metrics={"sparsity": sparsity, "noisy": noisy, "width": lambda rule, x, y: x.shape[1]})
    plain, without = train()
    assert same_weights(rule, plain)
    assert list(history.frame)[7:] == ["sparsity", "noisy", "width"] and (history.frame.width == 12).all()
    assert history.frame.sparsity.iloc[-1] == sparsity(rule, DATA.x_val, DATA.y_val).item()
    shared = [c for c in without.frame if c != "seconds"]
    assert without.frame[shared].equals(history.frame[shared])
    again = new_rule()
    assert "metrics=metrics" in history.call
    repeated = repeat(history, again, metrics=history.settings.metrics)
    assert same_weights(rule, again) and repeated.frame.sparsity.equals(history.frame.sparsity)


@pytest.mark.parametrize("metrics", [[sparsity], {"sparsity": 0.5}, {3: sparsity}, sparsity])
def test_what_are_no_metrics_is_refused(metrics):
    with pytest.raises(ValueError, match=r"metrics is .*a dict \{name: f\(rule, x, y\)\}"):
        train(metrics=metrics)


def test_a_name_that_is_taken_and_a_result_that_is_no_number_are_refused():
    with pytest.raises(ValueError, match="metrics holds val_loss, which a history has already"):
        train(metrics={"val_loss": sparsity})
    for bad in (None, torch.zeros(3), "much"):
        with pytest.raises(ValueError, match=r"metrics\['odd'\] returned .*one number"):
            train(metrics={"odd": lambda rule, x, y, bad=bad: bad})


def test_a_sweep_s_frame_has_them_and_their_code_decides(tmp_path):
    how = {"sizes": [784, 8, 10], "seeds": 1, "epochs": 0.2, "progress": False, "folder": tmp_path}
    frame = cu.sweep("Backprop", "digits", metrics={"sparsity": sparsity}, **how)
    assert list(frame)[-1] == "sparsity" and frame.sparsity.between(0, 1).all()
    assert cu.sweep("Backprop", "digits", metrics={"sparsity": sparsity}, **how).equals(frame)
    assert len(list(tmp_path.glob("*.csv"))) == 1 and "sparsity" not in cu.sweep("Backprop", "digits", **how)
    settings = {"name": "Backprop", "sizes": [3, 2], "lr": 0.1, "seed": 0}

    def typed(text):
        exec(text, names := {"__name__": "__main__"})
        return names["f"]

    one, two = typed("f = lambda rule, x, y: 1"), typed("f = lambda rule, x, y: 2")
    keys = [sources.key(one_run, settings | {"metrics": m}) for m in ({"a": one}, {"a": two}, {"b": one}, {})]
    keys.append(sources.key(one_run, settings | {"metrics": {"a": one, "b": two}}))
    keys.append(sources.key(one_run, settings | {"metrics": {"a": two, "b": two}}))
    assert len(set(keys)) == 6


def test_the_playground_says_them_under_the_picture():
    lab = cu.playground(cu.rules.Backprop, data=DATA, training={"metrics": {"sparsity": sparsity}})
    history = lab.run_steps(3)
    assert f"sparsity: {history.frame.sparsity.iloc[-1]:.4g}" in lab.status.value


# ---------------------------------------------------------------- no rule, or one that teaches nothing


class TeachesNothing(AutogradRule):
    """Works the gradient out and leaves it at that."""

    title = "Teaches nothing"

    def backward(self, x, y):
        return self.net.loss(self.net(x), y).detach()


class WrongAttribute(TeachesNothing):
    def backward(self, x, y):
        for p in self.net.parameters():
            p.gradient, p.data.grad = torch.ones_like(p), torch.ones_like(p)
        return super().backward(x, y)


class NeverCalls(AutogradRule):
    def __init__(self, net, seed=0):
        nn.Module.__init__(self)
        self.net = net


class CallsNothing(AutogradRule):
    def __init__(self, net, seed=0):
        self.gain = 2


class NoSeed(AutogradRule):
    def __init__(self, net, gain=1.0):
        super().__init__(net)


@pytest.mark.parametrize("rule_class", [TeachesNothing, WrongAttribute])
def test_a_rule_that_teaches_nothing_is_told_so_after_the_first_step(rule_class, capsys):
    _, history = train(new_rule(rule_class))
    said = capsys.readouterr().out.splitlines()
    assert len(said) == 1 and "after its first step .grad is empty" in said[0] and history.status == "done"
    runner = steps(new_rule(rule_class), DATA, Settings(lr=0.1))
    assert (next(runner).note, next(runner).note != "") == ("", True)
    lab = cu.playground(rule_class, data=DATA)
    lab.run_steps(1)
    assert lab.status.value.startswith("Teaches nothing teaches nothing")
    with pytest.raises(ValueError, match=r"fills no \.grad of what its taught"):
        cu.metrics.gradient_statistics(new_rule(rule_class), DATA.x_val, DATA.y_val, draws=20)


def test_a_rule_all_of_whose_parameters_are_frozen_teaches_nothing_either(capsys):
    rule = new_rule()
    train(rule.requires_grad_(False))
    assert "parameters with requires_grad True" in capsys.readouterr().out


def test_a_gradient_put_where_nothing_is_to_move_is_refused():
    class Heedless(TeachesNothing):
        def backward(self, x, y):
            for p in self.net.parameters():
                p.grad = torch.ones_like(p)
            return super().backward(x, y)

    rule = new_rule(Heedless)
    rule.net.weights[0].requires_grad_(False)
    with pytest.raises(ValueError, match=r"fills \.grad of net\.weights\.0, which has requires_grad False"):
        train(rule)


def test_one_that_moves_its_weights_itself_or_fills_zeros_is_not_blamed(capsys):
    class ByHand(TeachesNothing):
        def step(self, x, y, optimizer):
            with torch.no_grad():
                self.net.weights[0].mul_(0.9)
            return self.backward(x, y)

    class Zeros(AutogradRule):
        def change(self, gradient):
            return 0 * gradient

    for rule_class in (ByHand, Zeros, AutogradRule):
        assert train(new_rule(rule_class))[1].note == ""
    assert capsys.readouterr().out == ""


def test_what_is_no_rule_is_told_so_at_every_door():
    net, (x, y) = new_rule().net, (DATA.x_val, DATA.y_val)
    no_rules = {"rule is a MLP; it must be a rule": net, "rule is the class Backprop; make a rule": cu.rules.Backprop}
    no_rules[r"NeverCalls.__init__ never calls super\(\).__init__\(net, seed\)"] = NeverCalls(net)
    no_rules[r"CallsNothing.__init__ never calls super\(\)"] = CallsNothing(net)
    for said, what in no_rules.items():
        for door in (
            lambda r: cu.train(r, clusters(), progress=False),
            lambda r: cu.evaluate(r, x, y),
            lambda r: cu.metrics.gradient_statistics(r, x, y, draws=20),
            lambda r: cu.costs.of_update(r, x, y),
            cu.FrozenHidden,
            Around,
        ):
            with pytest.raises(ValueError, match=said):
                door(what)


def frozen(net, seed):
    return cu.FrozenHidden(NoSeed(net))


def test_a_rule_without_a_seed_and_its_control_are_swept_and_played_with(tmp_path):
    how = {"sizes": [784, 8, 10], "lr": 0.1, "seeds": 1, "epochs": 0.2, "progress": False, "folder": tmp_path}
    frame = cu.sweep([NoSeed, frozen], "digits", **how)
    assert list(frame.rule.unique()) == ["NoSeed", "frozen"] and frame.test_accuracy.notna().sum() == 2
    assert cu.playground(NoSeed, data=DATA).run_steps(2).steps == 2
    with pytest.raises(ValueError, match=r"FrozenHidden\(NoSeed\)|rule is 'NoSeed'.*a function \(net, seed\)"):
        cu.sweep("FrozenHidden(NoSeed)", "digits", **how)
