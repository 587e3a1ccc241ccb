"""What decides a number decides the name of its run: sources of rule, function and core, and code typed in."""

import importlib
import subprocess
import sys
import uuid
from pathlib import Path

import nbformat
import pytest
from helpers.behind import behind
from nbclient import NotebookClient

from course_utils import runs, sources
from course_utils.studies import hybrids

SETTINGS = {"name": "Backprop", "sizes": [784, 10], "lr": 0.1, "seed": 0}

OWN = '''
import course_utils as cu
GAIN = 1.0
def helper(loss):
    """What it does."""
    return loss * 2
class Own(cu.rules.Backprop):
    """A rule of one's own."""
    def backward(self, x, y):
        return helper(super().backward(x, y)) * GAIN  # twice
'''
HARMLESS = [("A rule of one's own", "My rule"), ("What it does", "Twice")]
EDITS = [("loss * 2", "loss * 3"), ("GAIN = 1.0", "GAIN = 0.5"), ("backward(x, y))", "backward(x, y) * 1)")]
EDITS += [("    def backward", "    lr = 0.3\n    def backward"), ("# twice", '+ (0 if y in {"a", "b"} else 1)')]


def key(rule, function=runs.one_run, **settings):
    return sources.key(function, {**SETTINGS, "name": rule, **settings})


def typed(text):
    """The class as a notebook has it: in `__main__`, with no file."""
    exec(text, names := {"__name__": "__main__"})
    return names["Own"]


@pytest.fixture
def module(tmp_path, monkeypatch):
    """Writes a module of the reader's own and imports it."""
    monkeypatch.syspath_prepend(tmp_path)

    def write(text):
        name = f"own_{uuid.uuid4().hex}"
        (tmp_path / f"{name}.py").write_text(text)
        importlib.invalidate_caches()
        return importlib.import_module(name)

    return write


@pytest.fixture
def edited(tmp_path, monkeypatch):
    """Makes the course believe that the file of one of its modules has other text."""

    def edit(name, old, new):
        module = sys.modules[f"course_utils.{name}"]
        copy = tmp_path / "course_utils" / Path(module.__file__).name
        copy.parent.mkdir(exist_ok=True)
        text = Path(module.__file__).read_text()
        assert old in text
        copy.write_text(text.replace(old, new, 1))
        monkeypatch.setattr(module, "__file__", str(copy))

    return edit


@pytest.mark.parametrize("old, new", EDITS)
def test_a_class_typed_in_a_notebook_is_another_rule_when_edited(old, new):
    assert old in OWN and key(typed(OWN.replace(old, new))) != key(typed(OWN))


@pytest.mark.parametrize("old, new", [*HARMLESS, ("  # twice", "")])
def test_what_explains_does_not_decide(old, new, edited):
    assert key(typed(OWN.replace(old, new))) == key(typed(OWN))


def test_a_file_of_one_s_own_counts_as_a_whole_but_for_what_explains(module):
    def named(text):  # the file's own name is no part of the question
        found = behind([module(text).Own])
        return {hash_ for name, hash_ in found.items() if name.startswith("own_")}

    assert len(named(OWN)) == 1
    assert all(named(OWN.replace(*harmless)) == named(OWN) for harmless in HARMLESS)
    assert all(named(OWN.replace(*edit)) != named(OWN) for edit in EDITS)


def test_a_closure_s_value_and_a_default_decide_too():
    text = "import course_utils as cu\ndef make(gain):\n    class Own(cu.rules.Backprop):\n"
    text += "        def backward(self, x, y, power=1):\n            return gain\n    return Own\nOwn = make(1)\n"
    other = text.replace("make(1)", "make(2)"), text.replace("power=1", "power=2")
    assert len({key(typed(t)) for t in (text, *other)}) == 3 and key(typed(text)) == key(typed(text))


def test_the_code_of_a_typed_class_reads_alike_in_every_process():
    """Strings hash anew in every process, and with them the order of a set."""
    text = OWN.replace("# twice", '+ (0 if y in {"a", "b", "c"} else 1)')
    program = f"from course_utils import runs, sources\nexec({text!r}, names := {{'__name__': '__main__'}})\n"
    program += f"print(sources.key(runs.one_run, {SETTINGS!r} | {{'name': names['Own']}}))"
    said = subprocess.run(
        [sys.executable, "-c", program], env={"PYTHONHASHSEED": "7", "PYTHONPATH": str(runs.ROOT)}, capture_output=True
    )
    assert said.stdout.decode().strip() == key(typed(text)), said.stderr.decode()


@pytest.mark.parametrize("name", ["rule", "network", "training", "data", "device", "runs"])
def test_the_core_of_the_course_decides(name, edited):
    before = key("Backprop"), key(typed(OWN))
    edited(name, "\nimport torch\n", "\nimport torch\n# a remark\n")
    assert (key("Backprop"), key(typed(OWN))) == before
    edited(name, "\nimport torch\n", "\nimport torch\n\nADDED = 1\n")
    assert key("Backprop") != before[0] and key(typed(OWN)) != before[1]


def test_what_only_draws_does_not_decide(edited):
    before = key("Backprop")
    edited("plots", "\nimport ", "\nADDED = 1\nimport ")
    edited("rules.pepita", "\nimport ", "\nADDED = 1\nimport ")  # another rule
    assert key("Backprop") == before


@pytest.mark.parametrize(
    "rule, settings",
    [
        ("FrozenHidden(Pepita)", {}),
        ("Pepita(feedback_scale=0.1)", {}),
        ("Layered(hidden='Pepita')", {}),
        ("Backprop", {"function": hybrids.pretrained, "teacher": "Pepita"}),
    ],
)
def test_a_rule_decides_wherever_it_is_named(rule, settings, edited):
    before = key(rule, **settings)
    edited("rules.pepita", "\nimport ", "\nADDED = 1\nimport ")
    assert key(rule, **settings) != before


def test_the_function_decides(module):
    text = "from course_utils.runs import one_run\nimport own_helper\ndef mine(*a, **k):\n    return one_run(*a, **k)\n"
    Path(module("").__file__).with_name("own_helper.py").write_text("GAIN = 1\n")
    first, second = module(text).mine, module(text.replace("return one_run", "return None and one_run")).mine
    assert len({key("Backprop", function=f) for f in (runs.one_run, first, second)}) == 3
    assert {"course_utils.training", "own_helper"} <= set(behind([first]))


def test_a_rule_swept_edited_in_the_notebook_and_swept_again_is_computed_again():
    """In a kernel, where a class has no file, and on two processes, which cannot import it."""
    setup = "import joblib, tempfile\nfolder = tempfile.mkdtemp()\nimport course_utils as cu\n"
    rule = "class Mine(cu.rules.Backprop):\n    def backward(self, x, y):\n        return {}\n"
    sweep = (
        "with joblib.parallel_config(n_jobs=2):\n    frame = cu.sweep(Mine, 'digits', [784, 16, 10], seeds=2, epochs=3,"
    )
    sweep += " lr=0.1, folder=folder, progress=False)\nprint(frame.dropna().test_accuracy.mean())"
    good, bad = rule.format("super().backward(x, y)"), rule.format("self.net.loss(self.net(x), y).detach()")
    cells = [nbformat.v4.new_code_cell(source) for source in (setup, good, sweep, bad, sweep, good, sweep)]
    book = nbformat.v4.new_notebook(cells=cells)
    NotebookClient(book, timeout=300, kernel_name="python3").execute()
    said = ["".join(out.get("text", "") for out in cell.outputs) for cell in book.cells if cell.source == sweep]
    first, second, third = map(float, said)
    assert first > second + 0.2 and third == first
