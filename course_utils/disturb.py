"""What can be done to a Dataset, a network or a rule to make life harder. Nothing here is trained or tested."""

import math
from dataclasses import replace

import torch
import torch.nn.functional as F

from course_utils.checks import check_seed, is_number
from course_utils.rule import FeedbackWeights, Rule

PARTS = ("train", "val", "test")


def of_classes(data, classes):
    """Only the images of these classes, in all three parts; the labels keep their numbers."""
    classes, present = list(classes), data.y_train.unique().tolist()
    if not classes or not set(classes) <= set(present):
        raise ValueError(f"classes is {classes!r}; choose one or more of {present}")
    changed: dict[str, torch.Tensor] = {}
    for part in PARTS:
        x, y = getattr(data, f"x_{part}"), getattr(data, f"y_{part}")
        wanted = torch.isin(y, torch.tensor(classes).to(y))
        changed |= {f"x_{part}": x[wanted], f"y_{part}": y[wanted]}
    return replace(data, **changed)


def permuted(data, seed):
    """Every image with its pixels in another order, the same for all images; seed: which order."""
    check_seed(seed)
    order = torch.randperm(data.x_train.shape[1], generator=torch.Generator().manual_seed(seed)).to(data.x_train.device)
    return _each_image(data, lambda x: x[:, order])


def rotated(data, degrees):
    """Every image turned anticlockwise about its middle; what comes in from outside the picture is black."""
    side = math.isqrt(data.x_train.shape[1])
    if not is_number(degrees) or side**2 != data.x_train.shape[1]:
        raise ValueError(
            f"degrees is {degrees!r}, for images of {data.x_train.shape[1]} pixels: a number, and a square"
        )
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    turn = data.x_train.new_tensor([[[c, -s, 0.0], [s, c, 0.0]]])
    grid = F.affine_grid(turn, [1, 1, side, side], align_corners=False)

    def sample(x):  # the images as channels of one picture: one grid serves all
        return F.grid_sample(x.view(1, len(x), side, side), grid, align_corners=False).view(x.shape).clamp(0, 1)

    return _each_image(data, sample)


def per_class(data, n, seed=0):
    """A training set of n images of each class, drawn by `seed`; validation and test stay whole."""
    check_seed(seed)
    labels, counts = data.y_train.unique(return_counts=True)
    if not isinstance(n, int) or not 1 <= n <= counts.min():
        raise ValueError(f"n is {n!r}; it must be a whole number from 1 to {counts.min()}, what the rarest class has")
    order = torch.randperm(len(data.y_train), generator=torch.Generator().manual_seed(seed)).to(labels.device)
    chosen = torch.cat([order[data.y_train[order] == label][:n] for label in labels])
    return replace(data, x_train=data.x_train[chosen], y_train=data.y_train[chosen])


def _each_image(data, change):
    return replace(data, **{f"x_{part}": change(getattr(data, f"x_{part}")) for part in PARTS})


def noisy_images(data, std, seed=0):
    """Gaussian noise of that std on every pixel; 0 gives the same numbers back."""
    generator = torch.Generator(data.x_train.device).manual_seed(seed + 5_000_011)  # no network's weights
    return _each_image(data, lambda x: x + std * torch.randn(x.shape, generator=generator, device=x.device).to(x))


@torch.no_grad()
def shake_weights(net, std, seed=0):
    """Add Gaussian noise of std × a weight matrix's own standard deviation to each; inside `metrics.no_trace`, say."""
    for l, w in enumerate(net.weights):
        generator = torch.Generator(w.device).manual_seed(seed + 6_000_011 + l)  # not those w began with
        w += std * w.std() * torch.randn(w.shape, generator=generator, device=w.device).to(w)


def has_feedback(rule):
    """Are there feedback weights that noise can be put on?"""
    return isinstance(getattr(rule, "feedback_weights", None), FeedbackWeights) or hasattr(rule, "draw_feedback")


class NoisyFeedback(Rule):
    """A rule whose feedback weights meet fresh noise in every step, of std × each tensor's own standard deviation."""

    def __init__(self, rule, std):
        super().__init__(rule.net, rule.seed)
        if not has_feedback(rule):
            raise ValueError(f"{rule.title} has no feedback_weights to put noise on")
        self.rule, self.std, self.title, self.lr, self.loss_name = rule, std, rule.title, rule.lr, rule.loss_name
        self.generator.manual_seed(rule.seed + 4_000_037)  # not the rule's own noise
        self.held = [b for b in rule.feedback_weights if b is not None]
        if not isinstance(rule.feedback_weights, FeedbackWeights) and std:  # it works them out anew in every backward
            draw, self.held = rule.draw_feedback, []
            rule.draw_feedback = lambda generator: tuple(b if b is None else self.noisy(b) for b in draw(generator))

    def noisy(self, b):
        noise = torch.randn(b.shape, generator=self.generator, device=b.device, dtype=b.dtype)
        return b.detach() + self.std * b.detach().std() * noise

    def step(self, x, y, optimizer):
        if not self.std:
            return self.rule.step(x, y, optimizer)
        before, noisy = [b.detach().clone() for b in self.held], [self.noisy(b) for b in self.held]
        for b, with_noise in zip(self.held, noisy, strict=True):
            b.data.copy_(with_noise)
        loss = self.rule.step(x, y, optimizer)
        for b, old, with_noise in zip(self.held, before, noisy, strict=True):
            b.data.copy_(old + (b.detach() - with_noise))  # the noise goes, what was learned stays
        return loss

    def predict(self, x):
        return self.rule.predict(x)
