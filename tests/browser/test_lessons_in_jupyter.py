"""Every lesson's widgets in a real JupyterLab, driven by a headless Chromium, as a learner would; some lessons whole.

nbval runs every cell of every lesson; here is looked at what only a page shows.
"""

import os

import pytest
from browser.hands import STOP_LIMIT, play, press, samples, slow_down, status, to_the_ends, wait_until, work_the_rest
from browser.pages import ERRORS, ROOT, look_over, open_and_run, post
from browser.parts import widgets_only

pytestmark = pytest.mark.browser

NUMBERS = tuple(os.environ.get("N", "").split()) or ""
PATHS = [path for path in sorted((ROOT / "notebooks").glob("*.ipynb")) if path.stem.startswith(NUMBERS)]
NOTEBOOKS = {path.stem: path.read_text() for path in PATHS}
assert NOTEBOOKS, f"no lesson is called {NUMBERS}"
# Run from top to bottom, in a kernel of its own: the first lesson, one of a rule, one with pictures under a slider,
# which need nearly all of it anyhow; all, where pictures of whole pages are asked for.
WHOLE = [name for name in NOTEBOOKS if name.startswith(("00", "06", "29")) or os.environ.get("PAGES")]
# The longest first, so that all workers end together.
LESSONS = [*reversed(WHOLE), *(name for name in NOTEBOOKS if name not in WHOLE)]


@pytest.mark.parametrize("name", LESSONS)
def test_jupyterlab(page, server, kernel, root, name):
    """Run, work every widget; the first playground is also played with."""
    text, path = NOTEBOOKS[name], f"notebooks/{name}.ipynb"
    (root / path).write_text(text if name in WHOLE else widgets_only(text))
    if name not in WHOLE:
        post(server, "sessions", path=path, name=name, type="notebook", kernel={"id": kernel})
    open_and_run(page, f"{server}/doc/tree/notebooks/{name}.ipynb?reset")
    look_over(page, name)
    labs = page.locator(".cu-playground")
    assert bool(labs.count()) == ("cu.playground(" in text)
    for i in range(labs.count()):
        labs.nth(i).scroll_into_view_if_needed()
        if i == 0:
            play(page, labs.nth(i), f"{name}-{i}")
        to_the_ends(page, labs.nth(i), f"{name}-{i}")
    work_the_rest(page, name)
    assert page.evaluate(ERRORS) == []


@pytest.mark.parametrize("name", [name for name in NOTEBOOKS if name.startswith("00")])
def test_notebook_7(page, server, root, name):
    (root / "notebooks" / f"{name}_7.ipynb").write_text(NOTEBOOKS[name])
    open_and_run(page, f"{server}/notebooks/notebooks/{name}_7.ipynb")
    look_over(page, f"{name}-notebook-7")
    lab = page.locator(".cu-playground").first
    lab.scroll_into_view_if_needed()
    slow_down(page, lab)
    press(lab, "Train")
    wait_until(lambda: samples(lab) > 0, "samples grow")
    press(lab, "Stop")
    stop = wait_until(lambda: "stopped after" in status(lab), "Stop")
    print(f"\nNotebook 7, {name}: Stop took {stop:.2f} s")
    assert stop < STOP_LIMIT
    assert page.evaluate(ERRORS) == []
