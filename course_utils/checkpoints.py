"""A training run on the disk, so that it goes on after a crash as if nothing had been.

The file is torch's, under a hash, and read as tensors, numbers and texts, which can run nothing. It is written before
the first step, at each evaluation, so that the disk has the rows that the screen has, every `SECONDS` where
evaluations are further apart, and at the end.
"""

import inspect
import io
import re
import time
from pathlib import Path
from types import SimpleNamespace

import torch
from torch import nn
from torch.utils._pytree import tree_leaves

from course_utils.arrays import digest
from course_utils.checks import TENSORS, plain, shown
from course_utils.controls import FrozenHidden
from course_utils.data import load_dataset
from course_utils.files import SOURCES
from course_utils.history import History
from course_utils.network import MLP
from course_utils.safely import opened, sealed, write_whole

SECONDS = 30.0
HOUSE = {*vars(nn.Module()), "told"}  # what modules keep for themselves


class Checkpoint:
    """The file of one run of `rule` on `data`. found: what lies there, of a run that is to go on."""

    def __init__(self, path, rule, data, found=None):
        self.path, self.rule, self.data, self.found, self.written = Path(path), rule, data, found, 0.0

    def begin(self, **parts):
        """Take hold of what a run is made of; where it is to go on, put each part where it was."""
        self.parts, history, optimizer = parts, parts["history"], parts["optimizer"]
        if not parts["rates"] and any("initial_lr" in group for group in optimizer.param_groups):
            raise ValueError("checkpoint= does not keep where a scheduler of torch stands; say it by lr= and schedule=")
        if self.found:
            for name, part in parts.items():
                _put(part, self.found["parts"][name])
            if history.status == "done" and not history.is_over:
                history.status, history.message = "running", ""
        elif self.path.exists() and read(self.path)["unfinished"]:  # nobody's hours are overwritten, nor other files
            before = self.path.replace(self.path.with_name(f"{self.path.name}.before"))
            print(f"{self.path} held a run that had not ended; it is now {before}, and cu.resume goes on with it")
        self.about = self.found or {
            "own": own(history.settings.optimizer, history.settings.metrics),
            "are": {"rule": kind_of(self.rule), "data": facts_of(self.data)},
            "made": {"rule": recipe_of(self.rule), "data": loaded_as(self.data)},
        }

    def keep(self, due):
        """Write, when it is due or has not been done for long."""
        if not due and time.monotonic() - self.written < SECONDS:
            return
        history = self.parts["history"]
        now = {"parts": {name: _state(part) for name, part in self.parts.items()}}
        now["unfinished"] = history.status != "diverged" and 0 < history.steps < history.planned
        now["settings"] = _in_numbers(history.settings)
        try:
            write_whole(self.path, sealed(_bytes(self.about | now | {"state": state_of(self.rule)})))
        except (OSError, ValueError) as error:
            if not self.written:
                raise
            print(f"{error}. The run goes on; what lies there is older")  # better than to end it here
        self.written = time.monotonic()


NOT_KEPT = SimpleNamespace(begin=lambda **parts: None, keep=lambda due: None)


def read(path):
    """What a checkpoint holds; ValueError for a file that is none, or is damaged."""
    found = Path(path).read_bytes()
    try:
        return torch.load(io.BytesIO(opened(found)), weights_only=True)
    except Exception as error:  # torch, zipfile and pickle have a dozen kinds
        raise ValueError(f"{path} is no checkpoint, or is damaged: {shown(error)}") from error


def _bytes(state):
    """What `read` reads; ValueError for what it would not."""
    content = io.BytesIO()
    try:
        torch.save(state, content)
        torch.load(io.BytesIO(content.getvalue()), weights_only=True)
    except Exception as error:  # whatever pickle says of it
        kind = re.search(r"(?<=GLOBAL )\S+", str(error))  # the one that torch does not know
        what = kind[0] if kind else shown(error)
        raise ValueError(f"checkpoint= keeps tensors, numbers, texts, and lists of these, and no {what}") from error
    return content.getvalue()


