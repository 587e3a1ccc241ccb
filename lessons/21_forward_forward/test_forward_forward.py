"""The science of Forward-Forward. Each fact is a function that a wrong rule must fail."""

import math

import pytest
import torch
import torch.nn.functional as F
from helpers import ACTIVATIONS, LOSSES, batch, clusters, grads, largest_difference, small_net

import course_utils as cu
from course_utils.network import ACTIVATIONS as FUNCTIONS
from course_utils.rules import ForwardForward, forward_forward
from course_utils.rules.forward_forward import goodness_of, normalised, wrong_labels

EXACT = 1e-12
SIZES = {1: (7, 3), 2: (7, 5, 3), 3: (7, 6, 5, 3), 4: (7, 6, 6, 5, 3)}
SETTINGS = {
    "plain": {},
    "collaboration": {"layer_collaboration": True},
    "silent": {"polarity": -1},
    "both": {"layer_collaboration": True, "polarity": -1, "negatives": "hard"},
    "threshold": {"threshold": 0.3, "label_scale": 2.5},
}


class Mutant(ForwardForward):
    """Forward-Forward with one thing wrong."""

    wrong = ""

    @torch.no_grad()
    def backward(self, x, y):
        net, n, l2 = self.net, len(x), self.wrong == "unit length"
        scale = {"none": lambda h: h, "unit length": lambda h: h / h.norm(dim=-1, keepdim=True)}
        scaled = scale["unit length"] if l2 else scale["none"] if self.wrong == "no normalisation" else normalised
        image = x.clone()
        image[:, : net.sizes[-1]] = 0
        image = scaled(image)
        true = F.one_hot(y, net.sizes[-1]).to(x.dtype)
        false = forward_forward.wrong_labels(true, torch.ones_like(true), self.generator)
        f, inputs, h = FUNCTIONS[net.activation_name][0], [], []
        for label in (true, false):
            here, above = [image + self.label_scale * F.pad(label, (0, image.shape[1] - label.shape[1]))], []
            for w, b in zip(net.weights[:-1], net.biases[:-1], strict=True):
                above.append(f(here[-1] @ w.T + b))
                here.append(scaled(above[-1]))
            inputs.append(here)
            h.append(above)
        total = [sum(goodness_of(a) for a in above) for above in h]
        for l in range(net.depth - 1):
            w, b = net.weights[l], net.biases[l]
            for sign, here, above, sums in zip((1, -1), inputs, h, total, strict=True):
                good = goodness_of(above[l]) * (net.sizes[l + 1] if self.wrong == "sum goodness" else 1)
                good = sums if self.wrong == "others' goodness" else good
                p = torch.sigmoid((-sign if self.wrong == "signs" else sign) * (good - self.threshold))
                push = -sign * (p * (1 - p) if self.wrong == "gradient of p" else 1 - p)
                push = push / (1 if self.wrong == "sum" else n)
                slope = 1 if self.wrong == "no derivative" else net.derivative(above[l])
                delta = push[:, None] * 2 * above[l] * slope / above[l].shape[1]
                if self.wrong == "through layers" and l + 1 < net.depth - 1:
                    upper = push[:, None] * 2 * above[l + 1] * net.derivative(above[l + 1]) / above[l + 1].shape[1]
                    delta = delta + (upper @ net.weights[l + 1]) * slope
                self.add_grad(w, delta.T @ here[l])
                self.add_grad(b, delta.sum(0))
        return self.read(x).mean()


def mutant(name):
    return type(f"Mutant_{name}", (Mutant,), {"wrong": name})


HIDDEN_MUTANTS = [
    "unit length", "no normalisation", "others' goodness", "sum goodness", "signs", "gradient of p", "sum",
    "no derivative", "through layers",
]  # fmt: skip


@pytest.fixture
def fixed_labels(monkeypatch):
    """The false label of each example is the next class: so a reference knows it."""

    def next_class(true, belief, generator):
        return true.roll(1, dims=1)

    monkeypatch.setattr(forward_forward, "wrong_labels", next_class)


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


