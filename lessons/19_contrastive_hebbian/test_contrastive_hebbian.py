"""The science of contrastive Hebbian learning, GeneRec and Almeida–Pineda. A wrong rule must fail each fact."""

import pytest
import torch
from helpers import LOSSES, batch, flat, grads, largest_difference, mutant, small_net

from course_utils.metrics import cosine, true_gradient
from course_utils.rules import AlmeidaPineda, ContrastiveHebbian, FeedbackAlignment, GeneRec
from course_utils.rules.equilibrium_propagation import Settling

EXACT = 1e-12
LONG = {"free_sweeps": 400, "plus_sweeps": 400}
BOUNDED = ["tanh", "sigmoid", "hard_sigmoid"]
SIZES = (6, 8, 7, 3)


def off(ours, reference):
    """‖ours − reference‖ / ‖reference‖ over all parameters."""
    ours, reference = flat(ours), flat(reference)
    return ((ours - reference).norm() / reference.norm()).item()


def with_weights_of(rule):
    """The same GeneRec with B := W."""
    for l in range(1, rule.net.depth):
        rule.feedback_weights[l] = rule.net.weights[l]
    return rule.double()


class ForgetsTheGain(ContrastiveHebbian):
    gain = mutant(Settling, "self.feedback ** (l - self.net.depth)", "1.0").gain


# ---------------------------------------------------------------- weak feedback: backprop, feedback alignment


def off_backprop(rule_class, feedback, activation="tanh", loss="squared_error"):
    net = small_net(SIZES, activation, loss)
    x, y = batch(net, n=6)
    return off(grads(rule_class(net, feedback=feedback, **LONG), x, y), true_gradient(net, x, y))


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("activation", BOUNDED)
def test_contrastive_hebbian_learning_tends_to_backprop_linearly_in_the_feedback_s_gain(activation, loss):
    coarse, fine = (off_backprop(ContrastiveHebbian, g, activation, loss) for g in (2e-3, 1e-3))
    assert fine < 3e-3 and coarse / fine == pytest.approx(2, abs=0.1)


def test_the_cosine_does_not_see_a_forgotten_gain_and_the_relative_error_does():
    net = small_net(SIZES)
    x, y = batch(net, n=6)
    ours, truth = grads(ForgetsTheGain(net, feedback=1e-3, **LONG), x, y), true_gradient(net, x, y)
    assert min(cosine(a, b) for a, b in zip(ours, truth, strict=True)) > 0.9999
    assert off(ours, truth) > 0.5
    for l, g in enumerate(ours[: net.depth]):
        assert (g.norm() / truth[l].norm()).item() == pytest.approx(1e-3 ** (net.depth - 1 - l), rel=0.01)


def off_feedback_alignment(rule_class, feedback):
    net = small_net(SIZES, loss="squared_error")
    x, y = batch(net, n=6)
    aligned, rule = FeedbackAlignment(net, seed=3).double(), rule_class(net, seed=3, feedback=feedback, **LONG).double()
    return off(grads(rule, x, y), grads(aligned, x, y))


def test_generec_tends_to_feedback_alignment_through_its_own_weights():
    coarse, fine = (off_feedback_alignment(GeneRec, g) for g in (2e-3, 1e-3))
    assert fine < 3e-3 and coarse / fine == pytest.approx(2, abs=0.1)
    tied = mutant(GeneRec, "return self.feedback_weights", "return self.net.weights")
    assert off_feedback_alignment(tied, 1e-3) > 0.1


def test_without_feedback_it_is_the_forward_pass_and_the_delta_rule():
    net = small_net(SIZES, loss="squared_error")
    x, y = batch(net, n=6)
    truth, none = true_gradient(net, x, y), {"feedback": 0.0}
    contrast = grads(ContrastiveHebbian(net, **none), x, y)
    assert largest_difference(contrast[2:3] + contrast[5:], truth[2:3] + truth[5:]) < EXACT
    assert max(g.abs().max() for g in contrast[:2]) == 0
    assert largest_difference(grads(AlmeidaPineda(net, **none), x, y), truth) < EXACT
    assert (AlmeidaPineda(net, **none).predict(x) - net(x)).abs().max() < EXACT


