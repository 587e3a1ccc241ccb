"""What the README promises, run: its code, and its numbers against the tables they come from."""

import re

import pandas as pd
import torch

import course_utils as cu
from tools.lessons import ROOT

README = (ROOT / "README.md").read_text()


def test_the_example_of_a_rule_of_ones_own_runs(monkeypatch, capsys):
    (code,) = [block for block in re.findall(r"```python\n(.*?)```", README, re.S) if "(cu.Rule)" in block]
    assert len([line for line in code.splitlines() if line.strip()]) <= 15
    digits = cu.load_dataset("digits", device="cpu")
    monkeypatch.setattr(cu, "load_dataset", lambda name: digits)
    namespace = {}
    exec(code, namespace)
    assert namespace["history"].status == "done"
    assert namespace["history"].frame.val_accuracy.iloc[-1] > 0.5  # of ten digits, and after ten steps
    assert "bias" in capsys.readouterr().out
    lab = namespace["lab"]
    assert lab.run_steps(3).samples > 0 and lab.message.value == ""
    # What the text says of it: unbiased, with a variance of 1.
    rule, data = namespace["rule"], namespace["data"]
    last = cu.metrics.gradient_statistics(rule, data.x_train[:100], data.y_train[:100], draws=200).iloc[-1]
    assert abs(last.projection - 1) < 4 * last.projection_se
    assert abs(last.variance - 1) < 4 * last.variance_se


def test_the_run_that_goes_on_does(monkeypatch, tmp_path, capsys):
    begin, go_on = re.findall(r"```python\n(.*?)```", README.split("## A run that goes on")[1], re.S)
    digits, (short, whole) = cu.load_dataset("digits", device="cpu"), ("epochs=1, stop_after=640", "epochs=1")
    monkeypatch.setattr(cu, "load_dataset", lambda name: digits)
    monkeypatch.chdir(tmp_path)
    exec(begin.replace("epochs=20", whole), one := {})
    exec(begin.replace("epochs=20", short), {})
    exec(go_on, other := {"cu": cu})
    weights = zip(one["rule"].net.weights, other["rule"].net.weights, strict=True)
    assert other["history"].status == "done" and all(torch.equal(*pair) for pair in weights)


def test_the_example_of_torch_s_own_tools_runs(capsys):
    (code,) = [block for block in re.findall(r"```python\n(.*?)```", README, re.S) if "register_step_pre_hook" in block]
    digits = cu.load_dataset("digits", device="cpu")  # fewer: it takes more epochs
    exec(code.replace("epochs=1", "epochs=20"), names := {"cu": cu, "torch": torch, "data": digits})
    frame, scheduler = names["history"].frame, names["scheduler"]
    assert frame.val_accuracy.iloc[-1] > 0.8 and frame.silent.between(0.1, 0.9).all()
    assert scheduler.last_epoch == names["history"].steps and "silent" in capsys.readouterr().out


def test_the_quoted_speeds_are_those_of_the_stored_table():
    table = pd.read_csv(ROOT / "results" / "bench.csv").set_index(["rule", "measure"]).cpu
    (speeds,) = re.findall(r"Its speed is measured by.*?\n\n", README, re.S)
    backprop = table["Backprop"].astype(float)
    rules = [f"WeightPerturbation(draws={k}, noise='rademacher')" for k in (1, 10, 100)]
    rules += [f"NodePerturbation(draws={k})" for k in (1, 10, 100)]
    measures = ["step / bare products", "step / autograd", "epoch by train / bare products"]
    ratios = [backprop[measure] for measure in measures]
    ratios += [float(table[rule, "step / bare products"]) for rule in rules]
    settling = table["PredictiveCoding(inference_steps=20)"].astype(float)
    ratios += [settling["step / bare products"]]
    assert re.findall(r"\d+\.\d\d", speeds) == [f"{ratio:.2f}" for ratio in ratios]
    rate = float(table[:, "matmul rate"].iloc[0])
    assert f"reach {rate:.0f} GFLOP/s" in speeds
    assert f"{settling['step']:.1f} ms" in speeds
    assert "less than a quarter of one fed" in speeds and 4 < backprop["DataLoader / train"] < 5


def test_the_quoted_speeds_on_a_gpu_are_those_of_the_stored_table():
    table = pd.read_csv(ROOT / "results" / "bench_gpu.csv").set_index(["rule", "measure"])
    (speeds,) = re.findall(r"On a GPU these networks.*?\n\n", README, re.S)
    measures = ["step", "step / bare products", "step / autograd"]
    quoted = [("Backprop", measure) for measure in measures]
    quoted += [("PredictiveCoding(inference_steps=20)", measure) for measure in measures[:2]]
    assert re.findall(r"\d+\.\d\d", speeds) == [f"{table.gpu[row]:.2f}" for row in quoted]
    assert table.device.unique().tolist() == ["NVIDIA H200"] and "an NVIDIA H200" in speeds


def blocks_of(heading):
    """The Python under a heading."""
    (text,) = re.findall(rf"^## {heading}\n(.*?)^## ", README, re.M | re.S)
    return re.findall(r"```python\n(.*?)```", text, re.S)


def test_the_examples_of_ones_own_data_run(tmp_path, monkeypatch, capsys):
    from sklearn.datasets import load_iris

    iris = load_iris(as_frame=True)
    table = iris.data.assign(soil=["dry", "wet", "wet"] * 50, kind=iris.target.map(dict(enumerate(iris.target_names))))
    table.to_csv(tmp_path / "flowers.csv", index=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("course_utils.sweeps.RESULTS", tmp_path / "results")
    of_a_table, of_images = blocks_of("Your own data")
    exec(of_a_table, found := {})
    assert repr(found["flowers"]) == "<Dataset flowers: 108 + 12 + 30 examples of 6 numbers>"
    assert list(found["kinds"]) == ["setosa", "versicolor", "virginica"]
    assert float(capsys.readouterr().out.split()[-1]) > 0.8
    exec(of_images, found := {})
    assert repr(found["data"]) == "<Dataset photos: 540 + 60 + 100 examples of 3072 numbers>"
    assert set(found["frame"].dataset) == {"photos"} and found["frame"].test_accuracy.notna().sum() == 4
    assert 0 <= found["data"].x_train.min() and 0.99 < found["data"].x_train.max() <= 1
