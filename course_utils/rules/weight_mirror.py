# Exported from lessons/10_weight_mirror/lesson.md. Edit the lesson, not this file.

import torch

from course_utils.rules.feedback_alignment import FeedbackAlignment


class WeightMirror(FeedbackAlignment):
    """Weight mirror: feedback alignment by day; in between, noise is sent through W, and B learns what comes out.

    Source: Akrout and colleagues 2019, arXiv:1904.05391; the decay that keeps B as long as W is this course's.
    feedback_weights[l] has the shape of net.weights[l], starts random and moves in `step` alone; [0] is None.
    decay: the share λ of B replaced in one mirror step. mirror_steps: how many follow each training batch; 0 is
    feedback alignment. Both may move while training runs. examples: noise patterns in a mirror step, unit Gaussian
    (on a linear current their size cancels). ValueError for a decay outside (0, 1] and for counts that are none.
    """

    title = "Weight mirror"
    lr = 0.2
    knobs = {"decay": (1e-3, 1.0, "log"), "mirror_steps": (0, 8, "linear")}
    live_knobs = ("decay", "mirror_steps")
    plausibility = FeedbackAlignment.plausibility | {"non_local": "no", "cost": "1 forward + 1 backward + mirror"}

    def __init__(self, net, seed=0, decay=0.02, mirror_steps=1, examples=128):
        super().__init__(net, seed)
        if not isinstance(examples, int) or examples < 1:
            raise ValueError(f"examples is {examples!r}; it must be a whole number, 1 or larger")
        self.decay, self.mirror_steps, self.examples = decay, mirror_steps, examples

    @property
    def decay(self):
        return self._decay

    @decay.setter
    def decay(self, value):
        if not 0 < value <= 1:
            raise ValueError(f"decay is {value}; it is the share of B replaced in a mirror step: above 0, at most 1")
        self._decay = value

    @property
    def mirror_steps(self):
        return self._mirror_steps

    @mirror_steps.setter
    def mirror_steps(self, value):
        if not isinstance(value, int) or value < 0:
            raise ValueError(f"mirror_steps is {value!r}; it must be a whole number, 0 (never) or larger")
        self._mirror_steps = value

    @torch.no_grad()
    def mirror(self):
        for l in range(1, self.net.depth):
            w, b = self.net.weights[l], self.feedback_weights[l]
            # (2): each layer has noise of its own; no bias, no f, and nobody further on hears the current
            noise = torch.randn(self.examples, len(w[0]), generator=self.generator, device=w.device, dtype=w.dtype)
            current = noise @ w.T  # (2)
            b.mul_(1 - self.decay)  # (4): forgets, and only here
            torch.addmm(b, current.T, noise, alpha=self.decay / self.examples, out=b)  # (4)

    def step(self, x, y, optimizer):
        loss = super().step(x, y, optimizer)  # awake, (1): feedback alignment over the B of the moment
        for _ in range(self.mirror_steps):
            self.mirror()
        return loss