# ---------------------------------------------------------------- GeneRec is half of the story


def off_contrast(rule_class, feedback, **knobs):
    """From contrastive Hebbian learning, in a network with few sweeps (the states need not rest)."""
    net = small_net(SIZES, loss="squared_error")
    x, y = batch(net, n=6)
    rule = with_weights_of(rule_class(net, feedback=feedback, **knobs))
    return off(grads(rule, x, y), grads(ContrastiveHebbian(net, feedback=feedback), x, y))


@pytest.mark.parametrize("feedback", [0.03, 0.3, 1.0])
def test_generec_made_symmetric_and_at_the_midpoint_is_contrastive_hebbian_learning(feedback):
    both = {"symmetric": True, "midpoint": True}
    assert off_contrast(GeneRec, feedback, **both) < EXACT
    assert off_contrast(GeneRec, feedback, symmetric=True) > 1e-3
    assert off_contrast(GeneRec, feedback, midpoint=True) > 1e-3
    assert off_contrast(mutant(GeneRec, "(m + p) / 2", "p"), feedback, **both) > 1e-3


def gap_after(rule_class, steps=5, decay=0.1, **knobs):
    """‖(W − B) after so many steps of gradient descent − (1 − λ)^steps (W − B) before‖, as a share of the latter."""
    net = small_net(SIZES, loss="squared_error")
    rule = rule_class(net, feedback=0.3, decay=decay, **knobs).double()
    optimizer = torch.optim.SGD(rule.parameters(), lr=0.1)

    def gap():
        return flat([net.weights[l] - rule.feedback_weights[l] for l in (1, 2)]).detach()

    expected = (1 - decay) ** steps * gap()
    for seed in range(steps):
        rule.step(*batch(net, seed=seed), optimizer)
    return ((gap() - expected).norm() / expected.norm()).item()


def test_made_symmetric_its_two_weights_obey_the_law_of_kolen_and_pollack():
    both = {"symmetric": True, "midpoint": True}
    assert gap_after(GeneRec, **both) < EXACT
    assert gap_after(GeneRec, symmetric=True) < EXACT
    assert gap_after(GeneRec) > 1e-3
    unequal = mutant(GeneRec, "(self.net.weights[l], self.feedback_weights[l]):", "(self.net.weights[l],):")
    assert gap_after(unequal, **both) > 1e-2


def test_a_decay_besides_the_optimiser_s_own_is_refused_and_frozen_weights_keep_theirs():
    net = small_net(SIZES, loss="squared_error")
    rule, (x, y) = GeneRec(net, feedback=0.3, decay=0.1).double(), batch(net, n=6)
    with pytest.raises(ValueError, match="weight_decay"):
        rule.step(x, y, torch.optim.SGD(rule.parameters(), lr=0.1, weight_decay=0.1))
    still, moving = net.weights[2].requires_grad_(False), rule.feedback_weights[2]
    before = [w.detach().clone() for w in (still, moving)]
    rule.step(x, y, torch.optim.SGD(rule.parameters(), lr=0.1))
    assert torch.equal(still, before[0]) and not torch.equal(moving, before[1])


# ---------------------------------------------------------------- Almeida–Pineda is the gradient at rest


def unrolled(rule, x, y, sweeps=600):
    """Autograd's gradient through so many sweeps from the feed-forward pass."""
    drives = rule.drives(x)
    s = rule.forward_pass(x, drives)
    for _ in range(sweeps):
        s = rule.sweep(s, drives, damping=rule.damping)
    return list(torch.autograd.grad(rule.net.loss(s[-1], y), list(rule.net.parameters())))


class ThroughOtherWeights(AlmeidaPineda):
    """Activity comes down through fixed weights of its own, and W is taught."""

    @property
    def back(self):
        return [None, *(w.detach().flip(1) for w in list(self.net.weights)[1:])]


