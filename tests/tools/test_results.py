"""The tool that measures the studies: what it runs, where it walks on, what it writes, what it says beforehand."""

import pandas as pd
import pytest
import yaml

import course_utils as cu
from course_utils import runs, sweeps
from tools import cost, lessons, results

SIZES = [784, 16, 10]
BLOCK = {"rules": ["Backprop"], "sizes": SIZES, "seeds": 2, "epochs": 1, "batch_size": 64}
BLOCK |= {"dataset": "digits", "search_images": 600}


@pytest.fixture
def course(tmp_path, monkeypatch):
    """A course of its own, with two lessons that share runs and one that measures nothing; adds a lesson."""
    names = {"96": "own", "97": "without_results", "98": "shared", "99": "test"}
    outline = {"parts": {"I": "All"}, "lessons": {f"{n}_{name}": {"part": "I"} for n, name in names.items()}}
    (tmp_path / "lessons").mkdir()
    (tmp_path / "lessons" / "outline.yaml").write_text(yaml.safe_dump(outline))

    def add(number, *blocks, **study):
        folder = tmp_path / "lessons" / f"{number}_{names[number]}"
        folder.mkdir()
        (folder / "lesson.md").write_text("---\nlesson: {}\n---\n")
        (folder / "study.yaml").write_text(yaml.safe_dump({"blocks": list(blocks), **study}))
        return folder / "made"

    digits = cu.load_dataset("digits")
    monkeypatch.setattr(cu, "load_dataset", lambda name: digits)
    monkeypatch.setattr(results, "FINISHED", tmp_path / "finished")
    monkeypatch.setattr(results, "chosen", lambda numbers: lessons.chosen(numbers, tmp_path))
    monkeypatch.setattr(sweeps, "ROOT", tmp_path)
    monkeypatch.setattr(results.maps, "write", lambda: None)
    second = {**BLOCK, "lrs": [0.3], "network": {"activation": "tanh"}}
    add("98", second)
    add("99", {**BLOCK, "lrs": [0.01, 0.1, 1.0]}, second)
    add("97")
    return add


def test_the_tool_measures_the_blocks_of_a_lesson(course, capsys):
    results.main(["99", "--jobs", "1"])
    table, search = cu.stored_results(99), cu.stored_rates(99)
    last = table.dropna(subset=["test_accuracy"])
    assert list(table.columns) == list(search.columns) == runs.SCHEMA
    assert list(last.sizes) == 2 * ["784-16-10"] + 2 * ["784-16-10 tanh"] and list(last.seed) == [0, 1, 0, 1]
    assert set(last.lr[-2:]) == {0.3} and set(last.lr[:2]) <= {0.01, 0.1, 1.0}
    assert {0.01, 0.1, 1.0} <= set(search.lr) and search.test_accuracy.isna().all()
    assert "7 runs for lessons 99; 0 are finished" in capsys.readouterr().out


def test_a_rule_has_one_file_with_the_facts_on_top(course, tmp_path):
    names = ["FrozenHidden(FeedbackAlignment(feedback_scale=0.5))", "ZIL", "FeedbackAlignment"]
    made = course("96", {**BLOCK, "rules": names, "lrs": [0.1]})
    (made / "runs").mkdir(parents=True)
    (made / "runs" / "Gone.csv").write_text("of a rule that the study has no more")
    results.main(["96", "--jobs", "1"])
    assert sorted(path.name for path in (made / "runs").iterdir()) == ["FeedbackAlignment.csv", "ZIL.csv"]
    assert not (made / "rates").exists()  # nothing was searched
    *facts, columns, first = (made / "runs" / "FeedbackAlignment.csv").read_text().splitlines()[:6]
    assert [fact.split(":")[0] for fact in facts] == [f"# {fact}" for fact in runs.FACTS]
    assert columns.startswith("block,rule,dataset") and not set(runs.FACTS) & set(columns.split(","))
    assert first.startswith("0,FrozenHidden(FeedbackAlignment(feedback_scale=0.5)),digits,784-16-10,0,0.1")
    assert list(cu.stored_results(96).rule.unique()) == [names[0], names[2], names[1]]  # the registry's order


