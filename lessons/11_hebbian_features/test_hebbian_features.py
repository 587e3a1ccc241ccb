"""The science of LostMessages. Each fact is a function that a wrong rule must fail."""

from helpers import batch, grads, largest_difference, mutant, small_net

from course_utils.metrics import gradient_statistics, true_gradient
from course_utils.rules import LostMessages


def distance_to_backprop(rule_class):
    """Largest difference from autograd in float64, nothing lost, two hidden layers."""
    net = small_net((7, 6, 5, 3))
    x, y = batch(net)
    return largest_difference(grads(rule_class(net, lost=0.0), x, y), true_gradient(net, x, y))


def test_with_nothing_lost_it_is_backprop():
    assert distance_to_backprop(LostMessages) < 1e-12
    assert distance_to_backprop(mutant(LostMessages, " * self.net.derivative(h[l])", "")) > 1e-3
    assert distance_to_backprop(mutant(LostMessages, " / len(x)", "")) > 1e-3


def misses(rule_class, lost=0.3):
    """By how many standard errors projection and variance miss 1 and p / (1 − p), equation (3); one hidden layer."""
    net = small_net((7, 6, 3))
    x, y = batch(net)
    row = gradient_statistics(rule_class(net, lost=lost), x, y, draws=400).iloc[0]
    variance = lost / (1 - lost)
    return abs(row.projection - 1) / row.projection_se, abs(row.variance - variance) / row.variance_se


def test_the_mean_is_the_gradient_and_the_noise_what_theory_says():
    assert max(misses(LostMessages)) < 4
    assert misses(mutant(LostMessages, " / (1 - self.lost)", ""))[0] > 8  # nobody speaks up
    assert misses(mutant(LostMessages, ">= self.lost", "< self.lost"))[0] > 8


def test_every_unit_has_a_lottery_of_its_own():
    net = small_net((7, 40, 3))
    x, y = batch(net)
    silent = (grads(LostMessages(net, lost=0.5), x, y)[0] == 0).all(1).double().mean()
    assert 0.2 < silent < 0.8
    together = mutant(LostMessages, "torch.rand(delta.shape[1]", "torch.rand(1")
    assert (grads(together(net, lost=0.5), x, y)[0] == 0).all(1).double().mean() in (0, 1)
