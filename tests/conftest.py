"""What every test shares: no windows, and one way to find a browser."""

import os
import shutil

import matplotlib
import pytest

# Not through MPLBACKEND: kernels started by a test would inherit it and draw nothing inline.
matplotlib.use("Agg")

CHROMIUM_NAMES = ["/usr/bin/chromium", "chromium", "chromium-browser", "google-chrome", "google-chrome-stable"]
CHROMIUM_ON_MACOS = [
    "/Applications/Chromium.app/Contents/MacOS/Chromium",
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
]
NO_CHROMIUM = (
    "NOT TESTED in a browser: no Chromium found. Install one (Debian: apt install chromium, "
    "macOS: brew install --cask chromium) or set CHROMIUM to its path."
)
missing_browser = pytest.StashKey[bool]()


def find_chromium() -> str | None:
    if "CHROMIUM" in os.environ:
        return shutil.which(os.environ["CHROMIUM"])  # a wrong path is not quietly replaced by another browser
    return next(filter(None, map(shutil.which, CHROMIUM_NAMES + CHROMIUM_ON_MACOS)), None)


@pytest.fixture(scope="session")
def chromium(request) -> str:
    """The path of a Chromium. Without one the test is skipped aloud, and fails under CI=true."""
    path = find_chromium()
    if path:
        return path
    if os.environ.get("CI") == "true":
        pytest.fail(NO_CHROMIUM)
    request.config.stash[missing_browser] = True
    pytest.skip(NO_CHROMIUM)


def pytest_terminal_summary(terminalreporter, config):
    if config.stash.get(missing_browser, False):
        terminalreporter.write_line(NO_CHROMIUM, yellow=True, bold=True)
