"""The product of a sparse matrix and small batches: in the emulator, and on a card where there is one, against float64."""

from collections.abc import Iterator

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from sparse_models.errors import InputError
from sparse_models.kernels.cuda import _compile, small_batch
from sparse_models.kernels.cuda.small_batch import Form, Packed, Plan, pack, product, refill, rule
from sparse_models.kernels.structure import Structure
from sparse_models.layers._csr_storage import compress
from tests.helpers import cuda_emulator
from tests.strategies import normal

pytestmark = cuda_emulator.needs_compiler
on_a_card = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine")
ROUNDING = {torch.float32: 2.0**-24, torch.float16: 2.0**-11, torch.bfloat16: 2.0**-8}
MATRIX = Form(matrix=True)
LANES = Form(matrix=False)
FORMS = [(torch.float32, LANES), (torch.bfloat16, LANES), (torch.bfloat16, MATRIX), (torch.float16, MATRIX)]
NAMES = ["float32", "bfloat16 lanes", "bfloat16 matrix", "float16 matrix"]
each_form = pytest.mark.parametrize(("dtype", "form"), FORMS, ids=NAMES)


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=on_a_card)], scope="module")
def device(request: pytest.FixtureRequest) -> Iterator[str]:
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "cpu":
            patch.setattr(_compile, "run", cuda_emulator.run)
            patch.setattr(small_batch, "multiprocessors", lambda device: 2)
        elif _compile.why_absent():
            pytest.skip(str(_compile.why_absent()))
        yield request.param


def random_mask(seed: int, rows: int, columns: int, sparsity: float) -> Tensor:
    return normal(seed, rows, columns).abs().argsort(dim=1).argsort(dim=1) >= round(sparsity * columns)


def structure_of(mask: Tensor) -> Structure:
    pointers, _, columns = compress(mask)
    return Structure(pointers, columns, mask.shape[1])


def case(device: str, mask: Tensor, dtype: torch.dtype, form: Form) -> tuple[Packed, Tensor]:
    """A packed matrix, and the same dense in float64 on the CPU."""
    weights = normal(1, *mask.shape, dtype=dtype)
    return pack(structure_of(mask.to(device)), weights[mask].to(device), form), weights.double() * mask


def check(packed: Packed, dense: Tensor, batch: int, plan: Plan | None = None, *, biased: bool = True) -> Tensor:
    dtype, device = packed.values.dtype, packed.values.device
    x = normal(2, batch, packed.columns, dtype=dtype)
    bias = normal(3, packed.rows, dtype=dtype) if biased else None
    plan = (plan or rule(packed, batch))._replace(threads=64 if plan is None else plan.threads)
    y = product(packed, x.to(device), None if bias is None else bias.to(device), plan)
    assert y.shape == (batch, packed.rows)
    exact = x.double() @ dense.t() + (0 if bias is None else bias.double())
    sizes = x.double().abs() @ dense.abs().t() + exact.abs()
    allowed = ROUNDING[dtype] * exact.abs() + 8 * 2.0**-24 * sizes + 1e-30
    assert bool(((y.cpu().double() - exact).abs() <= 1.01 * allowed).all())
    return y


@each_form
@pytest.mark.parametrize("batch", range(1, 17))
def test_every_batch(device: str, dtype: torch.dtype, form: Form, batch: int) -> None:
    check(*case(device, random_mask(0, 13, 203, 0.6), dtype, form), batch, biased=batch % 2 == 0)


@each_form
@pytest.mark.parametrize("lanes", [8, 16, 32])
@pytest.mark.parametrize(("depth", "threads", "blocks"), [(1, 32, 1), (2, 64, 2), (4, 128, 1)])
def test_every_plan(device: str, dtype: torch.dtype, form: Form, lanes: int, depth: int, threads: int, blocks: int) -> None:
    mask = random_mask(4, 37, 640, 0.5)
    mask[5], mask[11, 1:], mask[20] = False, False, True
    plan = Plan(8, lanes, depth, threads, blocks)
    check(*case(device, mask, dtype, form), 5, plan)


@each_form
@pytest.mark.parametrize("width", [3, 4, 6, 16])
@pytest.mark.parametrize("sparsity", [0.0, 0.5, 0.8, 0.95])
def test_every_width(device: str, dtype: torch.dtype, form: Form, width: int, sparsity: float) -> None:
    packed, dense = case(device, random_mask(5, 9, 400, sparsity), dtype, form._replace(width=width))
    assert packed.width == width
    check(packed, dense, 3)