def state_of(rule):
    """All that a rule and its parts hold, {path of the part: {name: value}}.

    Functions, modules and what refers to parts of the rule are left out: its constructor makes them.
    """
    mine = {id(part) for part in (*rule.modules(), *rule.parameters(), *rule.buffers())}
    state: dict[str, dict] = {}
    for path, module in rule.named_modules():
        state[path] = {**module._parameters, **module._buffers}
        for name, value in vars(module).items():
            made = [callable(leaf) or id(leaf) in mine for leaf in tree_leaves(value)]
            keys = value if isinstance(value, dict) else ()
            if name in HOUSE or made and all(made):
                continue
            if any(made) or any(id(key) in mine for key in keys):
                raise ValueError(
                    f"checkpoint= cannot keep {type(module).__name__}.{name}: it mixes parts of the rule in"
                )
            state[path][name] = _state(plain(value))
    return state


def restore(rule, state):
    """Put a rule, made as it began, where `state_of` found it."""
    for path, found in state.items():
        module = rule.get_submodule(path)
        own = {**vars(module), **module._parameters, **module._buffers}
        for name, value in found.items():
            if isinstance(own.get(name), (torch.Generator, torch.optim.Optimizer)):
                _put(own[name], value)
            elif isinstance(value, torch.Tensor) and isinstance(own.get(name), torch.Tensor):
                own[name].data, own[name].requires_grad = value.data, value.requires_grad
            else:
                setattr(module, name, value)


def _state(part):
    if isinstance(part, torch.Generator):
        return part.get_state()
    if isinstance(part, torch.optim.Optimizer):
        return part.state_dict()
    return {**vars(part), "settings": None} if isinstance(part, History) else part


def _put(part, state):
    if isinstance(part, torch.Generator):
        part.set_state(state)
    elif isinstance(part, torch.optim.Optimizer):
        part.load_state_dict(state)
    elif isinstance(part, History):
        vars(part).update(state | {"settings": part.settings})
    else:
        part[:] = state


def kind_of(rule):
    """Of each part of the rule its path, its class and the shapes of its parameters."""
    return [[path, type(m).__name__, *(list(p.shape) for p in m.parameters(False))] for path, m in rule.named_modules()]


def recipe_of(rule):
    """What `make_rule` makes the rule of again; None where it, or its network, is one's own."""
    inside = rule.rule if type(rule) is FrozenHidden else rule
    net, name, told = inside.net, type(inside).__name__, getattr(inside, "told", {})  # told: all that is no knob
    asked = {p.name for p in inspect.signature(type(inside)).parameters.values() if p.kind is not p.VAR_KEYWORD}
    from_course = type(net) is MLP and type(inside).__module__.startswith("course_utils.rules.")
    if not from_course or asked - {"net", "seed", *inside.knobs, *told}:
        return None
    knobs = {name: getattr(inside, name) for name in inside.knobs} | told
    like = {"sizes": net.sizes, "activation": net.activation_name, "loss": net.loss_name, "init": net.init}
    return {"name": name if inside is rule else f"FrozenHidden({name})", "seed": inside.seed, "knobs": knobs, **like}


def facts_of(data):
    """Where data are, and a hash of what training sees of them."""
    return [str(data.x_train.device), digest(*(getattr(data, name) for name in TENSORS[:4]))]


def loaded_as(data):
    """(name, limit) by which load_dataset gives these very tensors; None for data of one's own."""
    if getattr(data, "requested", None) in (*SOURCES, "digits"):
        loaded = load_dataset(data.requested, device=data.x_train.device)
        for limit in (None, min(len(data.x_train), len(loaded.x_train))):
            loaded = load_dataset(data.requested, limit, data.x_train.device)
            one, other = ([(t.data_ptr(), t.shape, t.stride()) for t in each.tensors] for each in (data, loaded))
            if one == other:
                return loaded.name, limit
    return None


def own(optimizer, metrics):
    """What a file does not hold of a run's settings."""
    named = optimizer is None or isinstance(optimizer, str)
    return {"optimizer": None if named else type(optimizer).__name__, "metrics": [*(metrics or ())]}


def _in_numbers(settings):
    """Settings as a file holds them: schedules as lists; None for what it does not hold."""
    knobs = settings.knobs and {name: schedule.steps for name, schedule in settings.knobs.items()}
    optimizer = settings.optimizer if isinstance(settings.optimizer, str) else None
    rest = {name: getattr(value, "steps", value) for name, value in vars(settings).items()}
    return rest | {"knobs": knobs, "optimizer": optimizer, "metrics": None}
