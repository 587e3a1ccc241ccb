"""Knobs: declared once in the class, checked wherever they are set."""

import numpy as np
import pytest
from helpers import AutogradRule, Knobby, small_net

from course_utils.rule import Knob, at_least


def test_a_knob_has_its_default_or_what_the_constructor_is_told():
    plain, told = Knobby(small_net()), Knobby(small_net(), gain=np.float32(0.5), tries=np.int64(3), mode="fast")
    assert (plain.gain, plain.tries, plain.mode, plain.share) == (1.0, 2, "slow", 0.5)
    assert (told.gain, told.tries, told.mode) == (0.5, 3, "fast") and type(told.tries) is int
    plain.gain = 3
    assert plain.gain == 3 and told.gain == 0.5 and Knobby.gain.default == 1.0
    assert list(Knobby.knobs) == ["gain", "tries", "mode", "share"] and Knobby.live_knobs == ("gain", "share")


@pytest.mark.parametrize(
    "name, bad, words",
    [
        ("gain", 0, "gain is 0; it must be a number above 0"),
        ("gain", "much", "gain is 'much'; it must be a number above 0"),
        ("gain", True, "gain is True"),
        ("tries", 2.5, "tries is 2.5; it must be a whole number, 1 or larger"),
        ("tries", 0, "tries is 0"),
        ("mode", "quick", "mode is 'quick'; it must be one of: 'slow', 'fast'"),
        ("share", 1.01, "share is 1.01; it must be a number from 0 to 1"),
    ],
)
def test_a_knob_refuses_what_is_not_allowed_by_name(name, bad, words):
    with pytest.raises(ValueError, match=words):
        Knobby(small_net(), **{name: bad})
    rule = Knobby(small_net())
    with pytest.raises(ValueError, match=words):
        setattr(rule, name, bad)
    assert getattr(rule, name) == Knobby.knobs[name].default


def test_a_subclass_may_add_change_and_drop_knobs_and_keep_an_ordinary_init():
    class Less(Knobby):
        mode = "fast"
        gain = Knob(2.0, at_least(0))
        extra = Knob(0.0, at_least(0))

        def __init__(self, net, seed=0, **knobs):
            super().__init__(net, seed, **knobs)
            self.register_buffer("trace", self.extra * net.weights[0].detach())

    rule = Less(small_net(), extra=2.0)
    assert set(Less.knobs) == {"tries", "share", "gain", "extra"} and Less.live_knobs == ("share",)
    assert rule.mode == "fast" and rule.gain == 2.0 and "trace" in rule.state_dict()
    with pytest.raises(TypeError, match="Less has no knob mode; its knobs are: "):
        Less(small_net(), mode="slow")


@pytest.mark.parametrize("slider", [(2.0, 3.0, "log"), (0.0, 2.0, "log"), (1.0, 1.0, "linear"), (0.0, 2.0, "cubic")])
def test_a_slider_without_room_for_the_default_is_refused(slider):
    with pytest.raises(ValueError, match="slider is"):
        Knob(1.0, at_least(0), slider=slider)


def test_a_default_that_is_not_allowed_is_refused():
    with pytest.raises(ValueError, match="knob is -1"):
        Knob(-1, at_least(0))


def test_knobs_as_a_dictionary_of_ranges_are_refused_with_the_way_to_write_them():
    with pytest.raises(ValueError, match="declare each in the class"):
        type("Old", (AutogradRule,), {"knobs": {"gain": (0.0, 1.0, "linear")}})
