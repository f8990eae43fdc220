"""Where a kernel stands under the roofline."""

import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.findings.figures.kernels import roofs
from tests.helpers.rows import row
from tests.helpers.saved import facts


@given(st.lists(st.integers(1, 999), min_size=2, max_size=4), st.integers(1, 999), st.sampled_from(["float32", "bfloat16"]))
def test_intensity_counts_each_activation_once_in_and_once_out(sizes: list[int], batch: int, dtype: str) -> None:
    [roof] = roofs({"case": row(shape="x".join(map(str, sizes)), batch=batch, dtype=dtype)}, facts())
    width = {"float32": 4, "bfloat16": 2}[dtype]
    moved = 300 + batch * width * sum(one + other for one, other in itertools.pairwise(sizes))
    [kernel] = roof.kernels
    assert kernel.intensity == 4e9 / moved
    assert kernel.gflops == 4e3


def test_bounds_are_those_of_the_machine_and_of_the_number_type() -> None:
    rows = {dtype: row(dtype=dtype) for dtype in ("float32", "bfloat16")} | {"step": row(op="step")}
    found = {roof.dtype: (roof.gflops, roof.gb_per_s, len(roof.kernels)) for roof in roofs(rows, facts())}
    assert found == {"float32": (128.0, 16.0, 1), "bfloat16": (None, 16.0, 1)}


@pytest.mark.parametrize(
    "told", [{}, {"bounds": None}, {"bounds": {"cpu": 1}}, {"bounds": {"cpu": {"dense_gflops": True, "memory_gb_per_s": -1}}},
             {"bounds": {"cpu": {"dense_gflops": "128", "memory_gb_per_s": float("inf")}}}],
)  # fmt: skip
def test_what_is_no_bound_is_not_known(told: dict[str, Any]) -> None:
    [roof] = roofs({"case": row()}, told)
    assert (roof.gflops, roof.gb_per_s) == (None, None)
