"""A call of every kernel has as many tickets as the kernel takes: one too few and it writes to memory that is another's."""

import inspect
import sys
from array import array
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
import torch

from sparse_models.kernels.cpu import _compile, _pass, _team, permute, tiled, transpose
from sparse_models.kernels.cpu._compile import KERNELS
from sparse_models.kernels.cpu.blocks import products as blocks
from sparse_models.kernels.cpu.bounds import handover, roofline
from sparse_models.kernels.cpu.chain.output import Output
from sparse_models.kernels.cpu.few import bitmap, columns, frozen, sliced
from sparse_models.kernels.cpu.moves.numbers import numbers
from sparse_models.layers.input_skipping import InputSkipping
from tests.helpers.kernel_checks import forget_kernels
from tests.sparse_models.kernels import (
    test_blocks,
    test_chain,
    test_few_samples,
    test_kernels,
    test_moves,
    test_output,
    test_step,
)

pytestmark = pytest.mark.usefixtures("poisoned")
GUARD = 0x5EED
BATCHES = 1, 70, 900


@pytest.fixture
def guarded(monkeypatch: pytest.MonkeyPatch) -> Iterator[set[int]]:
    """Which kernels were called, each loaded anew, with numbers after its tickets that no call may change."""
    ran = set[int]()

    def run_on(function: int, given: "array[int]", team: int) -> None:
        watched = given + array("q", [GUARD] * 64)
        _run_on(function, watched, team)
        tickets, after = watched[given[1] // 8 : len(given)], watched[len(given) :]
        assert set(after) == {GUARD}, "a kernel took tickets that its call does not have"
        assert 0 not in tickets, "a call has tickets that its kernel does not take"
        assert team <= given[0], "a team is larger than its kernel was told"
        ran.add(function)

    _run_on = _team.run_on
    for module in [one for name, one in sys.modules.items() if name.startswith("sparse_models.")]:
        if vars(module).get("run_on") is _run_on:
            monkeypatch.setattr(module, "run_on", run_on)
    forget_kernels()
    yield ran
    forget_kernels()


def products() -> None:
    for batch in (1, 70):
        structure, values, x, bias, grad = test_kernels.problem(0, 23, 41, batch, 0.3, torch.float32)
        tiled.product(structure, values, x, bias)
        tiled.sampled(structure, grad, x)
        of_blocks, _, values, x, bias, grad = test_blocks.problem(0, (4, 4), (23, 41), batch, 0.5, torch.float32)
        blocks.product(of_blocks, values, x, bias)
        blocks.sampled(of_blocks, grad, x)
    transpose.transposed(torch.randn(71, 67))
    permute.permuted(torch.randn(permute.LEAST), torch.arange(permute.LEAST).int())


def chains() -> None:
    for batch in BATCHES:
        chain, x = test_chain.links(0, (20, 33, 5), 0.3, torch.float32, with_bias=True), torch.randn(batch, 20)
        _pass.tile_by_tile(chain, x, torch.arange(batch) % 5)
        Output(chain, batch, is_turned=False).of(x)
        for way in test_step.WAYS.values():
            own = test_chain.links(0, (20, 33, 7, 5), 0.3, torch.float32, with_bias=True)
            test_step.Taken(own, "adam", way, batch).step(x, torch.arange(batch) % 5)


def few_samples() -> None:
    structure, values, x, bias = test_few_samples.problem(0, 71, 300, 0.3, torch.float32, is_even=True)
    forms: list[Any] = [sliced, *([bitmap] if bitmap.is_possible(torch.float32) else [])]
    for packed in [*(form.pack(structure, values) for form in forms), columns.pack(torch.randn(71, 300), sparse=False)]:
        frozen.product(packed, x, bias, 2)
    model = test_output.made(0, test_output.WIDE)
    with torch.no_grad():
        for _ in range(3):
            model(torch.randn(1, test_output.WIDE[0]))


def moves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sparse_models.kernels.cpu.moves._table.WORTH_A_TEAM", 100)
    monkeypatch.setattr("sparse_models.kernels.cpu.moves._table.CHUNK", 300)
    monkeypatch.setattr("sparse_models.kernels.cpu.moves.grow.SAMPLE", 64)
    for kind in ("random", "gradient", "factors"):
        layer = test_moves.layer_of("tiled", (70, 90), 0.5, torch.float32, 1, tied=False)
        source, _ = test_moves.scores_of(kind, (70, 90), torch.float32, 3, tied=False)
        test_moves.moved(layer, [], source, layer.nnz // 9)
    numbers((1, 2), 0, torch.empty(10, dtype=torch.int32))


def bounds() -> None:
    roofline.bound(4096, "float32", 0.0)
    handover.handover_seconds()


def names_of(kernels: list[Any]) -> list[str]:
    built = [inspect.getclosurevars(kernel.__wrapped__).nonlocals["build"] for kernel in kernels]
    return [f"{one.__module__}.{one.__name__}" for one in built if one.__module__.startswith("sparse_models.")]


def test_every_kernel_takes_the_tickets_that_its_call_has(guarded: set[int], monkeypatch: pytest.MonkeyPatch) -> None:
    before = set(_compile._MADE)
    for work in (products, chains, few_samples, partial(moves, monkeypatch), bounds):
        work()
    assert names_of([kernel for kernel in KERNELS if not kernel.cache_info().currsize]) == []
    assert set(_compile._MADE) - before == guarded, "a kernel was loaded and not called"


def test_a_team_that_grows_has_tickets_for_all_of_it(guarded: set[int], monkeypatch: pytest.MonkeyPatch) -> None:
    """As that of products that skip zeros does, which is as large as the zeros of the last inputs let it be."""
    monkeypatch.setattr(_team, "WORTH_A_TEAM", 70 * 300)
    layer = InputSkipping(torch.randn(80, 300), torch.ones(80, 300, dtype=torch.bool)).eval()
    with torch.no_grad():
        for x in (torch.zeros(1, 300), torch.zeros(2, 300), *[torch.randn(2, 300)] * 3):
            assert torch.allclose(layer(x), x @ layer.to_dense().t(), atol=1e-4)
    assert guarded