def local_gradients(rule, x, y):
    """Autograd of each hidden layer's own loss, its input detached, and of the readout's: weights, then biases."""
    net, classes = rule.net, rule.net.sizes[-1]
    true = F.one_hot(y, classes).to(x.dtype) if y.dtype == torch.int64 else y
    f, parameters = FUNCTIONS[net.activation_name][0], [*net.weights, *net.biases]
    passes = []
    for label in (true, true.roll(1, dims=1), torch.zeros_like(true)):
        here, activity = written(rule, x, label), []
        for w, b in zip(net.weights[:-1], net.biases[:-1], strict=True):
            activity.append(f(here @ w.T + b))
            here = (activity[-1] / activity[-1].square().mean(1, keepdim=True).sqrt()).detach()
        passes.append((activity, here))
    losses = []
    for l in range(net.depth - 1):
        local = 0.0
        for sign, (activity, _) in zip((rule.polarity, -rule.polarity), passes, strict=False):
            margins = [(a.square().mean(1) - rule.threshold).detach() for a in activity]
            margins[l] = activity[l].square().mean(1) - rule.threshold
            margin = sum(margins) if rule.layer_collaboration else margins[l]
            local = local - torch.log(torch.sigmoid(sign * margin)).mean()
        losses.append(local)
    if net.depth > 1:
        scores = unit(passes[2][1]) @ net.weights[-1].T + net.biases[-1]
    else:
        scores = unit(written(rule, x, torch.zeros_like(true))) @ net.weights[-1].T + net.biases[-1]
    losses.append(net.loss(scores, y))
    found = torch.autograd.grad(sum(losses), parameters)
    return list(found), sum(losses[:-1])


def distance(rule, targets="labels", hidden_only=False):
    x, y = batch(rule.net, n=6, targets=targets)
    ours, (true, _) = grads(rule, x, y), local_gradients(rule, x, y)
    if hidden_only:
        keep = [i for i in range(2 * rule.net.depth) if i % rule.net.depth < rule.net.depth - 1]
        ours, true = [ours[i] for i in keep], [true[i] for i in keep]
    return largest_difference(ours, true)


@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize("depth", SIZES)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_gradients_are_autograds_of_the_local_losses(fixed_labels, activation, depth, settings):
    assert distance(make(depth=depth, activation=activation, **SETTINGS[settings])) < EXACT


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("targets", ["labels", "values"])
def test_the_readout_learns_by_the_delta_rule_of_its_loss(fixed_labels, loss, targets):
    for depth in SIZES:
        assert distance(make(depth=depth, loss=loss), targets) < EXACT


@pytest.mark.parametrize("wrong", HIDDEN_MUTANTS)
def test_mutants_do_not_follow_the_local_losses(fixed_labels, wrong):
    assert distance(make(mutant("")), hidden_only=True) < EXACT
    assert distance(make(mutant(wrong)), hidden_only=True) > 1e-3


@pytest.mark.parametrize("settings", SETTINGS)
def test_the_loss_it_returns_is_the_sum_of_the_local_ones(fixed_labels, settings):
    rule = make(**SETTINGS[settings])
    x, y = batch(rule.net)
    assert rule.loss_name == "goodness loss"
    assert abs(rule.backward(x, y) - local_gradients(rule, x, y)[1]) < EXACT


def change_below(rule_class, l, **settings):
    """What a fresh draw of everything above hidden layer l changes in the gradients up to l."""
    found = []
    for randomise in (False, True):
        rule = make(rule_class, depth=4, **settings)
        if randomise:
            generator = torch.Generator().manual_seed(5)
            with torch.no_grad():
                for p in [*rule.net.weights[l:], *rule.net.biases[l:]]:
                    p.copy_(torch.randn(p.shape, generator=generator, dtype=p.dtype))
        g = grads(rule, *batch(rule.net))
        found.append([g[i] for j in range(l) for i in (j, 4 + j)])
    return largest_difference(*found)


@pytest.mark.parametrize("l", [1, 2, 3])
def test_no_layer_hears_of_the_layers_above_it(l):
    assert change_below(ForwardForward, l) == 0  # bit for bit
    assert change_below(ForwardForward, l, polarity=-1) == 0
    assert change_below(ForwardForward, l, layer_collaboration=True) > 1e-5 or l == 3
    assert change_below(ForwardForward, l, layer_collaboration=True) == 0 or l < 3  # the readout has no goodness
    if l < 3:
        assert change_below(mutant("through layers"), l) > 1e-4
        assert change_below(mutant("others' goodness"), l) > 1e-4


def change_with_scale(rule_class, scale, layer=0):
    """What the gradients of the layers above change by when the scale of their input does; relu passes it on."""
    found = []
    for c in (1.0, scale):
        rule = make(rule_class, depth=4, activation="relu")
        x, y = batch(rule.net)
        if layer:
            with torch.no_grad():
                for p in (rule.net.weights[layer - 1], rule.net.biases[layer - 1]):
                    p.mul_(c)
        g = grads(rule, x if layer else c * x, y)
        found.append([g[i] for j in range(layer, 3) for i in (j, 4 + j)])
    return largest_difference(*found)


@pytest.mark.parametrize("layer", [0, 1, 2])
@pytest.mark.parametrize("scale", [1e-3, 0.3, 7.0, 1e3])
def test_each_layer_is_blind_to_the_scale_of_its_input(scale, layer):
    assert change_with_scale(ForwardForward, scale, layer) < EXACT
    assert change_with_scale(mutant("no normalisation"), scale, layer) > 1e-3


