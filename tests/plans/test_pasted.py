"""The lines that a plan prints, executed on what the user's function returns, make what was timed."""

import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from bench.models.loading import SEED
from bench.models.selected import NONE
from bench.plans.arms import Model, Swap, exchangeable
from bench.plans.candidates import Measured
from bench.plans.plan import plan_of
from bench.tables.plan import pasted
from sparse_models.sparsification import sparse_layers

SOURCE = """
import torch
from torch import nn
from torch.nn.utils import prune

class Shared(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(8, 8), nn.Linear(8, 4)
        self.inner = nn.Sequential(self.first)

    def forward(self, x):
        return self.last(self.inner(torch.relu(self.first(x))))

def shared():
    return Shared(), torch.randn(4, 8)

def convolutional():
    net = nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 3, 1), nn.Flatten(), nn.Linear(12, 5))
    return net, torch.randn(2, 2, 2, 2)

def pruned():
    model = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 4))
    prune.l1_unstructured(model[0], "weight", amount=0.5)
    return model, torch.randn(4, 8)
"""


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Models in the working directory, and something that reads .safetensors where the package is not."""
    (tmp_path / "nets.py").write_text(SOURCE)
    monkeypatch.chdir(tmp_path)

    def load_file(path: str | Path) -> dict[str, torch.Tensor]:
        with np.load(Path(path).with_suffix(".npz")) as arrays:
            return {name: torch.from_numpy(arrays[name]) for name in arrays.files}

    stand_in: Any = SimpleNamespace(load_file=load_file)
    monkeypatch.setitem(sys.modules, "safetensors", SimpleNamespace(torch=stand_in))
    monkeypatch.setitem(sys.modules, "safetensors.torch", stand_in)
    yield
    sys.modules.pop("_of_the_user_nets", None)


@pytest.mark.parametrize("file", [NONE, "m.npz", "m.safetensors"])
@pytest.mark.parametrize(
    ("name", "keys"),
    [
        ("convolutional", {"0.weight": (4, 2, 3, 3), "4": (5, 12)}),
        ("shared", {"inner.0": (8, 8)}),  # by another than the first of its names
        ("shared", {"first.weight": (8, 8), "last": (4, 8)}),
        ("pruned", {"0": (8, 8)}),
        ("pruned", {"2": (4, 8)}),
    ],
)
def test_what_is_printed_makes_what_was_timed(name: str, keys: dict[str, tuple[int, ...]], file: str) -> None:
    masks = {key: torch.rand(shape) < 0.5 for key, shape in keys.items()}
    Path("m.safetensors").touch()  # what it holds, m.npz has
    arrays: dict[str, Any] = {key: mask.numpy() for key, mask in masks.items()}
    np.savez("m.npz", **arrays)
    target = f"nets.py:{name}"
    model = Model(target, file)
    swap = Swap("tiled", 0.5, [layer.name for layer in exchangeable(target, file)], file)
    timed = model.example.copied.module
    swap.carry_out(timed, model.given)
    plan = plan_of(Measured([], [], [], [], is_pruned=bool(model.example.masks)))._replace(calls=[swap])
    found: dict[str, Any] = {}
    exec(SOURCE, found)  # noqa: S102  # what a user has
    torch.manual_seed(SEED)
    own, batch = found[name]()
    exec(pasted(plan), {"model": own})  # noqa: S102  # what a user does with it
    assert isinstance(own, nn.Module)
    made, expected = sparse_layers(own), sparse_layers(timed)
    assert made.keys() == expected.keys()
    assert all(torch.equal(made[one].mask, expected[one].mask) for one in made)
    assert file == NONE or {one.nnz for one in made.values()} == {int(mask.sum()) for mask in masks.values()}
    assert torch.equal(own(batch), timed(batch))
