"""What one process found out and the next need not: gates passed, facts of a case, learning rates."""

import contextlib
from collections.abc import Callable, Iterator
from functools import wraps
from typing import Any, TypeVar

import torch

_T = TypeVar("_T")
KNOWN: dict[str, Any] = {}


@contextlib.contextmanager
def by_one_thread() -> Iterator[None]:
    """Hold torch to one thread meanwhile, so that what is found does not depend on where it is.

    Sums by several threads differ from those by one in their last digits, which decides between rates that are almost alike.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def once_per_run(function: Callable[..., _T]) -> Callable[..., _T]:
    """Return `function`, called once for each set of arguments in all processes of a run together.

    Arguments must tell themselves apart by their repr, and results must be plain: strings, numbers, None and lists of them.
    """

    @wraps(function)
    def known(*arguments: Any, **named: Any) -> _T:
        key = f"{function.__module__}.{function.__name__}{arguments!r}{named or ''}"
        return find_once(key, lambda: function(*arguments, **named))

    return known


def find_once(key: str, find: Callable[[], _T]) -> _T:
    """Return what is known by `key`, found out now if it is not."""
    if key not in KNOWN:
        KNOWN[key] = find()
    return KNOWN[key]  # type: ignore[no-any-return]
