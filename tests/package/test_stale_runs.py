"""A sweep never hands out what other code, other values or another file has computed."""

import importlib
import os
import stat
import subprocess
import sys
import uuid
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from helpers import mutant
from helpers.behind import behind

import course_utils as cu
from course_utils import runs, safely, sources, sweeps
from course_utils.studies import grand_comparison, harder_worlds, hybrids

SETTINGS = {"name": "Backprop", "sizes": [784, 10], "lr": 0.1, "seed": 0}


def key(rule="Backprop", function=runs.one_run, **settings):
    return sources.key(function, {**SETTINGS, "name": rule, **settings})


def typed(text, **names):
    """What a notebook defines: in `__main__`, with no file."""
    exec(text, names := {"__name__": "__main__", "cu": cu, "torch": torch, **names})
    return names["Own"]


@pytest.fixture
def module(tmp_path, monkeypatch):
    """Writes a module of the reader's own, and imports it."""
    monkeypatch.syspath_prepend(tmp_path)

    def write(text, name=None):
        name = name or f"own_{uuid.uuid4().hex}"
        (tmp_path / f"{name}.py").write_text(text)
        importlib.invalidate_caches()
        return importlib.import_module(name)

    return write


# ---------------------------------------------------------------- code that is another one by now

HELPER = "GAIN = 1.0\ndef gain(x):\n    return x * GAIN\n"
RULE = "class Own(cu.rules.Backprop):\n    def backward(self, x, y):\n        return {}(super().backward(x, y))\n"


@pytest.mark.parametrize("use", ["helper.gain", "gain"])
def test_a_helper_s_file_decides_of_a_class_typed_in(use, module):
    def now(text):
        helper = module(text)
        found = behind([typed(RULE.format(use), helper=helper, gain=helper.gain)])
        return {value for name, value in found.items() if name.startswith("own_")}

    assert len(now(HELPER)) == 1 and now(HELPER) != now(HELPER.replace("GAIN = 1.0", "GAIN = 2.0"))


@pytest.mark.parametrize("use", ["helper.gain", "gain"])
def test_a_module_edited_after_its_import_is_not_what_its_file_says(use, module):
    """Or the numbers of the old code would be found by whoever restarts the kernel, and so loads the new one."""
    helper = module(HELPER)
    own = typed(RULE.format(use), helper=helper, gain=helper.gain)
    Path(helper.__file__).write_text(HELPER.replace("x * GAIN", "x * 3"))
    edited = key(own)
    restarted = importlib.reload(helper)
    assert edited != key(typed(RULE.format(use), helper=restarted, gain=restarted.gain))


def test_what_is_patched_from_outside_counts(monkeypatch):
    before = {name: key(name) for name in ("FeedbackAlignment", "WeightMirror", "Backprop")}
    monkeypatch.setattr(cu.rules.FeedbackAlignment, "backward", lambda self, x, y: None)
    after = {name: key(name) for name in before}
    assert [name for name in before if before[name] != after[name]] == ["FeedbackAlignment", "WeightMirror"]
    monkeypatch.undo()
    monkeypatch.setattr(cu.rules.Backprop, "lr", 0.3)  # lr=None asks for it
    assert key() != before["Backprop"]
    monkeypatch.undo()
    function = harder_worlds.few_labels
    before = key(function=function)
    monkeypatch.setattr(harder_worlds, "PER_CLASS", (5,))
    assert key(function=function) != before
    monkeypatch.undo()
    assert key(function=function) == before


def test_a_wrapper_typed_in_counts_around_what_it_wraps():
    text = "import functools\ndef twice(f):\n    @functools.wraps(f)\n    def wrapped(*a):\n        return 2 * f(*a)\n"
    text += "    return wrapped\nclass Own(cu.rules.Backprop):\n    @twice\n    @torch.no_grad()\n"
    text += "    def backward(self, x, y):\n        return self.net.loss(self.net(x), y)\n"
    edits = [("2 * f", "3 * f"), ("self.net.loss", "1 + self.net.loss"), ("@torch.no_grad", "@torch.enable_grad")]
    texts = [text, *(text.replace(*edit) for edit in edits)]
    assert len({key(typed(t)) for t in texts}) == len(texts) and key(typed(text)) == key(typed(text))


def test_a_function_typed_in_that_reaches_the_course_by_its_name_rests_on_it(monkeypatch):
    own = typed("def Own(name, sizes, lr, seed):\n    return cu.costs.of_update, cu.rules.Pepita\n")
    found = behind([own])
    assert {"course_utils.costs", "course_utils.training", "course_utils.rules.pepita"} <= set(found)


# ---------------------------------------------------------------- values

BIG = torch.arange(5_000.0)
EDITED = BIG.clone().index_fill_(0, torch.tensor([2_500]), -1)  # in the middle, which no repr shows
VALUES = {
    "tensor": (BIG, EDITED),
    "array": (BIG.numpy(), EDITED.numpy()),
    "in a list": ([{"mask": BIG}], [{"mask": EDITED}]),
    "function": (lambda x: 2 * x, lambda x: 3 * x),
    "frame": (pd.DataFrame({"a": BIG}), pd.DataFrame({"a": EDITED})),
    "bfloat16": (BIG.bfloat16(), EDITED.bfloat16()),
}


@pytest.mark.parametrize("what", VALUES)
def test_a_value_counts_to_the_last_digit_in_settings_and_in_code(what):
    one, other = VALUES[what]
    assert key(mask=one) == key(mask=one) != key(mask=other)
    text = "class Own(cu.rules.Backprop):\n    def backward(self, x, y):\n        return VALUE\n"
    assert key(typed(text, VALUE=one)) == key(typed(text, VALUE=one)) != key(typed(text, VALUE=other))


