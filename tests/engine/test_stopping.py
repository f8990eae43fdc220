"""Cases are measured process by process until they are done, as the engine does it, and verdicts hold what is promised."""

import math
import random
import statistics
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from bench import cases, grids
from bench.cases import Case
from bench.engine import processes
from bench.engine.jobs import PRECISION, PROCESSES, Effort, Job, decidable
from bench.engine.processes import Means
from bench.runs.outcome import Outcome, Race
from bench.runs.reading import parse
from bench.selection import Selection
from bench.statistics.proportions import rate
from bench.statistics.verdicts import MARGIN, WRONG_VERDICTS, process_interval, verdicts
from sparse_models.layers import LAYERS
from tests.engine.test_processes import fine, job

EFFORT = Effort(PROCESSES, PRECISION, 1.0)
JOB = job(fine)
ALARM = ("faster", "slower")
Log = Callable[[random.Random], float]  # of what one process says of a case whose median is 1


class Said(NamedTuple):
    """What processes said, for a case that need not be told by pairs."""

    speedups: list[float]
    failure: str | None = None

    @property
    def races(self) -> list[float]:
        return self.speedups


def measured(draw: random.Random, log: Log, ratio: float = 1.0, effort: Effort = EFFORT) -> list[float]:
    """Return what the processes say of a case until it is done."""
    said: Outcome | Said = Said([])
    while not JOB.is_done(said, effort):  # type: ignore[arg-type]
        said.speedups.append(ratio * math.exp(log(draw)))
    return said.speedups


def normal(spread: float) -> Log:
    return lambda draw: draw.gauss(0, spread)


def modes(factor: float, share: float) -> Log:
    """Two modes a factor apart: of even ones the median lies between, of others in the upper part of the more frequent one."""
    apart = math.log(factor)
    low = -apart / 2 if share == 0.5 else -0.02 * statistics.NormalDist().inv_cdf(0.5 / (1 - share))
    return lambda draw: draw.gauss(low + apart * (draw.random() < share), 0.02)


def students(draw: random.Random) -> float:
    return 0.05 * draw.gauss(0, 1) / math.sqrt(draw.expovariate(1))  # t with 2 degrees of freedom


def disturbed(draw: random.Random) -> float:
    return draw.gauss(0, 0.03) + (draw.random() < 0.1) * draw.choice((-1, 1)) * math.log(3)


NULLS: dict[str, Log] = {
    "normal, 3 %": normal(0.03),
    "normal, 10 %": normal(0.1),
    "normal, 30 %": normal(0.3),
    "modes 1.3 apart, 50:50": modes(1.3, 0.5),
    "modes 1.6 apart, 50:50": modes(1.6, 0.5),
    "modes 1.3 apart, 20:80": modes(1.3, 0.2),
    "modes 1.6 apart, 20:80": modes(1.6, 0.2),
    "Student's t, 2 degrees": students,
    "one in ten off by 3": disturbed,
}
CASES = 1000


@cache
def samples(shape: str, ratio: float) -> list[list[float]]:
    """What is measured of as many cases of a shape whose median is `ratio`."""
    draw = random.Random(shape)
    return [measured(draw, NULLS[shape], ratio) for _ in range(CASES)]


def no_more_than(wrong: int, of: int) -> bool:
    """Tell whether so many may be wrong by chance, where a hundredth is wrong: with the bound that 1 in 1,000 runs passes."""
    return rate(wrong, of, 0.998).low <= WRONG_VERDICTS


@pytest.mark.parametrize("shape", NULLS)
def test_of_cases_that_do_not_differ_no_more_than_a_hundredth_is_told_to(shape: str) -> None:
    told = [verdicts({"case": sample})["case"] for sample in samples(shape, 1.0)]
    assert no_more_than(sum(verdict in ALARM for verdict in told), CASES)


def test_of_what_runs_find_no_more_than_a_hundredth_is_wrong() -> None:
    draw = random.Random(0)
    shapes = list(NULLS.values())
    wrong = found = 0
    for _ in range(40):  # runs of 100 cases, a fifth of which differ
        cases = {f"null {number}": measured(draw, shapes[number % len(shapes)]) for number in range(80)}
        for number in range(20):
            cases[f"{number}"] = measured(draw, shapes[number % len(shapes)], draw.choice((6, 2, 1.3, 1 / 1.3, 1 / 2)))
        alarms = [name for name, verdict in verdicts(cases).items() if verdict in ALARM]
        wrong += sum(name.startswith("null") for name in alarms)
        found += len(alarms)
    assert found > 500
    assert no_more_than(wrong, found)


def test_a_run_of_cases_none_of_which_differs_finds_nothing() -> None:
    draw = random.Random(0)
    runs = [{str(number): measured(draw, normal(0.1)) for number in range(100)} for _ in range(30)]
    assert no_more_than(sum(any(verdict in ALARM for verdict in verdicts(run).values()) for run in runs), len(runs))


@pytest.mark.parametrize("shape", NULLS)
def test_what_is_called_the_same_is_seldom_a_tenth_apart(shape: str) -> None:
    told = [verdicts({"case": sample})["case"] for sample in samples(shape, 1 + 2 * MARGIN)]
    assert rate(told.count("same"), CASES, 0.998).low <= 0.05


