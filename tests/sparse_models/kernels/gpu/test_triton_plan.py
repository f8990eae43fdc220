"""How block-sparse products are cut into programs: within a card's registers and shared memory, and enough to fill it."""

from types import SimpleNamespace

import pytest
import torch

from sparse_models.kernels.cuda import _card
from sparse_models.kernels.triton._plan import SIZES, parts_of, product_plan, sampled_plan


@pytest.mark.parametrize("batch", [1, 16, 17, 300, 4096])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("size", SIZES)
def test_a_plan_takes_no_more_rows_than_there_are_and_fits_registers(size: int, dtype: torch.dtype, batch: int) -> None:
    for precision in ("tf32", "tf32x3"):
        plan = product_plan(size, batch, dtype, precision, has_tma=True)
        assert plan.rows == 16 or plan.rows < 2 * batch
        for one, sums in ((plan, plan.rows * size), (sampled_plan(size, dtype, precision), max(128, size) * size)):
            assert sums <= 128 * 32 * one.warps  # of a thread's 255 registers


@pytest.mark.parametrize("shared_bytes", [64 * 1024, 99 * 1024, 163 * 1024, 227 * 1024])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("size", SIZES)
def test_what_is_under_way_fits_the_shared_memory_that_a_card_has(size: int, dtype: torch.dtype, shared_bytes: int) -> None:
    plan = product_plan(size, 4096, dtype, "tf32", has_tma=False, shared_bytes=shared_bytes)
    assert plan.stages * plan.depth * (plan.rows + size) * dtype.itemsize <= shared_bytes
    assert plan.stages >= 2
    if shared_bytes >= 163 * 1024:
        assert plan == product_plan(size, 4096, dtype, "tf32", has_tma=False)


def test_a_card_is_asked_what_it_has(monkeypatch: pytest.MonkeyPatch) -> None:
    told = SimpleNamespace(shared_memory_per_block_optin=99 * 1024, multi_processor_count=128)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: told)
    assert _card.card_of.__wrapped__(torch.device("cuda", 0)) == (128, 99 * 1024)
    assert _card.card_of.__wrapped__(torch.device("cpu")) == _card.H100


def test_parts_of_a_batch_fill_the_card_and_are_no_fewer_than_512_samples() -> None:
    assert parts_of(1000, 4096, 132) == 1
    assert parts_of(33, 4096, 132) == 4
    assert parts_of(1, 4096, 132) == 8
    assert parts_of(1, 100, 132) == 1
