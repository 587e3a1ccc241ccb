"""What PyTorch users reach for works round a rule and a network as anywhere, or is refused by name."""

import copy
import io
import pickle

import pytest
import torch
from helpers import batch, clusters, grads, mutant, small_net
from helpers.small_training import DATA, new_rule, same_weights, train
from torch.func import functional_call, grad, vmap
from torch.optim.lr_scheduler import CosineAnnealingLR, StepLR

import course_utils as cu
from course_utils.rules import Backprop, FeedbackAlignment, KolenPollack

# ---------------------------------------------------------------- what works in .grad


def clipped(rule, largest, **settings):
    """A run whose gradients are clipped before every step; the norms before and after the first."""
    optimizer = torch.optim.SGD(rule.parameters(), lr=0.1)
    norms = []

    def clip(*_):
        before = [p.grad.norm().item() for p in rule.parameters()]
        torch.nn.utils.clip_grad_norm_(rule.parameters(), largest)
        norms.append((before, [p.grad.norm().item() for p in rule.parameters()]))

    optimizer.register_step_pre_hook(clip)
    return train(rule, optimizer=optimizer, lr=None, **settings), norms


def test_gradients_are_clipped_in_training_by_a_hook_of_the_optimiser():
    (_, history), norms = clipped(new_rule(KolenPollack), 0.01)
    assert history.status == "done" and len(norms) == history.steps
    for before, after in norms:
        total = sum(n * n for n in before) ** 0.5
        assert after == pytest.approx([n * 0.01 / total for n in before], rel=1e-3)


@pytest.mark.parametrize("rule_class", [KolenPollack, cu.rules.LearnedFeedbackPC])
def test_two_parameters_with_one_tensor_in_grad_are_refused(rule_class):
    shared = mutant(rule_class, ".clone()", "")
    with pytest.raises(ValueError, match="net.weights.1 and feedback_weights.1 share one tensor in .grad"):
        train(new_rule(shared))


def test_autocast_trains_with_gradients_of_the_weights_type():
    rule = new_rule()
    before = new_rule()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = rule.backward(DATA.x_train[:16], DATA.y_train[:16])
        _, history = train(rule, probe_every=64)
    assert {p.grad.dtype for p in rule.parameters()} == {torch.float32} and torch.isfinite(loss)
    assert history.status == "done" and history.frame.val_accuracy.iloc[-1] > 0.9 and not same_weights(rule, before)


# ---------------------------------------------------------------- what stands still


def test_a_frozen_layer_stays_and_the_others_learn_as_before():
    rule = new_rule(FeedbackAlignment)
    x, y = DATA.x_train[:16], DATA.y_train[:16]
    whole = grads(rule, x, y)
    rule.net.weights[0].requires_grad_(False)
    frozen, w = grads(rule, x, y), rule.net.weights[0].clone()
    assert frozen[0] is None and all(torch.equal(a, b) for a, b in zip(frozen[1:], whole[1:], strict=True))
    _, history = train(rule, probe_every=64)
    assert torch.equal(rule.net.weights[0], w) and history.frame.angle_2.notna().all()


def test_the_true_gradient_of_what_is_frozen_is_zero_and_of_the_rest_the_same():
    net = small_net()
    x, y = batch(net)
    whole = cu.metrics.true_gradient(net, x, y)
    net.weights[1].requires_grad_(False)
    some = cu.metrics.true_gradient(net, x, y)
    assert not some[1].any() and all(
        torch.equal(a, b) for i, (a, b) in enumerate(zip(some, whole, strict=True)) if i != 1
    )
    for p in net.parameters():
        p.requires_grad_(False)
    assert not any(g.any() for g in cu.metrics.true_gradient(net, x, y))


def test_a_frozen_weight_does_not_decay():
    rule = new_rule(KolenPollack)
    frozen = rule.net.weights[1].requires_grad_(False).clone(), rule.feedback_weights[1].requires_grad_(False).clone()
    train(rule)
    assert torch.equal(rule.net.weights[1], frozen[0]) and torch.equal(rule.feedback_weights[1], frozen[1])


