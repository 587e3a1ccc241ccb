"""The start-up hook of `make notebooks-test` turns errors that nobody would see, and warnings, into failed cells."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import nbformat
import pytest

HOOK = Path(__file__).resolve().parents[1] / "ipython" / "profile_default" / "startup" / "00-surface-errors.py"

TASK = """
import asyncio
async def fail():
    raise ZeroDivisionError
def start():
    asyncio.get_running_loop().create_task(fail())
start()
"""
THREAD = """
import threading
thread = threading.Thread(target=lambda: 1 / 0)
thread.start()
thread.join()
"""
FINALISER = """
class Fails:
    def __del__(self):
        raise ZeroDivisionError
fails = Fails()
del fails
"""
CALLBACK = """
import ipywidgets
button = ipywidgets.Button()
button.on_click(lambda _: 1 / 0)
button.click()
"""
WARNING = """
import warnings
warnings.warn("look at this")
"""
CLEAN = """
import asyncio, threading
thread = threading.Thread(target=lambda: 1 + 1)
thread.start()
await asyncio.gather(asyncio.sleep(0), asyncio.sleep(0))
thread.join()
import warnings
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    warnings.warn("nobody sees this")
"""
NOTEBOOKS = {
    "task": TASK,
    "thread": THREAD,
    "finaliser": FINALISER,
    "callback": CALLBACK,
    "warning": WARNING,
    "clean": CLEAN,
}


@pytest.fixture(scope="module")
def failures(tmp_path_factory) -> dict[str, list[bool]]:
    """notebook → did its first and second cell fail? All run by one nbval, as starting it takes seconds."""
    folder = tmp_path_factory.mktemp("surface")
    startup = folder / "ipython" / "profile_default" / "startup"
    startup.mkdir(parents=True)
    shutil.copy(HOOK, startup)
    for name, source in NOTEBOOKS.items():
        cells = [nbformat.v4.new_code_cell(source.strip()), nbformat.v4.new_code_cell("1 + 1")]
        nbformat.write(nbformat.v4.new_notebook(cells=cells), folder / f"{name}.ipynb")
    command = [sys.executable, "-m", "pytest", "--nbval-lax", "--nbval-current-env", "-p", "no:cacheprovider"]
    env = {**os.environ, "IPYTHONDIR": str(folder / "ipython")}
    run = subprocess.run([*command, "--junitxml=report.xml", "."], cwd=folder, env=env, capture_output=True, text=True)
    assert run.returncode == 1, run.stdout + run.stderr
    found: dict[str, list[bool]] = {}
    for case in ElementTree.parse(folder / "report.xml").iter("testcase"):
        name = next(name for name in NOTEBOOKS if name in case.get("classname", "").split("."))
        found.setdefault(name, []).append(case.find("failure") is not None)
    return found


@pytest.mark.parametrize("name", ["thread", "finaliser", "callback", "warning"])
def test_fails_the_running_cell(name, failures):
    assert failures[name] == [True, False]


def test_task_fails_the_next_cell(failures):
    assert failures["task"] == [False, True]  # the loop runs it only after its cell has ended


def test_clean_notebook_passes(failures):
    assert failures["clean"] == [False, False]