def test_one_rule_alone_leaves_the_other_rules_files_as_they_are(course, tmp_path):
    names = ["FrozenHidden(FeedbackAlignment(feedback_scale=0.5))", "FeedbackAlignment", "ZIL"]
    made = course("96", {**BLOCK, "rules": ["ZIL"]} | {"lrs": [0.1]}, {**BLOCK, "rules": names, "lrs": [0.1]})
    for kind, name in [("runs", "ZIL"), ("rates", "Old")]:
        (made / kind).mkdir(parents=True)
        (made / kind / f"{name}.csv").write_text("as it was")
    results.main(["96", "--jobs", "1", "--rules", "FeedbackAlignment"])
    assert (made / "runs" / "ZIL.csv").read_text() == (made / "rates" / "Old.csv").read_text() == "as it was"
    table = sweeps.read_table(made / "runs" / "FeedbackAlignment.csv")
    assert set(table.block) == {1} and list(table.rule.unique()) == names[:2] and not (made / "cost.yaml").exists()
    assert len(list((tmp_path / "finished").glob("*.csv"))) == 4  # two seeds of two rows; nothing of ZIL


def test_rows_of_two_days_name_both(tmp_path):
    row = {"block": 0, "rule": "ZIL", **dict.fromkeys(runs.FACTS, "as ever")}
    table = pd.DataFrame([row | {"measured": day} for day in ("2026-02-01", "2026-01-01")])
    results.write_table(table, tmp_path / "ZIL.csv")
    assert set(sweeps.read_table(tmp_path / "ZIL.csv").measured) == {"2026-01-01 and 2026-02-01"}


@pytest.mark.parametrize(
    "rule, name",
    [
        ("Pepita", "Pepita"),
        ("MatchedSteps(FrozenHidden(Pepita(dropout=0)))", "Pepita"),
        ("Blend(first='NodePerturbation', blend=0.3)", "Blend"),
    ],
)
def test_a_file_is_called_as_the_class(rule, name):
    assert results.class_name(rule) == name


def test_the_search_walks_on_from_the_edge_until_the_best_rate_stands_inside(course):
    course("96", {**BLOCK, "rules": ["Backprop", "ZIL"], "lrs": [0.001, 0.01]})
    results.main(["96", "--jobs", "1"])
    for rule in ("Backprop", "ZIL"):
        rates, table = (read(96) for read in (cu.stored_rates, cu.stored_results))
        rates, (used,) = rates[rates.rule == rule], table[table.rule == rule].lr.unique()
        tried = list(rates.lr.unique())
        assert tried[:4] == pytest.approx([0.001, 0.01, 0.1, 1.0])
        assert 0.1 <= used < tried[-1] and tried == sorted(tried)
        last = rates.groupby("lr").tail(1)
        assert last.val_accuracy.max() == last.set_index("lr").val_accuracy[used]


def test_the_search_walks_six_times_at_most_and_from_equals_not_at_all():
    block = results.read_block(["ZIL"], SIZES, [0.1, 0.2])
    confirmed = results.read_block(["ZIL"], SIZES, [0.1, 0.2], confirm=2)  # there the long race has the last word
    confirmed.best = {"search": {"ZIL": 0.2}, "confirm": {"ZIL": 0.1}}
    assert not confirmed.walk_on("search") and confirmed.walk_on("confirm") and 0.05 in confirmed.lrs["ZIL"]
    for number in range(8):
        block.best["search"] = {"ZIL": max(block.lrs["ZIL"])}  # always the last
        assert block.walk_on("search") == (number < 6)
    assert block.lrs["ZIL"] == pytest.approx([0.1 * 2**k for k in range(8)], rel=0.05)
    assert results.next_rate([0.1, 0.3], 0.1) == pytest.approx(0.033) and results.next_rate([0.1], 0.1) is None
    ties = pd.DataFrame({"rule": "ZIL", "seed": 0, "lr": [0.3, 0.1, 0.03], "val_accuracy": [0.2, 0.5, 0.5]})
    assert sweeps.best_lr(ties) == {"ZIL": 0.1}  # the rate tried later has to be better, or a walk would not end


def test_with_several_seeds_a_rate_within_one_standard_error_of_the_best_is_preferred_if_smaller():
    seeds = {"rule": "ZIL", "seed": [0, 1, 2]}
    best = {"lr": 0.3, "val_accuracy": [0.94, 0.96, 0.98]}  # mean .96, standard error .0115
    near, far = {"lr": 0.1, "val_accuracy": 0.949}, {"lr": 0.03, "val_accuracy": 0.948}
    table = [pd.DataFrame(seeds | rate) for rate in (best, near, far)]
    assert sweeps.best_lr(pd.concat(table)) == {"ZIL": 0.1}
    assert sweeps.best_lr(pd.concat(table).query("seed == 2")) == {"ZIL": 0.3}
    assert sweeps.best_lr(pd.concat([table[0], table[2]])) == {"ZIL": 0.3}


