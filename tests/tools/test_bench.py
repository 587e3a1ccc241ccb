"""tools/bench.py: the table it makes, and the operation count behind its bound."""

import importlib.util
from dataclasses import replace
from functools import partial
from pathlib import Path

import pandas as pd
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

import course_utils as cu

PATH = Path(__file__).parent.parent / "tools" / "bench.py"


@pytest.fixture(scope="module")
def bench():
    spec = importlib.util.spec_from_file_location("bench", PATH)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_operation_count_in_closed_form(bench):
    # forward and gradient meet every weight once per example, the way back all but the first layer's
    assert bench.multiply_adds(bench.layered_products([784, 500, 10], 128)) == 128 * (2 * 397_000 + 5_000)
    assert bench.multiply_adds(bench.layered_products([7, 5, 3, 2], 4)) == 4 * (2 * (35 + 15 + 6) + 15 + 6)


@pytest.mark.parametrize("sizes", [[784, 500, 10], [7, 5, 3, 2], [6, 4]])
def test_operation_count_is_what_a_step_really_multiplies(bench, sizes):
    x, y = torch.rand(8, sizes[0]), torch.randint(sizes[-1], (8,))
    for entry in bench.ENTRIES:
        products = entry.products(sizes, 8)
        step = bench.rule_step(replace(entry, sizes=sizes, batch=8), torch.device("cpu"))
        for call in (bench.bare_products(products, "cpu"), partial(step, x, y)):
            with FlopCounterMode(display=False) as counted:
                call()
            assert counted.get_total_flops() == 2 * bench.multiply_adds(products)


def test_full_passes_count_every_weight_once_a_pass_and_once_for_the_gradient(bench):
    assert bench.multiply_adds(bench.full_products([7, 5, 3], 4, 3)) == 4 * (3 + 1) * (35 + 15)
    for entry in bench.ENTRIES:  # what is shared cannot be more than what is not
        if entry.passes:
            full = bench.multiply_adds(bench.full_products(entry.sizes, entry.batch, entry.passes))
            own = [p for p in entry.products(entry.sizes, entry.batch) if p[0] == "forward"]
            assert 0 < bench.multiply_adds(own) < full


def test_rules_that_try_are_also_held_against_their_passes_in_full(bench):
    entry = bench.Entry(cu.rules.NodePerturbation, [7, 5, 3], 4, bench.unit_noise_products(2, 2), {"draws": 2}, 5)
    values = bench.measure_steps([entry], torch.device("cpu"), rounds=2, repeats=1)
    key = "step / products of its passes", "NodePerturbation(draws=2)"
    assert len(values[key]) == 2 and bench.tabulate({key: values[key]}, None).goal.tolist() == ["≤ 2"]


def test_table(bench):
    entries = [bench.Entry(cu.rules.ALL["Backprop"], [784, 8, 10], 16)]
    table = bench.run(entries, rounds=2, repeats=1, epochs=1, batches=2, processes=0)
    assert list(table.columns) == bench.COLUMNS
    assert {"step", *bench.GOALS} - set(table.measure) <= {"DataLoader / train"}  # that one needs MNIST
    assert set(table.rule) == {"Backprop", ""} and table.measure[table.rule == ""].tolist() == ["matmul rate"]
    assert table.unit[table.measure == "matmul rate"].tolist() == ["GFLOP/s"]
    assert (table.goal[table.measure.isin(bench.GOALS)] != "").all()
    assert (pd.to_numeric(table.cpu) > 0).all()
    if not torch.cuda.is_available():
        assert set(table.gpu) == {"no GPU here"}


def test_matmul_rate_counts_what_is_multiplied(bench, monkeypatch):
    with FlopCounterMode(display=False) as counted:
        torch.mm(*torch.randn(2, 64, 64))
    monkeypatch.setattr(bench, "seconds", lambda call, repeats, device: call() is None or 0.5)
    rates = bench.measure_matmul(torch.device("cpu"), rounds=3, width=64)
    assert rates == {("matmul rate", ""): [pytest.approx(counted.get_total_flops() / 0.5 * 1e-9)] * 3}


def test_median_and_spread(bench):
    table = bench.tabulate({("step", "R"): [1.0, 2.0, 3.0, 4.0, 5.0]}, {("step", "R"): [7.0]})
    assert table.loc[0].tolist() == ["step", "R", "ms", "", "3", "2 – 4", "7", "7 – 7"]


def test_write(bench, tmp_path, monkeypatch):
    small = bench.tabulate({("step", "R"): [1.0]}, None)
    monkeypatch.setattr(bench, "RESULTS", tmp_path)
    monkeypatch.setattr(bench, "run", lambda entries: small)
    bench.main(["--write"])
    written = pd.read_csv(tmp_path / "bench.csv")
    assert {*bench.COLUMNS, "device", "versions", "commit", "measured"} <= set(written.columns)
    assert written.measure.tolist() == ["step"] and [p.name for p in tmp_path.iterdir()] == ["bench.csv"]


def test_a_gpu_alone(bench, tmp_path, monkeypatch):
    monkeypatch.setattr(bench, "RESULTS", tmp_path)
    monkeypatch.setattr(bench, "measure_device", lambda kind, entries: {("step", kind): [2.0, 3.0, 4.0]})
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit, match="no GPU"):
        bench.main(["--gpu"])
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(bench, "provenance", lambda device: {"device": device.type})
    bench.main(["--gpu", "--write"])
    (row,) = pd.read_csv(tmp_path / "bench_gpu.csv").to_dict("records")
    assert row["rule"] == row["device"] == "cuda" and row["gpu"] == 3 and "cpu" not in row
