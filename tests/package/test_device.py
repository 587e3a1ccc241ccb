"""The device: what `setup` chooses and seeds, and every rule on a GPU against the same rule on the CPU."""

import random

import numpy as np
import pytest
import torch
from helpers import batch, grads, small_net
from torch.overrides import TorchFunctionMode

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
def cuda(capsys, said=[]):  # noqa: B006  # the one list of all calls, so that it is said once
    """A GPU; without one the test is skipped, aloud also where pytest is quiet about skips."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    if not said:
        said.append(NO_GPU)
        with capsys.disabled():
            print(f"\n{NO_GPU}")
    pytest.skip(NO_GPU)


class SameDraws(TorchFunctionMode):
    """Inside, whatever is drawn with a generator comes from one on the CPU: a rule's noise is then the same numbers
    on every device. (A generator of the GPU with the same seed draws others.)"""

    def __init__(self, seed=0):
        super().__init__()
        self.generator = torch.Generator().manual_seed(seed)

    def __torch_function__(self, function, types, arguments=(), keywords=None):
        keywords = keywords or {}
        if not isinstance(keywords.get("generator"), torch.Generator):
            return function(*arguments, **keywords)
        keywords = keywords | {"generator": self.generator}
        if not isinstance(arguments[0], torch.Tensor):  # torch.randn(shape, …)
            return function(*arguments, **keywords | {"device": "cpu"}).to(keywords.get("device", "cpu"))
        drawn = function(arguments[0].cpu(), *arguments[1:], **keywords)
        in_place = function.__name__.endswith("_")
        return arguments[0].copy_(drawn) if in_place else drawn.to(arguments[0].device)


def test_same_draws_are_the_same_wherever_they_are_asked_for():
    def draw(device):
        own, like = torch.Generator(device).manual_seed(7), torch.ones(3, 2, device=device)
        with SameDraws(seed=1):
            return [
                torch.randn(2, 3, generator=own, device=device),
                torch.rand((4,), generator=own, device=device),
                torch.empty_like(like).normal_(generator=own),
                like.multinomial(1, generator=own),
                like.new_empty(5, 4).bernoulli_(0.5, generator=own),
            ]

    first, second = draw("cpu"), draw("cuda" if torch.cuda.is_available() else "cpu")
    assert all(torch.equal(a, b.cpu()) for a, b in zip(first, second, strict=True))
    assert first[0].unique().numel() == 6 and first[2].unique().numel() == 6 and 0 < first[4].sum() < 20


@pytest.mark.parametrize("name", cu.rules.ALL)
def test_every_rule_on_the_gpu_equals_the_cpu(name, cuda):
    rule_class = cu.rules.ALL[name]
    for loss in ("cross_entropy", "squared_error"):
        results = []
        for place in ("cpu", cuda):
            net = small_net((17, 13, 11, 5), "relu", loss)
            x, y = batch(net, n=9)
            rule = rule_class(net.to(place), seed=3).to(place)
            with SameDraws():
                estimate = grads(rule, x.to(place), y.to(place))
            results.append([None if g is None else g.cpu() for g in estimate])
            # Its tensors do not wander: training goes on where the network is.
            rule.step(x.to(place), y.to(place), torch.optim.SGD(rule.parameters(), lr=0.01))
            tensors = [t for name, t in rule.state_dict().items() if not name.endswith("_extra_state")]
            assert {t.device.type for t in tensors} == {torch.device(place).type}
        for a, b in zip(*results, strict=True):
            assert (a is None) == (b is None) and (a is None or torch.allclose(a, b, atol=1e-6)), name


@pytest.mark.parametrize("name", cu.rules.able([784, 32, 10]))
def test_training_and_statistics_on_the_gpu(name, cuda):
    cu.setup(device="cuda")
    data = cu.load_dataset("digits")
    rule = cu.rules.ALL[name](cu.MLP([784, 32, 10]), seed=0)
    noise = {"input_noise": 0.1, "activity_noise": 0.1}
    history = cu.train(rule, data, epochs=1, lr=0.01, batch_size=32, probe_every=320, progress=False, **noise)
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
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)  # also where the driver is too old to use it
    monkeypatch.setattr(torch.mps, "device_count", lambda: int(found[1]))
    assert device_module.choose(None).type == chosen
    assert device_module.choose("cpu").type == "cpu"


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
