"""How far a hidden layer's estimate is from the gradient once a rule has learned."""

from dataclasses import replace

import course_utils as cu
from course_utils.metrics import alignment_angle, true_gradient
from helpers import grads


def hidden_angle(rule, epochs=8):
    """In degrees, of the first hidden layer's weights, after so many epochs on digits, in the rule's own type."""
    data, kind = cu.load_dataset("digits"), rule.net.weights[0].dtype
    data = replace(data, **{name: getattr(data, name).to(kind) for name in ("x_train", "x_val", "x_test")})
    x, y = data.x_train[:256], data.y_train[:256]
    cu.train(rule, data, epochs=epochs, lr=0.1, batch_size=32, progress=False)
    return alignment_angle(grads(rule, x, y)[0], true_gradient(rule.net, x, y)[0])
