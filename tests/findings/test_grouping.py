"""Rows that belong together stand together, in the order in which they were measured."""

import pytest

from bench.findings.grouping import Place, by_fields, sparsities_of
from tests.helpers.rows import row


def test_groups_come_in_the_order_of_their_first_rows() -> None:
    rows = [row(layer=layer, seed=seed) for seed, layer in enumerate(("tiled", "csr", "tiled"))]
    found = [(key, [one["seed"] for one in group]) for key, group in by_fields(rows, "layer")]
    assert found == [(("tiled",), [0, 2]), (("csr",), [1])]


def test_sparsities_rise_and_stand_once() -> None:
    assert sparsities_of([row(sparsity=sparsity) for sparsity in (0.9, 0.5, 0.9, 0.8)]) == [0.5, 0.8, 0.9]


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"threads": 1}, "cpu, float32, 1 thread"),
        ({"threads": 2}, "cpu, float32, 2 threads"),
        ({"device": "cuda", "threads": 1, "regime": "graph"}, "cuda, float32, 1 thread, graph replay"),
        ({"threads": 1, "regime": "cold", "skew": 0.25}, "cpu, float32, 1 thread, cold caches, rows skewed by 0.25"),
    ],
)
def test_the_conditions_are_words(fields: dict[str, object], words: str) -> None:
    assert Place.of(row(**fields)).conditions == words
