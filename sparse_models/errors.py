"""The exceptions of the package, and how a public function says what is wrong with what it was given.

ValueError
  InputError        what the caller gave cannot be used
ArithmeticError
  DivergedError     a training whose loss is no longer a number
AssertionError
  GateError         a layer disagrees with its definition
ImportError
  AbsentError       the package that an optional layer or data set needs cannot be imported
"""

import inspect
import types
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from numbers import Integral, Real
from typing import Any, Literal, ParamSpec, TypeVar, Union, get_args, get_origin

_P = ParamSpec("_P")
_T = TypeVar("_T")


class InputError(ValueError):
    """What the caller gave cannot be used: one sentence with what was expected, what came and what to do."""


class DivergedError(ArithmeticError):
    """A training's loss is no longer a finite number."""


class GateError(AssertionError):
    """A layer disagrees with the definition of a sparse layer, so nothing may be timed with it."""


class AbsentError(ImportError):
    """The package that an optional layer or data set needs cannot be imported; the message says how to install it."""


OWN = (InputError, AbsentError, DivergedError, GateError)  # which say already what is wrong


def checked(function: Callable[_P, _T]) -> Callable[_P, _T]:
    """Return a function that raises InputError where it fails and was given another type than its signature says.

    Arguments are looked at only then: what works is never refused, and costs nothing more.
    """

    @wraps(function)
    def call(*args: _P.args, **kwargs: _P.kwargs) -> _T:
        try:
            return function(*args, **kwargs)
        except Exception as error:
            _explain(error, function, args, kwargs)
            raise

    @wraps(function)
    def generate(*args: _P.args, **kwargs: _P.kwargs) -> Any:  # which fails no sooner than it is asked for what it yields
        try:
            return (yield from function(*args, **kwargs))  # type: ignore[misc]
        except Exception as error:
            _explain(error, function, args, kwargs)
            raise

    return generate if inspect.isgeneratorfunction(function) else call


def _explain(error: Exception, function: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
    """Raise what says which argument is not of the type in the signature; nothing where all are, or the error says it."""
    if isinstance(error, OWN):
        return
    signature = inspect.signature(function)
    try:
        given = signature.bind(*args, **kwargs).arguments
    except TypeError:  # no such argument, or one too few: Python says it itself
        return
    for name, value in given.items():
        kind = signature.parameters[name].annotation
        if kind is not inspect.Parameter.empty and not isinstance(kind, str) and not fits(value, kind):
            what = function.__qualname__.removesuffix(".__init__")
            advice = "convert it" if hasattr(value, "__array__") or isinstance(value, list) else "pass one"
            raise InputError(f"{what}: expected {name} to be {_words(kind)}, got {_got(value)}; {advice}") from error


def fits(value: Any, kind: Any) -> bool:
    """Tell whether a value is of a type as signatures have it, as far as that can be told; bool is no number."""
    origin, parts = get_origin(kind), get_args(kind)
    if isinstance(kind, TypeVar):
        kind = kind.__bound__
    if origin in (Union, types.UnionType):
        found = any(fits(value, part) for part in parts)
    elif origin is Literal:
        found = value in parts
    elif origin is type:
        found = isinstance(value, type) and (not isinstance(parts[0], type) or issubclass(value, parts[0]))
    elif kind in (int, float):
        found = isinstance(value, Integral if kind is int else Real) and not isinstance(value, bool)
    elif origin is None:
        found = not isinstance(kind, type) or isinstance(value, kind)
    else:
        found = isinstance(value, origin) and _holds(value, parts)
    return found


def _holds(value: Any, parts: Sequence[Any]) -> bool:
    """Tell whether what is held is of these types, as far as it can be looked at without being used up."""
    if isinstance(value, str) or hasattr(value, "__array__"):
        return False  # which can be gone through, and are of their own kind
    if isinstance(value, Mapping):
        return len(parts) < 2 or all(fits(key, parts[0]) and fits(one, parts[1]) for key, one in value.items())
    if isinstance(value, tuple) and len(parts) > 1 and parts[-1] is not ...:
        return len(value) == len(parts) and all(map(fits, value, parts))
    return not isinstance(value, Sequence) or all(fits(one, parts[0]) for one in value)


def _words(kind: Any) -> str:
    """Return a type as it is written."""
    if get_origin(kind) in (Union, types.UnionType):
        return " or ".join(map(_words, get_args(kind)))
    if kind is type(None):
        return "None"
    return kind.__name__ if isinstance(kind, type) and not get_args(kind) else str(kind).replace("collections.abc.", "")


def _got(value: Any) -> str:
    return repr(value) if isinstance(value, bool | int | float | str) or value is None else type(value).__name__
