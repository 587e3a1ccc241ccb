# Exported from lessons/10_weight_mirror/lesson.md. Edit the lesson, not this file.

import torch

from course_utils.checks import is_number
from course_utils.rule import Knob, whole
from course_utils.rules.feedback_alignment import FeedbackAlignment

SHARE_REPLACED = "the share of B replaced in a mirror step, above 0, at most 1", lambda v: is_number(v) and 0 < v <= 1


class WeightMirror(FeedbackAlignment):
    """Weight mirror: feedback alignment by day; in between, noise is sent through W, and B learns what comes out.

    Source: Akrout and colleagues 2019, arXiv:1904.05391; an amplification and a decay, as in Kunin and colleagues 2020,
    arXiv:2003.01513, with η s² = λ, so that B becomes as long as W.
    feedback_weights[l] has the shape of net.weights[l], starts random and moves in `step` alone; [0] is None.
    decay: the share λ of B replaced in one mirror step. mirror_steps: how many follow each training batch; 0 is
    feedback alignment. Both may move while training runs. examples: noise patterns in a mirror step, unit Gaussian
    (on a linear current their size cancels). ValueError for a decay outside (0, 1] and for counts that are none.
    """

    title = "Weight mirror"
    look = ("purple", "dash dot")
    lr = 0.2
    plausibility = FeedbackAlignment.plausibility | {"non_local": "no", "cost": "1 forward + 1 backward + mirror"}
    feedback_scale = 1.0  # no knob here: B gets its length from W
    decay = Knob(0.02, SHARE_REPLACED, slider=(1e-3, 1.0, "log"), live=True)
    mirror_steps = Knob(1, whole(0), slider=(0, 8, "linear"), live=True)
    examples = Knob(128, whole(1))

    @torch.no_grad()
    def mirror(self):
        for l in range(1, self.net.depth):
            w, b = self.net.weights[l], self.feedback_weights[l]
            # (2): each layer has noise of its own; no bias, no f, and nobody further on hears the current
            noise = torch.randn(self.examples, len(w[0]), generator=self.generator, device=w.device, dtype=w.dtype)
            current = noise @ w.T  # (2)
            b.mul_(1 - self.decay)  # (4): forgets, and only here
            torch.addmm(b, current.T.to(b), noise, alpha=self.decay / self.examples, out=b)  # (4)

    def step(self, x, y, optimizer):
        loss = super().step(x, y, optimizer)  # awake, (1): feedback alignment over the B of the moment
        for _ in range(self.mirror_steps):
            self.mirror()
        return loss
