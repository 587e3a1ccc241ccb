# Exported from lessons/29_harder_worlds/lesson.md. Edit the lesson, not this file.

import copy
import math
from dataclasses import replace

import pandas as pd
import torch

from course_utils.checks import check_seed, is_number
from course_utils.controls import Around
from course_utils.data import load_dataset
from course_utils.device import stream
from course_utils.metrics import no_trace
from course_utils.rule import FeedbackWeights
from course_utils.runs import SCHEMA, make_rule, one_run, provenance
from course_utils.safely import surely
from course_utils.settings import Settings
from course_utils.training import make_optimizer, scores, steps


def online(name, sizes, lr, seed, batch_size=1, **settings):
    """A run like any other, `batch_size` images at a time, which `dataset` says."""
    frame = one_run(name, sizes, lr, seed, batch_size=batch_size, **settings)
    return frame.assign(dataset=frame.dataset + f", {batch_size} at a time")


LOOKS = (0.02, 0.05, 0.1, 0.2, 0.5, 1.0)  # when to ask, in shares of the time spent in a task


class Life:
    """One rule from birth on: it learns from one dataset after another with one optimiser, and is asked about any."""

    def __init__(
        self, name, sizes, lr, seed, network=None, knobs=None, optimizer="adam", momentum=0.9, feedback_noise=0.0,
        **training,
    ):  # fmt: skip
        self.rule = make_rule(name, sizes, seed, knobs, **(network or {}))
        if feedback_noise:
            self.rule = NoisyFeedback(self.rule, feedback_noise)
        lr = self.rule.lr if lr is None else lr
        self.optimizer = make_optimizer(self.rule, optimizer, lr, momentum)
        self.training = {"eval_every": 10**12, **training, "seed": seed}
        shown = " ".join(["-".join(map(str, sizes)), *(network or {}).values()])
        self.facts = {"rule": name, "sizes": shown, "seed": seed, "lr": lr}
        self.samples, self.seconds, self.epoch, self.rows = 0, 0.0, 0.0, []

    def learn(self, data, looks=(1.0,), **training):
        """Train on `data`; yields at those shares of the way."""
        before = self.samples, self.seconds, self.epoch
        data = replace(data, x_val=data.x_val[:1], y_val=data.y_val[:1])  # for the run's own rows: nobody reads them
        for history in steps(self.rule, data, Settings(optimizer=self.optimizer, **self.training | training)):
            done = history.status != "running"
            if done or history.steps in {max(1, round(look * history.planned)) for look in looks}:
                now = history.samples, history.seconds, history.samples / history.images
                self.samples, self.seconds, self.epoch = (a + b for a, b in zip(before, now, strict=True))
                yield done

    def ask(self, what, data, test=False, noise=0.0, among=None):
        """A row: accuracy on data's validation images, and on its test images if `test`; among: told these classes."""
        row = {"dataset": what, "noise": noise, "epoch": self.epoch, "samples": self.samples, "seconds": self.seconds}
        for part in ("val", "test"):
            row[f"{part}_accuracy"] = math.nan
            if part == "val" or test:
                answers = scores(self.rule, getattr(data, f"x_{part}"))
                if among is not None:
                    others = [c for c in range(answers.shape[1]) if c not in among]
                    answers = answers.index_fill(1, torch.tensor(others, device=answers.device), -math.inf)
                row[f"{part}_accuracy"] = (answers.argmax(1) == getattr(data, f"y_{part}")).double().mean().item()
        self.rows.append(row)

    @property
    def frame(self):
        facts = self.facts | provenance(self.rule.net.weights[0].device)
        return pd.DataFrame(self.rows).assign(**facts)[SCHEMA]


