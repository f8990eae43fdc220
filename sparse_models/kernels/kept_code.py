"""Compiled code that is kept between runs, and what else is worth it: files written whole, read only if they are whole."""

import contextlib
import hashlib
import os
import tempfile
import time
from functools import cache
from pathlib import Path

PACKAGE = Path(__file__).parent.parent
NAMED = hashlib.sha256().digest_size * 2  # characters by which kept code is named, before what kind it is
UNUSED_SECONDS = 90 * 24 * 3600.0


def cache_folder() -> Path:
    """Return where compiled kernels are kept: SPARSE_MODELS_CACHE, or a folder in the user's cache."""
    own = os.environ.get("SPARSE_MODELS_CACHE")
    return Path(own) if own else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sparse-models"


def sources(package: Path = PACKAGE) -> str | None:
    """Return a hash of all of a package's sources as they are now, this one's; None where they are not there to be read."""
    digest, files = hashlib.sha256(), sorted(package.rglob("*.py"))
    try:
        for file in files:
            content = file.read_bytes()
            digest.update(f"{file.relative_to(package).as_posix()} {len(content)} ".encode() + content)
    except OSError:
        return None
    return digest.hexdigest() if package / "__init__.py" in files else None


# A file that was cut would be run as code: each ends in the hash of what comes before.
def read_whole(path: Path) -> bytes | None:
    """Return what `write_whole` wrote, None where there is nothing or it was cut."""
    try:
        content = path.read_bytes()
    except OSError:
        return None
    with contextlib.suppress(OSError):  # where only others may write
        os.utime(path)
    code, digest = content[:-32], content[-32:]
    return code if code and hashlib.sha256(code).digest() == digest else None


def write_whole(path: Path, code: bytes) -> None:
    """Write code whole, for `read_whole`, or not at all; where that cannot be, the next run compiles again."""
    replace(path, code + hashlib.sha256(code).digest())
    _drop_unused(path.parent)


@cache
def _drop_unused(folder: Path) -> None:
    """Remove, once a process, code that has not been read for UNUSED_SECONDS, as that of sources which are no more."""
    for file in folder.glob("*.*"):
        with contextlib.suppress(OSError):  # another process may have been first
            if len(file.stem) == NAMED and time.time() - file.stat().st_mtime > UNUSED_SECONDS:
                file.unlink()


def replace(path: Path, content: bytes) -> None:
    """Have a file hold these bytes, or, where that cannot be, what it held before."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as aside:
            aside.write(content)
        Path(aside.name).replace(path)
    except OSError:
        return
