"""Kernels are compiled without a pass of LLVM's that others who compile by it in this process have."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from llvmlite import binding

from sparse_models.kernels.cpu import _compile

LOOP = """
define i64 @{name}(i64 %count, ptr %at) {{
start:
  br label %loop
loop:
  %number = phi i64 [ 0, %start ], [ %next, %loop ]
  %place = getelementptr i64, ptr %at, i64 %number
  store i64 %number, ptr %place
  %next = add i64 %number, 1
  %more = icmp slt i64 %next, %count
  br i1 %more, label %loop, label %end
end:
  ret i64 %next
}}
"""


@pytest.fixture(autouse=True)
def _told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    monkeypatch.setenv("SPARSE_MODELS_CACHE", str(tmp_path))  # or what is kept would not be compiled
    binding.set_time_passes(True)
    yield
    binding.set_time_passes(False)


@pytest.mark.skipif(not _compile.LEFT_OUT, reason="left out where a processor adds and scales in an address")
def test_addresses_in_loops_are_left_as_they_are_written_in_our_kernels_alone() -> None:
    _compile.compiled(LOOP.format(name="own"), "own", 1)
    own = binding.report_and_reset_timings()
    assert "Instruction Selection" in own
    assert "Loop Strength Reduction" not in own
    others = binding.create_mcjit_compiler(binding.parse_assembly(LOOP.format(name="others")), _compile._target())
    others.finalize_object()
    assert "Loop Strength Reduction" in binding.report_and_reset_timings()