def test_a_power_of_two_changes_not_a_bit():
    for layer in (0, 1, 2):
        assert change_with_scale(ForwardForward, 0.25, layer) == 0


def test_normalised_activities_have_mean_square_one_and_silent_ones_stay_silent():
    h = torch.randn(5, 9, dtype=torch.float64).relu()
    assert (normalised(h).square().mean(1) - 1).abs().max() < EXACT
    assert (normalised(h / h.norm()) - normalised(h)).abs().max() < EXACT
    assert torch.equal(normalised(torch.zeros(2, 9)), torch.zeros(2, 9))


def test_gradients_are_batch_means_and_accumulate(fixed_labels):
    def change_when_doubled(rule_class):
        rule = make(rule_class)
        x, y = batch(rule.net)
        once = [g for g in grads(rule, x, y) if g is not None]
        return largest_difference(once, [g for g in grads(rule, x.repeat(2, 1), y.repeat(2)) if g is not None])

    assert change_when_doubled(ForwardForward) < EXACT
    assert change_when_doubled(mutant("sum")) > 1e-2
    rule = make()
    x, y = batch(rule.net)
    once = grads(rule, x, y)
    rule.backward(x, y)
    assert largest_difference([2 * g for g in once], [p.grad for p in rule.net.parameters()]) < EXACT


def test_wrong_labels_are_never_right_and_come_as_often_as_they_are_believed():
    generator, draws = torch.Generator().manual_seed(0), 20_000
    true = F.one_hot(torch.full((draws,), 2), 5).double()
    for belief in ([1.0, 1.0, 1.0, 1.0, 1.0], [0.05, 0.2, 0.5, 0.15, 0.1]):
        belief = torch.tensor(belief).double()
        share = wrong_labels(true, belief.expand(draws, 5), generator).mean(0)
        p = belief.clone()
        p[2] = 0
        p /= p.sum()
        assert share[2] == 0 and abs(share.sum() - 1) < EXACT
        assert ((share - p).abs() <= 4 * (p * (1 - p) / draws).sqrt()).all()
    permuted = true[torch.randperm(draws, generator=generator)]  # a permutation of labels: some of them are right
    assert (permuted.argmax(1) == 2).any()


def test_hard_negatives_come_from_the_readout():
    rule = make(negatives="hard", depth=2)
    with torch.no_grad():
        rule.net.weights[-1].zero_()
        rule.net.biases[-1].copy_(torch.tensor([0.0, 50.0, 0.0]))  # it believes in 1, always
    x, y = batch(rule.net, n=40)
    seen = []
    original = forward_forward.wrong_labels
    forward_forward.wrong_labels = lambda *a: seen.append(original(*a)) or seen[-1]
    try:
        rule.backward(x, y)
    finally:
        forward_forward.wrong_labels = original
    assert (seen[0].argmax(1)[y != 1] == 1).all() and (seen[0].argmax(1)[y == 1] != 1).all()


@pytest.mark.parametrize("polarity", [1, -1])
def test_prediction_is_the_label_with_the_best_goodness(polarity):
    rule = make(depth=4, polarity=polarity)
    x, _ = batch(rule.net, n=9)
    expected = torch.zeros(9, 3, dtype=torch.float64)
    for c in range(3):
        h = written(rule, x, F.one_hot(torch.full((9,), c), 3).double())
        for w, b in zip(rule.net.weights[:-1], rule.net.biases[:-1], strict=True):
            h = torch.tanh(h @ w.T + b)
            expected[:, c] += polarity * h.square().mean(1)
            h = normalised(h)
    assert largest_difference([rule.predict(x)], [expected]) < EXACT
    assert rule.goodness(x).shape == (3, 9, 3)
    assert torch.equal(polarity * rule.goodness(x).sum(0), rule.predict(x, by="goodness"))
    neutral = written(rule, x, torch.zeros(9, 3, dtype=torch.float64))
    for w, b in zip(rule.net.weights[:-1], rule.net.biases[:-1], strict=True):
        neutral = normalised(torch.tanh(neutral @ w.T + b))
    scores = unit(neutral) @ rule.net.weights[-1].T + rule.net.biases[-1]
    assert largest_difference([rule.predict(x, by="readout")], [scores]) < EXACT
    assert not rule.predict(x).requires_grad


def test_what_stands_in_the_label_s_pixels_does_not_matter():
    rule = make()
    x, y = batch(rule.net)
    other = x.clone()
    other[:, :3] += 5
    assert largest_difference(grads(make(), x, y), grads(make(), other, y)) == 0
    assert torch.equal(rule.predict(x), rule.predict(other))


