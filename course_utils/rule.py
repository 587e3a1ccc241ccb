"""What every learning rule of the course is: something that fills `.grad` by its own means."""

import torch
from torch import nn

from course_utils.checks import check_seed

# The columns of a plausibility card: what a rule asks of a brain.
CRITERIA = (
    "weight_transport",  # does a synapse have to know another one's weight?
    "update_locking",  # do hidden layers wait for the output before they may learn?
    "non_local",  # does a synapse need what is not at hand in it?
    "separate_phases",  # are there modes of operation to switch between?
    "global_error",  # what is sent to everybody: nothing, a scalar, a vector
    "signed_error",
    "needs_derivative",  # f′
    "cost",  # passes through the network per update
)


class Rule(nn.Module):
    """A learning rule that teaches one network.

    A rule of your own overrides `backward(x, y)`: fill `.grad` of the parameters it teaches with `add_grad`
    (an estimate of +∂L/∂θ, averaged over the batch) and return the batch's loss, a 0-d tensor. Whatever else
    the rule changes (feedback weights on their own clock, say) belongs in `step`.

    net: the `MLP`. seed: int ≥ 0, for the rule's own `generator`. Any parameter or buffer the rule registers
    travels in `state_dict()`. Class attributes: title; lr, a good default for SGD with momentum 0.9; knobs,
    {keyword of the constructor: (low, high, "log" | "linear")} for the playground; live_knobs, the names of those
    that `backward` reads from the attribute of that name, so that they may move while training runs; plausibility,
    a word for each of `CRITERIA`; loss_name, when `backward` returns another objective than `net.loss`.
    """

    title = "Rule"
    lr = 0.1
    knobs: dict[str, tuple[float, float, str]] = {}
    live_knobs: tuple[str, ...] = ()
    plausibility: dict[str, str] = {}
    loss_name = "loss"

    def __init__(self, net, seed=0):
        super().__init__()
        check_seed(seed)
        self.net = net
        self.seed = seed
        # Not the plain seed: the network's weights come from that one, and a rule's noise must not repeat them.
        self.generator = torch.Generator(net.weights[0].device).manual_seed(seed + 2_000_003)

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


class FrozenHidden(Rule):
    """The control of every lesson: the same rule with the updates of the hidden layers dropped.

    Only the readout learns, on top of random features. A rule that does not beat this control has taught its
    hidden layers nothing. A rule that perturbs its hidden units declares `perturb_hidden`; here it is turned off.
    """

    def __init__(self, rule):
        super().__init__(rule.net, rule.seed)
        self.rule, self.generator = rule, rule.generator
        self.title = f"{rule.title}, hidden layers frozen"
        self.lr, self.knobs, self.loss_name = rule.lr, rule.knobs, rule.loss_name
        self.plausibility = rule.plausibility
        if hasattr(rule, "perturb_hidden"):
            rule.perturb_hidden = False

    def hidden(self):
        """The parameters that do not learn: all weights and biases but the readout's."""
        return [p for group in (self.net.weights, self.net.biases) for p in list(group)[:-1]]

    def step(self, x, y, optimizer):
        """The rule's own step, with whatever else it changes; the hidden layers are then put back."""
        if type(self.rule).step is Rule.step:
            return super().step(x, y, optimizer)
        kept = [(p, p.detach().clone()) for p in self.hidden()]
        loss = self.rule.step(x, y, optimizer)
        with torch.no_grad():
            for p, value in kept:
                p.copy_(value)
                p.grad = None
        return loss

    def backward(self, x, y):
        hidden = self.hidden()
        before = [p.grad for p in hidden]
        for p in hidden:
            p.grad = None
        try:
            return self.rule.backward(x, y)
        finally:
            for p, gradient in zip(hidden, before, strict=True):
                p.grad = gradient

    def predict(self, x):
        return self.rule.predict(x)
