"""What trains one model together: PyTorch's wrapper sends each of them the first one's weights and their places."""

import operator
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from functools import reduce
from pathlib import Path
from threading import Barrier
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.distributed import fsdp
from torch.nn.parallel import DistributedDataParallel

from sparse_models import sparse_layers, sparsify
from sparse_models.errors import InputError

distributed = torch.distributed
if not distributed.is_available():
    pytest.skip("PyTorch was built without torch.distributed", allow_module_level=True)
PATIENCE = 60  # seconds that one waits for the others


@contextmanager
def joined(folder: Path) -> Iterator[None]:
    """Be a group of this process alone."""
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    store = distributed.FileStore(str(folder / "store"), 1)  # type: ignore[attr-defined]
    distributed.init_process_group("gloo", store=store, rank=0, world_size=1, timeout=timedelta(seconds=PATIENCE))
    try:
        yield
    finally:
        distributed.destroy_process_group()


def net(seed: int, layer: str = "tiled") -> nn.Module:
    torch.manual_seed(seed)
    return sparsify(nn.Sequential(nn.Linear(32, 48), nn.ReLU(), nn.Linear(48, 16)), sparsity=0.5, layer=layer)


class Done(distributed._Work):  # type: ignore[misc, name-defined]  # as PyTorch's tests of such groups do
    """What is asked of a group, done."""

    def __init__(self, result: Any) -> None:
        super().__init__()
        self._future: torch.futures.Future[Any] = torch.futures.Future()
        self._future.set_result(result)

    def wait(self, timeout: timedelta = timedelta(0)) -> bool:  # it is done
        return True

    def get_future(self) -> "torch.futures.Future[Any]":
        return self._future


class Threads(distributed.ProcessGroup):
    """A group of threads: processes would each import PyTorch, and talk over a network that some sandboxes do not have."""

    def __init__(self, rank: int, shared: list[Any], barrier: Barrier) -> None:
        super().__init__(rank, len(shared))  # type: ignore[call-arg]  # its stubs know of one with a store alone
        self._rank, self._shared, self._barrier = rank, shared, barrier

    def getBackendName(self) -> str:  # noqa: N802  # PyTorch's name
        return "threads"

    def _shown(self, tensors: list[Tensor]) -> list[list[Tensor]]:
        """Return what each thread shows all others at this point; raises TypeError for numbers that no network sends."""
        if any(tensor.dtype is torch.int16 for tensor in tensors):
            self._barrier.abort()
            raise TypeError("expected numbers of a size that gloo and NCCL know, got some of 16 bits")
        self._shared[self._rank] = [tensor.clone() for tensor in tensors]
        self._barrier.wait(PATIENCE)
        found = list(self._shared)
        self._barrier.wait(PATIENCE)  # before anything else is shown
        return found

    def broadcast(self, tensors: list[Tensor], options: Any) -> Done:  # type: ignore[override]
        for tensor, sent in zip(tensors, self._shown(tensors)[options.rootRank], strict=True):
            tensor.copy_(sent)
        return Done(tensors)

    def allreduce(self, tensors: list[Tensor], options: Any) -> Done:  # type: ignore[override]  # sums are all that is asked for
        for tensor, *sent in zip(tensors, *self._shown(tensors), strict=True):
            tensor.copy_(reduce(operator.add, sent))
        return Done(tensors)

    def allgather(self, results: list[list[Tensor]], tensors: list[Tensor], options: Any) -> Done:  # type: ignore[override]
        for result, *sent in zip(results, *self._shown(tensors), strict=True):
            for tensor, one in zip(result, sent, strict=True):
                tensor.copy_(one)
        return Done(results)


def train(model: nn.Module, group: Threads) -> tuple[dict[str, Tensor], Tensor]:
    """Return the weights of a net that was trained on this thread's share of samples, and what it puts out for one."""
    together = DistributedDataParallel(model, process_group=group)
    optimizer = torch.optim.SGD(together.parameters(), 0.1)
    x = torch.linspace(-1, 1, 8 * 32).view(8, 32)
    for part in x.tensor_split(group.size())[group.rank()], x.tensor_split(group.size())[group.rank()] + 1:
        optimizer.zero_grad()
        together(part).square().mean().backward()
        optimizer.step()
    return {name: one.to_dense().detach() for name, one in sparse_layers(model).items()}, model.eval()(x[:1]).detach()


@pytest.mark.parametrize("layer", ["tiled", "block16", "csr", "masked"])
def test_models_that_differ_are_one_once_they_are_wrapped(layer: str, tmp_path: Path) -> None:
    shared, barrier = [None, None], Barrier(2)
    groups = [Threads(rank, shared, barrier) for rank in range(2)]
    with joined(tmp_path), ThreadPoolExecutor(2) as pool:
        first, second = pool.map(train, [net(rank, layer) for rank in range(2)], groups)
    torch.testing.assert_close(first, second)
    x, expected = torch.linspace(-1, 1, 8 * 32).view(8, 32), net(0, layer)
    optimizer = torch.optim.SGD(expected.parameters(), 0.1)
    for part in x, x + 1:
        optimizer.zero_grad()
        expected(part).square().mean().backward()
        optimizer.step()
    torch.testing.assert_close(first[0], {name: one.to_dense() for name, one in sparse_layers(expected).items()})


def test_a_state_is_read_whichever_size_its_indices_had(tmp_path: Path) -> None:
    alone = net(0)
    with joined(tmp_path):
        together = net(1)
        assert {one.dtype for one in together.buffers()} == {torch.int32}
        state = {name: one.clone() for name, one in together.state_dict().items()}
        together.load_state_dict(alone.state_dict())
        DistributedDataParallel(together)
    x = torch.randn(5, 32)
    torch.testing.assert_close(together(x), alone(x))
    alone.load_state_dict(state)
    assert torch.int16 in {one.dtype for one in alone.buffers()}
    together.load_state_dict(state)
    torch.testing.assert_close(alone(x), together(x))


def test_sharded_weights_are_trained_and_their_mask_stays(tmp_path: Path) -> None:
    with joined(tmp_path):
        model, expected, x = net(0), net(0), torch.randn(5, 32)
        mesh = distributed.init_device_mesh("cpu", (1,))  # type: ignore[attr-defined]
        fsdp.fully_shard(model, mesh=mesh)
        for one in model, expected:
            optimizer = torch.optim.SGD(one.parameters(), 0.1)
            one(x).square().mean().backward()
            optimizer.step()
        for layer in sparse_layers(model).values():
            before = layer.mask
            with pytest.raises(InputError, match="parametrized, pruned or sharded"):
                layer.set_mask(~before)
            assert torch.equal(layer.mask, before)
        torch.testing.assert_close(model(x), expected(x))
