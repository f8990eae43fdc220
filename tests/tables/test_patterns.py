"""How patterns are told."""

from typing import Any

import pytest

from bench.findings.answer import answer_of
from bench.tables.answer import lines
from bench.tables.text import Screen
from tests.helpers.rows import WIDE, over_seeds, row

pytestmark = pytest.mark.usefixtures("blocks")


def trained() -> list[dict[str, Any]]:
    return [
        *over_seeds([0.9] * 3, [1.0] * 3, model="dense", layer="dense", sparsity=0.0, bytes_stored=1200),
        *over_seeds([0.9, 0.899, 0.901], [2.0, 2.1, 2.2], test_samples=360),
        *over_seeds([0.85, 0.851, 0.852], [3.0, 3.1, 3.3], layer="blocks"),
        *over_seeds([0.88, 0.91, 0.895], [2.0, 1.9, 2.0], model="narrow", layer="dense"),
    ]


def test_what_is_lost_stands_beside_what_is_saved() -> None:
    text = list(lines(answer_of(trained()), WIDE))
    [title] = [
        line for line in text if line.startswith("Patterns trained on digits, 8x8 (cpu, float32, 2 threads; 3 seeds, 360 test")
    ]
    told = [line.split() for line in text[text.index(title) :]]
    [free] = [line for line in told if line[:4] == ["0.8", "unstructured", "static", "csr"]]
    assert free[4:] == ["2.10", "[1.86", "2.36]", "0.0", "[-0.2", "0.2]", "=", "0.25"]
    [blocked] = [line for line in told if line[:5] == ["0.8", "4x4", "blocks", "static", "blocks"]]
    assert blocked[-2:] == ["-", "0.25"]
    [narrow] = [line for line in told if line[:3] == ["0.8", "narrow", "dense"]]
    assert narrow[-3] == "?"
    assert int(narrow[-2]) > 3


def test_it_takes_few_lines() -> None:
    text = list(lines(answer_of(trained()), Screen()))
    start = next(number for number, line in enumerate(text) if line.startswith("Patterns trained"))
    assert len(text[start:]) <= 14
    assert not any("Patterns" in line for line in lines(answer_of(trained()[:6])))


def test_at_equal_sparsity_each_patterns_fastest_layer_is_named_with_its_verdict() -> None:
    eight = {"process_numbers": list(range(8)), "process_speedups": [2.0] * 8}
    faster = {
        "process_numbers": list(range(8)),
        "process_speedups": [3.0] * 8,
        "speedup": 3.0,
        "speedup_high": 3.1,
        "speedup_low": 2.9,
    }
    rows = [row(**eight, layer="csr"), row(**faster, layer="blocks", verdict="faster")]
    text = list(lines(answer_of(rows), WIDE))
    [title] = [number for number, line in enumerate(text) if line.startswith("Patterns at equal sparsity, 8x8 batch 4 (cpu, ")]
    told = [line.split() for line in text[title : title + 6]]
    assert ["operation", "pattern", "0.5", "0.5", "over", "unstructured"] in told
    assert ["forward", "4x4", "blocks", "blocks", "3.00", "[2.90", "3.10]", "+", "1.50", "[1.50", "1.50]"] in told
    assert ["forward", "unstructured", "csr", "1.00", "[0.90", "1.10]", "?"] in told