def test_without_a_hidden_layer_the_readout_is_all():
    rule = make(depth=1)
    x, _ = batch(rule.net)
    assert torch.equal(rule.predict(x), rule.predict(x, by="readout"))


def largest_step(rule_class, threshold):
    """The largest entry of the first layer's gradient, in float32."""
    rule = rule_class(cu.MLP([12, 30, 30, 4], seed=2), threshold=threshold)
    data = clusters()
    return grads(rule, data.x_train[:64], data.y_train[:64])[0].abs().max().item()


def test_the_gradient_of_the_probability_vanishes_where_that_of_its_logarithm_does_not():
    for threshold in (0.1, 1.0, 150.0):
        assert largest_step(ForwardForward, threshold) > 1e-3
    assert largest_step(mutant("gradient of p"), 1.0) > 1e-3
    assert largest_step(mutant("gradient of p"), 150.0) == 0.0


@pytest.mark.parametrize("settings", SETTINGS)
def test_it_learns(settings):
    data = clusters()
    rule = ForwardForward(cu.MLP([12, 30, 30, 4]), **SETTINGS[settings])
    untrained = cu.evaluate(rule, data.x_test, data.y_test)
    history = cu.train(rule, data, epochs=20, lr=0.01, optimizer="adam", batch_size=20, progress=False)
    assert cu.evaluate(rule, data.x_test, data.y_test) > max(0.9, untrained + 0.2)
    assert history.frame.val_loss.isna().all()
    scores = rule.predict(data.x_test, by="readout")
    assert (scores.argmax(1) == data.y_test).double().mean() > 0.9


def test_hidden_layers_learn_from_shuffled_labels_nothing_that_helps():
    data = clusters()
    data.y_train[:] = data.y_train[torch.randperm(len(data.y_train), generator=torch.Generator().manual_seed(0))]
    rule = ForwardForward(cu.MLP([12, 30, 30, 4]))
    cu.train(rule, data, epochs=10, lr=0.003, optimizer="adam", batch_size=20, progress=False)
    assert cu.evaluate(rule, data.x_test, data.y_test) < 0.7


def test_threshold_and_activity_noise_may_move_while_training_runs():
    data, knobs = clusters(), {"threshold": [(0, 0.5), (100, 2.0)]}
    rule = ForwardForward(cu.MLP([12, 9, 8, 4]))
    settings = dict(epochs=1, lr=0.01, optimizer="adam", batch_size=20, progress=False)
    assert cu.train(rule, data, knobs=knobs, activity_noise=0.2, **settings).status == "done"
    assert rule.threshold == 2.0

    def first(noise):
        rule = ForwardForward(cu.MLP([12, 9, 8, 4]))
        rule.net.activity_noise = noise
        return grads(rule, data.x_train[:9], data.y_train[:9])

    assert largest_difference(first(0.0), first(0.3)) > 1e-3
    assert largest_difference(first(0.3), first(0.3)) == 0


def test_same_seed_same_numbers_and_state_dict_brings_them_back():
    def trained(seed=0, load=None):
        rule = ForwardForward(cu.MLP([12, 9, 8, 4]), seed=seed)
        cu.train(rule, clusters(), epochs=1, lr=0.01, optimizer="adam", batch_size=20, progress=False)
        return rule

    one, two, other = trained(), trained(), trained(seed=1)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))
    assert not torch.equal(one.net.weights[0], other.net.weights[0])  # other negatives
    other.load_state_dict(one.state_dict())
    assert torch.equal(one.predict(clusters().x_test), other.predict(clusters().x_test))


@pytest.mark.parametrize(
    "settings",
    [
        {"negatives": "easy"},
        {"polarity": 0},
        {"polarity": 2},
        {"label_scale": 0.0},
        {"label_scale": -1.0},
        {"label_scale": math.nan},
        {"label_scale": math.inf},
    ],
)
def test_bad_settings_are_refused_in_words(settings):
    (name,) = settings
    with pytest.raises(ValueError, match=f"{name}="):
        ForwardForward(small_net(), **settings)


@pytest.mark.parametrize("sizes", [(3, 5, 3), (2, 5, 3), (7, 5, 1)])
def test_networks_without_room_for_label_and_image_are_refused(sizes):
    with pytest.raises(ValueError, match="sizes is .*more inputs than label pixels"):
        ForwardForward(small_net(sizes))


def test_other_ways_to_predict_are_refused_in_words():
    rule = make()
    with pytest.raises(ValueError, match="by is 'energy'.*readout"):
        rule.predict(batch(rule.net)[0], by="energy")
    with pytest.raises(ValueError, match="^x "):
        rule.predict(batch(rule.net)[0][:, :-1].contiguous())
