"""Tests that are marked `alone` run beside no other."""

import threading
from pathlib import Path

from tests.conftest import turn


def test_one_alone_or_several_together(tmp_path: Path) -> None:
    """The one that would be alone is waited for by who comes later, though that one could have gone beside the first."""
    order: list[str] = []
    begun = {name: threading.Event() for name in ("alone", "later")}

    def runs(name: str) -> None:
        begun[name].set()
        with turn(tmp_path, is_alone=name == "alone"):
            order.append(name)

    alone, later = (threading.Thread(target=runs, args=(name,)) for name in begun)
    with turn(tmp_path, is_alone=False):
        with turn(tmp_path, is_alone=False):
            order.append("together")
        alone.start()
        begun["alone"].wait()
        alone.join(0.2)
        later.start()
        begun["later"].wait()
        later.join(0.2)
        order.append("first")
    alone.join()
    later.join()
    assert order == ["together", "first", "alone", "later"]
