"""Kernels are compiled without a pass of LLVM's that others who compile by it in this process have."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from llvmlite import binding

from sparse_models.kernels.cpu import _compile
from sparse_models.kernels.kept_code import write_whole

# Two places a turn, each a multiple of its number: the pass has addresses counted up instead.
LOOP = """
define i64 @own(i64 %count, ptr %at) {
start:
  br label %loop
loop:
  %number = phi i64 [ 0, %start ], [ %next, %loop ]
  %near = mul i64 %number, 3
  %far = mul i64 %number, 5
  %place = getelementptr i64, ptr %at, i64 %near
  %other = getelementptr i64, ptr %at, i64 %far
  %value = load i64, ptr %other
  store i64 %value, ptr %place
  %next = add i64 %number, 1
  %more = icmp slt i64 %next, %count
  br i1 %more, label %loop, label %end
end:
  ret i64 %next
}
"""
pytestmark = pytest.mark.skipif(not _compile.LEFT_OUT, reason="left out where a processor adds and scales in an address")


def test_addresses_in_loops_are_left_as_they_are_written_for_as_long() -> None:
    def code() -> str:
        return str(_compile._target().emit_assembly(binding.parse_assembly(LOOP)))

    others = code()
    for _ in range(3):
        with _compile._left_out():
            own = code()
        assert own != others == code()


def test_that_is_so_while_a_kernel_is_compiled(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SPARSE_MODELS_CACHE", str(tmp_path))  # or what is kept would not be compiled
    left_out, inside, written = _compile._left_out, list[bool](), list[bool]()

    @contextmanager
    def noted() -> Iterator[None]:
        with left_out():
            inside.append(True)
            yield
            inside.pop()

    def write_and_note(path: Path, content: bytes) -> None:
        written.append(bool(inside))  # LLVM hands over what it has compiled
        write_whole(path, content)

    monkeypatch.setattr(_compile, "_left_out", noted)
    monkeypatch.setattr(_compile, "write_whole", write_and_note)
    _compile.compiled(LOOP, "own", 1)
    assert written == [True]