@pytest.mark.parametrize("shape", NULLS)
def test_stopping_when_a_case_is_clear_leaves_its_interval_honest(shape: str) -> None:
    least = 0.9 if shape.endswith("50:50") else 0.95  # five processes that met one mode of two do not know of the other
    for ratio in (1.0, 1.3, 2.0, 6.0):
        held = 0
        for sample in samples(shape, ratio):
            interval = process_interval(sample)
            held += interval.low <= ratio <= interval.high
        assert rate(held, CASES, 0.998).high >= least, ratio


@pytest.mark.parametrize(
    ("ratio", "spread", "most"), [(6, 0.1, 6), (2, 0.03, 7), (2, 0.1, 8), (1.3, 0.03, 9.5), (1.1, 0.03, 10.5)]
)
def test_few_processes_go_into_what_is_clear(ratio: float, spread: float, most: float) -> None:
    draw = random.Random(1)
    for true in (ratio, 1 / ratio):
        samples = [measured(draw, normal(spread), true) for _ in range(200)]
        assert sum(map(len, samples)) / len(samples) <= most
        told = [verdicts({"case": sample})["case"] for sample in samples]
        assert told.count("faster" if true > 1 else "slower") >= 0.99 * len(told)


def test_time_that_does_not_suffice_for_all_goes_to_cases_that_can_be_decided() -> None:
    jobs = [job(fine, number) for number in range(5)]
    outcomes = {one.name: Outcome() for one in jobs}
    for one, count, speedup in zip(jobs, (8, 1, 1, 1, 3), (1.2, 1.2, 1.2, 5.0, 5.0), strict=True):
        for process in range(count):
            outcomes[one.name].add(process, Race([1.0], [speedup + process / 100]), {})
    seconds = dict(zip(outcomes, (9.0, 2.0, 1.0, 3.0, 0.1), strict=True))
    effort = Effort(12, 0.05, 60.0)

    def chosen(left: float) -> list[str]:
        return [one.name.partition("-")[0] for one in decidable(jobs, outcomes, seconds, left, effort)]

    assert chosen(9.0) == ["fine0"]  # one process more, the ninth
    assert chosen(15.0) == ["fine0", "fine3"]  # two more decide so large an effect
    assert chosen(23.0) == ["fine0", "fine3", "fine2"]  # and eight of one second
    assert chosen(38.9) == ["fine0", "fine3", "fine2"]
    assert chosen(39.0) == ["fine0", "fine3", "fine2", "fine1"]  # what has its verdict waits
    assert chosen(39.1) == ["fine0", "fine3", "fine2", "fine1", "fine4"]
    assert sorted(chosen(45.2)) == ["fine0", "fine1", "fine2", "fine3", "fine4"]  # the time is enough for all
    assert chosen(0.0) == ["fine0"]  # what is due has its turn, however late


class Card:
    """Whose processes say what was said of cases on a card, a few percent off, in seconds of a clock that is read."""

    # Assumed, as no run has told them yet: until a process is ready, and has loaded compiled steps; a visit; a training.
    READY, LOADED, VISIT, TRAINING = 1.5, 2.0, 0.1, 0.5

    def __init__(self, levels: dict[Case, float], draw: random.Random) -> None:
        self.levels, self.draw, self.now = levels, draw, 0.0

    def monotonic(self) -> float:
        return self.now

    def run(self, asked: dict[str, Any]) -> Iterator[dict[str, Any]]:
        cases = [case for _, _, case in asked["cases"]]
        self.now += self.READY + self.LOADED * any(case.op == "training_step" for case in cases)
        yield {}
        for number, case in enumerate(cases):
            yield {"begin": number}
            seconds = self.TRAINING if case.op == "train" else self.VISIT
            self.now += seconds
            level = self.levels[case] * math.exp(self.draw.gauss(0, 0.015))
            spent = {"whole": seconds, "raced": seconds / 2, "timed": 0.016}
            yield {"case": number, "known": {}, "race": [[1.0] * 6, [level] * 6], "facts": {}, "spent": spent}


def test_what_is_left_of_a_default_run_on_a_card_decides_nine_cases_in_ten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LAYERS["two_four"], "devices", ("cpu", "cuda"))
    selection = Selection(
        grids.DEFAULT_OPS, None, None, None, None, ("cuda",), None, (16,), None, None, None, seeds=grids.SEEDS
    )
    jobs = [Job(f"{op} {case.id}", "", "", case) for op in grids.DEFAULT_OPS for case in cases.cases(op, selection)]
    [path] = Path(".benchmarks").glob("emeraldrapids-16cores-NVIDIAH200*/0001*.json")
    saved = [row for row in parse(path.name, path.read_bytes()).rows.values() if row.op != "train"]
    draw = random.Random(0)
    levels = {job.case: draw.choice(saved).speedup if job.case.model != "dense" else 1.0 for job in jobs}
    card = Card(levels, draw)
    monkeypatch.setattr(processes, "time", card)
    # Of 170 s, what the search for dense's variants, gates and compiling leave, if they take a third together.
    outcomes = processes.measure_all(jobs, Effort(PROCESSES, PRECISION, 110.0), Means(card)).outcomes  # type: ignore[arg-type]
    told = verdicts({job.name: outcomes[job.name].speedups for job in jobs if job.case.op != "train"})
    decided = sum(verdict != "undecided" for verdict in told.values())
    assert decided >= 0.9 * len(told), f"{decided} of {len(told)}"
    assert all(outcomes[job.name].races for job in jobs)
