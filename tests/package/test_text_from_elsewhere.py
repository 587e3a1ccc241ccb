"""Titles and errors of anybody's rule show as the letters that they are: no maths, no HTML, no script."""

import html
import re

import ipywidgets as widgets
import pytest
from helpers import clusters, small_net
from helpers.small_playground import Knobby, make_data
from matplotlib.figure import Figure

import course_utils as cu
from course_utils import plots

TITLES = [
    "$x_$", r"$\frac{1}$", r"$\frac{1}{2}$", "50 $ or 100 $", "a$b", r"a\$b", "_hidden", "__", "{x} %s",
    "<script>alert(1)</script>", '<img src="x" onerror="alert(1)">', "</pre><b>bold</b>", "&lt;b&gt;",
]  # fmt: skip


def shown(text):
    """The letters that Matplotlib draws for a text, and whether it reads them as maths."""
    letters, maths = text._preprocess_math(text.get_text())
    return letters.strip(), bool(maths)


@pytest.mark.parametrize("title", TITLES)
def test_a_title_in_a_figure_is_its_letters(title, tmp_path):
    history = cu.train(cu.rules.Backprop(small_net((12, 9, 4)).float()), clusters(), epochs=1, progress=False)
    stored = history.frame.assign(seed=0, device="cpu", measured="today")
    ax = Figure().subplots()
    plots.curves(ax, {title: history})
    plots.stored_band(ax, stored, title)
    plots.dress(ax)
    legend = [shown(text) for text in ax.get_legend().get_texts()]
    assert legend == [(title, False), (f"{title}: 1 stored seeds", False)]
    ax.figure.savefig(tmp_path / "figure.png")  # where Matplotlib's own error would come from


def rule_of(title, fails=False):
    class Hostile(Knobby):
        def step(self, x, y, optimizer):
            if fails:
                raise RuntimeError(self.title)
            return super().step(x, y, optimizer)

    Hostile.title = title
    return Hostile


def parts(widget):
    """A widget and all in it."""
    yield widget
    for child in getattr(widget, "children", ()):
        yield from parts(child)


def tags_in(lab):
    """The tags of all HTML in a playground."""
    pages = [part.value for part in parts(lab) if isinstance(part, widgets.HTML)]
    return set(re.findall(r"<[^>]*>?", " ".join(pages)))


OURS = {
    "<b>",
    "</b>",
    '<pre style="white-space: pre-wrap">',
    "</pre>",
    f'<pre style="border-left: 4px solid {plots.RED}">',
}


@pytest.mark.parametrize("title", TITLES)
def test_a_title_in_the_playground_is_its_letters(title):
    lab = cu.playground(rule_of(title), data=make_data(), sizes=[20, 16, 4])
    lab.run_steps(3)
    assert shown(lab.figure.axes[0]._left_title) == (title, False)
    lab.show_code.click()
    assert tags_in(lab) <= OURS and lab.message.value == ""
    assert not [part for part in parts(lab) if getattr(part, "description_allow_html", False)]


@pytest.mark.parametrize("title", TITLES)
def test_words_of_an_error_in_the_playground_are_their_letters(title):
    lab = cu.playground(rule_of(title, fails=True), data=make_data(), sizes=[20, 16, 4])
    with pytest.raises(RuntimeError):
        lab.run_steps(3)
    assert html.escape(title) in lab.message.value and tags_in(lab) <= OURS


@pytest.mark.parametrize(
    ("what", "value"), [("title", None), ("title", 7), ("lr", 0), ("lr", None), ("lr", "0.1"), ("lr", -1)]
)
def test_a_title_that_is_no_text_and_a_rate_that_is_none_are_refused_when_the_class_is_made(what, value):
    with pytest.raises(ValueError, match=f"Odd.{what} is {value!r}; it must be a"):
        type("Odd", (cu.rules.Backprop,), {what: value})
