"""What a run is made of as JSON and bytes, and back: for checkpoints, which no pickle may be needed to read."""

import contextlib
import functools
import importlib
import sys

import torch
from torch import nn

from course_utils.checks import plain
from course_utils.settings import Schedule

HOUSE = {*vars(nn.Module()), "_told"} - {"training"}  # what torch's modules keep for themselves


def pack(value, arrays=None, known=None):
    """A value in JSON: what is no number, text or list is {kind: …}, with the bytes of tensors in `arrays`.

    known: {id: name} of what a rule consists of, which is named. Without arrays, a rule or a network is what its
    constructor was told. ValueError for what cannot be kept.
    """
    value = plain(value)
    if known and id(value) in known:
        return {"known": known[id(value)]}
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, (list, tuple)):
        parts = [pack(part, arrays, known) for part in value]
        return parts if isinstance(value, list) else {"tuple": parts}
    if isinstance(value, dict):
        return {"dict": [[pack(name, arrays, known), pack(part, arrays, known)] for name, part in value.items()]}
    if isinstance(value, Schedule):
        return {"schedule": pack(value.steps, arrays)}
    if isinstance(value, torch.Generator):
        return {"generator": [str(value.device), pack(value.get_state(), arrays)]}
    if isinstance(value, torch.Tensor) and arrays is not None:
        arrays.append(bytes_of(value))
        return {"tensor": [len(arrays) - 1, str(value.dtype).removeprefix("torch."), [*value.shape], str(value.device)]}
    if arrays is None and "_told" in getattr(value, "__dict__", ()):
        path = f"{type(value).__module__}:{type(value).__qualname__}"
        if _found(path) is not type(value):
            raise ValueError(f"its class {path} has been made anew since")
        return {"make": [path, *(pack(part, None) for part in value._told)]}
    text = "a checkpoint holds tensors, numbers, texts, torch's generators, and lists and dictionaries of these"
    raise ValueError(f"{text}, and no {type(value).__name__}")


def unpack(value, arrays, known=None):
    """The value that `pack` has made this of."""
    if isinstance(value, list):
        return [unpack(part, arrays, known) for part in value]
    if not isinstance(value, dict):
        return value
    ((kind, packed),) = value.items()
    if kind == "known":
        return known[packed]
    if kind == "tensor":
        number, dtype, shape, device = packed
        return torch.from_numpy(arrays[number].copy()).view(getattr(torch, dtype)).reshape(shape).to(device)
    parts = unpack(packed, arrays, known)
    if kind == "make":
        return _found(parts[0])(*parts[1], **parts[2])
    if kind == "generator":
        return put(torch.Generator(parts[0]), parts[1])
    return {"dict": dict, "tuple": tuple, "schedule": Schedule}[kind](parts)


def _found(path):
    """The class of that path, which keeps what it is told. On the word of a file only the course is imported."""
    module, _, name = path.partition(":")
    if module.startswith("course_utils."):
        with contextlib.suppress(ImportError):
            importlib.import_module(module)
    kind = functools.reduce(lambda part, name: getattr(part, name, None), name.split("."), sys.modules.get(module))
    if not (isinstance(kind, type) and issubclass(kind, nn.Module) and kind.__module__ == module):
        raise ValueError(f"its class {name} is not found in {module}, as far as that is imported here")
    return kind


def state_of(rule, arrays):
    """All that a rule and its parts hold, {path: {kind: …}}; of functions and the like the names alone."""
    known, state = {id(thing): name for name, thing in _named(rule).items()}, {}
    for path, module in rule.named_modules():
        own = {name: value for name, value in vars(module).items() if name not in HOUSE}
        made = [
            name for name, value in own.items() if callable(value) or isinstance(value, (torch.device, torch.dtype))
        ]
        kinds = {kind: pack(vars(module)[kind], arrays) for kind in ("_parameters", "_buffers")}
        try:
            rest = pack({name: value for name, value in own.items() if name not in made}, arrays, known)
        except ValueError as error:
            raise ValueError(f"checkpoint= cannot keep {type(module).__name__} whole: {error}") from error
        state[path] = {**kinds, "rest": rest, "made": made}
    return state


def restore(rule, state, arrays):
    """Put a rule, as it was made, where `state_of` found it. ValueError when it is another one."""
    known = _named(rule)
    for path, found in state.items():
        module, tensors = known.get(path), unpack(found["_parameters"], arrays)
        shapes = {name: value.shape for name, value in tensors.items() if value is not None}
        if module is None or shapes != {name: p.shape for name, p in module._parameters.items() if p is not None}:
            raise ValueError(f"the run's rule has another {path}; hand that one over, as it began: rule=…")
        if missing := set(found["made"]) - set(vars(module)):
            raise ValueError(f"the run's rule has {path}.{missing.pop()}; hand that one over, as it began: rule=…")
        for name, value in {**tensors, **unpack(found["_buffers"], arrays)}.items():
            old = getattr(module, name, None)
            if old is not None and value is not None:
                old.data = value
            elif name not in tensors:  # a buffer that came, or went, while it trained
                module._buffers[name] = value
        for name, value in unpack(found["rest"], arrays, known).items():
            old = vars(module).get(name)
            vars(module)[name] = put(old, value) if isinstance(old, torch.Generator) else value


def _named(rule):
    return dict([*rule.named_modules(), *rule.named_parameters(), *rule.named_buffers()])


def put(part, value):
    """Put a part of a run where it was; returns it."""
    if isinstance(part, torch.Generator):
        part.set_state(value.get_state() if isinstance(value, torch.Generator) else value)
    elif isinstance(part, torch.optim.Optimizer):
        part.load_state_dict(value)
    elif isinstance(part, list):
        part[:] = value
    else:
        vars(part).update(value | {"settings": part.settings})
    return part


def bytes_of(tensor):
    """A tensor's numbers as a flat array of bytes, whatever its type."""
    return tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy()