@each_form
@pytest.mark.parametrize("slabs", [2, 3, 7])
@pytest.mark.parametrize("batch", [1, 7, 16])
def test_slabs_are_added(device: str, dtype: torch.dtype, form: Form, slabs: int, batch: int) -> None:
    mask = random_mask(6, 21, 333, 0.7)
    mask[:, 200:300] = False
    packed, dense = case(device, mask, dtype, form._replace(slabs=slabs))
    for _ in range(2):  # counters are zeros again
        check(packed, dense, batch, Plan(min(batch, 4), 8, threads=64))
    assert not packed.counters.any()


@each_form
@pytest.mark.parametrize("columns", [[0], [7], [0, 5000], [0, 8, 16, 24, 32, 40, 48, 56, 64], [*range(0, 5001, 1000)], []])
def test_gaps(device: str, dtype: torch.dtype, form: Form, columns: list[int]) -> None:
    mask = torch.zeros(3, 5001, dtype=torch.bool)
    mask[1, columns] = True
    for width in (4, 6, 16, None):
        check(*case(device, mask, dtype, form._replace(width=width)), 2)


@each_form
@settings(max_examples=15)
@given(
    st.integers(1, 40), st.integers(1, 300), st.floats(0, 1), st.integers(1, 16), st.integers(0, 999),
    st.sampled_from([8, 16, 32]),
)  # fmt: skip
def test_any_shape(
    device: str, dtype: torch.dtype, form: Form, rows: int, columns: int, sparsity: float, batch: int, seed: int, lanes: int
) -> None:
    mask = normal(seed, rows, columns).erf().abs() >= sparsity
    packed, dense = case(device, mask, dtype, form)
    check(packed, dense, batch, rule(packed, batch)._replace(lanes=lanes, threads=64))


@each_form
def test_the_same_bits_every_time_and_after_a_refill(device: str, dtype: torch.dtype, form: Form) -> None:
    mask = random_mask(7, 30, 300, 0.6)
    packed, dense = case(device, mask, dtype, form)
    first = check(packed, dense, 4)
    assert bool((check(packed, dense, 4) == first).all())
    weights = normal(8, 30, 300, dtype=dtype)
    refill(packed, weights[mask].to(device))
    check(packed, weights.double() * mask, 4)


def test_an_unaligned_view_of_x(device: str) -> None:
    packed, dense = case(device, random_mask(9, 8, 64, 0.5), torch.bfloat16, MATRIX)
    x = normal(2, 129, dtype=torch.bfloat16).to(device)[1:].view(2, 64)
    assert torch.allclose(
        product(packed, x, None, Plan(2, threads=64)).cpu().double(), x.cpu().double() @ dense.t(), 1e-2, 1e-2
    )


def test_what_a_row_never_meets_does_not_reach_it(device: str) -> None:
    mask = torch.zeros(4, 64, dtype=torch.bool)
    mask[:, 8:16] = True
    for dtype, form in FORMS:
        packed, _ = case(device, mask, dtype, form)
        x = torch.ones(2, 64, dtype=dtype, device=device)
        x[0, 40:] = float("nan")
        assert bool(product(packed, x, None, Plan(2, 8, threads=32)).isfinite().all())


def test_refusals(device: str) -> None:
    structure = structure_of(torch.ones(4, 16, dtype=torch.bool, device=device))
    with pytest.raises(InputError, match="16 bit"):
        pack(structure, torch.ones(64, device=device), MATRIX)
    packed = pack(structure, torch.ones(64, device=device))
    for x in (torch.ones(17, 16), torch.ones(2, 15), torch.ones(2, 16, dtype=torch.float16), torch.ones(16, 2).t()):
        with pytest.raises(InputError, match="expected contiguous activations"):
            product(packed, x.to(device))
    assert product(packed, torch.ones(0, 16, device=device)).shape == (0, 4)
    wide = Structure(structure.pointers[:2], structure.indices[:16], 65536)
    with pytest.raises(InputError, match="more slabs"):
        product(pack(wide, torch.ones(16, device=device), Form(slabs=1)), torch.ones(1, 65536, device=device))
