"""A Jupyter server with copies of the lessons, and pages of a headless Chromium that must not complain."""

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

import pytest

pytest.register_assert_rewrite("browser.pages", "browser.hands")  # so that their asserts say what was there

from browser.pages import AUTHORIZED, LEAVE, ROOT, SOON, TIDY, TOKEN, post, shoot  # noqa: E402

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


@pytest.fixture(scope="session")
def root(tmp_path_factory):
    """A folder laid out as the course is, so that the browser may save what it likes: tests put notebooks into it."""
    folder = tmp_path_factory.mktemp("lab")
    (folder / "notebooks").mkdir()
    shutil.copytree(ROOT / "lessons", folder / "lessons")  # for their pictures
    return folder


@pytest.fixture(scope="session")
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
    env |= {"JUPYTER_TOKEN": TOKEN}  # in a command line everybody could read it
    env |= {"PYTHONPATH": str(ROOT), "CI": "true", "IPYTHONDIR": str(ROOT / "tests" / "ipython")}
    log = (own / "server.log").open("w+")
    command = [sys.executable, "-m", "jupyter", "lab", "--no-browser", "--allow-root", "--ip=127.0.0.1"]
    command += [f"--port={port}", "--ServerApp.port_retries=0", f"--ServerApp.root_dir={root}"]
    command += ["--ServerApp.disable_check_xsrf=True"]  # tests ask it for kernels without a page
    command += ["--LabApp.extension_manager=readonly"]
    command += ["--LabApp.expose_app_in_browser=True", "--JupyterNotebookApp.expose_app_in_browser=True"]
    process = subprocess.Popen(command, env=env, stdout=log, stderr=log, start_new_session=True)
    base = f"http://127.0.0.1:{port}"
    try:
        for _ in range(600):
            try:
                urllib.request.urlopen(urllib.request.Request(f"{base}/api/status", headers=AUTHORIZED), timeout=5)
                break
            except (OSError, urllib.error.URLError):
                time.sleep(0.2)
        else:
            log.seek(0)
            pytest.fail(f"the Jupyter server did not start:\n{log.read()[-3000:]}")
        yield base
    finally:
        os.killpg(process.pid, signal.SIGTERM)  # its kernels are in its group or end with it
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:  # a kernel that it waits for may be gone already
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(20)
        log.close()


@pytest.fixture(scope="session")
def browser(chromium):
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as p:
        browser = p.chromium.launch(executable_path=chromium, args=CHROMIUM_FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def kernel(server):
    """The id of a kernel for many lessons, one after the other: to load torch takes longer than most widgets need."""
    return post(server, "kernels", name="python3")["id"]


@pytest.fixture(scope="session")
def window(browser, server):
    """The page that tests open one address after the other in: JupyterLab loads there in half the time of a new one."""
    page = browser.new_page()
    page.goto(f"{server}/api/status?token={TOKEN}")  # from here on a cookie says who it is
    yield page
    page.close()


@pytest.fixture
def page(window, kernel, request):
    """The page, emptied; the test fails when it reports an error. A screenshot remains of every test."""
    window.set_viewport_size({"width": 1280, "height": 1000})
    window.set_default_timeout(SOON)
    trouble = []

    def of_page(error):
        trouble.append(f"page error: {error.stack}")

    def of_console(message):
        if message.type == "error":
            trouble.append(f"console: {message.text} ({message.location['url']})")

    window.on("pageerror", of_page)
    window.on("console", of_console)
    yield window
    name = request.node.name.replace("[", "-").replace("]", "")
    shoot(window, f"{name}-end")
    found = [text for text in trouble if not any(known in text for known in HARMLESS)]
    window.evaluate(LEAVE, [kernel, TIDY])
    window.remove_listener("pageerror", of_page)
    window.remove_listener("console", of_console)
    window.goto("about:blank")
    assert not found, "\n".join(found)
