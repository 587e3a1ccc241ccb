"""The network: shapes, derivatives against autograd, initial weights, many passes in one."""

import math

import pytest
import torch
import torch.nn.functional as F
from helpers import ACTIVATIONS, LOSSES, batch, small_net

from course_utils.metrics import cosine
from course_utils.network import MLP


def test_shapes_are_those_of_the_contract():
    net = small_net((7, 6, 5, 3))
    x, y = batch(net)
    assert net.depth == 3
    assert [tuple(w.shape) for w in net.weights] == [(6, 7), (5, 6), (3, 5)]
    assert [tuple(b.shape) for b in net.biases] == [(6,), (5,), (3,)]
    assert [tuple(h.shape) for h in net.activations(x)] == [(4, 7), (4, 6), (4, 5), (4, 3)]
    assert net.activations(x)[0] is x
    assert net(x).shape == net.output_error(net(x), y).shape == (4, 3)
    assert net.loss(net(x), y).shape == () and net.loss(net(x), y, reduction="none").shape == (4,)
    assert len(list(net.parameters())) == 6


def test_forward_is_the_written_formula():
    net = small_net(activation="sigmoid")
    x, _ = batch(net)
    h = x
    for l in range(3):
        a = h @ net.weights[l].T + net.biases[l]
        h = a if l == 2 else 1 / (1 + torch.exp(-a))
    assert torch.allclose(net(x), h, rtol=0, atol=1e-14)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_derivative_equals_autograd(activation):
    net = small_net(activation=activation)
    a = torch.randn(4, 6, dtype=torch.float64, requires_grad=True)
    hard = {"hard_sigmoid": lambda a: (a > 0) * (a < 1) * a + (a >= 1), "linear": lambda a: a}
    f = (hard | {name: getattr(torch, name) for name in ("relu", "tanh", "sigmoid")})[activation]
    h = f(a)
    (expected,) = torch.autograd.grad(h.sum(), a)
    assert torch.allclose(net.derivative(h.detach()), expected, rtol=0, atol=1e-14)
    assert net.derivative(h.detach()).dtype == torch.float64


def test_relu_has_no_slope_at_zero():
    assert small_net(activation="relu").derivative(torch.zeros(1, 6)).sum() == 0


@pytest.mark.parametrize("targets", ["labels", "values"])
@pytest.mark.parametrize("loss", LOSSES)
def test_output_error_is_the_gradient_of_the_summed_loss(loss, targets):
    net = small_net(loss=loss)
    x, y = batch(net, targets=targets)
    out = net(x).detach().requires_grad_()
    (expected,) = torch.autograd.grad(net.loss(out, y, reduction="none").sum(), out)
    assert torch.allclose(net.output_error(out.detach(), y), expected, rtol=0, atol=1e-14)


@pytest.mark.parametrize("targets", ["labels", "values"])
def test_losses_are_their_definitions(targets):
    net = small_net()
    x, y = batch(net, targets=targets)
    out = net(x).detach()
    values = torch.eye(3, dtype=torch.float64)[y] if targets == "labels" else y
    cross = -(values * out.log_softmax(1)).sum(1)
    assert torch.allclose(net.loss(out, y, reduction="none"), cross, rtol=0, atol=1e-14)
    assert net.loss(out, y).item() == pytest.approx(cross.mean().item(), abs=1e-14)
    net.loss_name = "squared_error"
    square = 0.5 * ((out - values) ** 2).sum(1)
    assert torch.allclose(net.loss(out, y, reduction="none"), square, rtol=0, atol=1e-14)
    assert net.loss(out, y).item() == pytest.approx(square.mean().item(), abs=1e-14)


@pytest.mark.parametrize("loss", LOSSES)
def test_output_error_leaves_outputs_and_targets_alone(loss):
    net = small_net(loss=loss)
    x, y = batch(net)
    out = net(x).detach()
    before, labels = out.clone(), y.clone()
    net.output_error(out, y)
    assert torch.equal(out, before) and torch.equal(y, labels)


