"""What one process found out and the next need not: gates passed, the fastest layout, learning rates."""

from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar

_T = TypeVar("_T")
MEMO: dict[str, Any] = {}


def remembered(function: Callable[..., _T]) -> Callable[..., _T]:
    """Return `function`, called once for each set of arguments in all processes of a run together.

    Arguments must tell themselves apart by their repr, and results must be plain: strings, numbers, None and lists of them.
    """

    @wraps(function)
    def recall(*arguments: Any) -> _T:
        key = f"{function.__module__}.{function.__name__}{arguments!r}"
        if key not in MEMO:
            MEMO[key] = function(*arguments)
        return MEMO[key]  # type: ignore[no-any-return]

    return recall
