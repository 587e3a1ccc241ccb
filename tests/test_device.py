"""The device: what `setup` chooses and seeds, and every rule on a GPU against the same rule on the CPU."""

import random

import numpy as np
import pytest
import torch
from helpers import batch, grads, small_net

import course_utils as cu
from course_utils import device as device_module

NO_GPU = "NOT TESTED on a GPU: torch sees none here. Every rule was tested on the CPU only."


@pytest.fixture(autouse=True)
def as_before():
    threads, current = torch.get_num_threads(), device_module._current
    yield
    torch.set_num_threads(threads)
    device_module._current = current


@pytest.fixture
def cuda(capsys):
    """A GPU; without one the test is skipped, aloud also where pytest is quiet about skips."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    with capsys.disabled():
        print(f"\n{NO_GPU}")
    pytest.skip(NO_GPU)


def test_every_rule_on_the_gpu_equals_the_cpu(cuda):
    for name, rule_class in cu.rules.ALL.items():
        for loss in ("cross_entropy", "squared_error"):
            results = []
            for place in ("cpu", cuda):
                net = small_net((17, 13, 11, 5), "relu", loss, dtype=torch.float32)
                x, y = batch(net, n=9)
                rule = rule_class(net.to(place), seed=3).to(place)
                results.append([None if g is None else g.cpu() for g in grads(rule, x.to(place), y.to(place))])
                # Its tensors do not wander: training goes on where the network is.
                rule.step(x.to(place), y.to(place), torch.optim.SGD(rule.parameters(), lr=0.01))
                assert {t.device.type for t in rule.state_dict().values()} == {torch.device(place).type}
            for a, b in zip(*results, strict=True):
                assert (a is None) == (b is None) and (a is None or torch.allclose(a, b, atol=1e-4)), name


def test_training_and_statistics_on_the_gpu(cuda):
    cu.setup(device="cuda")
    data = cu.load_dataset("digits")
    for rule_class in cu.rules.ALL.values():
        rule = rule_class(cu.MLP([784, 32, 10]), seed=0)
        history = cu.train(
            rule,
            data,
            epochs=1,
            lr=0.05,
            batch_size=32,
            input_noise=0.1,
            activity_noise=0.1,
            probe_every=320,
            progress=False,
        )
        assert history.status == "done"
        cu.metrics.gradient_statistics(rule, data.x_train[:64], data.y_train[:64], draws=20, batch_size=16)
    with pytest.raises(ValueError, match="x is on cpu"):
        rule.backward(data.x_train[:4].cpu(), data.y_train[:4].cpu())


def test_setup_chooses_seeds_and_says_so_in_one_line(capsys):
    chosen = cu.setup(seed=3, device="cpu", threads=1)
    first = random.random(), np.random.rand(), torch.rand(1).item()
    line = capsys.readouterr().out
    assert chosen == torch.device("cpu") and cu.MLP([3, 2]).weights[0].device == chosen
    assert line.count("\n") == 1 and "cpu" in line and "seed 3" in line and "1 CPU threads" in line
    cu.setup(seed=3, device="cpu")
    assert (random.random(), np.random.rand(), torch.rand(1).item()) == first
    assert torch.get_num_threads() == 1


@pytest.mark.parametrize(
    "found, chosen", [((True, True), "cuda"), ((False, True), "mps"), ((False, False), "cpu"), ((True, False), "cuda")]
)
def test_setup_prefers_cuda_then_mps_then_cpu(found, chosen, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: found[0])
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: found[1])
    assert device_module._choose(None).type == chosen
    assert device_module._choose("cpu").type == "cpu"


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"seed": -1}, "seed is -1"),
        ({"seed": 0.5}, "seed is 0.5"),
        ({"seed": None}, "seed is None"),
        ({"seed": 2**40}, "seed is"),
        ({"threads": 0}, "threads is 0"),
        ({"threads": 1.5}, "threads is 1.5"),
        ({"device": "tpu9"}, "tpu9"),
        ({"device": ""}, "device"),
    ],
)
def test_setup_refuses_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        cu.setup(**arguments)


def test_setup_refuses_a_device_that_is_not_here(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match='no device "cuda".*cpu'):
        cu.setup(device="cuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(ValueError, match='no device "cuda:1"'):
        cu.setup(device="cuda:1")


def test_a_seed_means_the_same_weights_whatever_the_threads():
    torch.set_num_threads(1)
    one = cu.MLP([300, 200, 10], seed=5)
    torch.set_num_threads(2)
    two = cu.MLP([300, 200, 10], seed=5)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))