@pytest.mark.parametrize("init", ["gaussian", "uniform"])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_initial_weights_have_the_stated_spread(activation, init):
    net = MLP([400, 301, 200], activation=activation, init=init, seed=3)
    for w, b in zip(net.weights, net.biases, strict=True):
        std = math.sqrt((2 if activation == "relu" else 1) / w.shape[1])
        error = std / math.sqrt(w.numel())
        assert abs(w.mean().item()) < 4 * error
        assert w.std().item() == pytest.approx(std, abs=4 * error)
        assert (b == 0).all()
        if init == "uniform":
            assert w.abs().max().item() <= math.sqrt(3) * std
            assert w.abs().max().item() == pytest.approx(math.sqrt(3) * std, rel=1e-3)
        else:
            assert w.abs().max().item() > 3.5 * std  # a Gaussian has tails


def test_the_seed_decides_the_weights_and_leaves_torch_alone():
    state = torch.get_rng_state()
    one, again, other = MLP([7, 6, 3], seed=1), MLP([7, 6, 3], seed=1), MLP([7, 6, 3], seed=2)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), again.parameters(), strict=True))
    assert not torch.equal(one.weights[0], other.weights[0])
    drawn = one.draw_weights(seed=1)
    assert all(torch.equal(a, b) for a, b in zip(drawn, one.weights, strict=True))
    assert not isinstance(drawn[0], torch.nn.Parameter)
    assert torch.equal(state, torch.get_rng_state())


def added(noise):
    """An edit that adds noise[l] to the pre-activations of layer l, where there is any."""
    return lambda l, a: a if noise[l] is None else a + noise[l]


def test_activations_with_other_weights_and_biases_and_an_edit_of_the_pre_activations():
    net = small_net()
    x, _ = batch(net)
    weights = [2 * w.detach() for w in net.weights]
    biases = [b.detach() + 1 for b in net.biases]
    noise = [torch.randn(4, n, dtype=torch.float64) for n in (6, 5, 3)]
    h = x
    for l in range(3):
        a = h @ weights[l].T + biases[l] + noise[l]
        h = torch.tanh(a) if l < 2 else a
    result = net.activations(x, weights=weights, biases=biases, edit=added(noise))
    assert torch.allclose(result[-1], h, rtol=0, atol=1e-14)
    assert torch.equal(net.activations(x, weights=list(net.weights))[-1], net(x))
    assert torch.equal(net.activations(x, edit=lambda l, a: a)[-1], net(x))
    only_first = net.activations(x, edit=added([noise[0], None, None]))
    expected = torch.tanh(x @ net.weights[0].T + net.biases[0] + noise[0])
    assert torch.allclose(only_first[1], expected, rtol=0, atol=1e-14)
    masked = net.activations(x, edit=lambda l, a: a * (torch.arange(a.shape[1]) != 2) if l == 0 else a)
    assert (masked[1][:, 2] == 0).all()


def test_activity_noise_has_its_std_on_the_hidden_layers_and_spares_the_output():
    net = MLP([5, 20_000, 3], activation="linear", seed=0)
    x = torch.randn(2, 5)
    clean = net.activations(x)
    net.activity_noise, net.noise_generator = 0.3, torch.Generator().manual_seed(0)
    state = torch.get_rng_state()
    noisy = net.activations(x)
    assert (noisy[1] - clean[1]).std().item() == pytest.approx(0.3, rel=0.02)
    assert not torch.equal((noisy[1] - clean[1])[0], (noisy[1] - clean[1])[1])  # each example its own
    expected = noisy[1] @ net.weights[1].T + net.biases[1]
    assert torch.allclose(noisy[2], expected, atol=1e-4)
    assert torch.equal(state, torch.get_rng_state())
    net.noise_generator.manual_seed(0)
    assert torch.equal(net.activations(x)[1], noisy[1])


def test_double_is_respected():
    net = MLP([7, 6, 3]).double()
    x = torch.randn(4, 7, dtype=torch.float64)
    net.activity_noise = 0.1
    assert {h.dtype for h in net.activations(x)} == {torch.float64}
    y = torch.tensor([0, 1, 2, 0])
    assert net.output_error(net(x), y).dtype == net.loss(net(x), y).dtype == torch.float64


def test_one_layer_is_a_network():
    net = small_net((7, 3))
    x, _ = batch(net)
    assert net.depth == 1 and torch.allclose(net(x), x @ net.weights[0].T + net.biases[0])


