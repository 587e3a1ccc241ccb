"""Rules around rules: the frozen control, and the base of all wrappers."""

import torch
from torch import nn

from course_utils.doors import check_rule
from course_utils.rule import Rule
from course_utils.safely import surely


class Around(nn.Module):
    """A rule around another one, which it hands over in all that it does not change: its knobs, state and attributes.

    A subclass overrides `step` (and `backward`, where `.grad` itself is to be another). rule: the rule inside.
    """

    def __init__(self, rule):
        check_rule(rule)
        super().__init__()
        self.rule = rule

    def __getattr__(self, name):  # called for what the wrapper itself does not have
        try:
            return super().__getattr__(name)  # its own parameters, buffers and modules
        except AttributeError:
            return getattr(super().__getattr__("rule"), name)

    def __setattr__(self, name, value):
        inside = self.__dict__.get("_modules", {}).get("rule")
        if inside is not None and name in inside.knobs:
            setattr(inside, name, value)
        else:
            super().__setattr__(name, value)

    def backward(self, x, y):
        return self.rule.backward(x, y)

    def step(self, x, y, optimizer):
        return self.rule.step(x, y, optimizer)


class FrozenHidden(Around):
    """The control of every lesson: the same rule with the updates of the hidden layers dropped.

    Only the readout learns, on top of random features. A rule that does not beat this control has taught its hidden
    layers nothing. A rule that perturbs hidden units declares `perturb_hidden`; here it is turned off. A rule that
    trains parameters that are not in its `taught` says which are hidden (`hidden_parameters`), or it is refused.
    """

    def __init__(self, rule):
        super().__init__(rule)
        known = [*rule.net.parameters(), *(p for _, p in rule.taught())]
        its_own = {id(p) for p in rule.parameters()} - {id(p) for p in known}
        if its_own and getattr(rule.hidden_parameters, "__func__", None) is Rule.hidden_parameters:
            say = "say in taught() what they are, or in hidden_parameters() which are hidden"
            raise ValueError(f"{rule.title} trains parameters of its own; {say}")
        self.title = f"{rule.title}, hidden layers frozen"
        if hasattr(rule, "perturb_hidden"):
            rule.perturb_hidden = False

    def step(self, x, y, optimizer):
        """The rule's own step, with whatever else it changes; the hidden layers are then put back."""
        if type(self.rule).step is Rule.step:
            return Rule.step(self, x, y, optimizer)
        kept = [(p, p.detach().clone()) for p in self.hidden_parameters()]

        @torch.no_grad()
        def put_back():
            for p, value in kept:
                p.copy_(value)
                p.grad = None

        return surely(put_back, self.rule.step, x, y, optimizer)

    def backward(self, x, y):
        before = [(p, p.grad) for p in self.hidden_parameters()]

        def put_back():
            for p, gradient in before:
                p.grad = gradient

        def act():
            for p, _ in before:
                p.grad = None
            return self.rule.backward(x, y)

        return surely(put_back, act)
