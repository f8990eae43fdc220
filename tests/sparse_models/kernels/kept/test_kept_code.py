"""A kernel whose code is kept is not written anew, and code of another version of what wrote it is never run."""

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sparse_models.kernels import kept_code
from sparse_models.kernels.cpu import _compile, _emit
from sparse_models.kernels.cpu._compile import _told, machine
from sparse_models.kernels.cpu.blocks._matrix import BlockForm
from sparse_models.kernels.cpu.chain.rules import ADAM, SGD
from sparse_models.kernels.cpu.csr._form import CsrForm
from sparse_models.kernels.cpu.permute import _gathered
from sparse_models.kernels.kept_code import write_whole
from tests.helpers.kernel_checks import forget_kernels
from tests.strategies import seeds

MACHINE = machine()


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[], int]:
    """How many texts of a kernel are written when it is asked for as by another process; nothing is kept to begin with."""
    monkeypatch.setenv("SPARSE_MODELS_CACHE", str(tmp_path))
    monkeypatch.setattr(_compile, "SOURCES", "sources")
    monkeypatch.setattr(_compile, "sources", lambda: "sources")
    texts: list[str] = []
    compiled = _compile.compiled

    def noted(text: str, name: str, phases: int) -> int:
        texts.append(text)
        return compiled(text, name, phases)

    monkeypatch.setattr(_emit, "compiled", noted)

    def count() -> int:
        forget_kernels()
        before = len(texts)
        assert _gathered("float32")
        return len(texts) - before

    return count


def test_a_kernel_is_written_once(written: Callable[[], int]) -> None:
    assert [written() for _ in range(3)] == [1, 0, 0]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("sources", "others"),
        ("machine", MACHINE._replace(features=f"{MACHINE.features},+sse2")),
        ("llvmlite", SimpleNamespace(__version__="another")),
        ("barrier_address", 0),
    ],
)
def test_what_a_kernel_is_made_from_has_it_written_anew(
    written: Callable[[], int], monkeypatch: pytest.MonkeyPatch, name: str, value: Any
) -> None:
    assert written() == 1
    monkeypatch.setattr(_compile, name, value if name == "llvmlite" else lambda: value)
    if name == "sources":
        monkeypatch.setattr(_compile, "SOURCES", value)
    assert [written(), written()] == [1, 0]


def test_what_was_loaded_before_its_sources_changed_is_not_kept_as_theirs(
    written: Callable[[], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_compile, "sources", lambda: "edited meanwhile")
    assert [written(), written()] == [1, 1]


def test_sources_that_cannot_be_read_have_all_written_anew(written: Callable[[], int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_compile, "SOURCES", None)
    monkeypatch.setattr(_compile, "sources", lambda: None)
    assert [written(), written()] == [1, 1]


def test_code_that_is_lost_or_damaged_is_written_anew(written: Callable[[], int], tmp_path: Path) -> None:
    written()
    for kind in ("o", "kernel"):
        [file] = tmp_path.glob(f"*.{kind}")
        file.unlink()
        assert [written(), written()] == [1, 0]
        file.write_bytes(file.read_bytes()[:-1])
        assert [written(), written()] == [1, 0]


def test_code_that_has_not_been_read_for_long_is_dropped_and_nothing_else(
    written: Callable[[], int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written()
    used = sorted(tmp_path.iterdir())
    others = [tmp_path / f"{'0' * 64}.kernel", tmp_path / "choices-of-a-machine.json"]
    for file in [*used, *others]:
        file.write_bytes(file.read_bytes() if file in used else b"old")
        os.utime(file, (0.0, 0.0))
    assert written() == 0
    kept_code._drop_unused.cache_clear()
    write_whole(tmp_path / "new", b"code")
    assert sorted(tmp_path.iterdir()) == sorted([*used, others[1], tmp_path / "new"])


def test_what_tells_of_a_kernel_is_the_kernel_its_arguments_and_nothing_that_differs_between_processes() -> None:
    texts = [
        _told(value)
        for value in (1, 1.0, True, "1", None, (1,), ((1,),), CsrForm(4, 1), BlockForm(4, 1, True, False), ADAM, SGD, written)
    ]
    assert len(set(texts)) == len(texts)
    assert texts[-1] is None  # of no sources that are looked at
    others: list[Any] = [lambda: 1, partial(max, 1), object(), torch.float32, [1], (1, object()), ADAM.knows]
    assert [_told(value) for value in others] == [None] * len(others)
    assert not any(" at 0x" in str(text) for text in texts)


@given(seeds, st.integers(0, 2), st.sampled_from(["edited", "added", "removed", "renamed", "moved"]))
def test_any_change_of_a_source_is_seen(tmp_path_factory: pytest.TempPathFactory, seed: int, which: int, change: str) -> None:
    package = tmp_path_factory.mktemp("package")
    files = [package / "kernels" / "kept_code.py", package / "kernels" / "one.py", package / "two.py"]
    files[0].parent.mkdir()
    for number, file in enumerate(files):
        file.write_text(f"x = {seed + number}\n")
    (package / "__init__.py").touch()
    before, file = kept_code.sources(package), files[which]
    assert before == kept_code.sources(package) is not None
    if change == "edited":
        file.write_text(file.read_text().replace("=", "-"))
    elif change == "added":
        (package / "three.py").write_text("")
    elif change == "renamed":
        file.rename(file.with_name("another.py"))
    elif change == "moved":  # from the end of one file to the next
        file.write_text("")
        (other := files[which - 1]).write_text(other.read_text() + f"x = {seed + which}\n")
    else:
        file.unlink()
    assert kept_code.sources(package) != before


def test_the_sources_of_this_very_package_are_looked_at() -> None:
    found = kept_code.sources()
    assert found is not None
    assert found == kept_code.sources()


def test_where_there_are_no_sources_nothing_is_told_of_them(tmp_path: Path) -> None:
    assert kept_code.sources(tmp_path / "library.zip" / "sparse_models") is None
