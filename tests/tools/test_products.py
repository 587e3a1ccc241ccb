"""The matrix products of a step: all of them are found, and a replay makes them and nothing else."""

import pytest
import torch
from helpers import flop_counter
from torch import nn

import course_utils as cu
from course_utils import costs, runs
from tools.products import products_of, replay

SIZES, N = (7, 6, 5, 3), 4


@pytest.mark.parametrize("name", cu.rules.ALL)
def test_the_products_of_every_rule_are_those_that_torch_counts_and_a_replay_makes_the_same(name):
    rule = runs.make_rule(name, list(SIZES), 0)
    x, y, optimizer = torch.rand(N, SIZES[0]), torch.arange(N) % SIZES[-1], costs.sgd(rule)
    with flop_counter() as flops:
        made = products_of(lambda: rule.step(x, y, optimizer))
    assert 0 < 2 * sum(product.multiplications for product in made) == flops.get_total_flops()
    bare = products_of(replay(made, "cpu"))
    assert [p.multiplications for p in bare] == [p.multiplications for p in made]
    for was, now in zip(made, bare, strict=True):
        assert [(t.shape, t.stride()) for t in was.arguments] == [(t.shape, t.stride()) for t in now.arguments]


def test_products_are_found_under_every_name_and_with_their_layout():
    a, b, out = torch.rand(5, 4), torch.rand(3, 4), torch.rand(5, 3)
    stack = torch.rand(2, 5, 4)

    def call():
        nn.functional.linear(a, b, torch.rand(3))
        out.addmm_(a, b.T)
        torch.baddbmm(torch.rand(2, 5, 3), stack, b.T.expand(2, 4, 3))
        nn.functional.conv2d(torch.rand(2, 3, 6, 6), torch.rand(4, 3, 5, 5))
        out + 1

    linear, in_place, many, convolution = products_of(call)
    assert linear.multiplications == in_place.multiplications == 5 * 4 * 3
    assert [(tuple(t.shape), t.stride()) for t in linear.arguments] == [((5, 4), (4, 1)), ((4, 3), (1, 4))]
    assert many.multiplications == 2 * 5 * 4 * 3 and many.arguments[1].stride() == (0, 1, 4)
    assert convolution.multiplications == 2 * 4 * 2 * 2 * 3 * 5 * 5
    again = products_of(replay([linear, in_place, many, convolution], "cpu"))
    assert [p.function for p in again[:3]] == [torch.mm, torch.mm, torch.bmm]
    assert again[3].multiplications == convolution.multiplications


def test_a_replay_multiplies_and_makes_nothing_else():
    rule = runs.make_rule("Backprop", [40, 30, 10], 0)
    made = products_of(lambda: rule.backward(torch.rand(8, 40), torch.arange(8)))
    bare = replay(made, "cpu")
    with costs.Alive() as alive:
        bare()
    assert alive.peak == 0
    with costs.Alive() as alive:
        rule.backward(torch.rand(8, 40), torch.arange(8))
    assert alive.peak > 4 * 8 * (40 + 30 + 10)
