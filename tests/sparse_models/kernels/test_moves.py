"""Masks moved in place: the first of the highest by sorting, and what a layer is that is built anew."""

from collections.abc import Iterator
from functools import partial

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from sparse_models.kernels.cpu import _team
from sparse_models.kernels.cpu.chain._factors import Factors
from sparse_models.kernels.cpu.moves import _table, drop, grow, pack, rebuild
from sparse_models.kernels.cpu.moves import numbers as numbers_of_places
from sparse_models.kernels.cpu.moves.held import HeldLayers
from sparse_models.kernels.cpu.moves.numbers import define_numbers, numbers
from sparse_models.layers import LAYERS, SparseLinear
from sparse_models.layers._feature_major.both_ways import CsrBothWays
from sparse_models.masks import UNSTRUCTURED
from tests.helpers.kernel_checks import Watcher
from tests.strategies import coarse, generator, normal, seeds

MOVED = sorted(name for name, one in LAYERS.items() if issubclass(one, CsrBothWays) and one.pattern is UNSTRUCTURED)
DTYPES = {name: getattr(torch, name) for name in ("float32", "float64")}
shapes = st.tuples(st.integers(1, 100), st.integers(1, 100))


@pytest.fixture(autouse=True)
def _small() -> Iterator[None]:
    """Have small layers cut into parts, chunks and samples as large ones are."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_table, "WORTH_A_TEAM", 100)
        patch.setattr(_table, "CHUNK", 300)
        patch.setattr(grow, "SAMPLE", 64)
        patch.setattr(rebuild, "PANEL", 1)
        yield


def first_of_highest(score: Tensor, among: Tensor, count: int) -> Tensor:
    places = sorted(among.nonzero().tolist(), key=lambda place: -float(score[tuple(place)]))  # stable
    chosen = torch.zeros_like(among)
    for place in places[:count]:
        chosen[tuple(place)] = True
    return chosen


def scores_of(kind: str, shape: tuple[int, int], dtype: torch.dtype, seed: int, tied: bool) -> tuple[grow.Source, Tensor]:
    """What kernels are given of scores, and the scores."""
    if kind == "random":
        keys = seed * 7919 % 2**32, seed * 104729 % 2**32
        return keys, define_numbers(keys, torch.arange(shape[0] * shape[1])).view(shape)
    if kind == "gradient":
        gradient = (coarse if tied else normal)(seed, *shape).to(dtype)
        return gradient, gradient
    # Whole numbers, of which every product is exact.
    slopes, inputs = (
        [coarse(seed + 2 * tile + side, size, 16).mul(4).round().to(dtype) for tile in (0, 1)]
        for side, size in enumerate(shape)
    )
    table = torch.tensor([[slope.data_ptr(), x.data_ptr()] for slope, x in zip(slopes, inputs, strict=True)])
    return Factors(slopes, inputs, table), torch.cat(slopes, 1) @ torch.cat(inputs, 1).t()


def layer_of(name: str, shape: tuple[int, int], sparsity: float, dtype: torch.dtype, seed: int, tied: bool) -> SparseLinear:
    mask = torch.rand(shape, generator=generator(seed)) >= sparsity
    return LAYERS[name]((coarse if tied else normal)(seed + 1, *shape).to(dtype), mask)


def moved(layer: SparseLinear, slots: list[Tensor], source: grow.Source, grown: int) -> None:
    assert isinstance(layer, CsrBothWays)
    storage = layer.rewritten(slots)
    assert storage is not None
    assert storage.fits()
    scored = torch.float32 if isinstance(source, tuple) and not isinstance(source, Factors) else storage.values.dtype
    assert HeldLayers(storage.written, [storage], scored).move([source], [grown])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", ["random", "gradient", "factors"])
@pytest.mark.parametrize("name", MOVED)
@given(shapes, st.floats(0, 1), st.sampled_from([0.05, 0.3, 1.0]), seeds, st.booleans(), st.integers(0, 3))
def test_in_place_a_layer_becomes_what_it_is_when_built_anew(
    name: str,
    kind: str,
    dtype: str,
    shape: tuple[int, int],
    sparsity: float,
    fraction: float,
    seed: int,
    tied: bool,
    slots: int,
) -> None:
    layer = layer_of(name, shape, sparsity, DTYPES[dtype], seed, tied)
    state = [normal(seed + 2 + place, *layer.values.shape).to(DTYPES[dtype]) for place in range(slots)]
    source, scores = scores_of(kind, shape, DTYPES[dtype], seed, tied)
    nnz = layer.nnz
    grown = nnz - round(nnz * (1 - fraction))
    survivors = first_of_highest(layer.to_dense().abs(), layer.mask, nnz - grown)
    mask = survivors | first_of_highest(scores.abs(), ~survivors, grown)
    anew = layer_of(name, shape, sparsity, DTYPES[dtype], seed, tied)
    expected = anew.move(mask, [slot.clone() for slot in state])
    places = {key: tensor.data_ptr() for key, tensor in layer.state_dict().items()}
    moved(layer, state, source, grown)
    for key, buffer in anew.named_buffers():
        assert torch.equal(buffer, dict(layer.named_buffers())[key]), key
    assert torch.equal(layer.values, anew.values)
    for slot, other in zip(state, expected, strict=True):
        assert torch.equal(slot, other)
    assert {key: tensor.data_ptr() for key, tensor in layer.state_dict().items()} == places


@pytest.mark.parametrize("kind", ["random", "factors"])
def test_a_layer_of_which_nothing_moves_stays_as_it_is_beside_others(kind: str) -> None:
    shapes_of = (70, 50), (5, 33), (40, 90)
    together, alone = ([layer_of("tiled", shape, 0.5, torch.float32, 1, tied=False) for shape in shapes_of] for _ in range(2))
    storages = [one for layer in together if isinstance(layer, CsrBothWays) and (one := layer.rewritten([])) is not None]
    held = HeldLayers([tensor for one in storages for tensor in one.written], storages, torch.float32)
    sources = [scores_of(kind, shape, torch.float32, 3, tied=False)[0] for shape in shapes_of]
    for counts in ((9, 0, 7), (0, 8, 90), (300, 9, 200)):  # of which more are to be noted from one to the next
        assert held.move(sources, counts)
        for layer, source, count in zip(alone, sources, counts, strict=True):
            moved(layer, [], source, count)
        for layer, other in zip(together, alone, strict=True):
            assert torch.equal(layer.to_dense(), other.to_dense())


@pytest.mark.parametrize("kind", ["random", "gradient", "factors"])
def test_kernels_touch_nothing_but_their_own(watcher: Watcher, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    layers = [layer_of("tiled", shape, 0.8, torch.float32, 1, tied=False) for shape in ((37, 50), (33, 131), (5, 33))]
    slots = [[torch.zeros_like(layer.values)] for layer in layers]
    storages = [layer.rewritten(slot) for layer, slot in zip(layers, slots, strict=True) if isinstance(layer, CsrBothWays)]
    owned = [storage for storage in storages if storage is not None]
    held = HeldLayers([tensor for storage in owned for tensor in storage.written], owned, torch.float32)
    made: list[Tensor] = [held.rows, held.parts, held.states, *(tensor for storage in owned for tensor in storage.written)]
    sources = [scores_of(kind, storage.shape, torch.float32, 3, tied=False)[0] for storage in owned]
    for source in sources:
        made += [*source.slopes, *source.inputs, source.table] if isinstance(source, Factors) else []
    rooms = {name: getattr(held, name) for name in ("room", "packed_room")}

    def noted(name: str, *arguments: int) -> object:
        result = rooms[name](*arguments)
        made.extend(result if isinstance(result, list) else [result])
        return result

    for name in rooms:
        monkeypatch.setattr(held, name, partial(noted, name))

    def run(function: int, arguments: list[Tensor | int], team: int) -> None:
        now = [*made, *(one for work in held.works for one in (work.memory, work.candidates, work.part_states))]
        now += [one for one in arguments if isinstance(one, Tensor)]
        watcher.may = [(one.data_ptr(), one.data_ptr() + one.numel() * one.element_size()) for one in now]
        watcher.written = {}
        _team.run(function, arguments, team)

    for module in (drop, grow, pack, rebuild, numbers_of_places):
        monkeypatch.setattr(module, "run", run)
    for _ in range(2):
        held.move(sources, [storage.values.numel() // 4 for storage in owned])
    assert not watcher.outside
    assert not watcher.contested


@given(st.integers(0, 2000), st.integers(0, 2**30), st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1))
def test_numbers_are_those_of_their_places(count: int, first: int, key: int, other: int) -> None:
    expected = define_numbers((key, other), torch.arange(first, first + count))
    assert torch.equal(numbers((key, other), first, torch.empty(count, dtype=torch.int32)), expected)
    assert not count or 0 <= int(expected.min()) <= int(expected.max()) < 2**30
