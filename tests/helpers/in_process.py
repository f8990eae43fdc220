"""The suite as a user runs it, in this process: a new one takes longer to import PyTorch than to do all else."""

import contextlib
import io
import shutil
import tempfile
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[2]
SMALL = ["--shape", "8x8b4", "--sparsity", "0.5", "--threads", "1", "--processes", "2", "--precision", "9",
         "--dtype", "float32"]  # fmt: skip


def copied(folder: Path, *names: str) -> Path:
    """Copy these files and folders of the checkout into a folder, to be changed there, and return it."""
    for name in names:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, folder)
    return folder


class Done(NamedTuple):
    """What became of a run of pytest."""

    returncode: int
    stdout: str
    stderr: str


def run(*arguments: str, cwd: Path = ROOT, path: str = "bench") -> Done:
    """Run `pytest bench` with these arguments in a working directory, its storage elsewhere unless they name one."""
    own = [str(ROOT / path), "-p", "no:cacheprovider", "-c", str(ROOT / "pyproject.toml"), "--capture=no"]
    own += ["-W", "ignore::pytest.PytestAssertRewriteWarning"]  # what is imported already cannot be rewritten
    output, errors = io.StringIO(), io.StringIO()
    with (
        tempfile.TemporaryDirectory() as storage,
        pytest.MonkeyPatch.context() as patch,
        contextlib.redirect_stdout(output),
        contextlib.redirect_stderr(errors),
    ):
        patch.chdir(cwd)
        code = pytest.main([*own, f"--benchmark-storage={storage}", *arguments])
    return Done(int(code), output.getvalue(), errors.getvalue())
