"""The examples run, here with few steps, and find what they should."""

import runpy
from collections.abc import Callable, Mapping
from typing import cast

import pytest

from tests.helpers.in_process import ROOT

EXAMPLES = sorted((ROOT / "examples").glob("*.py"))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_runs(path: object) -> None:
    main = cast("Callable[[int], Mapping[str, float]]", runpy.run_path(str(path))["main"])
    found = main(20)
    assert 0.6 <= found.get("sparsity", 0.8) <= 0.95
    assert found.get("largest difference to the densified", 0.0) < 1e-3
    accuracies = [value for name, value in found.items() if name not in ("sparsity", "largest difference to the densified")]
    assert all(0 <= value <= 1 for value in accuracies)
    assert max(accuracies) > 0.2  # more than chance
