"""A training run on the disk, so that it goes on after a crash as if nothing had been.

The file is NumPy's .npz, read without pickle: the bytes of tensors, and a header in JSON that says what they are. It is
written before the first step, at each evaluation, so that the disk has the rows that the screen has, every `SECONDS`
where evaluations are further apart, and at the end.
"""

import hashlib
import io
import json
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch

from course_utils.controls import Around
from course_utils.data import Dataset, load_dataset
from course_utils.device import use_device
from course_utils.packing import bytes_of, pack, put, restore, state_of, unpack
from course_utils.rule import Rule
from course_utils.safely import write_whole
from course_utils.settings import Settings

SECONDS = 30.0


class Checkpoint:
    """The file of one run of `rule` on `data`. found: (header, arrays) that lie there, of a run that is to go on."""

    def __init__(self, path, rule, data, found=None):
        self.path, self.rule, self.data, self.found = Path(path), rule, data, found
        self.parts, self.made, self.written = {}, {}, 0.0

    @classmethod
    def of(cls, path, rule=None, data=None):
        """The run that lies there, its rule put where it was. rule, data: in place of those that the file names."""
        header, arrays = read(Path(path))
        with use_device(header["data_are"][0], torch.get_num_threads()):
            for name, given in {"rule": rule, "data": data}.items():
                if given is None and isinstance(why := header["made"][name], str):
                    raise ValueError(f"{path}: {why}; hand over what the run began with: cu.resume(path, {name}=…)")
            data = load_dataset(*header["made"]["data"]) if data is None else data
            rule = unpack(header["made"]["rule"], ()) if rule is None else rule
        for name, thing, kinds in (("rule", rule, (Rule, Around)), ("data", data, Dataset)):
            if not isinstance(thing, kinds):
                raise ValueError(f"{name} is {thing!r:.60}; hand over what the run began with, as cu.train takes it")
        run = cls(path, rule, data, (header, arrays))
        if header["data_are"] != run.data_are():
            raise ValueError(f"the run in {path} was on other data, or on another device: cu.resume(path, data=…)")
        restore(rule, header["state"], arrays)
        return run

    def data_are(self):
        return [str(self.data.x_train.device), fingerprint(self.data)]

    def settings(self, optimizer, stop_after):
        """Those of the run. A pause that it has made is over; stop_after: the next one."""
        settings, history = (unpack(self.found[0][name], self.found[1]) for name in ("settings", "history"))
        if stop_after or history["samples"] >= (settings["stop_after"] or 0):
            settings["stop_after"] = stop_after
        if settings["optimizer"] is None and optimizer is None:
            raise ValueError(f"{self.path}: the run had an optimiser of its own; hand one over as it was: optimizer=…")
        return Settings(**settings | ({"optimizer": optimizer} if optimizer else {}))

    def begin(self, **parts):
        """Take hold of what a run is made of; where it is to go on, put each part where it was."""
        self.parts, history = parts, parts["history"]
        if self.found:
            for name, part in parts.items():
                put(part, unpack(self.found[0][name], self.found[1]))
            if history.status == "done" and not history.is_over:
                history.status, history.message = "running", ""
            self.made, self.are = (self.found[0][name] for name in ("made", "data_are"))
            return
        self.set_aside()
        self.are = self.data_are()
        for name, thing, describe in (("rule", self.rule, pack), ("data", self.data, how_loaded)):
            try:
                self.made[name] = describe(thing)
            except ValueError as error:
                self.made[name] = str(error)  # why it will have to be handed over

    def set_aside(self):
        """Nobody's hours are overwritten: nor anything else, for `read` refuses what is no checkpoint."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if self.path.exists() and read(self.path)[0]["unfinished"]:
            before = self.path.replace(self.path.with_name(f"{self.path.name}.before"))
            print(f"{self.path} held a run that had not ended; it is now {before}, and cu.resume goes on with it")

    def keep(self, due):
        """Write, when it is due or has not been done for long."""
        if not due and time.monotonic() - self.written < SECONDS:
            return
        arrays: list[np.ndarray] = []
        history, optimizer = self.parts["history"], self.parts["optimizer"]
        rest = vars(history) | {"settings": None}
        settings = vars(history.settings)
        if optimizer is settings["optimizer"]:
            settings = settings | {"optimizer": None}
        live = self.parts | {"history": rest, "optimizer": optimizer.state_dict(), "settings": settings}
        header = {name: pack(part, arrays) for name, part in live.items()}
        header |= {"made": self.made, "data_are": self.are, "state": state_of(self.rule, arrays)}
        header["unfinished"] = history.status != "diverged" and 0 < history.steps < history.planned
        content = io.BytesIO()
        np.savez(content, np.frombuffer(json.dumps(header).encode(), np.uint8), *arrays)
        try:
            write_whole(self.path, content.getvalue())
        except OSError as error:
            if not self.written:
                raise
            print(f"{error}. The run goes on; what lies there is older")  # better than to end it here
        self.written = time.monotonic()


NONE = SimpleNamespace(begin=lambda **parts: None, keep=lambda due: None)  # of a run that is not kept


def read(path):
    """(header, arrays) of a checkpoint; ValueError for a file that is none, or is damaged."""
    try:
        with np.load(path, allow_pickle=False) as stored:
            header, *arrays = (stored[f"arr_{i}"] for i in range(len(stored.files)))
        return json.loads(header.tobytes()), arrays
    except FileNotFoundError:
        raise
    except Exception as error:  # NumPy, zipfile and json have a dozen kinds
        raise ValueError(f"{path} is no checkpoint, or is damaged ({type(error).__name__}: {error})") from error


def how_loaded(data):
    """(name, limit): what load_dataset has to be told to give these data."""
    whole = load_dataset(data.requested, device=data.x_train.device)
    if data.x_train.data_ptr() != whole.x_train.data_ptr() or data.x_val is not whole.x_val:
        raise ValueError("its data are not what cu.load_dataset gives")
    return data.requested, None if len(data.x_train) == len(whole.x_train) else len(data.x_train)


def fingerprint(data):
    """A hash of what a run sees of its data."""
    found = hashlib.sha256()
    for tensor in (data.x_train, data.y_train, data.x_val, data.y_val):
        found.update(f"{tensor.dtype} {tuple(tensor.shape)}".encode())
        found.update(bytes_of(tensor))
    return found.hexdigest()