def in_turn(tasks, test, *begin, among=None, **training):
    """A life through two tasks, {name: Dataset}, asked about both; and one that meets the second with no past.

    among: {name: its classes}, to ask also with a hint which they are. Other arguments: those of `Life`.
    """
    first, second = tasks
    life, alone = Life(*begin, **training), Life(*begin, **training)

    def ask(who, name, label, test=False):
        who.ask(label, tasks[name], test)
        if among:
            who.ask(f"{label}, told which", tasks[name], test, among=among[name])

    for _ in life.learn(tasks[first]):
        ask(life, first, first)
        ask(life, second, second)
    for done in life.learn(tasks[second], LOOKS):
        ask(life, first, first, test and done)
        ask(life, second, second, test and done)
    for done in alone.learn(tasks[second], LOOKS):
        ask(alone, second, f"{second} alone", test and done)
    return pd.concat([life.frame, alone.frame], ignore_index=True)


def classes(name, sizes, lr, seed, dataset="mnist", limit=None, test=False, **training):
    """First the classes 0 … 4, then 5 … 9."""
    data = load_dataset(dataset, limit=limit)
    among = {f"{data.name} 0-4": range(5), f"{data.name} 5-9": range(5, 10)}
    tasks = {task: of_classes(data, members) for task, members in among.items()}
    return in_turn(tasks, test, name, sizes, lr, seed, among=among, **training)


def of_classes(data, classes):
    """Only the images of these classes, in all three parts; the labels keep their numbers."""
    classes, present = list(classes), data.y_train.unique().tolist()
    if not classes or not set(classes) <= set(present):
        raise ValueError(f"classes is {classes!r}; choose one or more of {present}")
    changed: dict[str, torch.Tensor] = {}
    for part in ("train", "val", "test"):
        x, y = getattr(data, f"x_{part}"), getattr(data, f"y_{part}")
        chosen = torch.isin(y, torch.tensor(classes).to(y))
        changed |= {f"x_{part}": x[chosen], f"y_{part}": y[chosen]}
    return replace(data, **changed)


def pixels(name, sizes, lr, seed, dataset="mnist", limit=None, test=False, **training):
    """First the images as they are, then with their pixels in another order, one for each seed."""
    data = load_dataset(dataset, limit=limit)
    tasks = {f"{data.name} in order": data, f"{data.name} permuted": permuted(data, seed)}
    return in_turn(tasks, test, name, sizes, lr, seed, **training)


def permuted(data, seed):
    """Every image with its pixels in another order, the same for all images; seed: which order."""
    check_seed(seed)
    order = torch.randperm(data.x_train.shape[1], generator=torch.Generator().manual_seed(seed)).to(data.x_train.device)
    return each_image(data, lambda x: x[:, order])


def each_image(data, change):
    return replace(data, **{f"x_{part}": change(getattr(data, f"x_{part}")) for part in ("train", "val", "test")})


ANGLES = range(0, 91, 10)


def rotation(name, sizes, lr, seed, dataset="mnist", limit=None, test=False, stage_epochs=3, **training):
    """Upright digits first; then a tenth of the images at every angle, each turned a little further.

    After each angle: how good upright, at this angle, and at the next one, not seen yet? And one life of the same
    childhood that is turned all the way at once, on as many images as an angle has.
    """
    data = load_dataset(dataset, limit=limit)
    data = replace(data, x_val=data.x_val[:2000], y_val=data.y_val[:2000])
    share, labels = len(data.x_train) // len(ANGLES), [f"{data.name} {angle}°" for angle in ANGLES]

    def turned(k, angle, train=True, test=False):
        rows = slice(k * share, (k + 1) * share if train else k * share + 1)
        few = replace(data, x_train=data.x_train[rows], y_train=data.y_train[rows])
        return rotated(few if test else replace(few, x_test=data.x_test[:1], y_test=data.y_test[:1]), angle)

    asked = [data, *(turned(k, ANGLES[k], train=False, test=k == len(ANGLES) - 1) for k in range(1, len(ANGLES)))]
    life, last = Life(name, sizes, lr, seed, **training), len(ANGLES) - 1
    for k, angle in enumerate(ANGLES):
        world, how = (turned(k, angle), {"epochs": stage_epochs}) if k else (data, {})
        for _ in life.learn(world, **how):
            for j in sorted({0, k, min(k + 1, last)}):
                life.ask(labels[j], asked[j], test and k == last)
        if k == 0:
            sudden = copy.deepcopy(life)
            sudden.rows = []
    for done in sudden.learn(world, LOOKS[2:], epochs=stage_epochs):
        sudden.ask(f"{labels[0]} sudden", data, test and done)
        sudden.ask(f"{labels[-1]} sudden", asked[-1], test and done)
    return pd.concat([life.frame, sudden.frame], ignore_index=True)


