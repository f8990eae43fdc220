"""The gate refuses layers that are wrong, each in one way only."""

from typing import NamedTuple

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sparse_models.errors import GateError
from sparse_models.layers import SparseLinear
from sparse_models.layers.masked import Masked
from sparse_models.masks import random_mask
from sparse_models.testing import Problem, gate, sample
from sparse_models.testing.sample import BLOCK, SMALL, spread
from tests.helpers.wrong_layers import WRONG, IgnoresStrides, IgnoresStridesOfTheGradient
from tests.strategies import generator, normal


def problem(dtype: torch.dtype, batch: int, inputs: int, outputs: int) -> Problem:
    numbers = [
        normal(seed, *shape, dtype=dtype)
        for seed, shape in enumerate([(outputs, inputs), (outputs,), (batch, inputs), (batch, outputs)])
    ]
    return Problem(numbers[0], random_mask((outputs, inputs), 0.7, generator(0)), numbers[1], numbers[2], numbers[3])


class Size(NamedTuple):
    batch: int
    inputs: int
    outputs: int
    small: int  # weights of up to so many entries are looked at in full

    def __str__(self) -> str:
        in_full = self.inputs * self.outputs <= self.small
        return f"{self.inputs}x{self.outputs}b{self.batch}-{'in full' if in_full else 'sampled'}"


SIZES = [Size(3, 7, 5, SMALL), Size(512, 96, 64, SMALL), Size(24, 430, 330, 1000), Size(1, 70, 1000, 1000)]
each_size = pytest.mark.parametrize("size", SIZES, ids=str)
each_dtype = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)


@each_dtype
@each_size
@pytest.mark.parametrize("wrong", WRONG, ids=lambda layer: layer.__name__)
def test_gate_refuses(wrong: type[SparseLinear], size: Size, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    if size.batch == 1 and wrong in (IgnoresStrides, IgnoresStridesOfTheGradient):
        pytest.skip("a single sample lies in memory in one way")
    monkeypatch.setattr(sample, "SMALL", size.small)
    with pytest.raises(GateError, match=rf"^{wrong.__name__}: .*nothing is timed$"):
        gate(wrong, problem(dtype, size.batch, size.inputs, size.outputs))


@each_dtype
@each_size
def test_gate_accepts_the_layer_that_the_wrong_ones_are_made_from(
    size: Size, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sample, "SMALL", size.small)
    gate(Masked, problem(dtype, size.batch, size.inputs, size.outputs))


@given(st.integers(1, 10 * BLOCK * BLOCK))
def test_a_sample_has_the_ends_and_one_of_each_block_and_position(size: int) -> None:
    places = spread(size)
    assert torch.equal(places, places.unique())
    assert {0, size - 1} <= set(places.tolist()) <= set(range(size))
    assert set((places // BLOCK).tolist()) == set(range(-(-size // BLOCK)))
    assert set((places % BLOCK).tolist()) == set(range(min(size, BLOCK)))
    assert len(places) <= max(size // BLOCK, BLOCK) + 3 or size <= BLOCK


def test_any_place_may_be_in_a_sample() -> None:
    # The 44 of the last block, of which a draw has one beside the end, are the rarest: one is missed once in 10 ** 18 times.
    assert set(torch.cat([spread(300) for _ in range(2000)]).tolist()) == set(range(300))
