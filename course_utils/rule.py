"""What every learning rule of the course is: something that fills `.grad` by its own means."""

from typing import Any

import torch
from torch import nn

from course_utils.checks import check_seed
from course_utils.device import stream
from course_utils.settings import Knob, above, at_least, between, one_of, whole

__all__ = ["Around", "FeedbackWeights", "FrozenHidden", "Knob", "Rule", "above", "at_least", "between", "one_of", "whole"]

# The columns of a plausibility card, what a rule asks of a brain, and the words that may stand in each (None: any).
CRITERIA: dict[str, tuple[str, ...] | None] = {
    "weight_transport": ("no", "yes", "yes, to settle", "1 bit a weight"),  # must a synapse know another one's weight?
    "update_locking": ("no", "partly", "yes"),  # do hidden layers wait for the output before they may learn?
    "non_local": ("no", "partly", "yes"),  # does a synapse need what is not at hand in it?
    "separate_phases": ("no", "partly", "yes"),  # are there modes of operation to switch between?
    # what is sent to everybody
    "global_error": ("nothing", "scalar", "vector", "vector, to the input", "1 bit an output", "label only"),
    "signed_error": ("no", "yes", "a signed scalar"),
    "needs_derivative": ("no", "partly", "yes"),  # f′
    "cost": None,  # passes through the network per update
}
LOOKS: dict[str, tuple[str, Any]] = {}  # title of a rule → its colour and line, for every figure


class Rule(nn.Module):
    """A learning rule that teaches one network.

    A rule of your own overrides `backward(x, y)`: fill `.grad` of the parameters it teaches with `add_grad`
    (an estimate of +∂L/∂θ, averaged over the batch) and return the batch's loss, a 0-d tensor. Whatever else
    the rule changes (feedback weights on their own clock, say) belongs in `step`. Its settings are `Knob`s; its
    __init__, where it needs one, takes (self, net, seed=0, **knobs) and hands them on.

    net: the `MLP`. seed: int ≥ 0, for the rule's own `generator`. knobs: values of its knobs by name; TypeError for
    names it has not. Any parameter or buffer the rule registers travels in `state_dict()`. Class attributes: title; look,
    the colour and line of its curves, as ("blue", "--"); lr, a good default for SGD with momentum 0.9; plausibility, a
    word for each of `CRITERIA`; loss_name, when `backward` returns another objective than `net.loss`. Made from the
    class: knobs, {name: Knob}, and live_knobs, the names of those that may move while training runs.
    """

    title = "Rule"
    look: tuple[str, Any] | None = None
    lr = 0.1
    plausibility: dict[str, str] = {}
    loss_name = "loss"
    knobs: dict[str, Knob] = {}
    live_knobs: tuple[str, ...] = ()

    def __init_subclass__(cls, **keywords):
        super().__init_subclass__(**keywords)
        if not all(isinstance(knob, Knob) for knob in cls.__dict__.get("knobs", {}).values()):
            raise ValueError(f"{cls.__name__}.knobs: declare each in the class, as in decay = Knob(0.1, above(0))")
        names = dict.fromkeys(name for base in reversed(cls.__mro__) for name in vars(base))
        cls.knobs = {name: knob for name in names if isinstance(knob := getattr(cls, name, None), Knob)}
        cls.live_knobs = tuple(name for name, knob in cls.knobs.items() if knob.live)
        if isinstance(cls.plausibility, dict):
            _check_card(cls)
        if isinstance(cls.look, tuple):
            LOOKS[cls.title] = cls.look

    def __init__(self, net, seed=0, **knobs):
        super().__init__()
        check_seed(seed)
        if unknown := set(knobs) - set(self.knobs):
            has = ", ".join(self.knobs) or "none"
            raise TypeError(f"{type(self).__name__} has no knob {', '.join(sorted(unknown))}; its knobs are: {has}")
        self.net, self.seed = net, seed
        self.generator = stream("rule", seed, net.weights[0].device)
        for name, knob in self.knobs.items():
            setattr(self, name, knobs.get(name, knob.default))

    def backward(self, x, y):
        """Fill `.grad` and nothing else; return the batch's loss before the step, a 0-d tensor.

        x: (batch, inputs) floating. y: (batch,) int64 labels or (batch, classes) target values.
        """
        raise NotImplementedError(f"{type(self).__name__} must override backward(x, y)")

    def step(self, x, y, optimizer):
        """One update: zero_grad, backward, optimizer.step. Returns the loss of `backward`."""
        optimizer.zero_grad(set_to_none=True)
        loss = self.backward(x, y)
        optimizer.step()
        return loss

    @torch.no_grad()
    def predict(self, x):
        """Scores (batch, classes) whose argmax is the class."""
        return self.net(x)

    def hidden_parameters(self):
        """The parameters that the frozen control keeps still: all weights and biases but the readout's."""
        return [p for group in (self.net.weights, self.net.biases) for p in list(group)[:-1]]

    def parameter_groups(self, lr):
        """What `train` gives the optimiser, for layers that want different rates: groups as torch.optim takes them."""
        return [{"params": list(self.parameters()), "lr": lr}]

    def add_grad(self, parameter, gradient):
        """Add a gradient to `parameter.grad` as PyTorch does. The tensor is taken over: do not write into it after."""
        if gradient.shape != parameter.shape:
            raise ValueError(f"gradient has shape {tuple(gradient.shape)}, its parameter {tuple(parameter.shape)}")
        if parameter.grad is None:
            # In plain order, because torch's fused optimisers misread a transposed or expanded tensor without a word.
            parameter.grad = gradient.detach().contiguous()
        else:
            # Not in place: two parameters may have been given the same tensor, as in Kolen–Pollack.
            parameter.grad = parameter.grad + gradient.detach()