# ---------------------------------------------------------------- optimisers and their rates


def test_a_scheduler_of_torch_moves_the_rates_of_a_run():
    rule, again, seen = new_rule(), new_rule(), []
    optimizer = torch.optim.SGD(rule.parameters(), lr=0.1)
    scheduler = CosineAnnealingLR(optimizer, 26)
    optimizer.register_step_pre_hook(lambda *_: seen.append(optimizer.param_groups[0]["lr"]))
    optimizer.register_step_post_hook(lambda *_: scheduler.step())
    train(rule, optimizer=optimizer, lr=None, schedule="constant")
    assert seen[0] == 0.1 and seen[13] == pytest.approx(0.05) and scheduler.last_epoch == 26
    rates = [(16 * i if i < 13 else 203 + 16 * (i - 13), rate) for i, rate in enumerate(seen)]
    train(again, optimizer=torch.optim.SGD(again.parameters(), lr=0.1), lr=rates, schedule="constant")
    assert same_weights(rule, again)


@pytest.mark.parametrize("settings", [{"lr": None}, {"lr": 0.1, "schedule": "constant"}])
def test_a_scheduler_that_train_would_overrule_is_refused(settings):
    rule = new_rule()
    optimizer = torch.optim.SGD(rule.parameters(), lr=0.1)
    scheduler = StepLR(optimizer, 1)
    optimizer.register_step_post_hook(lambda *_: scheduler.step())
    with pytest.raises(ValueError, match='optimizer has its learning rates set by a scheduler .*schedule="constant"'):
        train(rule, optimizer=optimizer, **settings)


def test_a_scheduler_between_runs_and_in_a_loop_of_one_s_own_works_as_ever():
    rule = new_rule()
    optimizer = torch.optim.SGD(rule.parameters(), lr=0.1)
    scheduler = StepLR(optimizer, 1)
    for _ in range(2):
        train(rule, optimizer=optimizer, lr=None, schedule="constant", epochs=1)
        scheduler.step()
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.001)
    rule.step(DATA.x_train[:16], DATA.y_train[:16], optimizer)
    scheduler.step()
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.0001)


def test_what_train_has_no_way_to_use_is_refused_before_the_first_step():
    rule = new_rule()
    before = copy.deepcopy(rule)
    for named, settings in {
        "optimizer is LBFGS.*needs no closure": {"optimizer": torch.optim.LBFGS(rule.parameters())},
        "schedule is <.*StepLR.*cu.train": {"schedule": StepLR(torch.optim.SGD(rule.parameters(), lr=0.1), 1)},
    }.items():
        with pytest.raises(ValueError, match=f"(?s){named}"):
            train(rule, **settings)
    assert same_weights(rule, before)


@pytest.mark.parametrize(
    "name", ["AdamW", "Adagrad", "RMSprop", "NAdam", "Rprop", "Adadelta", "ASGD", "Adamax", "RAdam"]
)
def test_other_optimisers_of_torch_train(name):
    rule = new_rule()
    _, history = train(rule, optimizer=getattr(torch.optim, name)(rule.parameters(), lr=0.01), lr=None)
    assert history.status == "done" and history.frame.val_loss.iloc[-1] < history.frame.val_loss[0]


def test_weights_forget_once():
    for rule_class in (KolenPollack, cu.rules.LearnedFeedbackPC):
        for decay, weight_decay in ((1e-3, 1e-2), (0.0, 1e-2), (1e-3, 0.0)):
            rule = rule_class(small_net((12, 9, 4), dtype=torch.float32), decay=decay)
            groups = [{"params": [p]} for p in rule.parameters()]
            groups[-1]["weight_decay"] = weight_decay
            optimizer, before = torch.optim.AdamW(groups, lr=0.01, weight_decay=0.0), copy.deepcopy(rule)
            if decay and weight_decay:
                for use in (lambda r, o: train(r, optimizer=o), lambda r, o: r.step(DATA.x_val, DATA.y_val, o)):
                    with pytest.raises(ValueError, match="optimizer has weight_decay 0.01, and .* decay 0.001"):
                        use(rule, optimizer)
                assert same_weights(rule, before)
            else:
                assert train(rule, optimizer=optimizer)[1].status == "done"


