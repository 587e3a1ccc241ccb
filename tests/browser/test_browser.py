"""Every lesson in a real JupyterLab and in Notebook 7, driven by a headless Chromium, as a learner would."""

import base64
import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest
import yaml

pytestmark = pytest.mark.browser
playwright = pytest.importorskip("playwright.sync_api")

ROOT = Path(__file__).parent.parent
COSTS = {
    path.parts[-3]: yaml.safe_load(path.read_text())["lesson"]["seconds"]
    for path in ROOT.glob("lessons/*/made/cost.yaml")
}
# The longest first, so that two workers end together; one that nobody has measured counts as long.
LESSONS = sorted(
    (path.name for path in (ROOT / "notebooks").glob("*.ipynb")),
    key=lambda name: (-COSTS.get(name.removesuffix(".ipynb"), 90.0), name),
)
SCREENSHOTS = ROOT / "screenshots"
RUN_ALL = 300_000  # ms for all cells of a lesson, on a slow machine that does other things too
SOON = 60_000  # ms for anything else
# Stop is to take half a second at most, which the printed number shows; a busy machine is given more.
STOP_LIMIT = 1.5

# No news pop-up over the corner; every cell rendered, also those out of sight.
SETTINGS = {
    "@jupyterlab/apputils-extension/notification": {"fetchNews": "false", "doNotDisturbMode": True},
    "@jupyterlab/notebook-extension/tracker": {"windowingMode": "none"},
}
# What a page may report without a lesson being at fault.
HARMLESS = (
    "mybinder.org/badge",  # badges come from the network, which a test machine may not have
    "colab.research.google.com/assets",
    "(reading 'schema')",  # Notebook 7 itself, while it loads its settings: with an empty notebook too
    "'filebrowser:open-path' not registered",  # Notebook 7 itself: its notebook page has no file browser
    ".woff)",  # Lab and Notebook 7 share a server, which looks for the one's fonts where it found the other's
)
CHROMIUM_FLAGS = [
    "--no-sandbox",  # continuous integration runs as root
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
KERNEL_IDLE = """async () => {
  const panel = window.jupyterapp.shell.currentWidget;
  const session = panel?.context?.sessionContext;
  if (!session) return false;
  await session.ready;
  return session.session?.kernel?.status === 'idle';
}"""
# An error in the callback of a widget shows nowhere on the page: it is caught on its way.
LISTEN = """() => {
  window.callbackErrors = [];
  const kernel = window.jupyterapp.shell.currentWidget.context.sessionContext.session.kernel;
  kernel.iopubMessage.connect((_, message) => {
    if (message.header.msg_type !== 'error') return;
    window.callbackErrors.push(message.content.traceback.join('\\n').replace(/\\x1b\\[[0-9;]*m/g, ''));
  });
}"""
ERRORS = """() => {
  const found = [...window.callbackErrors];
  for (const cell of window.jupyterapp.shell.currentWidget.content.model.cells) {
    if (cell.type === 'code' && !cell.executionCount) found.push('not run: ' + cell.sharedModel.getSource());
    for (const output of cell.type === 'code' ? cell.outputs.toJSON() : [])
      if (output.output_type === 'error') found.push(output.ename + ': ' + output.evalue);
  }
  return found;
}"""
# How the output around a widget looks, sliders and buttons left out: they change when they are moved.
LOOKS = """widget => {
  const area = widget.closest('.jp-Cell-outputArea').cloneNode(true);
  area.querySelectorAll('.widget-slider, select, button, input').forEach(part => part.remove());
  return area.innerHTML;
}"""
# What a learner would see: pictures that did not load, formulas, folds or tables left as source.
UNSIGHTLY = r"""() => {
  const all = css => [...document.querySelectorAll('.jp-RenderedMarkdown ' + css)];
  const pictures = all('img').filter(img => img.src.startsWith(location.origin) && !img.naturalWidth);
  const folds = all('details').filter(fold => fold.open || fold.textContent === fold.firstChild.textContent);
  const source = /\$|<\/?\w+>|\{\{|^\||\*\*/m;
  const words = part => {  // without formulas that are set: a bar of |W| is not that of a table
    const copy = part.cloneNode(true);
    copy.querySelectorAll('mjx-container').forEach(formula => formula.remove());
    return copy.textContent;
  };
  const raw = all('p, li, td').filter(part => source.test(words(part)));
  return [...pictures, ...folds, ...all('mjx-merror'), ...raw].map(part => part.outerHTML.slice(0, 300));
}"""


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A copy of the notebooks, so that the browser may save what it likes."""
    folder = tmp_path_factory.mktemp("lab")
    (folder / "notebooks").mkdir()
    for name in LESSONS:
        (folder / "notebooks" / name).write_bytes((ROOT / "notebooks" / name).read_bytes())
    if (ROOT / "lessons").is_dir():
        shutil.copytree(ROOT / "lessons", folder / "lessons")  # for their pictures
    return folder


@pytest.fixture(scope="module")
def server(root, tmp_path_factory):
    """The address of a Jupyter server that knows nothing of this user's settings."""
    own = tmp_path_factory.mktemp("jupyter")
    for name, values in SETTINGS.items():
        file = own / "settings" / f"{name}.jupyterlab-settings"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(values))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    folders = {"CONFIG_DIR": "config", "DATA_DIR": "data", "RUNTIME_DIR": "runtime"}
    env = os.environ | {f"JUPYTER_{name}": str(own / folder) for name, folder in folders.items()}
    env |= {"JUPYTERLAB_SETTINGS_DIR": str(own / "settings"), "JUPYTERLAB_WORKSPACES_DIR": str(own / "spaces")}
    env |= {"PYTHONPATH": str(ROOT), "CI": "true", "IPYTHONDIR": str(ROOT / "tests" / "ipython")}
    log = (own / "server.log").open("w+")
    command = [sys.executable, "-m", "jupyter", "lab", "--no-browser", "--allow-root", "--ip=127.0.0.1"]
    command += [f"--port={port}", "--ServerApp.port_retries=0", f"--ServerApp.root_dir={root}"]
    command += ["--IdentityProvider.token=", "--ServerApp.password=", "--LabApp.extension_manager=readonly"]
    command += ["--LabApp.expose_app_in_browser=True", "--JupyterNotebookApp.expose_app_in_browser=True"]
    process = subprocess.Popen(command, env=env, stdout=log, stderr=log, start_new_session=True)
    base = f"http://127.0.0.1:{port}"
    try:
        for _ in range(600):
            try:
                urllib.request.urlopen(f"{base}/api/status", timeout=5)
                break
            except (OSError, urllib.error.URLError):
                time.sleep(0.2)
        else:
            log.seek(0)
            pytest.fail(f"the Jupyter server did not start:\n{log.read()[-3000:]}")
        yield base
    finally:
        os.killpg(process.pid, signal.SIGTERM)  # its kernels are in its group or end with it
        process.wait(60)
        log.close()