def test_a_long_race_on_three_seeds(course):
    block = {**BLOCK, "rules": ["Backprop"], "lrs": [0.03, 0.1, 0.3], "confirm": 2, "confirm_seeds": 3, "seeds": 1}
    course("96", block)
    results.main(["96", "--jobs", "1"])
    rates = cu.stored_rates(96)
    longest = rates[rates.samples == rates.samples.max()]
    assert longest.groupby("lr").seed.unique().map(len).max() == 3 and rates.test_accuracy.isna().all()


def test_the_tool_confirms_the_rate_in_a_long_race(course, tmp_path):
    """The winner of the short race and the smaller rates next to it run as long as the seeds do; the best is taken."""
    block = {**BLOCK, "rules": ["Backprop", "FeedbackAlignment"], "epochs": 2}
    block |= {"search_images": 200, "lrs": [0.3, 0.001, 0.03, 0.1], "confirm": 2}
    made = course("96", block, {**block, "confirm": 0, "lrs": [0.1]})
    results.main(["96", "--jobs", "1"])
    table, search = (sweeps.read_tables(96, kind).query("block == 0") for kind in ("runs", "rates"))
    assert search.test_accuracy.isna().all() and set(search.seed) == {0}
    for name in block["rules"]:
        rates = search[search.rule == name]
        short = rates[rates.samples == 200].set_index("lr").val_accuracy
        long = rates[rates.samples == rates.samples.max()].set_index("lr").val_accuracy
        assert set(sorted(lr for lr in short.index if lr <= short.idxmax())[-3:]) <= set(long.index)
        assert set(table[table.rule == name].lr) == {long.idxmax()}
        assert short.index.min() < long.idxmax() < short.index.max()
    finished = sorted((tmp_path / "finished").iterdir())
    assert yaml.safe_load((made / "cost.yaml").read_text())["results"]["runs"] == len(finished)
    results.main(["96", "--jobs", "1"])
    assert sorted((tmp_path / "finished").iterdir()) == finished


def test_the_tool_measures_everything_shares_runs_and_goes_on(course, tmp_path, capsys):
    results.main(["98", "--jobs", "1"])
    finished = {path: path.stat().st_mtime_ns for path in (tmp_path / "finished").iterdir()}
    assert len(finished) == 2
    cost.note(lessons.find(98, tmp_path), "lesson", {"seconds": 7.0})
    capsys.readouterr()
    results.main(["--jobs", "1"])
    said = capsys.readouterr().out
    assert "7 runs for lessons 98, 99; 2 are finished" in said and "minutes on 1 cores" in said
    assert all(path.stat().st_mtime_ns == at for path, at in finished.items())
    costs = {number: cost.of(lessons.find(number, tmp_path)) for number in (98, 99)}
    every = len(list((tmp_path / "finished").iterdir()))
    assert costs[98]["results"]["runs"] == 2 and costs[99]["results"]["runs"] == every - 2  # the first pays for both
    assert costs[98]["lesson"] == {"seconds": 7.0} and set(runs.FACTS) < set(costs[99]["results"])
    results.main(["--jobs", "1"])
    assert f"{every} are finished\nabout 0 minutes" in capsys.readouterr().out
    results.main(["98", "--jobs", "1", "--fresh"])
    assert "0 are finished" in capsys.readouterr().out


def test_a_block_may_ask_for_every_rule_and_for_another_function():
    block = results.read_block("all", SIZES, [0.1], also=["FrozenHidden(Backprop)"], epochs=1)
    assert block.rules == [*cu.rules.able(SIZES), "FrozenHidden(Backprop)"]
    large = results.read_block("all", [784, 32, 10], [0.1]).rules
    assert "CMAES" not in large and set(large) < set(cu.rules.ALL)  # it is for small networks alone
    other = results.read_block(["ZIL"], SIZES, [0.1, 0.2], function="course_utils.sweeps.one_run", epochs=3)
    assert {function for function, _ in other.runs("search")} == {runs.one_run}
    assert [(s["limit"], s["epochs"], s["test"]) for _, s in other.runs("search")] == 2 * [(20_000, 1, False)]
