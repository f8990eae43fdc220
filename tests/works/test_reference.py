"""The reference is dense in the variant that a process was told is the fastest."""

from typing import Any

import pytest

from bench.cases import Case
from bench.works import reference
from bench.works.operations import operation
from bench.works.problems import LAYOUTS
from bench.works.reference import dense_case, dense_reference, variant_key

BATCH_MAJOR, FEATURE_MAJOR = LAYOUTS
STEP = Case("step", "sparse", "csr", "static", "6x8b4", 0.8, "cpu", "float32", 1)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("op", ["forward", "step", "beside", "update"])
def test_the_reference_is_the_way_that_is_known(monkeypatch: pytest.MonkeyPatch, op: str, layout: str) -> None:
    case = STEP._replace(op=op)
    asked = []

    def listened(op: str, *rest: Any) -> Any:
        asked.append((op, rest[-1]))
        return operation(op, *rest)

    monkeypatch.setattr(reference, "operation", listened)
    monkeypatch.setattr(reference, "KNOWN", {variant_key(dense_case(case)): [layout, 1.5]})  # as JSON returns it
    assert dense_reference(case).facts == {"dense_layout": layout, "dense_layout_gain": 1.5}
    assert asked == [(dense_case(case).op, layout)]


def test_where_none_is_known_the_reference_is_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reference, "KNOWN", {})
    assert dense_reference(STEP).facts == {"dense_layout": BATCH_MAJOR, "dense_layout_gain": 1.0}
