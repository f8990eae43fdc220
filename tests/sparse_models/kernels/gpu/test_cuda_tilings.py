"""How the sparse products for a GPU are cut, and that what they are cut into compiles."""

import importlib.util
import itertools
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from sparse_models.kernels.cuda import _card, _compile, _tiling
from sparse_models.kernels.cuda._card import RESERVED_BYTES, Card
from sparse_models.kernels.cuda._compile import Launch
from sparse_models.kernels.cuda.product import CANDIDATES as PRODUCT_CANDIDATES
from sparse_models.kernels.cuda.product import STAGED_BYTES, best_tilings, default_parts, product
from sparse_models.kernels.cuda.sampled import CANDIDATES as SAMPLED_CANDIDATES
from sparse_models.kernels.cuda.sampled import best_tilings as best_sampled_tilings
from sparse_models.kernels.cuda.sampled import default_parts as default_sampled_parts
from sparse_models.kernels.cuda.sampled import sampled
from tests.helpers.processes.commands import output
from tests.sparse_models.kernels.gpu.test_cuda_products import TILINGS, problem


@pytest.mark.parametrize("most", [99 * 1024, 163 * 1024, 227 * 1024])
def test_slabs_fit_into_shared_memory(most: int) -> None:
    for columns, turns in itertools.product((1, 300, 5000), (False, True)):
        for tiling in (*TILINGS, *PRODUCT_CANDIDATES, *SAMPLED_CANDIDATES):
            slab, shared = tiling.slab(columns, STAGED_BYTES, turns=turns, most=most)
            assert 1 <= slab <= columns
            assert -(-columns // slab) >= min(tiling.cuts, columns) // 2
            assert tiling.blocks * (shared + RESERVED_BYTES) <= most
            assert tiling._replace(buffers=1).slab(columns, STAGED_BYTES, turns=turns, most=most)[0] >= slab


@pytest.mark.parametrize("architecture", ["sm_80", "sm_90"])
@pytest.mark.parametrize("file", ["product.cu", "sampled.cu", "cross_entropy.cu"])
def test_nvrtc_compiles_them(file: str, architecture: str) -> None:
    if _compile.why_absent():
        pytest.skip(str(_compile.why_absent()))
    numbers = problem(1, 3, 4, 4, 0.5, torch.bfloat16, "cpu")
    assert _compile.compiled(file, TILINGS[0].macros(numbers.structure, numbers.x, aligned=True), architecture)


@pytest.mark.parametrize(("rows", "columns", "batch"), [(256, 256, 4096), (4096, 4096, 64), (10, 256, 4096)])
def test_the_default_keeps_all_multiprocessors_busy(rows: int, columns: int, batch: int) -> None:
    work = _tiling.Work(rows, columns, rows * columns // 5, batch, 4)
    tiling, sampling = best_tilings(work)[0], best_sampled_tilings(work)[0]
    assert tiling.row_blocks(rows) * default_parts(tiling, work) >= 64
    assert sampling.row_blocks(rows) * default_sampled_parts(sampling, work) >= 64


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_on_a_card_with_less_shared_memory_wide_layers_are_cut_into_more_slabs(
    monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype
) -> None:
    launched: list[tuple[Launch, tuple[Any, ...]]] = []
    monkeypatch.setattr(_compile, "run", lambda _file, _macros, launch, *arguments: launched.append((launch, arguments)))
    wide = problem(1, 64, 14336, 256, 0.1, dtype, "cpu")
    for kernel in (product, sampled):
        slabs = []
        for card in (Card(108, 163 * 1024), Card(128, 99 * 1024)):
            monkeypatch.setattr(_card, "card_of", lambda _, card=card: card)
            _ = kernel(wide.structure, wide.values if kernel is product else wide.grad, wide.x)
            launch, arguments = launched.pop()
            assert launch.shared_bytes <= card.shared_bytes
            slabs.append(arguments[-3])
        assert slabs[1] < slabs[0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_sums_are_in_registers(dtype: torch.dtype, tmp_path: Path) -> None:
    """Of the plans that a card races; a few other numbers may be spilled."""
    triton = importlib.util.find_spec("triton")
    tool = Path(str(triton and triton.origin)).parent / "backends/nvidia/bin/cuobjdump"
    if _compile.why_absent() or not tool.exists():
        pytest.skip(_compile.why_absent() or "no Triton here, which brings what tells the registers of a kernel")
    numbers = problem(1, 3, 4, 4, 0.5, dtype, "cpu")
    work = _tiling.Work(3072, 768, 3072 * 768 // 20, 2048, dtype.itemsize)
    for tiling in best_tilings(work):
        code = tmp_path / "kernel.cubin"
        code.write_bytes(_compile.compiled("product.cu", tiling.macros(numbers.structure, numbers.x, aligned=True), "sm_90"))
        told = output([tool, "--dump-resource-usage", code])
        [(registers, stack)] = re.findall(r"REG:(\d+) STACK:(\d+)", told)
        assert int(stack) < 64, (tiling, told)
        assert -(-int(registers) // 8) * 8 * tiling.threads * tiling.blocks <= 2**16