@pytest.fixture(scope="module")
def browser(chromium):
    with playwright.sync_playwright() as p:
        browser = p.chromium.launch(executable_path=chromium, args=CHROMIUM_FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def page(browser, request):
    """A fresh page; the test fails when the page reports an error. A screenshot remains of every test."""
    page = browser.new_page(viewport={"width": 1280, "height": 1000})
    page.set_default_timeout(SOON)
    trouble = []

    def note(message):
        if message.type == "error":
            trouble.append(f"console: {message.text} ({message.location['url']})")

    page.on("pageerror", lambda error: trouble.append(f"page error: {error.stack}"))
    page.on("console", lambda message: note(message))
    yield page
    name = request.node.name.replace("[", "-").replace("]", "").replace(".ipynb", "")
    shoot(page, f"{name}-end")
    found = list(trouble)
    # The next page would be given this kernel, with all that is in it.
    page.evaluate("async () => { await window.jupyterapp?.serviceManager.sessions.shutdownAll() }")
    page.close()
    trouble = [text for text in found if not any(known in text for known in HARMLESS)]
    assert not trouble, "\n".join(trouble)


def shoot(page, name):
    SCREENSHOTS.mkdir(exist_ok=True)
    page.screenshot(path=SCREENSHOTS / f"{name}.png")


def shoot_pages(page, name):
    """The whole notebook, a screen at a time, folds open."""
    page.evaluate("document.querySelectorAll('details').forEach(fold => { fold.open = true })")
    view = page.locator(".jp-WindowedPanel-outer:visible").first
    height, step = view.evaluate("view => [view.scrollHeight, view.clientHeight]")
    for i in range(-(-height // step)):
        view.evaluate("(view, top) => { view.scrollTop = top }", i * step)
        shoot(page, f"{name}-page-{i + 1:02}")


def open_and_run(page, address):
    page.goto(address)
    page.wait_for_function("!!window.jupyterapp")
    page.locator(".jp-NotebookPanel:visible, .jp-Notebook:visible").first.wait_for()
    page.wait_for_function(KERNEL_IDLE)
    page.evaluate(LISTEN)
    page.set_default_timeout(RUN_ALL)
    page.evaluate("async () => { await window.jupyterapp.commands.execute('notebook:run-all-cells') }")
    page.set_default_timeout(SOON)
    assert page.evaluate(ERRORS) == []


def status(lab):
    return lab.locator(".cu-status").inner_text()


def samples(lab):
    """How many training images the status line says have been seen."""
    return int(next(word for word in status(lab).split() if word[0].isdigit()).replace(",", ""))


def wait_until(condition, what, seconds=30.0):
    begin = time.monotonic()
    while not condition():
        assert time.monotonic() - begin < seconds, f"not within {seconds} s: {what}"
        time.sleep(0.05)  # to look at a page costs the kernel's time
    return time.monotonic() - begin


def press(lab, text, seconds=SOON / 1000):
    lab.get_by_role("button", name=text, exact=True).click(timeout=1000 * seconds)


def ended(lab):
    """Has the run ended? If not, press Stop; at the ends of the sliders it may diverge and end before the press."""
    if lab.get_by_role("button", name="Train", exact=True).is_enabled():
        return True
    with contextlib.suppress(playwright.TimeoutError):
        press(lab, "Stop", seconds=1)
    return False


def value(handle):
    """Where a slider stands; the attribute aria-valuenow is rounded to one digit."""
    return handle.get_attribute("aria-valuetext")


def move(page, handle, key):
    """Press a key on a slider's handle, and wait until it is where the key leads."""
    handle.scroll_into_view_if_needed()
    handle.focus()
    before = value(handle)
    page.keyboard.press(key)
    end = {"Home": "aria-valuemin", "End": "aria-valuemax"}.get(key)
    if end:
        wait_until(lambda: handle.get_attribute("aria-valuenow") == handle.get_attribute(end), key)
    else:
        wait_until(lambda: value(handle) != before, key)


def play(page, lab, name):
    """Train, turn what acts at once while it trains, stop, ask for the code."""
    picture = lab.locator("img.cu-figure")
    shoot(page, f"{name}-before")
    if lab.locator(".cu-hidden-units .noUi-handle").count():  # slow steps, so that there is time for all that follows
        move(page, lab.locator(".cu-hidden-units .noUi-handle"), "End")
    before = picture.get_attribute("src")
    press(lab, "Train")
    first = wait_until(lambda: picture.get_attribute("src") != before, "a first picture")
    seen = samples(lab)
    wait_until(lambda: samples(lab) > seen, "samples grow")
    growing = picture.get_attribute("src")
    wait_until(lambda: picture.get_attribute("src") != growing, "the curve grows")
    shoot(page, f"{name}-training")

    live = lab.locator(".widget-vbox", has_text="Act at once").locator(".noUi-handle")
    for i in range(live.count()):
        at_end = live.nth(i).get_attribute("aria-valuenow") == live.nth(i).get_attribute("aria-valuemax")
        move(page, live.nth(i), "ArrowLeft" if at_end or i == 0 else "ArrowRight")  # a learning rate rather lower
    for _ in range(3):
        seen = samples(lab)
        wait_until(lambda seen=seen: samples(lab) > seen, "it trains on with the new values")

    press(lab, "Stop")
    stop = wait_until(lambda: "stopped after" in status(lab), "Stop")
    print(f"\n{name}: first picture after {first:.2f} s, Stop took {stop:.2f} s")
    assert stop < STOP_LIMIT
    seen = samples(lab)
    press(lab, "Show code")
    lab.locator(".cu-code pre").wait_for()
    code = lab.locator(".cu-code").inner_text()
    assert "cu.MLP(" in code and "lr=[(0, " in code and "cu.train(rule, data" in code
    shoot(page, f"{name}-code")
    assert samples(lab) == seen


def to_the_ends(page, lab, name):
    """All sliders of a playground to their lower ends, Train; to their upper ends, Train; Reset."""
    picture, sliders = lab.locator("img.cu-figure"), lab.locator(".noUi-handle")
    assert sliders.count() >= 3
    for key in ("Home", "End"):
        for i in range(sliders.count()):
            move(page, sliders.nth(i), key)
        time.sleep(0.5)  # the page sends the next slider's value when the kernel has taken the one before
        before = status(lab)
        press(lab, "Train")
        wait_until(lambda old=before: status(lab) != old and samples(lab) > 0, "training at the ends")
        time.sleep(1)
        shoot(page, f"{name}-{key.lower()}")
        wait_until(lambda: ended(lab), "the end")
    time.sleep(0.5)  # the picture comes a moment after the buttons
    last = picture.get_attribute("src")
    press(lab, "Reset")
    wait_until(lambda: samples(lab) == 0 and picture.get_attribute("src") != last, "Reset")
    assert lab.locator(".cu-message").inner_text().strip() == ""
    shoot(page, f"{name}-reset")
    source = picture.get_attribute("src")
    assert source.startswith("blob:") or base64.b64decode(source.split(",")[1]).startswith(b"\x89PNG")


def work_the_rest(page, name):
    """Widgets that are no playground: sliders to both ends, menus through their options, the rest pressed.
    Each must change something in its output beside itself."""

    def outside(css):
        found = page.locator(f".jp-OutputArea {css}:not(.cu-playground *)")
        return [found.nth(i) for i in range(found.count())]

    def settle(widget, before, what):
        """Wait until the widget's output looks different from `before`; how it looks then."""
        wait_until(lambda: widget.evaluate(LOOKS) != before, f"{name}: {what} changes the output")
        page.wait_for_function(KERNEL_IDLE)
        time.sleep(0.3)
        shoot(page, f"{name}-{what}".replace(" ", "-"))
        return widget.evaluate(LOOKS)

    for k, handle in enumerate(outside(".noUi-handle")):
        looks = handle.evaluate(LOOKS)
        for key in ("Home", "End"):
            before = value(handle)
            move(page, handle, key)
            if value(handle) != before:
                looks = settle(handle, looks, f"slider {k + 1} {key}")
    for k, menu in enumerate(outside("select")):
        looks = menu.evaluate(LOOKS)
        chosen = menu.evaluate("menu => menu.selectedIndex")
        count = menu.locator("option").count()
        for i in [i for i in range(count) if i != chosen] + [chosen]:
            menu.select_option(index=i)
            looks = settle(menu, looks, f"menu {k + 1} option {i + 1}")
    for k, button in enumerate([*outside("button.jupyter-button"), *outside("input[type=checkbox]")]):
        looks = button.evaluate(LOOKS)
        button.click()
        settle(button, looks, f"button {k + 1}")


def code_of(notebook):
    """The code cells of a lesson, as text."""
    cells = json.loads((ROOT / "notebooks" / notebook).read_text())["cells"]
    return ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]


@pytest.mark.parametrize("notebook", LESSONS)
def test_jupyterlab(page, server, notebook):
    """Open, run all, work every widget; the first playground is also played with."""
    name = Path(notebook).stem
    open_and_run(page, f"{server}/doc/tree/notebooks/{notebook}?reset")
    assert page.evaluate(UNSIGHTLY) == []
    labs = page.locator(".cu-playground")
    assert bool(labs.count()) == any("cu.playground(" in source for source in code_of(notebook))
    for i in range(labs.count()):
        labs.nth(i).scroll_into_view_if_needed()
        if i == 0:
            play(page, labs.nth(i), f"{name}-{i}")
        to_the_ends(page, labs.nth(i), f"{name}-{i}")
    work_the_rest(page, name)
    assert page.evaluate(ERRORS) == []
    if os.environ.get("PAGES"):
        shoot_pages(page, name)


def only_the_playground(notebook):
    """A lesson with no other code than its playground needs: it has run as a whole above."""

    def keep(cell):
        tags = cell["metadata"].get("tags", [])
        needed = "setup" in tags or "export" in tags or "cu.playground(" in "".join(cell["source"])
        return cell["cell_type"] == "markdown" or needed

    content = json.loads((ROOT / "notebooks" / notebook).read_text())
    return json.dumps(content | {"cells": [cell for cell in content["cells"] if keep(cell)]})


@pytest.mark.parametrize("notebook", [name for name in LESSONS if name.startswith("06")])
def test_notebook_7(page, server, root, notebook):
    (root / "notebooks" / "only_the_playground.ipynb").write_text(only_the_playground(notebook))
    open_and_run(page, f"{server}/notebooks/notebooks/only_the_playground.ipynb")
    assert page.evaluate(UNSIGHTLY) == []
    lab = page.locator(".cu-playground").first
    lab.scroll_into_view_if_needed()
    press(lab, "Train")
    wait_until(lambda: samples(lab) > 0, "samples grow")
    press(lab, "Stop")
    stop = wait_until(lambda: "stopped after" in status(lab), "Stop")
    print(f"\nNotebook 7, {notebook}: Stop took {stop:.2f} s")
    assert stop < STOP_LIMIT
    assert page.evaluate(ERRORS) == []
    shoot(page, f"notebook7-{Path(notebook).stem}")