def off_unroll(rule_class, activation="tanh", loss="squared_error", feedback=0.3, **knobs):
    net = small_net(SIZES, activation, loss)
    x, y = batch(net, n=6)
    rule = rule_class(net, feedback=feedback, **{"free_sweeps": 600, "error_sweeps": 600, **knobs})
    return off(grads(rule, x, y), unrolled(rule, x, y))


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("activation", BOUNDED)
def test_almeida_pineda_is_autograd_through_the_converged_unroll(activation, loss):
    assert off_unroll(AlmeidaPineda, activation, loss) < 1e-10


def test_whatever_brings_activity_down():
    assert off_unroll(ThroughOtherWeights) < 1e-10


@pytest.mark.parametrize(
    "old, new",
    [
        ("z[l - 1], self.back[l - 1].T, alpha=self.feedback", "z[l - 1], self.back[l - 1].T, alpha=0.0"),
        ("gradient.addmm_(s[l + 1].T, z[l], alpha=self.feedback)", "pass"),
        ("self.back[l - 1].T", "self.net.weights[l - 1].flip(1).T"),
        (" / len(y)", ""),
    ],
)
def test_its_mutants_are_not(old, new):
    assert off_unroll(mutant(AlmeidaPineda, old, new)) > 1e-3


def test_the_derivative_is_that_of_the_drive_because_damped_states_never_quite_reach_a_bound():
    lagging = mutant(AlmeidaPineda, "self.sweep(s, drives)[1:-1]", "s[1:-1]")
    few = {"activation": "hard_sigmoid", "free_sweeps": 45}
    assert off_unroll(AlmeidaPineda, **few) < 1e-3 < 1e-2 < off_unroll(lagging, **few)


# ---------------------------------------------------------------- a gentle teacher: what each follows


def off_reference(rule_class, clamp, tied=True, loss="squared_error"):
    """From the gradient at rest; tied: of a W that brings activity down, too; else of a W that only sends it up."""
    net = small_net(SIZES, loss=loss)
    x, y = batch(net, n=6)
    rule = rule_class(net, feedback=0.3, clamp=clamp, free_sweeps=600, plus_sweeps=600)
    rule = with_weights_of(rule) if rule_class is GeneRec else rule
    reference = AlmeidaPineda(net, feedback=0.3) if tied else rule
    return off(grads(rule, x, y), reference.reference_gradient(x, y))


@pytest.mark.parametrize("loss", LOSSES)
def test_with_a_gentle_teacher_the_contrast_is_the_gradient_and_generec_that_of_the_forward_weights_alone(loss):
    for rule_class, tied in ((ContrastiveHebbian, True), (GeneRec, False)):
        coarse, fine = (off_reference(rule_class, h, tied, loss) for h in (2e-4, 1e-4))
        assert fine < 1e-4 and coarse / fine == pytest.approx(2, abs=0.1)
    assert off_reference(GeneRec, 1e-4, True, loss) > 0.02  # what it leaves out does not go away


@pytest.mark.parametrize("feedback", [0.3, 1.0])
def test_a_firm_teacher_s_contrast_is_the_gradient_of_movellan_s_function(feedback):
    """J = E(plus) − E(minus) at rest, by central differences."""
    net = small_net((5, 4, 3), loss="squared_error")
    x, y = batch(net, n=4)
    rule = ContrastiveHebbian(net, feedback=feedback, **LONG)

    def contrastive_function():
        minus, plus = rule.phases(x, y)
        return (rule.energy(plus, x) - rule.energy(minus, x)).mean().item()

    ours, eps = grads(rule, x, y), 1e-5
    for p, g in zip(net.parameters(), ours, strict=True):
        flat_p = p.data.view(-1)
        for i in range(0, len(flat_p), 5):
            flat_p[i] += eps
            up = contrastive_function()
            flat_p[i] -= 2 * eps
            slope = (up - contrastive_function()) / (2 * eps)
            flat_p[i] += eps
            assert g.view(-1)[i].item() == pytest.approx(slope, abs=1e-7)
