"""Fork servers that stay from test to test: each takes seconds to import PyTorch, and what it forks is fresh all the same."""

import os
from collections.abc import Generator, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from bench.engine import processes
from bench.engine.forkserver import ForkServer


class Kept(ForkServer):
    """A fork server that, when it is closed, stops only if what it forked last may still measure."""

    _is_at_rest = True

    def run(self, asked: dict[str, Any]) -> Generator[dict[str, Any], None, str | None]:
        """Do what a fork server does; interrupted as a process began, it may not know of it yet."""
        self._is_at_rest = False
        try:
            death = yield from super().run(asked)
        except GeneratorExit:
            self._is_at_rest = True
            raise
        self._is_at_rest = True
        return death

    def close(self) -> None:
        if not self._is_at_rest:
            self._stop()
            self._is_at_rest = True


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
