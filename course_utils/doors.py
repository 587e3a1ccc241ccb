"""Who comes in is what it says it is: a rule, made as rules are made, that teaches something in its first step."""

import functools
import inspect

import torch
from torch import nn
from torch.optim import Optimizer

from course_utils.network import Net


def check_rule(rule):
    """Raise ValueError unless it is a rule, made from its class by `Rule.__init__`; or a wrapper of one."""
    if isinstance(rule, type):
        raise ValueError(f"rule is the class {rule.__name__}; make a rule of it first: {rule.__name__}(net)")
    kind = type(rule).__name__
    if not all(hasattr(type(rule), name) for name in ("backward", "step")):
        raise ValueError(f"rule is a {kind}; it must be a rule for a network, as cu.rules.Backprop(net) is")
    if not isinstance(getattr(rule, "generator", None), torch.Generator):
        raise ValueError(f"{kind}.__init__ never calls super().__init__(net, seed), which makes a rule; call it first")


def check_net(net, who="a rule"):
    """Raise ValueError unless net is a `Net`."""
    asked = [*Net.__annotations__, *(name for name in vars(Net) if not name.startswith("_"))]
    missing = [name for name in asked if not hasattr(net, name)]
    if missing or not isinstance(net, nn.Module):
        lacks = f" without {', '.join(missing)}" if missing else ", no nn.Module"
        raise ValueError(f"net is a {type(net).__name__}{lacks}; {who} takes a cu.MLP, or a cu.Net of your own")


def takes_seed(make):
    """Does a rule's class, or a function that makes one, take a seed? Not one with nothing to draw, or a seed fixed."""
    taken = inspect.signature(make).parameters.values()
    free = "seed" not in getattr(make, "keywords", ())  # of functools.partial
    return free and any(p.name == "seed" or p.kind is p.VAR_KEYWORD for p in taken)


def in_words(rule, error):
    """Of an AttributeError, what the rule asked of its network in vain, in a sentence; None for any other."""
    net = vars(rule).get("_modules", {}).get("net")
    of_net = error.obj is net or error.obj is None and not hasattr(net, "check_input")  # torch's own may not say whose
    if net is None or not of_net:
        return None
    return f"net is a {type(net).__name__}: {error}; {rule.title} asks for it, and a cu.MLP has it"


def asks_of_net(method):
    """The method of a rule, or a function of one; what its network lacks is then told in a sentence."""

    @functools.wraps(method)
    def told(rule, /, *arguments, **keywords):  # a hybrid has a setting called `rule`
        try:
            return method(rule, *arguments, **keywords)
        except AttributeError as error:
            if sentence := in_words(rule, error):
                raise ValueError(sentence) from error
            raise

    return told


def only_one_decay(rule, optimizer):
    """Raise ValueError when the rule lets weights decay by its own knob, `decay`, and the optimiser does, too."""
    twice = [group["weight_decay"] for group in optimizer.param_groups if rule.decay and group.get("weight_decay")]
    if twice:
        has = f"optimizer has weight_decay {twice[0]}, and {rule.title} decay {rule.decay}"
        raise ValueError(f"{has}: weights would lose both; set one of them to 0")


def steps_alone(optimizer):
    """Is it an optimiser whose step asks for nothing? That of LBFGS wants to work the loss out anew, by a closure."""
    if not isinstance(optimizer, Optimizer):
        return False
    closure = inspect.signature(type(optimizer).step).parameters.get("closure")
    return closure is None or closure.default is not closure.empty


def are_functions(metrics):
    return all(isinstance(name, str) and callable(f) for name, f in metrics.items())


def untaught(rule):
    """What is to be said, after a backward, of a rule with nothing in .grad that could be held against a gradient."""
    if any(p.grad is not None for _, p in rule.taught()):
        return ""
    lists = "of what its taught() lists, by default the weights and biases of its network"
    return f"{rule.title} fills no .grad {lists}: nothing is there to hold against the gradient"


def first_step(step, history, own_rates, rule, x, y, optimizer, estimates):
    """step(…), the first of a run, looked at closely: ValueError for what would go wrong unseen.

    own_rates: the run sets the learning rates of the optimiser, so that nobody else may. A rule that teaches nothing
    goes on, for it may be meant; history.note says so.
    """
    before = [p.detach().clone() for p in rule.parameters()]
    rates, filled = [group["lr"] for group in optimizer.param_groups], {}

    def look(*_):
        filled.update({name: p.grad for name, p in rule.named_parameters() if p.grad is not None})

    hook = optimizer.register_step_pre_hook(look)
    try:
        loss = asks_of_net(step)(rule, x, y, optimizer, estimates)
    finally:
        hook.remove()
    look()
    still = all(torch.equal(p, old) for p, old in zip(rule.parameters(), before, strict=True))
    if not filled and still and torch.isfinite(loss):
        mend = "backward(x, y) has to call self.add_grad(parameter, gradient), of parameters with requires_grad True"
        nothing = "teaches nothing: after its first step .grad is empty and no parameter has moved"
        history.note = f"{rule.title} {nothing}. {mend}"
    homes: dict[int, str] = {}
    for name, gradient in filled.items():
        if not rule.get_parameter(name).requires_grad:
            raise ValueError(f"{rule.title} fills .grad of {name}, which has requires_grad False; add_grad does not")
        other = homes.setdefault(gradient.data_ptr(), name)
        if other != name and gradient.numel():
            mend = "so that clipping in place would hit it twice; give add_grad a gradient.clone()"
            raise ValueError(f"{other} and {name} share one tensor in .grad, {mend}")
    if own_rates and [group["lr"] for group in optimizer.param_groups] != rates:
        mend = 'lr=None and schedule="constant" leave them to the scheduler'
        twice = "optimizer has its learning rates set by a scheduler within a step, and by `train` before it"
        raise ValueError(f"{twice}; {mend}")
    return loss
