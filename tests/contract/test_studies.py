"""What the studies ask for stands in their tables: every block, every target, no rate at the edge of its grid."""

import functools
import inspect
from dataclasses import fields

import pytest

import course_utils as cu
from course_utils import runs, sweeps
from course_utils.settings import Settings
from tools.lessons import ROOT, all_lessons, find, study
from tools.results import read_block

LESSONS = [lesson for lesson in all_lessons() if study(lesson)["blocks"]]
TARGETS = [(lesson, target) for lesson in LESSONS for target in study(lesson).get("targets", [])]
WORDS_OF_A_TARGET = {"rule", "block", "seeds", "at_least", "above", "control_lesson", "control_block"}
LARGEST = 250_000  # bytes of a stored file

every_lesson = pytest.mark.parametrize("lesson", LESSONS, ids=lambda lesson: lesson.stem)


@functools.cache
def blocks(lesson):
    """Of a block over all rules, those that are judged: a rule may come before its rows, and 28 names it."""
    words = study(lesson)
    judged = [{"rules": words["judged"]} if block["rules"] == "all" else {} for block in words["blocks"]]
    return [read_block(**block | rules) for block, rules in zip(words["blocks"], judged, strict=True)]


@functools.cache
def tables(lesson, kind):
    """{(block, rule): its rows} of a lesson's runs or rates."""
    return dict(list(sweeps.read_tables(lesson.number, kind).groupby(["block", "rule"])))


def accuracies(lesson, rule, block):
    """Per cent of the test images at the end of each seed's run."""
    return 100 * tables(lesson, "runs")[block, rule].test_accuracy.dropna()


def first_block(lesson, rule, like):
    """The block that a target speaks of: the first of this rule, on the network of the block `like` if there is one."""
    there = [n for n, block in enumerate(blocks(lesson)) if rule in block.rules]
    alike = [n for n in there if like and network(blocks(lesson)[n]) == network(like)]
    return (alike if like else there)[0]


def network(block):
    return block.sizes, block.settings.get("network")


@every_lesson
def test_every_word_of_a_study_is_known(lesson):
    words = study(lesson)
    assert set(words) <= {"blocks", "targets", "judged"}
    settings = {field.name for field in fields(Settings)} | set(inspect.signature(runs.one_run).parameters)
    for number, block in enumerate(words["blocks"]):
        function = blocks(lesson)[number].settings["function"]
        known = {*inspect.signature(read_block).parameters, "function", *inspect.signature(function).parameters}
        assert set(block) <= known | settings, f"block {number}"
    assert all(set(target) <= WORDS_OF_A_TARGET for target in words.get("targets", []))
    assert set(words.get("judged", [])) <= set(cu.rules.ALL)


@every_lesson
def test_every_block_has_its_rows(lesson):
    for number, block in enumerate(blocks(lesson)):
        for rule in block.rules:
            rows = tables(lesson, "runs")[number, rule]
            tested = rows.dropna(subset=["test_accuracy"])
            assert set(tested.seed) == set(range(block.seeds)), (number, rule)
            assert {size.split()[0] for size in rows.sizes} == {"-".join(map(str, block.sizes))}


@every_lesson
def test_no_chosen_rate_stands_at_the_edge_of_its_grid(lesson):
    """And it is the one whose run ended best on validation; of equals the one that was tried first."""
    for number, block in enumerate(blocks(lesson)):
        for rule in block.rules if len(block.lrs[block.rules[0]]) > 1 else []:
            rates = tables(lesson, "rates")[number, rule]
            (chosen,) = tables(lesson, "runs")[number, rule].lr.unique()
            assert set(block.lrs[rule]) <= set(rates.lr), f"block {number}, {rule}: not every rate was tried"
            assert rates.lr.min() < chosen < rates.lr.max(), f"block {number}, {rule}: {chosen} is at the edge"
            longest = rates[rates.samples == rates.samples.max()] if block.confirm else rates
            seeds = longest.groupby("lr").seed.transform("nunique")  # the search may be as long, but has one
            longest = longest[seeds == block.confirm_seeds].drop_duplicates(["lr", "seed", "samples"])
            assert sweeps.best_lr(longest)[rule] == chosen, f"block {number}, {rule}"
            assert rates.test_accuracy.isna().all()


@pytest.mark.parametrize("lesson, target", TARGETS, ids=lambda v: v["rule"] if isinstance(v, dict) else v.stem)
def test_every_target_is_met(lesson, target):
    block = target.get("block", first_block(lesson, target["rule"], None))
    reached, seeds = accuracies(lesson, target["rule"], block), target.get("seeds", 5)
    assert len(reached) == seeds and reached.mean() >= target.get("at_least", 0)
    other = find(target.get("control_lesson", lesson.number))
    for control, points in target.get("above", {}).items():
        there = target.get("control_block")
        if there is None:
            same = other == lesson and control in blocks(lesson)[block].rules
            there = block if same else first_block(other, control, blocks(lesson)[block])
        reference = accuracies(other, control, there)
        assert len(reference) >= seeds and reached.mean() - reference.mean() > points, (control, reference.mean())


def test_no_stored_file_is_large():
    """Two branches that add a rule each touch no common file, and none outgrows what git and a reader like."""
    files = [*ROOT.glob("lessons/*/made/*/*.csv"), *ROOT.glob("results/*.csv")]
    assert len(files) > 100 and {str(path) for path in files if path.stat().st_size > LARGEST} == set()
