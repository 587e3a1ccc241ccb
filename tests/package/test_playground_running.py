"""The playground at work: errors, threads, how fast Stop is, and what the figure says."""

import asyncio
import time

import pytest
from helpers.small_playground import PNG, Knobby, assert_repeated

import course_utils as cu


class Broken(cu.rules.Backprop):
    """Works for three steps."""

    title = "Broken"
    calls = 0

    def backward(self, x, y):
        Broken.calls += 1
        if Broken.calls % 4 == 0:
            raise ZeroDivisionError("the rule's own <mistake>")
        return super().backward(x, y)


def test_earlier_runs_stay_as_pale_lines_with_what_differs(lab):
    for rate in (0.1, 0.2, 0.3, 0.4, 0.5, 0.6):
        lab.stop.click()
        lab.sliders["lr"].value = rate
        lab.run_steps(5)
    left, right = lab.figure.axes
    labels = [text.get_text() for text in left.get_legend().get_texts()]
    assert labels == ["this run: lr 0.6", "lr 0.5", "lr 0.4", "lr 0.3", "lr 0.2"]
    assert [line.get_alpha() for line in left.lines] == [None, 0.5, 0.5, 0.5, 0.5]
    assert len(right.lines) == 2 * 5  # two layers


def test_axis_only_grows(data):
    lab = cu.playground(Knobby, data=data, epochs=10)
    shown = []
    for n in (1, 20, 18):
        lab.run_steps(n)
        shown.append(lab.figure.axes[0].get_xlim()[1])
    lab.stop.click()
    lab.run_steps(1)
    assert shown[0] < shown[2] == lab.figure.axes[0].get_xlim()[1]


def test_divergence_is_words_in_the_figure(data):
    lab = cu.playground(Knobby, data=data, sizes=[20, 16, 4], loss="squared_error", epochs=50)
    lab.sliders["lr"].value = 10.0
    assert lab.run_steps(100).status == "diverged" and lab.message.value == ""
    assert "diverged after" in lab.figure.axes[0].texts[0].get_text()
    assert "diverged after" in lab.status.value and not lab.train.disabled


def test_error_in_the_rule_is_shown_and_raised(data):
    lab = cu.playground(Broken, data=data)
    with pytest.raises(ZeroDivisionError):
        lab.run_steps(10)
    assert "own &lt;mistake&gt;" in lab.message.value and "test_playground" in lab.message.value

    async def press():
        lab.train.click()
        await lab.task

    with pytest.raises(ZeroDivisionError):
        asyncio.run(press())
    assert "own &lt;mistake&gt;" in lab.message.value and not lab.train.disabled
    lab.reset.click()
    assert lab.message.value == ""


def test_error_nobody_waits_for_reaches_the_loop(data):
    lab = cu.playground(Broken, data=data)
    reported = []

    async def press():
        asyncio.get_running_loop().set_exception_handler(lambda loop, its: reported.append(its["exception"]))
        lab.train.click()
        while not reported:
            await asyncio.sleep(0.01)

    asyncio.run(asyncio.wait_for(press(), timeout=60))
    assert [type(error) for error in reported] == [ZeroDivisionError]


def test_error_in_a_callback_is_shown(lab):
    lab.run_steps(2)
    lab.sliders["gain"].value = 5.0
    lab.rule_class = type("Refuses", (Knobby,), {"__init__": lambda self, net, **_: 1 / 0})
    lab.train.click()  # in a notebook ipywidgets shows what was raised, elsewhere it only logs it
    assert "ZeroDivisionError" in lab.message.value


@pytest.mark.clock
def test_asyncio_run_with_live_slider_and_stop(data):
    lab = cu.playground(Knobby, data=data, epochs=100_000)

    async def play():
        lab.train.click()
        task = lab.task
        assert lab.history.rows and bytes(lab.image.value).startswith(PNG)  # the first point is there at once
        while lab.history.steps < 20 or not lab.train.disabled or lab.stop.disabled:
            await asyncio.sleep(0.01)
        lab.sliders["lr"].value = 0.01
        moved = lab.history.steps
        while lab.history.steps < moved + 20:
            await asyncio.sleep(0.01)
        # Some kernels run callbacks in another thread.
        await asyncio.to_thread(setattr, lab.sliders["input_noise"], "value", 0.5)
        await asyncio.sleep(0.1)
        begin = time.monotonic()
        await asyncio.to_thread(lab.stop.click)
        await task
        return time.monotonic() - begin

    assert asyncio.run(play()) < 0.5
    assert lab.history.status == "stopped" and lab.task is None
    assert len(lab.history.settings.lr.steps) == 2 and len(lab.history.settings.input_noise.steps) == 2
    assert_repeated(lab, data)


def test_train_again_right_after_stop(data):
    lab = cu.playground(Knobby, data=data, epochs=100_000)

    async def trained():
        while not lab.history.steps:
            await asyncio.sleep(0.01)

    async def play():
        lab.train.click()
        await trained()
        lab.stop.click()
        lab.train.click()  # before the first run's task has seen the stop
        await trained()
        lab.stop.click()
        await lab.task

    asyncio.run(play())
    assert lab.history.status == "stopped" and len(lab.runs) == 2
    assert_repeated(lab, data)
