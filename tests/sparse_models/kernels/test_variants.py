"""Kernels in every variant give the same but for rounding, and the same bits every time; which variant suits which machine."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from bench.machine.facts import cache_of
from sparse_models.kernels import candidates, race
from sparse_models.kernels.candidates import of_product
from sparse_models.kernels.chain import define_gradients, ready_step
from sparse_models.kernels.choice import Work
from sparse_models.kernels.cpu import _pass
from sparse_models.kernels.cpu._compile import vector_bytes
from sparse_models.kernels.cpu._pass import tile_by_tile
from sparse_models.kernels.cpu._team import WORTH_TRYING
from sparse_models.kernels.cpu.chain import by_rows, by_tiles
from sparse_models.kernels.cpu.chain.rules import RULES
from sparse_models.kernels.cpu.csr import _panels
from sparse_models.kernels.cpu.csr._panels import default
from sparse_models.kernels.cpu.tiled import define_product, define_sampled, product, sampled, sampled_and_summed
from sparse_models.kernels.structure import PIECE, Sizes
from sparse_models.kernels.variant import Variant
from tests.helpers.kernel_checks import BATCHES, Watcher, close
from tests.sparse_models.kernels.test_blocks import links as blocks
from tests.sparse_models.kernels.test_chain import links
from tests.sparse_models.kernels.test_kernels import problem
from tests.strategies import seeds, variants

pytestmark = pytest.mark.usefixtures("poisoned")
DTYPES = [torch.float32, torch.float64]


@settings(max_examples=12)
@given(seeds, st.sampled_from(BATCHES), st.sampled_from(DTYPES), variants)
def test_products_in_every_variant_are_what_their_definitions_say(
    seed: int, batch: int, dtype: torch.dtype, variant: Variant
) -> None:
    structure, values, x, bias, grad = problem(seed, 23, 3 * PIECE - 1, batch, 0.3, dtype)
    defined = define_product(structure, values, x, bias, relu=True, passed=grad)
    found = [product(structure, values, x, bias, relu=True, passed=grad, variant=variant) for _ in range(3)]
    close(found[0], defined)
    totals = [sampled(structure, grad, x, variant) for _ in range(3)]
    close(totals[0], define_sampled(structure, grad, x))
    assert all(torch.equal(first, again) for first, *others in (found, totals) for again in others)


@settings(max_examples=6)
@given(seeds, st.sampled_from([1, 70, 300]), st.sampled_from(DTYPES), variants)
@example(0, 300, torch.float32, Variant(1, 1, 16, 2, 1))  # several tiles for each sum, several panels for each tile
def test_a_chain_in_every_variant_is_what_its_definition_says(
    seed: int, batch: int, dtype: torch.dtype, variant: Variant
) -> None:
    linked = links(seed, (20, 2 * PIECE + 1, 5), 0.3, dtype, with_bias=True)
    x, labels = torch.randn(batch, 20, dtype=dtype), torch.arange(batch) % 5
    found, defined = tile_by_tile(linked, x, labels, variant), define_gradients(linked, x, labels)
    close(found.loss, defined.loss)
    for mine, its in zip(found.values + found.biases, defined.values + defined.biases, strict=True):
        close(mine, its)


@pytest.mark.parametrize("variant", [Variant(3, 8, 16, 3, 1), Variant(1, 1, 32, 2, 0)], ids=str)
def test_every_variant_touches_what_is_its_own(watcher: Watcher, variant: Variant) -> None:
    structure, values, x, bias, grad = problem(1, 5, PIECE + 3, 70, 0.4, torch.float32)
    close(product(structure, values, x, bias, variant=variant), define_product(structure, values, x, bias))
    short = values.bfloat16()
    close(product(structure, short, x, bias, variant=variant), define_product(structure, short.float(), x, bias))
    weights_grad, bias_grad = sampled_and_summed(structure, grad, x, variant)
    close(weights_grad, define_sampled(structure, grad, x))
    close(bias_grad, grad.sum(1))
    order = torch.arange(len(values)).int()
    close(product(structure, values, x, order=order, variant=variant), define_product(structure, values, x, None))
    tile_by_tile(
        links(0, (4, PIECE + 1, 3), 0.5, torch.float32, with_bias=True), torch.randn(70, 4), torch.arange(70) % 3, variant
    )
    assert watcher.written
    assert not watcher.outside
    assert not watcher.contested


@given(seeds, st.sampled_from([0.0, 0.5, 0.8, 0.9, 0.95, 0.99]), st.booleans())
def test_masks_of_a_usual_level_are_of_one_class(seed: int, sparsity: float, few: bool) -> None:
    """Drawn at random they have a few non-zeros more or fewer."""
    weights, off = 784 * 512, (-0.04 if few else 0.04)
    works = [Work("product", (784, 512), batch, int((1 - sparsity) * weights * (1 + by)), torch.float32, 2)
             for batch, by in ((128, 0.0), (100 + seed % 50, min(off, sparsity)))]  # fmt: skip
    assert str(works[0]) == str(works[1])


def test_usual_levels_and_what_else_decides_are_told_apart() -> None:
    levels = (0.5, 0.8, 0.9, 0.95, 0.99)
    work = Work("product", (512, 512), 128, 1, torch.float32, 2)
    works = [work._replace(nnz=int((1 - level) * 2**18)) for level in levels]
    works += [
        work._replace(runs_on=1),
        work._replace(runs_on="a card"),
        work._replace(kernel="sampled"),
        work._replace(dtype=torch.float64),
    ]
    works += [work._replace(sizes=(512, 1024)), work._replace(batch=512)]
    assert len(set(map(str, works))) == len(works)


def test_a_panel_is_wider_than_a_small_first_cache_where_a_row_has_few_non_zeros_in_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_panels, "first_cache", lambda: 2**15)
    monkeypatch.setattr(_panels, "vector_bytes", lambda: 64)
    found = Sizes(384, 3072, nnz=384 * 3072 // 10, pieces=96, index_bytes=2)
    wider, narrow = default(found), default(found._replace(nnz=2 * found.nnz))
    assert [(one.vectors, one.panel_bytes) for one in (wider, narrow)] == [(8, 3 * 2**14), (8, 2**15)]
    assert {one.panel_bytes for one in of_product(narrow, 512, "float32")} == {0, 2**15, 3 * 2**14}


def test_the_first_cache_is_that_of_this_machine_or_not_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    told = cache_of("L1d")
    assert _panels.first_cache.__wrapped__() == (told["bytes"] or 0 if told else 0)
    monkeypatch.setattr(_panels, "CACHES", tmp_path)
    assert _panels.first_cache.__wrapped__() == 0
    for place, (level, kind, size) in enumerate((("1", "Instruction", "16K"), ("2", "Unified", "1M"), ("1", "Data", "32K"))):
        folder = tmp_path / f"index{place}"
        folder.mkdir()
        for name, text in (("level", level), ("type", kind), ("size", size)):
            (folder / name).write_text(f"{text}\n")
    assert _panels.first_cache.__wrapped__() == 2**15


def test_a_second_thread_is_tried_for_fewer_weights_where_vectors_have_fewer_lanes(monkeypatch: pytest.MonkeyPatch) -> None:
    tried = []

    def variant_for(_: object, variants: Callable[[], list[Variant]], __: object) -> Variant:
        tried.append([variant.threads for variant in variants()])
        return variants()[0]

    monkeypatch.setattr(candidates, "variant_for", variant_for)
    monkeypatch.setattr(candidates, "threads", lambda: 2)
    monkeypatch.setattr(candidates, "threads_for", lambda _: 1)
    for width in (64, 32, 16):
        monkeypatch.setattr(candidates, "vector_bytes", lambda width=width: width)
        for weights in (WORTH_TRYING * width // 64 - 1, WORTH_TRYING * width // 64):
            candidates.team_for(("sample", (8, 8), 1, 8, torch.float32), weights, lambda _: torch.zeros(1))
    assert tried == [[1], [1, 2]] * 3


@pytest.mark.parametrize(
    ("cache_bytes", "bytes_of_vector", "density", "asked"),
    [
        (2**15, 64, 0.3, (True, 4, [False, True, False, True])),
        (2**15, 64, 0.1, (True, 4, [True, True, True, True])),  # too few non-zeros of a row are in a panel
        (2**15, 32, 0.3, (False, 8, [False, False, False, True])),
        (2**15, 16, 0.3, (False, 8, [False, False, False, True])),
        (3 * 2**14, 64, 0.3, (False, 4, [False, False, False, True])),
        (3 * 2**14, 64, 0.1, (False, 4, [False, False, False, True])),
        (0, 32, 0.3, (False, 4, [False, True, True, True])),
    ],
)
def test_a_step_suits_the_first_cache(
    monkeypatch: pytest.MonkeyPatch, cache_bytes: int, bytes_of_vector: int, density: float, asked: tuple[bool, int, list[bool]]
) -> None:
    found: list[tuple[bool, int, list[bool]]] = []

    def step(_: str, chunks: int, __: int, forms: Any, ___: Any, *, both: bool) -> int:
        found.append((both, chunks, [form.is_whole for form in forms]))
        return 0

    monkeypatch.setattr(by_tiles, "_step", step)
    monkeypatch.setattr(by_tiles, "first_cache", lambda: cache_bytes)
    monkeypatch.setattr(_pass, "vector_bytes", lambda: bytes_of_vector)
    chain = links(0, (400, 300, 40), density, torch.float32, with_bias=True)  # of each its own panels, then its transpose's
    by_tiles.ready(chain, [None] * 4, RULES[torch.optim.Adam], 512)
    assert found == [asked]


def test_a_step_of_blocks_has_no_more_vectors_where_they_are_narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(by_tiles, "first_cache", lambda: 2**15)
    monkeypatch.setattr(_pass, "vector_bytes", lambda: 32)
    assert by_tiles.default_of(blocks((4, 4), (20, 32, 8), torch.float32)).vectors == _pass.CHUNKS


@pytest.mark.parametrize(("threads", "tiles", "way"), [(1, 2, "tiles"), (2, 1, "rows"), (2, 2, "tiles"), (2, 3, "rows")])
def test_tiles_go_through_all_layers_where_they_keep_all_threads_busy(
    monkeypatch: pytest.MonkeyPatch, threads: int, tiles: int, way: str
) -> None:
    torch.set_num_threads(threads)
    went: list[str] = []
    for name, module in {"tiles": by_tiles, "rows": by_rows}.items():
        monkeypatch.setattr(module, "ready", lambda *_, name=name: went.append(name))
    chain = links(0, (20, 33, 5), 0.3, torch.float32, with_bias=True)
    batch = tiles * by_tiles.default_of(chain).vectors * vector_bytes() // 4
    ready_step(chain, [], RULES[torch.optim.Adam], batch)
    assert went == [way]


@pytest.mark.parametrize(
    ("cache_bytes", "outputs", "threads", "tiles", "way"),
    [
        (2**15, 800, 2, 2, "rows"),
        (2**15, 600, 2, 2, "tiles"),
        (2**15, 800, 2, 4, "tiles"),
        (2**15, 800, 1, 1, "tiles"),
        (3 * 2**14, 800, 2, 2, "tiles"),
        (0, 800, 2, 2, "tiles"),
    ],
)
def test_large_values_are_shared_out_where_the_first_cache_is_small(
    monkeypatch: pytest.MonkeyPatch, cache_bytes: int, outputs: int, threads: int, tiles: int, way: str
) -> None:
    torch.set_num_threads(threads)
    went: list[str] = []
    for name, module in {"tiles": by_tiles, "rows": by_rows}.items():
        monkeypatch.setattr(module, "ready", lambda *_, name=name: went.append(name))
    monkeypatch.setattr(by_tiles, "first_cache", lambda: cache_bytes)
    chain = links(0, (1000, outputs, 5), 0.5, torch.float32, with_bias=True)  # 6 bytes a value: 2.4 and 1.8 MB
    ready_step(chain, [], RULES[torch.optim.Adam], tiles * by_tiles.default_of(chain).vectors * vector_bytes() // 4)
    assert went == [way]


@pytest.mark.parametrize("spoiling", [torch.nan, torch.inf])
def test_results_that_are_no_numbers_are_compared_by_those_that_are(spoiling: float) -> None:
    first, other = (Variant(vectors, 4, 16, 1) for vectors in (8, 4))
    expected = torch.tensor([1.0, spoiling])
    for mine, is_alike in ((expected.clone(), True), (torch.tensor([2.0, spoiling]), False), (torch.ones(2), False)):
        results = {first: expected, other: mine}
        found = race.measured([first, other], results.__getitem__, lambda *_: 1.0)
        assert found is not None
        assert (other in found.tried) == is_alike
