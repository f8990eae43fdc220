"""A cuSPARSELt that is not there: the three functions by which PyTorch reaches it, on a CPU, as strict as its own on a card."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from sparse_models.kernels import two_four

FOUND = (5, 2, 1)  # the algorithm that a search finds
USUAL = (0, 1, -1)


class Simulated:
    """What it was asked for, in order: "compress", "search" or "multiply" and the algorithm."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.current: torch.device | None = None

    @contextlib.contextmanager
    def device_of(self, tensor: Tensor) -> Iterator[None]:
        """Make a tensor's card the current one, as `torch.cuda.device_of` does."""
        self.current, before = tensor.device, self.current
        yield
        self.current = before

    def compress(self, dense: Tensor) -> Tensor:
        """Each row's kept values, and after them 4 bits for each group of 4: which two places they are from."""
        self.calls.append(("compress",))
        assert dense.dtype in (torch.float16, torch.bfloat16)
        assert dense.is_contiguous()
        assert dense.data_ptr() % two_four.ALIGNED_BYTES == 0
        assert all(size % two_four.WEIGHT_MULTIPLE == 0 and size > 0 for size in dense.shape)
        rows, columns = dense.shape
        groups = dense.view(rows, columns // 4, 4)
        assert int((groups != 0).sum(2).max()) <= 2, "more than 2 of 4 are not 0"
        places = (groups != 0).int().argsort(dim=2, descending=True, stable=True)[:, :, :2].sort(2).values
        values = groups.gather(2, places).reshape(rows, -1)
        bits = (places[:, :, 0] | places[:, :, 1] << 2).view(rows, -1, 4) << torch.tensor([0, 4, 8, 12])
        return torch.cat([values, bits.sum(2).to(torch.int16).view(dense.dtype)], 1)

    def search(
        self, compressed: Tensor, dense: Tensor, bias: Tensor | None, alpha: None, out_dtype: None, transpose_result: bool
    ) -> tuple[int, ...]:
        self._check(compressed, dense, bias)
        assert self.current == dense.device, (
            "of all that is called here PyTorch's dispatcher does not make it so for this alone"
        )
        assert (alpha, out_dtype, transpose_result) == (None, None, True)
        self.calls.append(("search",))
        return (*FOUND, 99)

    def multiply(
        self,
        compressed: Tensor,
        dense: Tensor,
        bias: Tensor | None = None,
        *,
        transpose_result: bool,
        alg_id: int,
        split_k: int,
        split_k_mode: int,
    ) -> Tensor:
        self._check(compressed, dense, bias)
        self.calls.append(("multiply", (alg_id, split_k, split_k_mode)))
        rows, columns = len(compressed), len(dense)
        bits = compressed[:, columns // 2 :].contiguous().view(torch.int16).int()[:, :, None] >> torch.tensor([0, 4, 8, 12])
        places = torch.stack([bits & 3, bits >> 2 & 3], 3).view(rows, columns // 4, 2).long()
        weight = compressed.new_zeros(rows, columns // 4, 4)
        weight.scatter_(2, places, compressed[:, : columns // 2].reshape(rows, columns // 4, 2))
        result = weight.view(rows, columns).float() @ dense.float()
        result = (result if bias is None else result + bias[:, None].float()).to(dense.dtype)
        return result.t().contiguous() if transpose_result else result

    def _check(self, compressed: Tensor, dense: Tensor, bias: Tensor | None) -> None:
        (columns, samples), rows = dense.shape, len(compressed)
        assert compressed.shape[1] * 16 == columns * 9
        assert columns % two_four.WEIGHT_MULTIPLE == rows % two_four.WEIGHT_MULTIPLE == samples % two_four.BATCH_MULTIPLE == 0
        assert dense.is_contiguous() or dense.t().is_contiguous()
        assert compressed.dtype == dense.dtype
        assert all(one is None or one.data_ptr() % two_four.ALIGNED_BYTES == 0 for one in (compressed, dense, bias))
        assert bias is None or (bias.shape, bias.dtype) == ((rows,), dense.dtype)


@pytest.fixture
def cusparselt(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Simulated:
    """A simulated library in the place of the real one, which has no algorithm in mind yet, and no file of them."""
    simulated = Simulated()
    monkeypatch.setattr(torch, "_cslt_compress", simulated.compress)
    monkeypatch.setattr(torch, "_cslt_sparse_mm", simulated.multiply)
    monkeypatch.setattr(torch._C, "_cusparselt", SimpleNamespace(mm_search=simulated.search), raising=False)
    monkeypatch.setattr(torch.cuda, "device_of", simulated.device_of)
    monkeypatch.setattr(two_four, "_FASTEST", {})
    monkeypatch.setattr(two_four, "_card", lambda _: "simulated")
    monkeypatch.setenv("SPARSE_MODELS_CACHE", str(tmp_path))
    return simulated
