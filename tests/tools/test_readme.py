"""What the README promises, run: its code, and its numbers against the tables they come from."""

import re
from pathlib import Path

import pandas as pd

import course_utils as cu

README = (Path(__file__).parent.parent / "README.md").read_text()


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
    assert lab.run_steps(3).samples > 0 and lab.error is None
    # What the text says of it: unbiased, with a variance of 1.
    rule, data = namespace["rule"], namespace["data"]
    last = cu.metrics.gradient_statistics(rule, data.x_train[:100], data.y_train[:100], draws=200).iloc[-1]
    assert abs(last.projection - 1) < 4 * last.projection_se
    assert abs(last.variance - 1) < 4 * last.variance_se


def test_the_quoted_accuracies_are_those_of_the_stored_tables():
    rows = re.findall(r"^\| (784[\w -]*?) \| `(.*?)` \| (\d\d) \| ([\d.]+) \| ([\d.]+) \|$", README, re.M)
    assert {number for _, _, number, *_ in rows} == set("01 03 04 06 07 08 09 10 15 16 17 21 22".split())
    for sizes, rule, number, accuracy, frozen in rows:
        tables = [cu.stored_results(number)]
        if number == "10":  # its network, budget and control on 784-500-10 are those of lesson 09
            tables.append(cu.stored_results(9).query("rule == 'FrozenHidden(Backprop)'"))
        final = pd.concat(tables).dropna(subset=["test_accuracy"])
        final = final[final.sizes == sizes].groupby("rule")
        mean = (100 * final.test_accuracy.mean()).map("{:.2f}".format)
        control = "FrozenHidden(Backprop)" if "FrozenHidden(Backprop)" in mean else "FrozenHidden(FeedbackAlignment)"
        assert (accuracy, frozen) == (mean[rule], mean[control])
        assert final.seed.nunique()[rule] == 5 and final.seed.nunique()[control] >= 3


def test_the_targets_of_lesson_06_are_met():
    final = cu.stored_results(6).dropna(subset=["test_accuracy"])
    assert (final.groupby("rule").seed.nunique() == 5).all()
    mean = 100 * final.groupby("rule").test_accuracy.mean()
    assert mean["FeedbackAlignment"] >= 97.5
    assert mean["FeedbackAlignment"] - mean["FrozenHidden(FeedbackAlignment)"] >= 3


def test_the_quoted_speeds_are_those_of_the_stored_table():
    table = pd.read_csv(Path(__file__).parent.parent / "results" / "bench.csv").set_index(["rule", "measure"]).cpu
    (speeds,) = re.findall(r"Its speed is measured by.*?\n\n", README, re.S)
    backprop = table["Backprop"].astype(float)
    rules = [f"WeightPerturbation(draws={k}, noise='rademacher')" for k in (1, 10, 100)]
    rules += [f"NodePerturbation(draws={k})" for k in (1, 10, 100)]
    ratios = [backprop["step / bare products"], backprop["step / autograd"]]
    for measure in ("step / bare products", "step / products of its passes"):
        ratios += [float(table[rule, measure]) for rule in rules]
    settling = table["PredictiveCoding(inference_steps=20)"].astype(float)
    ratios += [settling["step / bare products"]]
    assert re.findall(r"\d+\.\d\d", speeds) == [f"{ratio:.2f}" for ratio in ratios]
    rate = float(table[:, "matmul rate"].iloc[0])
    assert f"reach {rate:.0f} GFLOP/s" in speeds
    assert f"{settling['step']:.1f} ms" in speeds
    assert "two fifths of one fed by a DataLoader" in speeds and 2.3 < backprop["DataLoader / train"] < 2.7


def test_the_quoted_speeds_on_a_gpu_are_those_of_the_stored_table():
    table = pd.read_csv(Path(__file__).parent.parent / "results" / "bench_gpu.csv").set_index(["rule", "measure"])
    (speeds,) = re.findall(r"On a GPU these networks.*?\n\n", README, re.S)
    measures = ["step", "step / bare products", "step / autograd"]
    quoted = [("Backprop", measure) for measure in measures]
    quoted += [("PredictiveCoding(inference_steps=20)", measure) for measure in measures[:2]]
    assert re.findall(r"\d+\.\d\d", speeds) == [f"{table.gpu[row]:.2f}" for row in quoted]
    assert table.device.unique().tolist() == ["NVIDIA H200"] and "an NVIDIA H200" in speeds
