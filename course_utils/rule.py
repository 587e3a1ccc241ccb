"""What every learning rule of the course is: something that fills `.grad` by its own means, and its knobs."""

from typing import Any

import torch
from torch import nn

from course_utils.checks import above, at_least, between, check_seed, one_of, require, whole
from course_utils.device import stream
from course_utils.doors import asks_of_net, check_net
from course_utils.feedback import FeedbackWeights
from course_utils.metrics import true_gradient

__all__ = ["FeedbackWeights", "Knob", "Rule", "above", "at_least", "between", "one_of", "whole"]

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


class Knob:
    """A setting of a rule, declared in its class and checked wherever it is set: constructor, slider or schedule.

        feedback_scale = Knob(0.05, at_least(0), slider=(5e-4, 5.0, "log"), live=True)

    default: its value if nothing is said. allowed: (words, test), as `at_least`, `above`, `between` and `whole` make
    it, or (words, test, choices) from `one_of`. slider: (low, high, "log" | "linear") for the playground, or None.
    live: `backward` reads it anew each time, so it may move while training runs. ValueError for what is not allowed.
    """

    def __init__(self, default, allowed, slider=None, live=False):
        self.default, self.allowed, self.slider, self.live = default, allowed, slider, live
        self.choices = allowed[2] if len(allowed) > 2 else ()
        self.name = "knob"
        self.check(default)
        if slider is not None:
            low, high, scale = slider
            if not (low < high and low <= default <= high and (scale == "linear" or scale == "log" and low > 0)):
                raise ValueError(f"slider is {slider}; write (low, high, 'log' or 'linear') with {default!r} inside")

    # Python calls these three: when the class is made, when `rule.decay` is read, when it is set (a descriptor).

    def __set_name__(self, owner, name):
        self.name = name

    def __get__(self, rule, owner=None):
        return self if rule is None else rule.__dict__[self.name]

    def __set__(self, rule, value):
        rule.__dict__[self.name] = self.check(value)

    def check(self, value):
        """The value as Python's own number; ValueError when it is not allowed."""
        return require(self.name, value, self.allowed)


class Rule(nn.Module):
    """A learning rule that teaches one network.

    A rule of your own overrides `backward(x, y)`: fill `.grad` of the parameters it teaches with `add_grad`
    (an estimate of +∂L/∂θ, averaged over the batch) and return the batch's loss, a 0-d tensor. Whatever else
    the rule changes (feedback weights on their own clock, say) belongs in `step`. Its settings are `Knob`s; its
    __init__, where it needs one, takes (self, net, seed=0, **knobs) and hands them on.

    net: an `MLP`, or a `Net` of one's own. seed: int ≥ 0, for the rule's own `generator`. knobs: values by name;
    TypeError for others. Parameters, buffers and the generator travel in `state_dict()`. Class attributes: title;
    look, the colour and line of its curves; lr, a good default for SGD with momentum 0.9; plausibility, a word for
    each of `CRITERIA`; loss_name, when `backward` returns another objective than `net.loss`. Made from the class:
    knobs, {name: Knob}, and live_knobs, the names of those that may move while training runs.
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
        # Parents' knobs first; a plain value in a subclass takes the place of a parent's knob, which is then none.
        names = dict.fromkeys(name for base in reversed(cls.__mro__) for name in vars(base))
        if "__init__" in vars(cls):
            cls.__init__ = asks_of_net(cls.__init__)  # type: ignore[method-assign]
        cls.knobs = {name: knob for name in names if isinstance(knob := getattr(cls, name, None), Knob)}
        cls.live_knobs = tuple(name for name, knob in cls.knobs.items() if knob.live)
        require(f"{cls.__name__}.title", cls.title, ("a text", lambda title: isinstance(title, str)))
        require(f"{cls.__name__}.lr", cls.lr, above(0))
        for column, word in cls.plausibility.items() if isinstance(cls.plausibility, dict) else ():
            words = CRITERIA.get(column, ())
            if words is not None and word not in words:
                known = f"write one of: {', '.join(words)}" if words else f"the columns are: {', '.join(CRITERIA)}"
                raise ValueError(f"{cls.__name__}.plausibility[{column!r}] is {word!r}; {known}")
        if isinstance(cls.look, tuple):
            LOOKS[cls.title] = cls.look

    def __init__(self, net, seed=0, **knobs):
        super().__init__()
        seed = check_seed(seed)
        check_net(net, self.title)
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

    def check_data(self, data):
        """Raise ValueError for data that this rule cannot learn from; `train` asks before the first step."""

    @torch.no_grad()
    def predict(self, x):
        """Scores (batch, classes) whose argmax is the class."""
        return self.net.activations(x)[-1]

    def taught(self):
        """(layer, parameter) of all that is taught and held against a gradient; layers run from 1 to the readout.

        A rule with weights of its own in place of the network's says so here, and where they stand.
        """
        return [(l, p) for group in (self.net.weights, self.net.biases) for l, p in enumerate(group, 1)]

    def hidden_parameters(self):
        """The parameters that the frozen control keeps still: all that are taught but those of the last layer."""
        taught = self.taught()
        return [p for l, p in taught if l < max(taught, key=lambda pair: pair[0])[0]]

    def parameter_groups(self, lr):
        """What `train` gives the optimiser, for layers that want different rates: groups as torch.optim takes them."""
        return [{"params": list(self.parameters()), "lr": lr}]

    def reference_gradient(self, x, y):
        """What the rule's estimates are held against: autograd's gradient of net.loss, in the order of `taught`.

        A rule that follows another gradient (a recurrent network's, say) returns that one.
        """
        return true_gradient(self.net, x, y)

    def add_grad(self, parameter, gradient):
        """Add a gradient to `parameter.grad` as PyTorch does, unless the parameter has requires_grad False.

        The tensor is taken over: do not write into it after, and hand a clone to a second parameter.
        """
        if gradient.shape != parameter.shape:
            raise ValueError(f"gradient has shape {tuple(gradient.shape)}, its parameter {tuple(parameter.shape)}")
        if not parameter.requires_grad:
            return
        gradient = gradient.detach().to(parameter.dtype)  # autocast makes half precision of it
        if parameter.grad is None:
            # In plain order, because torch's fused optimisers misread a transposed or expanded tensor without a word.
            parameter.grad = gradient.contiguous()
        else:
            # Not in place: two parameters may have been given the same tensor, as in Kolen–Pollack.
            parameter.grad = parameter.grad + gradient

    # What PyTorch calls to let the generator travel with the weights.

    def get_extra_state(self):
        return self.generator.get_state()

    def set_extra_state(self, state):
        if state.shape == self.generator.get_state().shape:  # that of another kind of device says nothing here
            self.generator.set_state(state.cpu())

    def _load_from_state_dict(self, state_dict, prefix, *rest):
        state_dict.setdefault(f"{prefix}_extra_state", self.get_extra_state())  # not in states saved before 0.3
        super()._load_from_state_dict(state_dict, prefix, *rest)
