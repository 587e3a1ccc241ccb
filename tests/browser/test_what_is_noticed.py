"""What no page shows by itself is noticed all the same: without this, a test of a lesson could pass on a broken one."""

import urllib.error
import urllib.request

import nbformat
import pytest
from browser.hands import press, wait_until
from browser.pages import CUT_OFF, ERRORS, LEAVE, NARROW, TIDY, UNSIGHTLY, open_and_run, post

pytestmark = pytest.mark.browser

KERNEL = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}  # else the page asks
CALLBACK = """
import ipywidgets
button = ipywidgets.Button(description="Press")
button.on_click(lambda _: 1 / 0)
button
"""
WARNING = """
import warnings
warnings.warn("look at this")
"""
RED = "import sys; print('in passing', file=sys.stderr)"
WIDE = "import ipywidgets; ipywidgets.HTML('too wide', layout={'width': '900px'})"
LEFT = "import ipywidgets; left = ipywidgets.HTML('left')"
NOTHING_LEFT = "from ipywidgets.widgets import widget; assert 'left' not in globals() and not widget._instances"


@pytest.fixture
def opened(page, server, root, request):
    """A page with a notebook of the given cells, run; in a kernel of its own, or in that of this id."""

    def run(*cells, prose="", kernel=None):
        cells = [nbformat.v4.new_markdown_cell(prose), *map(nbformat.v4.new_code_cell, cells)]
        notebook = nbformat.v4.new_notebook(cells=cells, metadata=KERNEL)
        path = f"notebooks/{request.node.name}.ipynb"
        nbformat.write(notebook, root / path)
        if kernel:
            post(server, "sessions", path=path, name=path, type="notebook", kernel={"id": kernel})
        open_and_run(page, f"{server}/doc/tree/{path}?reset")
        return page

    return run


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("place", ["kernels", "contents", "terminals", "sessions"])
def test_the_server_does_nothing_for_those_without_its_token(server, place, method):
    with pytest.raises(urllib.error.HTTPError, match="403"):
        urllib.request.urlopen(urllib.request.Request(f"{server}/api/{place}", method=method), timeout=30)


def test_an_error_in_the_callback_of_a_widget(opened):
    page = opened(CALLBACK.strip())
    assert page.evaluate(ERRORS) == []
    press(page, "Press")
    wait_until(lambda: "ZeroDivisionError" in "".join(page.evaluate(ERRORS)), "the error arrives")


def test_what_a_cell_prints_in_red_and_a_cell_that_did_not_run(opened):
    page = opened(RED, WARNING.strip(), "1 / 0", "1 + 1")
    found = page.evaluate(ERRORS)
    for what in ("in red: in passing", "look at this", "ZeroDivisionError: ", "not run: 1 + 1"):
        assert [text for text in found if what in text], f"{what!r} is not in {found}"


def test_a_widget_too_wide_for_a_narrow_page(opened):
    page = opened(WIDE)
    assert page.evaluate(CUT_OFF) == []
    page.set_viewport_size(NARROW)
    wait_until(lambda: page.evaluate(CUT_OFF), "it is cut off")


def test_prose_that_is_not_rendered(opened):
    assert opened(prose="**bold** and $x^2$").evaluate(UNSIGHTLY) == []
    (found,) = opened(prose="half a **bold").evaluate(UNSIGHTLY)
    assert "half a" in found


def test_nothing_of_a_lesson_is_left_in_the_kernel_that_the_next_one_shares(opened, kernel):
    opened(LEFT, kernel=kernel)
    page = opened(LEFT, NOTHING_LEFT, kernel=kernel)
    assert any("AssertionError" in text for text in page.evaluate(ERRORS))
    page.evaluate(LEAVE, [kernel, TIDY])
    assert opened(NOTHING_LEFT, kernel=kernel).evaluate(ERRORS) == []
