"""What one process found out and the next need not: gates passed, facts of a case, learning rates."""

from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar

_T = TypeVar("_T")
KNOWN: dict[str, Any] = {}


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
