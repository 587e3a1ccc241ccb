"""The playground without a browser: sliders, buttons, the recorded code, refusals."""

import pytest
from helpers.small_playground import PNG, Knobby, Live, assert_repeated

import course_utils as cu
from course_utils.playground import Playground


def ends(slider):
    """The lowest and the highest value of a slider of any kind."""
    if hasattr(slider, "options"):
        return slider.options[0], slider.options[-1]
    if hasattr(slider, "base"):
        return slider.base**slider.min, slider.base**slider.max
    return slider.min, slider.max


def test_package_offers_the_class_and_not_the_module(lab):
    assert cu.playground is Playground and isinstance(lab, Playground)


def test_defaults(lab):
    values = {name: slider.value for name, slider in lab.sliders.items()}
    assert values == pytest.approx(
        {"lr": 0.1, "input_noise": 0, "activity_noise": 0, "hidden_units": 16}
        | {"gain": 1, "leak": 0.1, "repeats": 2, "units": 8}
    )
    assert bytes(lab.image.value).startswith(PNG) and "validation accuracy" in lab.status.value
    assert lab.stop.disabled and not lab.train.disabled
    assert "Press Train first" in lab.run_code


def test_network_without_hidden_layer_has_no_width(data):
    lab = cu.playground(cu.rules.Backprop, data=data, sizes=[20, 4])
    assert "hidden_units" not in lab.sliders
    lab.run_steps(3)
    assert_repeated(lab, data)


def test_trains_and_says_so(lab):
    before = lab.image.value
    history = lab.run_steps(8)
    assert history.steps == 8 and history.frame.val_accuracy.iloc[-1] > 0.8
    assert bytes(lab.image.value).startswith(PNG) and lab.image.value != before
    assert "angle of layer 1: 0°" in lab.status.value
    assert not lab.stop.disabled and not lab.train.disabled  # nobody drives the run: it may be left


@pytest.mark.parametrize("end", [0, 1])
@pytest.mark.parametrize("name", "lr input_noise activity_noise hidden_units gain leak repeats units".split())
def test_every_slider_at_both_ends(lab, data, name, end):
    lab.sliders[name].value = ends(lab.sliders[name])[end]
    lab.run_steps(6)
    assert lab.message.value == ""
    assert_repeated(lab, data)


def test_live_sliders_act_and_the_code_repeats_the_run_bit_for_bit(lab, data):
    lab.run_steps(5)
    lab.sliders["lr"].value = 0.3
    lab.sliders["lr"].value = 0.02  # at the same sample: only this one counts
    lab.run_steps(2)
    lab.sliders["activity_noise"].value = 0.5
    lab.sliders["input_noise"].value = 0.25
    lab.sliders["gain"].value = 3.0  # for the next run
    history = lab.run_steps(1)
    # 400 images make batches of 128, 128, 128 and 16.
    assert history.settings.lr.steps == [(0, 0.1), (528, 0.02)]
    assert history.settings.activity_noise.steps == [(0, 0.0), (784, 0.5)]
    assert "lr=[(0, 0.1), (528, 0.02)]" in lab.run_code and "gain=1.0" in lab.run_code
    assert_repeated(lab, data)
    lab.stop.click()
    assert_repeated(lab, data)
    assert history.status == "stopped" and "stopped after 800 samples" in lab.status.value
    lab.sliders["lr"].value = 1.0  # too late for this run
    assert history.settings.lr.steps == [(0, 0.1), (528, 0.02)]


def test_a_live_knob_acts_at_once_and_the_code_repeats_the_move(data):
    lab = cu.playground(Live, data=data)
    columns = lab.children[0].children
    assert lab.sliders["gain"] in columns[0].children and lab.sliders["leak"] in columns[1].children
    lab.run_steps(5)
    assert lab.rule.gain == 1.0 and "knobs={'gain': 1.0}" in lab.run_code
    lab.sliders["gain"].value = 3.0
    lab.run_steps(2)
    assert lab.rule.gain == 3.0 and "knobs={'gain': [(0, 1.0), (528, 3.0)]}" in lab.run_code
    assert_repeated(lab, data)


