"""How the sparse products for a GPU are cut, and that what they are cut into compiles."""

import itertools

import pytest
import torch

from sparse_models.kernels.cuda import _compile, _tiling
from sparse_models.kernels.cuda.product import CANDIDATES as PRODUCT_CANDIDATES
from sparse_models.kernels.cuda.product import STAGED_BYTES, default_parts, default_tiling
from sparse_models.kernels.cuda.sampled import CANDIDATES as SAMPLED_CANDIDATES
from sparse_models.kernels.cuda.sampled import default_parts as default_sampled_parts
from sparse_models.kernels.cuda.sampled import default_tiling as default_sampled_tiling
from tests.sparse_models.kernels.gpu.test_cuda_products import TILINGS, problem


def test_slabs_fit_into_shared_memory() -> None:
    for columns, turns in itertools.product((1, 300, 5000), (False, True)):
        for tiling in (*TILINGS, *PRODUCT_CANDIDATES, *SAMPLED_CANDIDATES):
            slab, shared = tiling.slab(columns, STAGED_BYTES, turns=turns)
            assert 1 <= slab <= columns
            assert -(-columns // slab) >= min(tiling.cuts, columns) // 2
            assert tiling.blocks * (shared + _tiling.RESERVED_BYTES) <= _tiling.SHARED_BYTES
            assert tiling._replace(buffers=1).slab(columns, STAGED_BYTES, turns=turns)[0] >= slab


@pytest.mark.parametrize("architecture", ["sm_80", "sm_90"])
@pytest.mark.parametrize("file", ["product.cu", "sampled.cu"])
def test_nvrtc_compiles_them(file: str, architecture: str) -> None:
    if _compile.why_absent():
        pytest.skip(str(_compile.why_absent()))
    numbers = problem(1, 3, 4, 4, 0.5, torch.bfloat16, "cpu")
    assert _compile.compiled(file, TILINGS[0].macros(numbers.structure, numbers.x, aligned=True), architecture)


@pytest.mark.parametrize(("rows", "columns", "batch"), [(256, 256, 4096), (4096, 4096, 64), (10, 256, 4096)])
def test_the_default_keeps_all_multiprocessors_busy(rows: int, columns: int, batch: int) -> None:
    work = _tiling.Work(rows, columns, rows * columns // 5, batch, 4, 132)
    tiling, sampling = default_tiling(work), default_sampled_tiling(work)
    assert tiling.row_blocks(rows) * default_parts(tiling, work) >= 64
    assert sampling.row_blocks(rows) * default_sampled_parts(sampling, work) >= 64
