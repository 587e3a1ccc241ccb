"""Figures: drawn on a plain Figure, without pyplot, and the same bytes each time."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from helpers import clusters, small_net
from matplotlib.figure import Figure

import course_utils as cu
from course_utils import plots, rule

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def history():
    learner = cu.rules.FeedbackAlignment(small_net((12, 9, 4), dtype=torch.float32))
    return cu.train(learner, clusters(), epochs=2, lr=0.1, batch_size=16, probe_every=64, progress=False)


@pytest.fixture
def ax():
    return Figure().subplots()


def labels(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()]


def test_style_is_stable_and_told_apart_without_colour():
    names = [each.title for each in cu.rules.ALL.values()] + ["Frozen hidden", "A rule of your own"]
    assert [plots.style(n) for n in names] == [plots.style(n) for n in names]
    assert plots.style("Feedback alignment") == {"color": plots.BLUE, "linestyle": "--"}
    assert plots.style("Backprop, hidden layers frozen") == plots.style("Frozen hidden")
    assert plots.style("Direct feedback alignment") == {"color": plots.GREEN, "linestyle": (0, (5, 1))}
    known = [plots.style(n) for n in ("Backprop", "Feedback alignment", "Frozen hidden")]
    assert len({s["color"] for s in known}) == len({s["linestyle"] for s in known}) == 3


def test_a_rule_looks_as_it_declares_and_a_table_cannot_overrule_it(monkeypatch):
    looks = {"Mine": ("sky", "long dashes"), "PEPITA": ("#123456", ":"), "Half frozen": ("red", "-")}
    for title, look in looks.items():
        monkeypatch.setitem(rule.LOOKS, title, look)
    assert plots.style("Mine") == {"color": plots.SKY, "linestyle": (0, (5, 1))}
    assert plots.style("PEPITA") == {"color": "#123456", "linestyle": ":"}
    assert plots.style("Half frozen")["color"] == plots.RED != plots.style("Mine, hidden layers frozen")["color"]


MOVED_TWICE = cu.Schedule([(0, 0.5), (100, 0.2), (200, 0.0)])


@pytest.mark.parametrize(
    ("setting", "words"),
    [(0.03, "lr 0.03"), ([(0, 0.1)], "lr 0.1"), ([(0, 1), (9, 2)], "lr 1 → 2"), (MOVED_TWICE, "lr 0.5 → … → 0")],
)
def test_a_legend_says_a_setting_in_words_however_it_is_held(setting, words):
    assert plots._settings_in_words({"lr": setting, "decay": 1}, ["lr"]) == words


def test_curves_draw_what_the_frame_holds(ax, history):
    assert plots.curves(ax, {"Backprop": history, "Feedback alignment": history.frame}) is None
    assert len(ax.lines) == 2
    assert np.allclose(ax.lines[0].get_ydata(), 100 * history.frame.val_accuracy)
    assert list(ax.lines[0].get_xdata()) == list(history.frame.samples)
    assert ax.get_xlabel() == "training images seen" and ax.get_ylabel() == "validation accuracy (%)"
    assert labels(ax) == ["Backprop", "Feedback alignment"]
    assert ax.get_facecolor() == ax.figure.get_facecolor() == (1, 1, 1, 1)


def test_angles_are_drawn_with_the_chance_band(ax, history):
    plots.angles(ax, history, small_net((12, 9, 4)))
    assert [line.get_label() for line in ax.lines] == ["layer 1", "layer 2"]
    assert list(ax.lines[0].get_ydata()) == list(history.frame.angle_1.dropna())
    hidden = 9 * (12 + 1)  # the hidden layer's band, not the readout's wider one
    assert any(f"chance ({hidden} weights)" in text for text in labels(ax)) and "°" in ax.get_ylabel()


def test_the_playgrounds_picture_has_room_for_the_angles_of_three_layers():
    learner = cu.rules.FeedbackAlignment(cu.MLP([784, 512, 512, 10], device="cpu"))
    figure, frame = Figure(figsize=(9, 4.2), dpi=100), pd.DataFrame({"samples": [0], "val_accuracy": [0.1]})
    plots.runs(figure, learner, [(None, {"lr": 0.1}, frame)], samples=10)
    legend = figure.axes[1].get_legend()
    figure.canvas.draw()
    assert len(legend.get_texts()) == 4 and legend.get_window_extent().x1 < figure.bbox.x1


def test_chance_band_is_where_it_should_be(ax):
    plots.draw_chance_band(ax, 400)
    low, high = cu.metrics.chance_band(400)
    box = ax.patches[0].get_extents().transformed(ax.transData.inverted())
    assert (box.y0, box.y1) == pytest.approx((low, high))


def test_stored_band_is_the_range_over_seeds(ax):
    frame = pd.DataFrame(
        {
            "samples": [10, 20] * 3,
            "val_accuracy": [0.5, 0.8, 0.6, 0.9, 0.55, 0.7],
            "seed": [0, 0, 1, 1, 2, 2],
            "device": "2 CPU threads",
            "measured": "2026-01-01",
        }
    )
    plots.stored_band(ax, frame, "Backprop")
    assert np.allclose(ax.lines[0].get_ydata(), [55, 80])
    heights = ax.collections[0].get_paths()[0].vertices[:, 1]
    assert (heights.min(), heights.max()) == pytest.approx((50, 90))
    assert ax.get_legend_handles_labels()[1][0] == "Backprop: 3 stored seeds"


@pytest.mark.parametrize("rows", [torch.rand(3, 784), -torch.rand(3, 784), np.zeros((2, 784))])
def test_images_show_every_row(ax, rows):
    plots.images(ax, rows, titles=[str(i) for i in range(len(rows))])
    assert ax.images[0].get_array().shape == (28, 30 * len(rows))
    assert [t.get_text() for t in ax.get_xticklabels()] == [str(i) for i in range(len(rows))]


def test_a_fresh_process_has_the_same_styles_and_no_pyplot():
    command = (
        "import sys; from course_utils.plots import style; print(style('A rule of your own'));"
        "sys.exit('matplotlib.pyplot' in sys.modules)"
    )
    fresh = subprocess.run([sys.executable, "-c", command], capture_output=True, text=True, cwd=ROOT)
    assert fresh.returncode == 0, "pyplot was imported" + fresh.stderr
    assert fresh.stdout.strip() == str(plots.style("A rule of your own"))
