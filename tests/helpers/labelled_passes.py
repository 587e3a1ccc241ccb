"""Forward-Forward with small sizes, and its input written out once more."""

import torch

from course_utils.rules import ForwardForward
from helpers import small_net

SIZES = {1: (7, 3), 2: (7, 5, 3), 3: (7, 6, 5, 3), 4: (7, 6, 6, 5, 3)}
SETTINGS = {
    "plain": {},
    "collaboration": {"layer_collaboration": True},
    "silent": {"polarity": -1},
    "both": {"layer_collaboration": True, "polarity": -1, "negatives": "hard"},
    "threshold": {"threshold": 0.3, "label_scale": 2.5},
}


def make(rule_class=ForwardForward, depth=3, activation="tanh", loss="cross_entropy", **settings):
    net = small_net(SIZES[depth], activation, loss)
    return rule_class(net, seed=1, **{"threshold": 0.5, "label_scale": 1.5, **settings})


def written(rule, x, label):
    """The whole input, image and label in one: no hoist."""
    image = x.clone()
    image[:, : label.shape[1]] = 0
    image = image / image.square().mean(1, keepdim=True).sqrt()
    return torch.cat([rule.label_scale * label, image[:, label.shape[1] :]], 1)


def unit(h):
    return h / h.norm(dim=1, keepdim=True)
