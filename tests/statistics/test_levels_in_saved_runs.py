"""What the levels of the sequential test assume is held against runs and calibrations that are committed."""

import json
import math
import random
import statistics
from collections.abc import Iterator, Sequence
from functools import cache

import pytest

from bench.runs.reading import parse
from bench.statistics.sequential import FEWEST, LEVELS
from bench.statistics.verdicts import verdicts
from tests.helpers.in_process import ROOT

ALARM = ("faster", "slower")
# By name: whoever runs the suite here adds more, on whatever machine.
RUNS = (
    "AMDEPYC-*26fe54/000[34]_*",
    "AMDEPYC-*7b5ff3/0005_*",
    "Linux-*/0002_*",
    "znver3-*/000[1-5]_*",
    "znver5-*/0001_*",
    "tiled/*/*",
)


@cache
def identical(name: str) -> list[list[float]]:
    """Return what the processes of a calibration said of works against their own clones."""
    content = json.loads((ROOT / "docs/calibration/zen4_2_cores" / name).read_text())
    return [one["speedups"] for one in content["comparisons"] if one["planted"] == 0]


@cache
def cases() -> list[list[float]]:
    """Return what the processes said of every case of the saved runs, of those with eight and more."""
    runs = [parse(path.name, path.read_bytes()) for glob in RUNS for path in (ROOT / ".benchmarks").glob(glob)]
    measured = [case for run in runs for case in run.cases.values() if case.row.op != "train" and len(case.speedups) >= 8]
    return [list(case.speedups.values()) for case in measured]


def beyond(samples: Sequence[Sequence[float]], factor: float) -> float:
    """Return the share of processes that say more than a factor, or less than 1 over it, whichever is more."""
    values = [value for sample in samples for value in sample]
    return max(sum(value > factor for value in values), sum(value < 1 / factor for value in values)) / len(values)


def centred(sample: Sequence[float]) -> list[float]:
    """Return a sample as it would be, were its case not different."""
    middle = statistics.median(sample)
    return [value / middle for value in sample]


@pytest.mark.parametrize("level", LEVELS[1:])
def test_a_process_is_beyond_a_level_ten_times_as_seldom_as_is_assumed(level: tuple[float, float]) -> None:
    factor, chance, *_ = level
    assert beyond(identical("idle.json"), factor) == 0
    assert beyond(identical("one_core_loaded.json"), factor) <= chance / 10
    assert beyond([centred(sample) for sample in cases()], factor) <= chance / 10


def early(sample: Sequence[float]) -> Iterator[str]:
    """Yield what a case is called after each process, before there were the eight that a verdict took."""
    for count in range(FEWEST, 8):
        yield verdicts({"case": sample[:count]})["case"]


@pytest.mark.parametrize("is_shuffled", [False, True])
def test_what_is_decided_early_all_processes_say_too(is_shuffled: bool) -> None:
    draw = random.Random(0)
    decided = 0
    for sample in cases():
        order = draw.sample(sample, len(sample)) if is_shuffled else sample
        told = next((verdict for verdict in early(order) if verdict in ALARM), None)
        if told is not None:
            decided += 1
            assert (told == "faster") == (math.log(statistics.median(sample)) > 0)
    assert decided > len(cases()) / 3
