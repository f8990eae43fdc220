"""Files that are written whole or not at all, and read with a bound on their bytes."""

import contextlib
import math
import os
import stat
import tempfile
from pathlib import Path
from typing import Any

from pytest_benchmark.utils import safe_dumps

from bench.runs.plain_text import printable
from sparse_models.errors import InputError

MAX_BYTES = 2**26  # twenty times a run of the default grid


def write_whole(path: Path, content: bytes) -> None:
    """Put `content` at `path`, whole or not at all, also where the machine stops; what is no file (/dev/null) is written to."""
    if path.exists() and not path.is_file():
        path.write_bytes(content)
        return
    handle, aside = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            os.fchmod(handle, 0o666 & ~_umask())  # mkstemp's files are for the user alone
            file.write(content)
            file.flush()
            os.fsync(handle)
        Path(aside).replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            Path(aside).unlink()
        raise
    with contextlib.suppress(OSError):  # a name is as durable as its folder; not every system can sync one
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def check_folder(folder: Path) -> None:
    """Raise InputError, one sentence, for a folder in which no file can be written."""
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise InputError(f"expected a folder that can be written, got {printable(str(folder))}: {error.strerror}") from None


def _umask() -> int:
    os.umask(mask := os.umask(0))  # it can only be read by setting it
    return mask


def as_json(content: dict[str, Any]) -> bytes:
    """Return content as JSON that every parser reads: what is no finite number is null."""
    return str(safe_dumps(_finite(content), allow_nan=False, separators=(",", ":"))).encode()


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(key): _finite(inner) for key, inner in value.items()}
    return [_finite(inner) for inner in value] if isinstance(value, list | tuple) else value


def read_whole(path: Path) -> bytes:
    """Return the bytes of a file; raises InputError, one sentence without its name, for what is none or is too large."""
    try:
        # Without waiting, for nobody may ever write into a pipe that is called a run.
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
        try:
            status = os.fstat(handle)
            if not stat.S_ISREG(status.st_mode):
                raise InputError("a folder" if stat.S_ISDIR(status.st_mode) else "not a file")
            if status.st_size > MAX_BYTES:
                raise InputError(f"more than {MAX_BYTES // 2**20} MiB")
            with os.fdopen(handle, "rb", closefd=False) as file:
                return file.read(MAX_BYTES + 1)
        finally:
            os.close(handle)
    except (OSError, ValueError) as error:
        raise InputError(printable(getattr(error, "strerror", None) or str(error))) from None
