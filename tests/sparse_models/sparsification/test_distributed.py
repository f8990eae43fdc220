"""Processes that train one model together: PyTorch's wrapper sends each of them the first one's weights and their places."""

import os
from datetime import timedelta
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.distributed import fsdp
from torch.nn.parallel import DistributedDataParallel

from sparse_models import sparse_layers, sparsify
from sparse_models.errors import InputError

distributed = torch.distributed
pytestmark = pytest.mark.skipif(not distributed.is_available(), reason="PyTorch was built without torch.distributed")


def joined(rank: int, count: int, folder: Path) -> None:
    torch.set_num_threads(1)
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    store = distributed.FileStore(str(folder / "store"), count)  # type: ignore[attr-defined]
    distributed.init_process_group("gloo", store=store, rank=rank, world_size=count, timeout=timedelta(seconds=60))


def net(seed: int, layer: str = "tiled") -> nn.Module:
    torch.manual_seed(seed)
    return sparsify(nn.Sequential(nn.Linear(32, 48), nn.ReLU(), nn.Linear(48, 16)), sparsity=0.5, layer=layer)


def train(rank: int, count: int, folder: Path) -> None:
    """Train two nets that differ, masks and weights, and write down what each process has in the end."""
    joined(rank, count, folder)
    found = {}
    for layer in ("tiled", "block16", "csr", "masked"):
        model = net(rank, layer)
        together = DistributedDataParallel(model)
        optimizer = torch.optim.SGD(together.parameters(), 0.1)
        x = torch.linspace(-1, 1, 8 * 32).view(8, 32)
        for part in x.tensor_split(count)[rank], x.tensor_split(count)[rank] + 1:
            optimizer.zero_grad()
            together(part).square().mean().backward()
            optimizer.step()
        found[layer] = {name: one.to_dense() for name, one in sparse_layers(model).items()}, model.eval()(x[:1]).detach()
    torch.save(found, folder / f"{rank}.pt")
    distributed.destroy_process_group()


def test_models_that_differ_are_one_once_they_are_wrapped(tmp_path: Path) -> None:
    torch.multiprocessing.spawn(train, (2, tmp_path), 2)  # type: ignore[attr-defined, no-untyped-call]
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in range(2))
    torch.testing.assert_close(first, second)
    for layer, (weights, _) in first.items():
        x, expected = torch.linspace(-1, 1, 8 * 32).view(8, 32), net(0, layer)
        optimizer = torch.optim.SGD(expected.parameters(), 0.1)
        for part in x, x + 1:
            optimizer.zero_grad()
            expected(part).square().mean().backward()
            optimizer.step()
        torch.testing.assert_close(weights, {name: one.to_dense() for name, one in sparse_layers(expected).items()})


def test_a_state_is_read_whichever_size_its_indices_had(tmp_path: Path) -> None:
    alone = net(0)
    joined(0, 1, tmp_path)
    try:
        together = net(1)
        assert {one.dtype for one in together.buffers()} == {torch.int32}
        state = {name: one.clone() for name, one in together.state_dict().items()}
        together.load_state_dict(alone.state_dict())
        DistributedDataParallel(together)
    finally:
        distributed.destroy_process_group()
    x = torch.randn(5, 32)
    torch.testing.assert_close(together(x), alone(x))
    alone.load_state_dict(state)
    assert torch.int16 in {one.dtype for one in alone.buffers()}
    together.load_state_dict(state)
    torch.testing.assert_close(alone(x), together(x))


def test_sharded_weights_are_trained_and_their_mask_stays(tmp_path: Path) -> None:
    joined(0, 1, tmp_path)
    try:
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
    finally:
        distributed.destroy_process_group()
