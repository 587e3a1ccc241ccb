"""Circuits name what they show, galleries train what they say."""

import numpy as np
import pytest
from helpers import clusters
from matplotlib.figure import Figure

import course_utils as cu
from tools import circuits, gallery


@pytest.fixture
def ax():
    return Figure().subplots()


def labels(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()]


def test_circuit_names_every_part(ax):
    circuits.circuit(ax, ["x", "h", "ŷ"], ["W₁", "W₂"], [None, "B₂"], title="Feedback alignment")
    shown = {text.get_text() for text in ax.texts}
    assert shown == {"x", "h", "ŷ", "e", "W₁", "W₂", "B₂"} and ax.get_title() == "Feedback alignment"
    assert len(ax.patches) == 4 + 1 + 3  # nodes, from ŷ to e, forward twice and back once
    with pytest.raises(ValueError):
        circuits.circuit(ax, ["x", "h", "ŷ"], ["W₁", "W₂"], ["B₂"])


def test_a_circuit_leaves_out_what_has_no_name(ax):
    circuits.circuit(ax, ["", "ξ", "y"], ["", "W₂"], [None, None], error="")
    assert [text.get_text() for text in ax.texts] == ["ξ", "y", "W₂"] and len(ax.patches) == 3


def test_a_gallery_trains_and_draws_each_setting_as_it_is_given():
    moves = {"decay": [(0, 0.1), (80, 0.01)]}
    runs = {"small": {"decay": 0.0}, "fast": {"decay": 0.0, "lr": 0.5}, "moving": moves}
    more = {"training": {"lr": 0.1, "batch_size": 16}, "activation": "tanh"}
    frames = gallery.trained(cu.rules.KolenPollack, clusters(), runs, [12, 9, 4], **more)
    rule = cu.rules.KolenPollack(cu.MLP([12, 9, 4], activation="tanh"))
    settings = {"epochs": 1, "lr": 0.1, "batch_size": 16, "schedule": "constant", "eval_every": 10, "probe_every": 2}
    expected = cu.train(rule, clusters(), **settings, knobs=moves, progress=False).frame
    assert (
        frames["moving"]
        .drop(columns=["seconds", "probe_seconds"])
        .equals(expected.drop(columns=["seconds", "probe_seconds"]))
    )
    assert not np.allclose(frames["small"].val_loss.iloc[1:], frames["fast"].val_loss.iloc[1:])
    figure = gallery.gallery(cu.rules.KolenPollack, clusters(), runs, [12, 9, 4], **more)
    left, right = figure.axes
    assert labels(left) == [*runs] and labels(right) == [*runs, "chance (117 weights)"]
    assert np.allclose(left.lines[2].get_ydata(), 100 * expected.val_accuracy)
    assert np.allclose(right.lines[2].get_ydata(), expected.angle_1)
    alone = gallery.gallery(cu.rules.KolenPollack, clusters(), {"": {}}, [12, 9, 4], angles=None)
    assert len(alone.axes) == 1