def rotated(data, degrees):
    """Every image turned anticlockwise about its middle; what comes in from outside the picture is black."""
    side = math.isqrt(data.x_train.shape[1])
    if not is_number(degrees) or side**2 != data.x_train.shape[1]:
        raise ValueError(
            f"degrees is {degrees!r}, for images of {data.x_train.shape[1]} pixels: a number, and a square"
        )
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    turn = data.x_train.new_tensor([[[c, -s, 0.0], [s, c, 0.0]]])
    grid = torch.nn.functional.affine_grid(turn, [1, 1, side, side], align_corners=False)

    def sample(x):
        channels = x.view(1, len(x), side, side)  # the images as channels of one picture: one grid serves all
        return torch.nn.functional.grid_sample(channels, grid, align_corners=False).view(x.shape).clamp(0, 1)

    return each_image(data, sample)


TEST_NOISE = (0.0, 0.1, 0.2, 0.4, 0.8, 1.6)
LEARNING_NOISE = (1.0, 3.0)


def noise(name, sizes, lr, seed, dataset="mnist", limit=None, test=False, **training):
    """Noise after learning, on images and on weights; noise while learning, on activities and on feedback weights."""
    data = load_dataset(dataset, limit=limit)
    plain = Life(name, sizes, lr, seed, **training)
    for _ in plain.learn(data):
        for std in TEST_NOISE:
            plain.ask(f"{data.name}, noise on images", noisy_images(data, std, seed), test, std)
        for std in TEST_NOISE:
            with no_trace(plain.rule):
                shake_weights(plain.rule.net, std, seed)
                plain.ask(f"{data.name}, noise on weights", data, test, std)
    frames = [plain.frame]
    for kind in ("activity", "feedback") if has_feedback(plain.rule) else ("activity",):
        zero = plain.frame.iloc[[0]].assign(dataset=f"{data.name}, noise on {kind}")
        frames.append(zero)
        for std in LEARNING_NOISE:
            own, how = ({}, {"activity_noise": std}) if kind == "activity" else ({"feedback_noise": std}, {})
            life = Life(name, sizes, lr, seed, **training, **own)
            for _ in life.learn(data, **how):
                life.ask(f"{data.name}, noise on {kind}", data, test, std)
            frames.append(life.frame)
    return pd.concat(frames, ignore_index=True)


def noisy_images(data, std, seed=0):
    """Gaussian noise of that std on every pixel; 0 gives the same numbers back."""
    generator = stream("image noise", seed, data.x_train.device)
    return each_image(data, lambda x: x + std * torch.randn(x.shape, generator=generator, device=x.device).to(x))


@torch.no_grad()
def shake_weights(net, std, seed=0):
    """Add Gaussian noise of std × a weight matrix's own standard deviation to each; inside `metrics.no_trace`, say."""
    generator = stream("weight noise", seed, net.weights[0].device)
    for w in net.weights:
        w += std * w.std() * torch.randn(w.shape, generator=generator, device=w.device).to(w)


def has_feedback(rule):
    """Are there feedback weights that noise can be put on?"""
    return isinstance(getattr(rule, "feedback_weights", None), FeedbackWeights) or hasattr(rule, "draw_feedback")


