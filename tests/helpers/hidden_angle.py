"""How far a hidden layer's estimate is from the gradient once a rule has learned."""

import course_utils as cu
from course_utils.metrics import alignment_angle, true_gradient
from helpers import grads


def hidden_angle(rule, epochs=8):
    """In degrees, of the first hidden layer's weights, after so many epochs on digits."""
    data = cu.load_dataset("digits")
    x, y = data.x_train[:256], data.y_train[:256]
    cu.train(rule, data, epochs=epochs, lr=0.1, batch_size=32, progress=False)
    return alignment_angle(grads(rule, x, y)[0], true_gradient(rule.net, x, y)[0])
