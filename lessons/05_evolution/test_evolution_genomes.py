"""The science of the genomes: what they spell, what no genome can beat, what children inherit; and the study's data."""

import functools
from dataclasses import fields

import pytest
import torch
from helpers import mutant

import course_utils as cu
from course_utils.data import Dataset
from course_utils.studies import evolution
from course_utils.studies.evolution import (
    BLOCKS,
    born,
    children_of,
    developed,
    few_numbers,
    generations,
    random_genomes,
    resized,
)


def genomes(count=3, codons=2, length=4, seed=0):
    return random_genomes(count, codons, length, torch.Generator().manual_seed(seed))


def spelled(weights, blocks):
    """Σ a ⊗ Q by torch.kron, the upper rows alone of the first half of the blocks."""
    half, found = blocks.shape[-1] // 2, []
    for a, codons in zip(weights, blocks, strict=True):
        terms = []
        for number, codon in zip(a, codons, strict=True):
            factors = [BLOCKS[q][:1] if j < half else BLOCKS[q] for j, q in enumerate(codon)]
            terms.append(number * functools.reduce(torch.kron, factors))
        found.append(sum(terms))
    return torch.stack(found)


def test_a_genome_spells_its_sum_of_kronecker_products():
    weights, blocks = genomes()
    assert developed(weights, blocks).shape == (3, 4, 16)
    assert (developed(weights, blocks) - spelled(weights, blocks)).abs().max() < 1e-5
    wrong = mutant(developed, "pcmrns", "pcrmns")
    assert (wrong(weights, blocks) - spelled(weights, blocks)).abs().max() > 0.1


def test_there_are_36_blocks_and_17_of_them_are_singular():
    assert len(BLOCKS.unique(dim=0)) == len(BLOCKS) == 36
    assert (torch.linalg.det(BLOCKS).abs() < 1e-6).sum() == 17
    assert torch.linalg.matrix_rank(BLOCKS.flatten(1)) == 4  # enough codons reach any matrix


def rearranged(W):
    """(columns of the first half of the blocks, all other numbers): a genome of r codons has rank r at most here."""
    return W.view(len(W), -1, W.shape[1] // 4).permute(1, 0, 2).flatten(1)


def test_no_sum_of_r_products_comes_nearer_than_the_singular_values_say():
    torch.manual_seed(0)
    W = torch.randn(4, 16).double()
    U, s, Vt = torch.linalg.svd(rearranged(W), full_matrices=False)
    for r in (1, 2, 3):
        best = (U[:, :r] * s[:r]) @ Vt[:r]
        assert (rearranged(W) - best).norm() == pytest.approx(s[r:].norm().item(), rel=1e-12)
        weights, blocks = genomes(200, codons=r)
        spelt = developed(weights.double(), blocks)
        assert torch.linalg.matrix_rank(torch.stack([rearranged(w) for w in spelt])).max() <= r
        assert ((spelt - W).flatten(1).norm(dim=1) >= s[r:].norm()).all()


def test_children_have_their_codons_from_two_parents_and_a_mutation_here_and_there():
    generator = torch.Generator().manual_seed(0)
    weights, blocks = genomes(20, codons=16, length=8)
    young, spelt = children_of(weights, blocks, 2_000, 0.1, generator)
    assert young.shape == (2_000, 16) and spelt.shape == (2_000, 16, 8)
    known = (spelt[:, None] == blocks[None]).sum(-1).amax(1)  # blocks of the likeliest parent's codon, of 8
    assert (known == 8).double().mean() == pytest.approx((1 - 35 / 36 / 64) ** 8, abs=0.01)
    same = (young[:, None] == weights[None]).any(1).double().mean()
    assert same == pytest.approx(0.7, abs=0.02)
    wild = mutant(children_of, "< 1 / 64", "< 1 / 2")(weights, blocks, 2_000, 0.1, generator)[1]
    assert ((wild[:, None] == blocks[None]).sum(-1).amax(1) == 8).double().mean() < 0.1


def little(n=400):
    """Digits for everybody: a data set whose sixteen classes' images are easy to tell apart."""
    generator = torch.Generator().manual_seed(0)
    y = torch.randint(0, 10, (n,), generator=generator)
    x = 0.1 * torch.rand(n, 256, generator=generator)
    x[torch.arange(n), 16 * y] += 1
    return Dataset("little", "little", x[:300], y[:300], x[300:], y[300:], x[300:], y[300:])


def test_inheritance_finds_what_random_genomes_do_not():
    data, reached = little(), {}
    for inherit in (True, False):
        for _, champion in zip(range(40), generations(data, 1, inherit, codons=4, images=100), strict=False):
            rule = born(*champion)
        reached[inherit] = cu.evaluate(rule, data.x_val, data.y_val)
    assert reached[True] > reached[False] + 0.1


def test_a_champion_is_written_into_a_network():
    weights, blocks = genomes(1, codons=3, length=8)
    rule = born(weights[0], blocks[0])
    assert (rule.net.weights[0] - developed(weights, blocks)[0, :10]).abs().max() == 0
    assert (rule.net.biases[0] == 0).all()


def test_resized_images_are_means_and_standardised_by_the_training_images_alone():
    data = cu.load_dataset("digits")
    small = resized(data, 7)
    assert small.x_test.shape == (300, 49)
    assert small.x_val[3, 8] == pytest.approx(data.x_val[3].view(28, 28)[4:8, 4:8].mean().item(), abs=1e-6)
    standard = resized(data, 7, standardised=True)
    assert standard.x_train.mean(0).abs().max() < 1e-5 and standard.x_val.mean(0).abs().max() > 1e-3
    assert [getattr(small, f.name) is getattr(data, f.name) for f in fields(data) if f.name.startswith("y")] == [
        True
    ] * 3


def test_the_studies_rows_have_the_schema_and_repeat():
    settings = {"dataset": "digits", "epochs": 1, "batch_size": 500, "momentum": 0.0, "test": True}
    one, again = (few_numbers("CMAES(population=8)", [49, 10], 1.0, 3, **settings) for _ in range(2))
    assert list(one.columns) == cu.sweeps.SCHEMA and one.val_accuracy.equals(again.val_accuracy)
    frame = evolution.genetic("GeneticAlgorithm", [256, 10], 0.1, 0, dataset="digits", test=True, count=4, every=2)
    assert list(frame.columns) == cu.sweeps.SCHEMA and frame.samples.tolist() == [200, 400]
    assert frame.test_accuracy.isna().tolist() == [True, False]
