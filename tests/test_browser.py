"""Every lesson in a real JupyterLab and in Notebook 7, driven by a headless Chromium, as a learner would."""

import base64
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

pytestmark = pytest.mark.browser
playwright = pytest.importorskip("playwright.sync_api")

ROOT = Path(__file__).parent.parent
LESSONS = sorted(path.name for path in (ROOT / "notebooks").glob("*.ipynb"))
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
ERRORS = """() => {
  const found = [];
  for (const cell of window.jupyterapp.shell.currentWidget.content.model.cells) {
    if (cell.type === 'code' && !cell.executionCount) found.push('not run: ' + cell.sharedModel.getSource());
    for (const output of cell.type === 'code' ? cell.outputs.toJSON() : [])
      if (output.output_type === 'error') found.push(output.ename + ': ' + output.evalue);
  }
  return found;
}"""
# What a learner would see: pictures that did not load, formulas, folds or tables left as source.
UNSIGHTLY = r"""() => {
  const all = css => [...document.querySelectorAll('.jp-RenderedMarkdown ' + css)];
  const pictures = all('img').filter(img => img.src.startsWith(location.origin) && !img.naturalWidth);
  const folds = all('details').filter(fold => fold.open || fold.textContent === fold.firstChild.textContent);
  const source = /\$|<\/?\w+>|\{\{|^\||\*\*/m;
  const raw = all('p, li, td').filter(part => source.test(part.innerText));
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
    env |= {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "2", "CI": "true"}
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
        time.sleep(0.02)
    return time.monotonic() - begin


def drive(page, lab, name):
    """Press everything there is to press in one playground."""
    picture = lab.locator("img.cu-figure")
    lab.scroll_into_view_if_needed()

    def press(text):
        lab.get_by_role("button", name=text, exact=True).click()

    def handle(slider):
        return lab.locator(f".cu-{slider} .noUi-handle")

    shoot(page, f"{name}-before")
    if handle("hidden-units").count():
        handle("hidden-units").focus()
        page.keyboard.press("End")  # slow steps, so that there is time for all that follows
    before = picture.get_attribute("src")
    press("Train")
    first = wait_until(lambda: picture.get_attribute("src") != before, "a first picture")
    seen = samples(lab)
    wait_until(lambda: samples(lab) > seen, "samples grow")
    growing = picture.get_attribute("src")
    wait_until(lambda: picture.get_attribute("src") != growing, "the curve grows")
    shoot(page, f"{name}-training")

    rate = lab.locator(".cu-lr .widget-readout").inner_text()
    handle("lr").focus()
    page.keyboard.press("ArrowLeft")
    wait_until(lambda: lab.locator(".cu-lr .widget-readout").inner_text() != rate, "the slider moves")
    for _ in range(3):
        seen = samples(lab)
        wait_until(lambda seen=seen: samples(lab) > seen, "it trains on with the new learning rate")

    press("Stop")
    stop = wait_until(lambda: "stopped after" in status(lab), "Stop")
    print(f"\n{name}: first picture after {first:.2f} s, Stop took {stop:.2f} s")
    assert stop < STOP_LIMIT
    seen = samples(lab)
    press("Show code")
    lab.locator(".cu-code pre").wait_for()
    code = lab.locator(".cu-code").inner_text()
    assert "cu.MLP(" in code and "lr=[(0, " in code and "cu.train(rule, data" in code
    shoot(page, f"{name}-code")
    assert samples(lab) == seen

    sliders = lab.locator(".widget-slider .noUi-handle")
    for key, value in (("Home", "aria-valuemin"), ("End", "aria-valuemax")):
        for i in range(sliders.count()):
            one = sliders.nth(i)
            one.focus()
            page.keyboard.press(key)
            at_end = f".noUi-handle[aria-valuenow='{one.get_attribute(value)}']"
            wait_until(lambda one=one, css=at_end: one.and_(page.locator(css)).count(), f"{key} {i}")
        time.sleep(0.5)  # the page sends the next slider's value when the kernel has taken the one before
        before = status(lab)
        press("Train")
        wait_until(lambda old=before: status(lab) != old and samples(lab) > 0, "training at the ends")
        time.sleep(1)
        shoot(page, f"{name}-{key.lower()}")
        if lab.get_by_role("button", name="Stop", exact=True).is_enabled():
            press("Stop")
        wait_until(lambda: lab.get_by_role("button", name="Train", exact=True).is_enabled(), "the end")
    time.sleep(0.5)  # the picture comes a moment after the buttons
    last = picture.get_attribute("src")
    press("Reset")
    wait_until(lambda: samples(lab) == 0 and picture.get_attribute("src") != last, "Reset")
    assert lab.locator(".cu-message").inner_text().strip() == ""
    shoot(page, f"{name}-reset")
    assert page.evaluate(ERRORS) == []
    source = picture.get_attribute("src")
    assert source.startswith("blob:") or base64.b64decode(source.split(",")[1]).startswith(b"\x89PNG")


@pytest.mark.parametrize("notebook", LESSONS)
def test_jupyterlab(page, server, notebook):
    open_and_run(page, f"{server}/doc/tree/notebooks/{notebook}?reset")
    assert page.evaluate(UNSIGHTLY) == []
    labs = page.locator(".cu-playground")
    for i in range(labs.count()):
        drive(page, labs.nth(i), f"{Path(notebook).stem}-{i}")
    assert labs.count() or not notebook.startswith("06")
    shoot_pages(page, Path(notebook).stem)


@pytest.mark.parametrize("notebook", [name for name in LESSONS if name.startswith("06")])
def test_notebook_7(page, server, notebook):
    open_and_run(page, f"{server}/notebooks/notebooks/{notebook}")
    lab = page.locator(".cu-playground").first
    lab.scroll_into_view_if_needed()
    lab.get_by_role("button", name="Train", exact=True).click()
    wait_until(lambda: samples(lab) > 0, "samples grow")
    lab.get_by_role("button", name="Stop", exact=True).click()
    stop = wait_until(lambda: "stopped after" in status(lab), "Stop")
    print(f"\nNotebook 7, {notebook}: Stop took {stop:.2f} s")
    assert stop < STOP_LIMIT
    shoot(page, f"notebook7-{Path(notebook).stem}")
