"""What an update costs: time, multiplications, memory."""

import copy
import statistics
import time
import timeit
import weakref
from functools import partial

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from course_utils import training
from course_utils.device import current_device
from course_utils.doors import check_rule
from course_utils.metrics import no_trace

LR = 1e-3  # small: timed steps see one batch again and again, and the weights must stay ordinary numbers
_aten = torch.ops.aten
IN_PLACE = {_aten.addmm_: _aten.addmm, _aten.baddbmm_: _aten.baddbmm}  # which torch's flop counter overlooks


def of_update(rule, x, y, optimizer=None, repeats=20):
    """What one `rule.step` on (x, y) costs: {"milliseconds", "products", "peak", "kept"}. It leaves no trace.

    milliseconds: median of `repeats` steps. products: multiplications inside matrix products. peak: bytes of the
    tensors alive at once at the worst moment, over what was there before (weights, images, state of the optimiser).
    kept: bytes of the rule's own parameters and buffers, the network's not counted. optimizer None: that of `sgd`.
    """
    check_rule(rule)
    optimizer = sgd(rule) if optimizer is None else optimizer
    state, step = copy.deepcopy(optimizer.state_dict()), partial(rule.step, x, y, optimizer)
    try:
        with no_trace(rule):
            step()  # makes what is made only once
            optimizer.zero_grad(set_to_none=True)
            with Products() as products, Alive() as alive:
                step()
            milliseconds = milliseconds_of(step, repeats, x.device)
    finally:
        optimizer.load_state_dict(state)
    of_rule, of_net = (sum(t.nbytes for t in [*part.parameters(), *part.buffers()]) for part in (rule, rule.net))
    counts = {"products": sum(products.made), "peak": alive.peak, "kept": of_rule - of_net}
    return {"milliseconds": milliseconds, **counts}


def sgd(rule):
    """The SGD of `train`, with momentum 0.9, at a small rate."""
    return training.make_optimizer(rule, "sgd", LR, 0.9)


def milliseconds_of(call, repeats=20, device=None):
    """Median milliseconds of so many calls. A GPU works behind Python's back, so the clock waits for it."""
    on_cpu = torch.device(device or current_device()).type == "cpu"
    wait = (lambda: None) if on_cpu else torch.accelerator.synchronize
    wait()
    times = timeit.repeat(lambda: (call(), wait()), number=1, repeat=repeats, timer=time.perf_counter)
    return 1e3 * statistics.median(times)


class Products(TorchDispatchMode):
    """Inside it `made` gets every matrix product (and convolution): how many multiplications."""

    def __init__(self):
        super().__init__()
        self.made: list[int] = []

    def __torch_dispatch__(self, function, types, arguments=(), keywords=None):
        out = function(*arguments, **(keywords or {}))
        name = IN_PLACE.get(function.overloadpacket, function.overloadpacket)
        if name in flop_registry:
            flops = flop_registry[name](*arguments, **(keywords or {}), out_val=out)
            self.made.append(flops // 2)  # a flop counter counts + too
        return out


class Alive(TorchDispatchMode):
    """Inside it, `now`: bytes of the tensors that operations made and somebody still holds; `peak`: most so far."""

    def __init__(self):
        super().__init__()
        self.made: weakref.WeakSet[torch.UntypedStorage] = weakref.WeakSet()  # it forgets what nobody holds
        self.peak = 0

    @property
    def now(self):
        return sum(storage.nbytes() for storage in self.made)

    def __torch_dispatch__(self, function, types, arguments=(), keywords=None):
        given = _storages((arguments, keywords))
        out = function(*arguments, **(keywords or {}))
        self.made |= _storages(out) - given  # without views and what was written in place
        self.peak = max(self.peak, self.now)
        return out


def _storages(tree):
    return {leaf.untyped_storage() for leaf in tree_leaves(tree) if isinstance(leaf, torch.Tensor)}
