"""The product of a sparse matrix and small batches: in the emulator, and on a card where there is one, against float64."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from sparse_models.errors import InputError
from sparse_models.kernels.cuda import _card, _compile, small_batch
from sparse_models.kernels.cuda._card import RESERVED_BYTES, Card
from sparse_models.kernels.cuda._chunks import COUNTERS
from sparse_models.kernels.cuda._compile import Launch, Macros
from sparse_models.kernels.cuda.small_batch import Form, Packed, Plan, form_for, pack, product, refill, rule
from sparse_models.kernels.structure import Structure
from sparse_models.layers._feature_major.csr_storage import compress
from tests.helpers.gpu import cuda_emulator
from tests.strategies import normal

ROUNDING = {torch.float32: 2.0**-24, torch.float16: 2.0**-11, torch.bfloat16: 2.0**-8}
MATRIX = Form(matrix=True)
LANES = Form(matrix=False)
F32, F16, BF16 = torch.float32, torch.float16, torch.bfloat16


def variant(dtype: torch.dtype, form: Form, width: int, columns: int, lanes: int, depth: int, threads: int) -> Any:
    plan = Plan(columns, lanes, depth, threads, blocks=2)
    name = f"{str(dtype)[6:]} {'matrix' if form.matrix else 'lanes'} {width} {columns}x{lanes}x{depth} {threads}"
    return pytest.param(dtype, form._replace(width=width), plan, id=name)


# Every kernel that these tests compile, half a second each: each value of each macro, with each of the others that matters.
VARIANTS = [
    variant(F32, LANES, 3, 1, 8, 1, 32), variant(F32, LANES, 4, 2, 16, 2, 64), variant(F32, LANES, 6, 8, 32, 4, 128),
    variant(F32, LANES, 16, 4, 8, 2, 64), variant(BF16, LANES, 4, 1, 32, 2, 64), variant(F16, LANES, 3, 4, 16, 3, 96),
    variant(BF16, LANES, 6, 16, 16, 1, 64), variant(BF16, MATRIX, 3, 8, 32, 2, 64), variant(BF16, MATRIX, 4, 1, 8, 4, 96),
    variant(BF16, MATRIX, 6, 16, 16, 1, 64), variant(F16, MATRIX, 16, 8, 8, 2, 32), variant(F16, MATRIX, 4, 16, 32, 2, 64),
    variant(F16, MATRIX, 3, 4, 16, 3, 64), variant(BF16, MATRIX, 6, 2, 32, 2, 128),
]  # fmt: skip
DEVICES = [pytest.param("cpu", marks=cuda_emulator.needs_compiler), pytest.param("cuda", marks=pytest.mark.card)]
each = pytest.mark.parametrize(("dtype", "form", "plan"), VARIANTS)


@pytest.fixture(params=DEVICES, scope="module")
def device(request: pytest.FixtureRequest) -> Iterator[str]:
    run = cuda_emulator.run if request.param == "cpu" else _compile.run
    if request.param == "cuda" and _compile.why_absent():
        pytest.skip(str(_compile.why_absent()))

    def poisoned(file: str, macros: Macros, launch: Launch, *arguments: Tensor | float | None) -> None:
        for written in arguments[6:8]:  # the result and partial sums
            if isinstance(written, Tensor):
                written.fill_(float("nan"))
        run(file, macros, launch, *arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_compile, "run", poisoned)
        if request.param == "cpu":
            patch.setattr(_card, "card_of", lambda _: Card(2))
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


def check(packed: Packed, dense: Tensor, batch: int, plan: Plan, *, biased: bool = True) -> Tensor:
    dtype, device = packed.values.dtype, packed.values.device
    x = normal(2, batch, packed.columns, dtype=dtype)
    bias = normal(3, packed.rows, dtype=dtype) if biased else None
    y = product(packed, x.to(device), None if bias is None else bias.to(device), plan)
    assert y.shape == (batch, packed.rows)
    exact = x.double() @ dense.t() + (0 if bias is None else bias.double())
    sizes = x.double().abs() @ dense.abs().t() + exact.abs()
    allowed = ROUNDING[dtype] * exact.abs() + 8 * 2.0**-24 * sizes + 2.0**-25
    assert bool(((y.cpu().double() - exact).abs() <= 1.01 * allowed).all())
    return y


@each
def test_every_batch(device: str, dtype: torch.dtype, form: Form, plan: Plan) -> None:
    packed, dense = case(device, random_mask(0, 13, 203, 0.6), dtype, form)
    for batch in range(1, 17) if plan.columns >= 8 else (1, 2, 3, 4, 6, 9):
        check(packed, dense, batch, plan, biased=batch % 2 == 0)


@each
@pytest.mark.parametrize("sparsity", [0.0, 0.4, 0.6, 0.9])  # at 0.4 steps of 3 bits tell how origins are rounded
def test_every_density_with_rows_empty_full_and_single(
    device: str, dtype: torch.dtype, form: Form, plan: Plan, sparsity: float
) -> None:
    mask = random_mask(4, 24, 640, sparsity)
    mask[5] = False
    if form.width != 3:  # which wants columns about evenly spaced
        mask[11, 1:] = False
    mask[20] = True
    packed, dense = case(device, mask, dtype, form)
    assert packed.width == form.width
    check(packed, dense, 5, plan)


@each
@pytest.mark.parametrize("slabs", [2, 7])
def test_slabs_are_added(device: str, dtype: torch.dtype, form: Form, plan: Plan, slabs: int) -> None:
    mask = random_mask(6, 13, 333, 0.7)
    packed, dense = case(device, mask, dtype, form._replace(slabs=slabs))
    for batch in (1, 2 * plan.columns - 1):  # counters are zeros again
        check(packed, dense, min(batch, 16), plan)
        assert not packed.counters.any()


@each
@pytest.mark.parametrize("columns", [[7], [0, 3000], [*range(0, 72, 8)], [*range(0, 3001, 200)], []])
def test_gaps(device: str, dtype: torch.dtype, form: Form, plan: Plan, columns: list[int]) -> None:
    mask = torch.zeros(3, 3001, dtype=torch.bool)
    mask[1, columns] = True
    try:
        packed, dense = case(device, mask, dtype, form)
    except InputError:
        assert form.width == 3
    else:
        check(packed, dense, 1, plan)


@each
@settings(max_examples=6)
@given(st.integers(1, 40), st.integers(1, 300), st.floats(0, 1), st.integers(1, 16), st.integers(0, 999))
def test_any_shape(
    device: str, dtype: torch.dtype, form: Form, plan: Plan, rows: int, columns: int, sparsity: float, batch: int, seed: int
) -> None:
    mask = normal(seed, rows, columns).erf().abs() >= sparsity
    check(*case(device, mask, dtype, form), batch, plan)


@each
def test_the_same_bits_every_time_and_after_a_refill(device: str, dtype: torch.dtype, form: Form, plan: Plan) -> None:
    mask = random_mask(7, 13, 300, 0.6)
    packed, dense = case(device, mask, dtype, form)
    first = check(packed, dense, 4, plan)
    assert bool((check(packed, dense, 4, plan) == first).all())
    weights = normal(8, 13, 300, dtype=dtype)
    refill(packed, weights[mask].to(device))
    check(packed, weights.double() * mask, 4, plan)


@each
def test_an_unaligned_view_of_x(device: str, dtype: torch.dtype, form: Form, plan: Plan) -> None:
    packed, dense = case(device, random_mask(9, 8, 64, 0.5), dtype, form)
    x = normal(2, 129, dtype=dtype)
    y = product(packed, x.to(device)[1:].view(2, 64), None, plan)
    assert torch.allclose(y.cpu().double(), x[1:].view(2, 64).double() @ dense.t(), 1e-2, 1e-2)


def sized(dtype: torch.dtype, rows: int, columns: int, chunks_a_row: int, form: Form) -> Packed:
    """What the rule sees of a packed matrix, without its memory."""
    slabs = form.slabs or 1
    chunks = rows * slabs * chunks_a_row
    values, words, pointers = (
        torch.empty(size, dtype=kind, device="meta")
        for size, kind in ((8 * chunks, dtype), (2 * chunks, torch.int32), (rows * slabs + 1, torch.int32))
    )
    slab_columns = -(-columns // slabs // 16) * 16
    return Packed(values, words, None, pointers, pointers, pointers, rows, columns, slabs, slab_columns, 6, bool(form.matrix))


@given(
    st.sampled_from([F32, F16, BF16]), st.integers(1, 2**18), st.integers(1, 2**18), st.integers(0, 2000), st.integers(1, 16),
    st.integers(1, 16), st.sampled_from([Card(), Card(108, 163 * 1024), Card(16, 99 * 1024)]),
)  # fmt: skip
def test_every_plan_by_rule_can_be_launched(
    dtype: torch.dtype, rows: int, columns: int, chunks_a_row: int, packed_for: int, batch: int, card: Card
) -> None:
    packed = sized(dtype, rows, columns, chunks_a_row, form_for(columns, dtype, packed_for, card))
    plan = rule(packed, batch, card)
    assert (plan.threads % 32, plan.fit * plan.threads <= 1024) == (0, True)  # 64 registers a thread at least
    launch, passes = small_batch._launch(packed, batch, plan, card)
    assert min(plan.blocks, plan.fit) * (launch.shared_bytes + RESERVED_BYTES) <= card.shared_bytes + RESERVED_BYTES
    assert launch.grid[0] * passes <= COUNTERS
    assert passes * plan.columns >= batch


@pytest.mark.parametrize(("columns", "batch"), [(16, 16), (203, 3), (4096, 5), (14336, 8), (40000, 1)])
@pytest.mark.parametrize("dtype", [F32, BF16])
def test_what_the_rules_choose_is_right(device: str, dtype: torch.dtype, columns: int, batch: int) -> None:
    mask = torch.zeros(8, columns, dtype=torch.bool)
    mask[:, ::5] = True
    form = form_for(columns, dtype, batch)
    packed, dense = case(device, mask, dtype, form)
    assert (packed.matrix, packed.slabs) == (form.matrix, form.slabs)
    plan = rule(packed, batch)
    if device == "cpu":  # whose threads are slow; each number of columns and lanes is a kernel of its own all the same
        plan = plan._replace(threads=64)
    check(packed, dense, batch, plan)


def test_forms_are_few() -> None:
    """Layers pack their weights once for each form."""
    for dtype, columns, most in ((F32, 7168, 1), (BF16, 7168, 2), (F32, 14336, 2), (BF16, 14336, 3)):
        assert len({form_for(columns, dtype, batch) for batch in range(1, 17)}) == most


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


@pytest.mark.skipif(bool(_compile.why_absent()), reason=str(_compile.why_absent()))
@pytest.mark.parametrize("architecture", ["sm_80", "sm_90"])
def test_compiles_for_a_card_without_spills(architecture: str) -> None:
    for dtype, form in ((BF16, MATRIX), (F16, LANES), (F32, LANES)):
        packed = pack(structure_of(torch.ones(4, 16, dtype=torch.bool)), torch.ones(64, dtype=dtype), form)
        for batch in (1, 8, 16):
            code = _compile.compiled(small_batch.FILE, small_batch.macros(packed, rule(packed, batch)), architecture)
            assert code[:4] == b"\x7fELF"
            assert stack_bytes(code) <= 16  # what a version of NVRTC may put there besides registers that spill


def stack_bytes(cubin: bytes) -> int:
    """The bytes of local memory that a thread of the kernel has, for spilled registers: FRAME_SIZE of its .nv.info."""
    sizes = [
        int.from_bytes(cubin[at + 8 : at + 12], "little")
        for at in range(0, len(cubin) - 12, 4)
        if cubin[at : at + 4] == b"\x04\x11\x08\x00"  # format: a size follows; attribute: FRAME_SIZE; 8 bytes: symbol, size
    ]
    assert sizes
    return max(sizes)