def _check_card(rule_class):
    for column, word in rule_class.plausibility.items():
        words = CRITERIA.get(column, ())
        if words is not None and word not in words:
            known = f"write one of: {', '.join(words)}" if words else f"the columns are: {', '.join(CRITERIA)}"
            raise ValueError(f"{rule_class.__name__}.plausibility[{column!r}] is {word!r}; {known}")


class FeedbackWeights(nn.Module):
    """A list of the tensors that stand for net.weights[l] going back: `feedback[l]`, with `feedback[0]` None.

    nn.ParameterList cannot hold buffers; this list holds both. A Parameter in it is trained by the optimiser, a
    plain tensor is a buffer. Both travel in `state_dict()` and move with `.to(device)`. Assigning copies the
    value, so that an edited feedback never shares memory with the weights.
    """

    def __init__(self, tensors):
        super().__init__()
        self._length = len(tensors)
        for l, tensor in enumerate(tensors):
            if isinstance(tensor, nn.Parameter):
                self.register_parameter(str(l), tensor)
            else:
                self.register_buffer(str(l), None if tensor is None else tensor.detach().clone())

    def __len__(self):
        return self._length

    def __getitem__(self, l):
        return getattr(self, str(range(self._length)[l]))

    def __iter__(self):
        return map(self.__getitem__, range(self._length))

    @torch.no_grad()
    def __setitem__(self, l, value):
        old = self[l]
        if old is None:
            raise ValueError(f"feedback_weights[{l}] is None and stays so: nothing goes back to the input")
        if not isinstance(value, torch.Tensor) or old.shape != value.shape:
            got = tuple(value.shape) if isinstance(value, torch.Tensor) else f"a {type(value).__name__}"
            raise ValueError(f"feedback_weights[{l}] is a tensor of shape {tuple(old.shape)}; got {got}")
        old.copy_(value)


class Around(Rule):
    """A rule around another one, which it hands over in all that it does not change: its knobs, state and attributes.

    A subclass overrides `step` (and `backward`, where `.grad` itself is to be another). rule: the rule inside.
    """

    def __init__(self, rule):
        super().__init__(rule.net, rule.seed)
        self.rule, self.generator = rule, rule.generator
        self.knobs, self.live_knobs = rule.knobs, rule.live_knobs
        for name in ("title", "look", "lr", "loss_name", "plausibility"):
            setattr(self, name, getattr(rule, name))

    def __getattr__(self, name):
        try:
            return super().__getattr__(name)  # its own parameters, buffers and modules
        except AttributeError:
            return getattr(super().__getattr__("rule"), name)

    def __setattr__(self, name, value):
        if name in self.__dict__.get("knobs", {}):
            setattr(self.rule, name, value)
        else:
            super().__setattr__(name, value)

    def backward(self, x, y):
        return self.rule.backward(x, y)

    def step(self, x, y, optimizer):
        return self.rule.step(x, y, optimizer)

    def predict(self, x):
        return self.rule.predict(x)

    def hidden_parameters(self):
        return self.rule.hidden_parameters()

    def parameter_groups(self, lr):
        return self.rule.parameter_groups(lr)


class FrozenHidden(Around):
    """The control of every lesson: the same rule with the updates of the hidden layers dropped.

    Only the readout learns, on top of random features. A rule that does not beat this control has taught its
    hidden layers nothing. A rule that perturbs its hidden units declares `perturb_hidden`; here it is turned off. A rule
    with trained parameters besides the network's says which are hidden (`hidden_parameters`), or it is refused.
    """

    def __init__(self, rule):
        super().__init__(rule)
        its_own = {id(p) for p in rule.parameters()} - {id(p) for p in rule.net.parameters()}
        if its_own and type(rule).hidden_parameters is Rule.hidden_parameters:
            raise ValueError(f"{rule.title} trains parameters of its own; say in hidden_parameters() which are hidden")
        self.title = f"{rule.title}, hidden layers frozen"
        if hasattr(rule, "perturb_hidden"):
            rule.perturb_hidden = False

    def step(self, x, y, optimizer):
        """The rule's own step, with whatever else it changes; the hidden layers are then put back."""
        if type(self.rule).step is Rule.step:
            return Rule.step(self, x, y, optimizer)
        kept = [(p, p.detach().clone()) for p in self.hidden_parameters()]
        loss = self.rule.step(x, y, optimizer)
        with torch.no_grad():
            for p, value in kept:
                p.copy_(value)
                p.grad = None
        return loss

    def backward(self, x, y):
        before = [(p, p.grad) for p in self.hidden_parameters()]
        for p, _ in before:
            p.grad = None
        try:
            return self.rule.backward(x, y)
        finally:
            for p, gradient in before:
                p.grad = gradient