# ---------------------------------------------------------------- transformations of the network


def test_gradients_of_single_examples_by_vmap_are_those_of_a_loop():
    net = small_net()
    x, y = batch(net)
    weights = {name: p.detach() for name, p in net.named_parameters()}

    def loss(w, one_x, one_y):
        return net.loss(functional_call(net, w, (one_x[None],)), one_y[None])

    together = vmap(grad(loss), (None, 0, 0))(weights, x, y)
    for i in range(len(x)):
        alone = cu.metrics.true_gradient(net, x[i : i + 1], y[i : i + 1])
        assert all(torch.allclose(together[n][i], g, atol=1e-14) for n, g in zip(weights, alone, strict=True))


@pytest.mark.parametrize("targets", ["labels", "values"])
@pytest.mark.parametrize("loss", ["cross_entropy", "squared_error"])
def test_a_network_compiles_in_one_piece(targets, loss):
    net = small_net(loss=loss)
    x, y = batch(net, targets=targets)

    def all_of_it(x, y):
        out = net(x)
        return net.loss(out, y), net.output_error(out, y)

    compiled = torch.compile(all_of_it, backend="eager", fullgraph=True)
    assert all(torch.equal(a, b) for a, b in zip(compiled(x, y), all_of_it(x, y), strict=True))


def test_a_network_is_exported_and_a_compiled_one_trains():
    net = small_net((12, 9, 4), dtype=torch.float32)
    assert torch.equal(torch.export.export(net, (DATA.x_val,)).module()(DATA.x_val), net(DATA.x_val))
    rule, again = Backprop(torch.compile(net, backend="eager")), new_rule()
    train(rule)
    train(again)
    assert all(torch.equal(a, b) for a, b in zip(rule.parameters(), again.parameters(), strict=True))


def test_outside_of_these_a_network_looks_as_ever():
    with pytest.raises(ValueError, match="x holds NaN"):
        small_net()(torch.full((2, 7), torch.nan, dtype=torch.float64))


# ---------------------------------------------------------------- what travels


def test_a_state_saved_without_a_generator_still_loads():
    source, fresh = new_rule(FeedbackAlignment, seed=3), new_rule(FeedbackAlignment)
    old = {name: value for name, value in source.state_dict().items() if name != "_extra_state"}
    before = fresh.generator.get_state()
    assert fresh.load_state_dict(old).missing_keys == [] and list(old) == list(dict(old))
    assert torch.equal(fresh.generator.get_state(), before) and torch.equal(fresh.net.weights[0], source.net.weights[0])
    with pytest.raises(RuntimeError, match="Missing key.*feedback_weights.1"):
        fresh.load_state_dict({name: value for name, value in old.items() if "feedback" not in name})


def test_a_generator_of_another_kind_of_device_is_left_out():
    rule = new_rule()
    before = rule.generator.get_state()
    rule.load_state_dict(rule.state_dict() | {"_extra_state": torch.zeros(16, dtype=torch.uint8)})  # as a GPU's
    assert torch.equal(rule.generator.get_state(), before)


def test_the_control_and_its_generator_travel_too():
    control = cu.FrozenHidden(new_rule(cu.rules.NodePerturbation, seed=2))
    train(control)
    file = io.BytesIO()
    torch.save(control.state_dict(), file)
    file.seek(0)
    fresh = cu.FrozenHidden(new_rule(cu.rules.NodePerturbation))
    fresh.load_state_dict(torch.load(file, weights_only=True))
    for other in (fresh, copy.deepcopy(control), pickle.loads(pickle.dumps(control))):
        state = control.generator.get_state()
        one, two = (grads(r, clusters().x_train[:7], clusters().y_train[:7]) for r in (control, other))
        assert all(a is b is None or torch.equal(a, b) for a, b in zip(one, two, strict=True)) and one[1] is not None
        control.generator.set_state(state)
