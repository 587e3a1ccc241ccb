"""Targets that are values: regression and autoencoding train, and the loss stands where accuracy makes no sense."""

import math

import pandas as pd
import pytest
import torch
from matplotlib.figure import Figure

import course_utils as cu
from course_utils import plots, runs
from course_utils.data import Dataset
from course_utils.rules import Backprop, FeedbackAlignment

GENERATOR = torch.Generator().manual_seed(0)
X = torch.randn(240, 5, generator=GENERATOR)
WEIGHTS = torch.randn(5, 2, generator=GENERATOR)


def parts(x, y):
    return Dataset("mine", "mine", x[:160], y[:160], x[160:200], y[160:200], x[200:], y[200:])


REGRESSION = parts(X, torch.tanh(X @ WEIGHTS))
AUTOENCODING = parts(X @ WEIGHTS @ WEIGHTS.T / 5, X @ WEIGHTS @ WEIGHTS.T / 5)  # two numbers say it all


def trained(data=REGRESSION, rule_class=Backprop, units=12, **settings):
    net = cu.MLP([5, units, data.y_train.shape[1]], activation="tanh", loss="squared_error")
    rule = rule_class(net)
    return rule, cu.train(rule, data, **{"epochs": 8, "batch_size": 16, "lr": 0.05, "progress": False, **settings})


@pytest.mark.parametrize("rule_class", [Backprop, FeedbackAlignment])
def test_a_regression_is_learned_and_its_rows_show_the_loss(rule_class):
    rule, history = trained(rule_class=rule_class, probe_every=64)
    frame = history.frame
    assert history.status == "done" and frame.val_loss.iloc[-1] < 0.2 * frame.val_loss[0]
    assert frame[["train_accuracy", "val_accuracy"]].isna().all(axis=None)
    out = rule.predict(REGRESSION.x_val)
    assert frame.val_loss.iloc[-1] == pytest.approx(((out - REGRESSION.y_val) ** 2).sum(1).mean().item() / 2, rel=1e-6)
    assert history.latest == f"val loss {frame.val_loss.iloc[-1]:.4g}"


def test_two_hidden_units_are_enough_to_say_it_again():
    rule, history = trained(AUTOENCODING, units=2, epochs=30, input_noise=0.05)
    assert history.frame.val_loss.iloc[-1] < 0.1 * history.frame.val_loss[0]
    assert cu.evaluate(rule, AUTOENCODING.x_test, AUTOENCODING.x_test) < 0.1 * history.frame.val_loss[0]


def test_evaluate_gives_the_mean_loss_whatever_the_batch():
    rule, _ = trained(epochs=1)
    x, y = REGRESSION.x_test, REGRESSION.y_test
    assert cu.evaluate(rule, x, y) == pytest.approx(rule.net.loss(rule.predict(x), y).item(), rel=1e-6)
    assert cu.evaluate(rule, x, y, batch_size=7) == pytest.approx(cu.evaluate(rule, x, y), rel=1e-6)


def test_the_progress_bar_shows_the_loss(capsys):
    trained(progress=True, epochs=1)
    assert "val loss 0." in capsys.readouterr().err


def test_values_of_another_width_and_labels_that_are_none_are_refused():
    with pytest.raises(ValueError, match=r"y has shape \(160, 5\); target values must have shape \(160, 2\)"):
        cu.train(trained(epochs=1)[0], AUTOENCODING, progress=False)
    with pytest.raises(ValueError, match="rows that do not sum to 1, as cross entropy asks"):
        cu.train(Backprop(cu.MLP([5, 2])), REGRESSION, progress=False)


def test_curves_show_the_loss_of_values_and_the_accuracy_of_labels():
    ax = Figure().subplots()
    _, history = trained()
    plots.curves(ax, {"Backprop": history})
    assert ax.get_ylabel() == "validation loss" and list(ax.lines[0].get_ydata()) == list(history.frame.val_loss)
    goodness = history.frame.assign(val_accuracy=[math.nan] + [0.5] * (len(history.frame) - 1), val_loss=math.nan)
    plots.curves(ax, {"Backprop": goodness})
    assert ax.get_ylabel() == "validation accuracy (%)" and ax.lines[1].get_ydata()[-1] == 50


def test_the_playground_trains_values_and_shows_their_loss():
    lab = cu.playground(FeedbackAlignment, data=REGRESSION, activation="tanh")
    assert lab.sizes == [5, 128, 2] and lab.network["loss"] == "squared_error"
    history = lab.run_steps(20)
    loss = history.frame.val_loss.iloc[-1]
    assert f"validation loss {loss:.4g}" in lab.status.value
    left = lab.figure.axes[0]
    assert left.get_ylabel() == "validation loss" and left.get_ylim()[1] < 50
    exec(lab.run_code, names := {"cu": cu, "data": REGRESSION})
    pairs = zip(lab.rule.parameters(), names["rule"].parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


def test_a_stored_run_of_values_has_losses_in_place_of_accuracies():
    rule, _ = trained(epochs=1)
    frame = runs.run_rule(rule, "Backprop", REGRESSION, 0.05, 0, test=True, epochs=1, batch_size=16)
    assert list(frame)[-2:] == ["val_loss", "test_loss"] and isinstance(frame, pd.DataFrame)
    assert frame[["val_accuracy", "test_accuracy"]].isna().all(axis=None)
    assert frame.test_loss.iloc[-1] == cu.evaluate(rule, REGRESSION.x_test, REGRESSION.y_test)