def test_training_arguments_reach_the_run_and_its_code(data):
    lab = cu.playground(cu.rules.Backprop, data=data, training={"optimizer": "adam", "batch_size": 50})
    assert lab.run_steps(4).samples == 200
    assert "optimizer='adam'" in lab.run_code and "batch_size=50" in lab.run_code
    assert_repeated(lab, data)


@pytest.mark.parametrize("training", [{"lr": 0.1}, {"knobs": {"gain": 2.0}}])
def test_what_the_sliders_set_is_refused_among_the_training_arguments(data, training):
    with pytest.raises(ValueError, match=f"training holds {next(iter(training))}, which the sliders set"):
        cu.playground(Live, data=data, training=training)


def test_code_repeats_a_finished_run_of_a_course_rule(data):
    lab = cu.playground(cu.rules.FeedbackAlignment, data=data, epochs=1.5, seed=3, activation="tanh")
    assert lab.run_steps(100).status == "done"
    assert "cu.rules.FeedbackAlignment(net, seed=3" in lab.run_code and "epochs=1.5" in lab.run_code
    assert_repeated(lab, data)


def test_show_code_button(lab):
    lab.run_steps(2)
    lab.show_code.click()
    assert "Knobby(net, seed=0, gain=1.0" in lab.code.value
    lab.train.click()
    assert lab.code.value == ""  # it would speak of another run


def test_reset(lab):
    lab.run_steps(3)
    lab.sliders["lr"].value = lab.sliders["gain"].value = 7.0
    lab.stop.click()
    lab.run_steps(3)
    lab.show_code.click()
    lab.reset.click()
    assert lab.sliders["lr"].value == 0.1 and lab.sliders["gain"].value == 1.0
    assert lab.history.steps == 0 and len(lab.figure.axes[0].lines) == 1 and lab.code.value == ""
    assert not lab.train.disabled and lab.stop.disabled


@pytest.mark.parametrize(
    "arguments, words",
    [
        (dict(rule_class=cu.rules.Backprop(cu.MLP([20, 4]))), "derived from cu.Rule"),
        (dict(rule_class=int), "derived from cu.Rule"),
        (dict(rule_class=Knobby, sizes=[20]), "sizes"),
        (dict(rule_class=Knobby, activation="swish"), "activation"),
        (dict(rule_class=Knobby, epochs=0), "epochs"),
    ],
)
def test_bad_arguments_are_refused_by_name(data, arguments, words):
    with pytest.raises(ValueError, match=words):
        cu.playground(data=data, **arguments)


def test_sliders_are_described_and_not_continuous(lab):
    for slider in lab.sliders.values():
        assert slider.description and not slider.continuous_update


def test_a_picture_under_a_slider_is_drawn_anew_after_each_move_and_says_what_goes_wrong():
    seen = []

    def draw(ax, value):
        seen.append(value)
        ax.plot([0, 1 / value])

    slider, picture, message = cu.under_slider(draw, [0, 1, 2], 2, "a value").children
    before = bytes(picture.value)
    slider.value = 1
    assert seen == [2, 1] and before.startswith(PNG) and picture.value != before and message.value == ""
    with pytest.raises(ZeroDivisionError):
        slider.value = 0
    assert "ZeroDivisionError" in message.value
    slider.value = 2
    assert message.value == "" and bytes(picture.value) == before


def test_view_draws_a_third_panel_anew_with_the_figure_and_says_what_goes_wrong(data):
    seen = []

    def view(ax, rule):
        seen.append((rule, rule.net.weights[0].detach().clone()))
        if rule.net.weights[0].isfinite().all() and len(seen) > 3:
            raise RuntimeError("no such panel")
        ax.plot(rule.net.weights[0].detach()[0])

    lab = Playground(Knobby, data, view=view)
    first = bytes(lab.panel.value)
    lab.run_steps(3)
    now = bytes(lab.panel.value)
    assert now.startswith(PNG) and now != first and lab.panel in lab.children
    assert seen[-1][0] is lab.rule and not seen[-1][1].equal(seen[0][1])
    with pytest.raises(RuntimeError):
        while True:
            lab.run_steps(30)
    assert "no such panel" in lab.message.value
    assert Playground(Knobby, data).panel.value == ""
