"""tools/bench.py: every rule has its row, and the numbers in the table are those that were measured."""

import pandas as pd
import pytest
import torch
from helpers import flop_counter

import course_utils as cu
from tools import bench

CPU = torch.device("cpu")
TINY = [bench.Entry(name, (6, 5, 3), 4) for name in cu.rules.ALL]


@pytest.fixture(scope="module")
def steps():
    return bench.measure_steps(TINY, CPU, rounds=2, repeats=1)


def test_every_rule_has_its_row_on_one_network_for_all():
    alike = [entry.rule for entry in bench.ENTRIES if entry.network == "784-500-10 × 128"]
    assert alike == cu.rules.able([784, 500, 10]) and alike[0] == "Backprop"  # whose epochs are measured
    assert len(set(bench.ENTRIES)) == len(bench.ENTRIES)


def test_every_rule_is_held_against_its_own_products(steps):
    for measure in ("step", "step / bare products", "rate of bare products"):
        assert [rule for name, rule, _ in steps if name == measure] == list(cu.rules.ALL)
    assert all(len(values) == 2 and min(values) > 0 for values in steps.values())


def test_a_ratio_and_a_rate_are_of_the_same_round(monkeypatch):
    ticks = iter([0.4, 0.1, 0.5, 0.9, 0.3, 0.6])  # step, bare products, autograd, in each of two rounds
    monkeypatch.setattr(bench, "seconds", lambda call, repeats, device: next(ticks))
    entry = bench.Entry("Backprop", (7, 5, 3), 4)
    values = {key[0]: value for key, value in bench.measure_steps([entry], CPU, rounds=2, repeats=1).items()}
    work = 4 * (2 * (35 + 15) + 15)  # forward and gradient meet every weight, the way back all but the first layer's
    assert values["step"] == pytest.approx([400, 900])
    assert values["step / bare products"] == pytest.approx([4, 3])
    assert values["step / autograd"] == pytest.approx([0.8, 1.5])
    assert values["rate of bare products"] == pytest.approx([2e-9 * work / 0.1, 2e-9 * work / 0.3])


def test_bare_products_multiply_what_the_step_multiplies():
    for entry in TINY:
        candidate = bench.Candidate(entry, CPU)
        for call in (candidate.step, candidate.bare):
            with flop_counter() as flops:
                call()
            assert flops.get_total_flops() == 2 * candidate.work > 0, entry


def test_autograd_compares_with_rules_that_multiply_about_as_much():
    sizes, batch = (784, 50, 10), 16
    compares = [bench.Candidate(bench.Entry(rule, sizes, batch), CPU).autograd for rule in ("Backprop", "WeightMirror")]
    assert all(compares)
    assert bench.Candidate(bench.Entry("WeightPerturbation(draws=10)", sizes, batch), CPU).autograd is None


def test_the_step_is_one_that_train_would_make():
    entry = bench.Entry("SignSymmetry(magnitude='fixed_magnitude')", (7, 5, 3), 4)
    step = bench.rule_step(entry, CPU)
    rule, (group,) = step.func.__self__, step.keywords["optimizer"].param_groups
    assert rule.magnitude == "fixed_magnitude" and rule.net.sizes == [7, 5, 3]
    assert group["momentum"] == 0.9 and group["lr"] == 1e-3 and len(group["params"]) == 4


def test_table():
    table = bench.run(
        [bench.Entry("Backprop", (784, 8, 10), 16)], rounds=2, repeats=1, epochs=1, processes=0, limit=300
    )
    assert list(table.columns) == bench.COLUMNS
    of_epochs = {"DataLoader / train", "epoch by train / bare products"}
    assert {"step", *bench.GOALS} - set(table.measure) in (set(), of_epochs)  # these need MNIST
    assert set(table.rule) == {"Backprop", ""} and set(table.network) == {"784-8-10 × 16", ""}
    assert table.measure[table.rule == ""].tolist() == ["matmul rate"]
    assert table.unit[table.measure == "matmul rate"].tolist() == ["GFLOP/s"]
    assert (table.goal[table.measure.isin(bench.GOALS)] != "").all()
    assert (pd.to_numeric(table.cpu) > 0).all()
    if not torch.cuda.is_available():
        assert set(table.gpu) == {"no GPU here"}


def test_an_epoch_is_held_against_as_many_bare_products(monkeypatch):
    folder = bench.find("mnist")
    if folder is None:
        pytest.skip("no MNIST here")
    asked = []
    monkeypatch.setattr(bench, "seconds", lambda call, repeats, device: asked.append((call, repeats)) or 0.25)
    values = bench.measure_epochs(bench.Entry("Backprop", (784, 8, 10), 100), folder, rounds=1, limit=950)
    of = {measure: value for (measure, *_), (value,) in values.items()}
    steps = -(-len(cu.load_dataset("mnist", limit=950, device="cpu").x_train) // 100)
    assert [repeats for _, repeats in asked] == [steps, 1]
    assert of["epoch by train / bare products"] == pytest.approx(of["epoch by train"] / (steps * 0.25))
    assert of["DataLoader / train"] == pytest.approx(0.25 / of["epoch by train"])


def test_matmul_rate_counts_what_is_multiplied(monkeypatch):
    with flop_counter() as counted:
        torch.mm(*torch.randn(2, 64, 64))
    monkeypatch.setattr(bench, "seconds", lambda call, repeats, device: call() is None or 0.5)
    rates = bench.measure_matmul(CPU, rounds=3, width=64)
    assert rates == {("matmul rate", "", ""): [pytest.approx(counted.get_total_flops() / 0.5 * 1e-9)] * 3}


def test_median_and_spread():
    key = "step", "Backprop", "7-3 × 4"
    table = bench.tabulate({key: [1.0, 2.0, 3.0, 4.0, 5.0]}, {key: [7.0]})
    assert table.loc[0].tolist() == [*key, "ms", "", "3", "2 – 4", "7", "7 – 7"]


@pytest.mark.parametrize("rule, goal", [("Backprop", "≤ 1.6"), ("NodePerturbation(draws=3)", "≤ 2")])
def test_who_tries_and_sees_has_noise_to_draw(rule, goal):
    table = bench.tabulate({("step / bare products", rule, "7-3 × 4"): [1.0]}, None)
    assert table.goal.tolist() == [goal]


def test_write(tmp_path, monkeypatch):
    small = bench.tabulate({("step", "Backprop", "7-3 × 4"): [1.0]}, None)
    monkeypatch.setattr(bench, "RESULTS", tmp_path)
    monkeypatch.setattr(bench, "run", lambda entries: small)
    bench.main(["--write"])
    written = pd.read_csv(tmp_path / "bench.csv")
    assert {*bench.COLUMNS, "device", "versions", "commit", "measured"} <= set(written.columns)
    assert written.measure.tolist() == ["step"] and [p.name for p in tmp_path.iterdir()] == ["bench.csv"]


def test_a_gpu_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(bench, "RESULTS", tmp_path)
    monkeypatch.setattr(bench, "measure_device", lambda kind, entries: {("step", "Backprop", kind): [2.0, 3.0, 4.0]})
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit, match="no GPU"):
        bench.main(["--gpu"])
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(bench, "provenance", lambda device: {"device": device.type})
    bench.main(["--gpu", "--write"])
    (row,) = pd.read_csv(tmp_path / "bench_gpu.csv").to_dict("records")
    assert row["network"] == row["device"] == "cuda" and row["gpu"] == 3 and "cpu" not in row
