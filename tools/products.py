"""The matrix products of a call, noted and made again bare: what a step is timed against."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from torch.utils._pytree import tree_map_only

from course_utils.costs import IN_PLACE, Products

aten = torch.ops.aten
BARE = {aten.mm: torch.mm, aten.addmm: torch.mm, aten.bmm: torch.bmm, aten.baddbmm: torch.bmm}


class Product(NamedTuple):
    """A matrix product: what makes it bare, of which arguments (layouts without numbers), how many multiplications."""

    function: Callable
    arguments: tuple
    multiplications: int


class _Noted(Products):
    """Inside it every product is noted in `products`, too."""

    def __init__(self):
        super().__init__()
        self.products: list[Product] = []

    def __torch_dispatch__(self, function, types, arguments=(), keywords=None):
        out = super().__torch_dispatch__(function, types, arguments, keywords)
        if len(self.made) > len(self.products):
            name = IN_PLACE.get(function.overloadpacket, function.overloadpacket)
            operands = arguments[-2:] if name in BARE else arguments  # without what is added to the product
            layouts = tree_map_only(torch.Tensor, _layout, operands)
            self.products.append(Product(BARE.get(name, function), layouts, self.made[-1]))
        return out


def _layout(t):
    return torch.empty_strided(t.shape, t.stride(), dtype=t.dtype, device="meta")


def products_of(call):
    """The matrix products (and convolutions) that a call makes, in order: a `Product` each."""
    with _Noted() as noted:
        call()
    return noted.products


def replay(products, device):
    """A call that makes these products bare: random operands of the same shapes and strides, nothing added to what
    comes out, and room for that allocated before."""

    def numbers(layout):
        stored = layout.untyped_storage().nbytes() // layout.itemsize
        return torch.randn(stored, dtype=layout.dtype, device=device).as_strided(layout.shape, layout.stride())

    calls = []
    for function, arguments, _ in products:
        operands = tree_map_only(torch.Tensor, numbers, arguments)
        calls.append(partial(function, *operands))
        if function in BARE.values():
            left, right = operands
            calls[-1].keywords["out"] = left.new_empty(*left.shape[:-1], right.shape[-1])
    return lambda: [call() for call in calls]