class NoisyFeedback(Around):
    """The same rule, its feedback weights under fresh noise in every step, of std × each tensor's own spread."""

    def __init__(self, rule, std):
        super().__init__(rule)
        if not has_feedback(rule):
            raise ValueError(f"{rule.title} has no feedback_weights to put noise on")
        self.std, self.generator = std, stream("feedback noise", rule.seed, rule.net.weights[0].device)

    def step(self, x, y, optimizer):
        return self.under_noise(super().step, x, y, optimizer)

    def backward(self, x, y):
        return self.under_noise(super().backward, x, y)

    def under_noise(self, act, *arguments):
        """act under noisy feedback; then the noise goes and what was learned stays (nothing, where it is cut off)."""
        rule, feedback = self.rule, []
        draw = getattr(rule, "draw_feedback", None)  # a rule that works its feedback out anew in every backward
        if self.std and draw is None:
            feedback = [b for b in rule.feedback_weights if b is not None]
        left, noisy = [b.detach().clone() for b in feedback], [self.noisy(b) for b in feedback]

        def noisily():
            if self.std and draw is not None:
                rule.draw_feedback = lambda *given: tuple(b if b is None else self.noisy(b) for b in draw(*given))
            for b, with_noise in zip(feedback, noisy, strict=True):
                b.data.copy_(with_noise)
            loss = act(*arguments)
            left[:] = [old + (b.detach() - n) for b, old, n in zip(feedback, left, noisy, strict=True)]
            return loss

        def put_back():
            vars(rule).pop("draw_feedback", None)
            for b, value in zip(feedback, left, strict=True):
                b.data.copy_(value)

        return surely(put_back, noisily)

    def noisy(self, b):
        noise = torch.randn(b.shape, generator=self.generator, device=b.device, dtype=b.dtype)
        return b.detach() + self.std * b.detach().std() * noise


PER_CLASS = (10, 100, 1000)


def few_labels(name, sizes, lr, seed, dataset="mnist", test=False, updates=200, batch_size=64, **training):
    """A few images of each class, and the same number of updates for all of them; the images are drawn by the seed."""
    data = load_dataset(dataset)
    frames = []
    for n in PER_CLASS:
        few = per_class(data, n, seed)
        life = Life(name, sizes, lr, seed, batch_size=batch_size, **training)
        for done in life.learn(few, epochs=updates / math.ceil(len(few.x_train) / batch_size)):
            life.ask(f"{data.name}, {n} a class", few, test and done)
        frames.append(life.frame)
    return pd.concat(frames, ignore_index=True)


def per_class(data, n, seed=0):
    """A training set of n images of each class, drawn by `seed`; validation and test stay whole."""
    check_seed(seed)
    labels, counts = data.y_train.unique(return_counts=True)
    if not isinstance(n, int) or not 1 <= n <= counts.min():
        raise ValueError(f"n is {n!r}; it must be a whole number from 1 to {counts.min()}, what the rarest class has")
    order = torch.randperm(len(data.y_train), generator=torch.Generator().manual_seed(seed)).to(labels.device)
    chosen = torch.cat([order[data.y_train[order] == label][:n] for label in labels])
    return replace(data, x_train=data.x_train[chosen], y_train=data.y_train[chosen])


def every_world(name, sizes, lr, seed, test=False, limit=None, epochs=1, **settings):
    """All these worlds, one after the other; test=False is the plain one alone, in which a rate is chosen."""
    if not test:
        return one_run(name, sizes, lr, seed, limit=limit, epochs=epochs, **settings)
    long = {"test": test, "limit": limit, "epochs": epochs, **settings}
    frames = [world(name, sizes, lr, seed, **long) for world in (classes, pixels, rotation, noise)]
    return pd.concat([*frames, few_labels(name, sizes, lr, seed, test=test, **settings)], ignore_index=True)
