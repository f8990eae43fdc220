"""Tests that are marked `alone` run beside no other, and first."""

import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from tests.conftest import pytest_collection_modifyitems, turn


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


def test_files_of_those_that_run_alone_come_first_whole_and_all_else_stays_as_it_was() -> None:
    drawn = [("a", False), ("b", False), ("b", True), ("c", False), ("d", True), ("d", False), ("b", False), ("a", False)]
    items: list[Any] = [
        SimpleNamespace(path=path, place=place, get_closest_marker=({"alone": True} if alone else {}).get)
        for place, (path, alone) in enumerate(drawn)
    ]
    pytest_collection_modifyitems(items)
    assert [item.place for item in items] == [2, 1, 6, 4, 5, 0, 3, 7]
