"""What one process found out and the next need not: gates passed, facts of a case, learning rates.

What trainings of one thread find, which are the same whenever they are made, the next run need not find either.
"""

import contextlib
import hashlib
import json
from collections.abc import Callable, Iterator
from functools import cache, wraps
from pathlib import Path
from typing import Any, TypeVar

import torch

from sparse_models.kernels.cpu._compile import machine
from sparse_models.kernels.kept_code import PACKAGE, cache_folder, read_whole, sources, write_whole
from sparse_models.loading import load

_T = TypeVar("_T")
KNOWN: dict[str, Any] = {}


def sources_now() -> str | None:
    """Return a hash of all sources by which anything is trained, as they are now; None where they cannot be read."""
    found = [sources(package) for package in (PACKAGE, Path(__file__).parent.parent)]
    return None if None in found else " ".join(map(str, found))


SOURCES = sources_now()  # as this process has loaded them; with None nothing is kept between runs


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


def kept(key: str, data: str, find: Callable[[], _T]) -> _T:
    """Return what an earlier run on this machine found by `key`, with the same sources, PyTorch and data; or find it out now.

    It must be plain, and the same whenever it is found: what is measured is no such thing.
    """
    if SOURCES is None:
        return find()
    told = f"{torch.__version__} {machine()} {SOURCES} {_hash_of(data)} {key}"
    file = cache_folder() / f"{hashlib.sha256(told.encode()).hexdigest()}.found"
    if (content := read_whole(file)) is not None:
        return json.loads(content)  # type: ignore[no-any-return]
    found = find()
    if sources_now() == SOURCES:  # or what was loaded later is of others
        write_whole(file, json.dumps(found).encode())
    return found


@cache
def _hash_of(data: str) -> str:
    """Return a hash of all samples of a data set: a file of that name may have others by now."""
    digest = hashlib.sha256()
    for split in load(data)[:3]:
        for tensor in split:
            digest.update(f"{tensor.dtype} {tuple(tensor.shape)} ".encode() + tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()