def test_many_sets_of_weights_pass_in_one_as_each_alone():
    net = small_net()
    x, _ = batch(net)
    generator = torch.Generator().manual_seed(3)
    shape = {"generator": generator, "dtype": torch.float64}
    weights = [w.detach() + torch.randn(3, *w.shape, **shape) for w in net.weights]
    biases = [b.detach() + torch.randn(3, *b.shape, **shape) for b in net.biases]
    together = net.activations(x, weights, biases)
    for k in range(3):
        alone = net.activations(x, [w[k] for w in weights], [b[k] for b in biases])
        assert all(torch.allclose(a[k], b, atol=1e-13) for a, b in zip(together[1:], alone[1:], strict=True))
    net.activity_noise = 0.5  # the same for all passes of a step
    alone = net.activations(x, [w[0] for w in weights], [b[0] for b in biases])
    together = net.activations(x, weights, biases)
    assert torch.allclose(together[-1][0], alone[-1], atol=1e-13)


def test_many_draws_go_on_together_from_a_first_layer_that_they_share():
    net = small_net()
    x, _ = batch(net)
    first = F.linear(x, net.weights[0], net.biases[0])
    noise = [torch.randn(5, 4, n, dtype=torch.float64) for n in (6, 5, 3)]
    together = net.onward(first, edit=added(noise))
    for k in range(5):
        alone = net.activations(x, edit=added([part[k] for part in noise]))
        for many, one in zip(together, alone[1:], strict=True):
            assert torch.allclose(many[k], one, rtol=0, atol=1e-14)
    assert all(torch.equal(a, b) for a, b in zip(net.onward(first), net.activations(x)[1:], strict=True))
    for wrong in (torch.zeros(9), torch.zeros(3, 6, dtype=torch.float64), torch.zeros(2, 2, 4, 6)):
        with pytest.raises((ValueError, RuntimeError), match="edit gave shape|size of tensor"):
            net.activations(x, edit=added([wrong, None, None]))
    with pytest.raises(ValueError, match="a has shape"):
        net.onward(first[:, 1:])


def test_many_sets_of_weights_with_the_networks_own_biases():
    net = small_net([6, 5, 5])
    x, _ = batch(net, 5)  # as many examples as units: a bias along the wrong one of the two would pass unseen
    weights = [torch.stack([w.detach(), 2 * w.detach()]) for w in net.weights]
    together = net.activations(x, weights)
    for k in range(2):
        alone = net.activations(x, [w[k] for w in weights])
        assert all(torch.allclose(a[k], b, atol=1e-13) for a, b in zip(together[1:], alone[1:], strict=True))


def test_offsets_are_the_biases_and_while_training_the_activity_noise_of_the_step():
    net = small_net()
    x, _ = batch(net)
    assert all(a is b for a, b in zip(net.offsets(x), net.biases, strict=True))
    net.activity_noise, net.noise_seed = 0.3, 5
    h, rebuilt = net.activations(x), x
    for l, (w, offset) in enumerate(zip(net.weights, net.offsets(x), strict=True)):
        a = rebuilt @ w.T + offset
        rebuilt = a if l == net.depth - 1 else net.nonlinearity(a)
        assert torch.allclose(rebuilt, h[l + 1], rtol=0, atol=1e-12)


def test_feedback_drawn_like_the_weights_knows_nothing_of_them():
    net = small_net((30, 40, 20))
    none, feedback = net.random_feedback(0)
    assert none is None and feedback.shape == net.weights[1].shape
    assert feedback.std().item() == pytest.approx(net.weights[1].std().item(), rel=0.1)
    assert abs(cosine(feedback.flatten(), net.weights[1].detach().flatten())) < 0.15


def test_layer_parameters_are_a_parameter_list():
    net = MLP([7, 5, 4, 3], device="cpu")
    plain = torch.nn.ParameterList(net.weights)
    assert all(net.weights[l] is plain[l] for l in (0, 1, 2, -1)) and list(net.weights) == list(plain)
    assert net.weights[1:] == list(plain)[1:] and len(net.weights) == 3
    assert net.weights.state_dict().keys() == plain.state_dict().keys()
    with pytest.raises(IndexError):
        net.weights[3]
    net.weights[0] = torch.nn.Parameter(torch.zeros(5, 7))  # found at once, also by the optimiser
    assert net.weights[0].sum() == 0 and any(p is net.weights[0] for p in net.parameters())
