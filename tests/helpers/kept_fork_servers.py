"""Fork servers that stay from test to test: each takes seconds to import PyTorch, and what it forks is fresh all the same."""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from bench.engine import processes
from bench.engine.forkserver import ForkServer


class Kept(ForkServer):
    """A fork_server that, when it is closed, stops only what still measures."""

    def close(self) -> None:
        if self._forked is not None:
            self._stop()


_known: dict[tuple[str, frozenset[tuple[str, str]]], Kept] = {}


def kept(environment: Mapping[str, str]) -> Kept:
    """Return the fork_server whose processes have this very environment and working directory."""
    whole = os.environ | dict(environment)
    key = str(Path.cwd()), frozenset(item for item in whole.items() if item[0] != "PYTEST_CURRENT_TEST")
    if key not in _known:
        _known[key] = Kept(environment)
    return _known[key]


@pytest.fixture(scope="session", autouse=True)
def fork_servers() -> Iterator[None]:
    """Have all tests of the engine measure in fork servers that are kept until the last."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(processes, "ForkServer", kept)
        yield
    for one in _known.values():
        ForkServer.close(one)