def test_numbers_of_numpy_are_the_same_numbers_and_the_order_of_words_says_nothing():
    assert key(epochs=np.int64(2), momentum=np.float64(0.5)) == key(momentum=0.5, epochs=2)


def test_what_nobody_can_look_into_never_comes_again():
    unknown = (n for n in range(3))  # a generator, which cannot be pickled
    assert key(source=unknown) != key(source=unknown)


FUNCTIONS = [runs.one_run, hybrids.pretrained, harder_worlds.every_world, grand_comparison.one_run]


def test_keys_are_the_same_after_a_run_and_in_another_process():
    """Or nothing finished would ever be found."""
    program = f"import sys; sys.path[:0] = {[str(runs.ROOT / 'tests'), str(Path(__file__).parent)]!r}\n"
    program += "import course_utils as cu, test_stale_runs as t\n"
    program += "print(*[t.key(rule, f) for rule in cu.rules.ALL for f in t.FUNCTIONS])"
    before = [key(rule, function) for rule in cu.rules.ALL for function in FUNCTIONS]
    runs.one_run("Backprop", [784, 8, 10], None, 0, dataset="digits", limit=200, epochs=1, probe_every=50)
    assert [key(rule, function) for rule in cu.rules.ALL for function in FUNCTIONS] == before
    env = {**os.environ, "PYTHONHASHSEED": "7", "PYTHONPATH": str(runs.ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
    said = subprocess.run([sys.executable, "-c", program], env=env, capture_output=True, text=True)
    assert said.stdout.split() == before, said.stderr


def test_a_worker_with_other_code_is_told_so(tmp_path):
    name = sweeps.file_name(runs.one_run, {**SETTINGS, "dataset": "digits"})
    with pytest.raises(RuntimeError, match="a worker has other code of the course"):
        sweeps._run(f"x{name}", runs.one_run, {**SETTINGS, "dataset": "digits"}, "cpu", 1, caller=-1)


# ---------------------------------------------------------------- files


def finished(folder, **changes):
    how = {"sizes": [784, 8, 10], "seeds": 2, "epochs": 1, "folder": folder, "progress": False, "limit": 200}
    return cu.sweep("Backprop", "digits", **{**how, **changes}).drop(columns="seconds")


DAMAGES = {
    "cut after a row": lambda whole, other: b"".join(whole.splitlines(keepends=True)[:3]),
    "cut within a row": lambda whole, other: whole[:-7],
    "its header alone": lambda whole, other: b"".join(whole.splitlines(keepends=True)[:2]),
    "empty": lambda whole, other: b"",
    "binary": lambda whole, other: bytes(range(256)),
    "foreign": lambda whole, other: b"a,b\n1,2\n",
    "changed by hand": lambda whole, other: whole.replace(b",0.", b",9.", 1),
    "another run's": lambda whole, other: other,
    "of before they were marked": lambda whole, other: whole.partition(b"\n")[2],
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_finished_run_that_is_not_as_it_was_written_is_named_and_computed_again(damage, tmp_path, capsys):
    whole = finished(tmp_path)
    cells = sorted(tmp_path.iterdir())
    first, second = (cell.read_bytes() for cell in cells)
    assert len(cells) == 2 and DAMAGES[damage](first, second) != first
    cells[0].write_bytes(DAMAGES[damage](first, second))
    at = cells[1].stat().st_mtime_ns
    assert finished(tmp_path).equals(whole)
    said = capsys.readouterr().out
    assert cells[0].name in said and "computed again" in said and cells[1].name not in said
    assert sorted(tmp_path.iterdir()) == cells and cells[1].stat().st_mtime_ns == at
    assert finished(tmp_path).equals(whole) and capsys.readouterr().out == ""


def test_a_file_is_on_the_disk_before_its_name_is(tmp_path, monkeypatch):
    def order(write):
        seen = []
        real = os.fsync, os.replace
        kind = {True: "folder", False: "file"}
        fsync = lambda number: seen.append(kind[stat.S_ISDIR(os.fstat(number).st_mode)]) or real[0](number)  # noqa: E731
        monkeypatch.setattr(os, "fsync", fsync)
        monkeypatch.setattr(Path, "replace", lambda self, to: seen.append("name") or real[1](self, to))
        write(tmp_path / "a", b"content")
        monkeypatch.undo()
        return seen

    assert order(safely.write_whole) == ["file", "name", "folder"]
    assert (tmp_path / "a").read_bytes() == b"content" and len(list(tmp_path.iterdir())) == 1
    late = mutant(safely.write_whole, "os.fsync(file.fileno())", "pass")
    assert order(late) != ["file", "name", "folder"]


def test_a_full_disk_names_the_file_and_leaves_nothing(tmp_path, monkeypatch):
    (tmp_path / "a").write_bytes(b"as it was")

    def full(number):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="cannot write .*a: No space left"):
        safely.write_whole(tmp_path / "a", b"new")
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"as it was"]


def test_what_a_killed_writer_left_is_swept_away_and_a_living_one_s_is_not(tmp_path):
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    for pid in (dead.pid, os.getppid()):
        (tmp_path / f".a.csv.{pid}").write_text("half")
    safely.write_whole(tmp_path / "a.csv", b"whole")
    assert {path.name for path in tmp_path.iterdir()} == {"a.csv", f".a.csv.{os.getppid()}"}
