"""How the works of a case are called in each regime; captures are simulated."""

import contextlib
import time
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
import torch

from bench.cases import Case
from bench.engine import timed
from bench.engine.pairing import WARM_UP_SECONDS, Patience, Plan
from bench.engine.rounds import Timer
from bench.engine.timed import Timed, as_regime, precision_of
from bench.machine.cores import Cores
from bench.runs.outcome import Race
from bench.works.replays import AsLaunched, Work
from sparse_models.errors import InputError

CASE = Case("forward", "sparse", "csr", "static", "8x8b1", 0.5, "cpu", "float32", 1, regime="graph-cold")


class Replayed:
    """What a capture of some works gives."""

    def __init__(self, works: Sequence[Work]) -> None:
        self.works, self.calls = list(works), 40

    def __call__(self) -> None:
        for work in self.works:
            work()


@pytest.fixture
def raced(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, Any, Plan]]:
    """The works that come to be raced, and by which plan."""
    kept: list[tuple[Any, Any, Plan]] = []

    def race(own: Work, dense: Work, _: str, plan: Plan, timer: Timer, *rest: object, **more: object) -> Race:
        kept.append((own, dense, plan))
        return Race([1e-5], [2e-5])

    monkeypatch.setattr(timed, "race", race)
    monkeypatch.setattr(timed, "captured", Replayed)
    monkeypatch.setattr(timed, "KNOWN", {})
    timed.captured_once.cache_clear()
    return kept


def work() -> None:
    """Do nothing."""


def test_a_case_is_replayed_with_all_copies_of_its_weights(raced: list[tuple[Any, Any, Plan]]) -> None:
    race = Timed(CASE, work, Patience())  # type: ignore[arg-type]
    race([work] * 3, [work] * 2, "cpu")
    [(own, dense, plan)] = raced
    assert (len(own.works), len(dense.works)) == (3, 2)
    assert (plan.settle, plan.dense_settle) == (0, 0)
    assert race.facts == {"launched": "as a graph", "dense_launched": "as a graph"}


def test_dense_is_captured_once_for_all_candidates(raced: list[tuple[Any, Any, Plan]]) -> None:
    dense = [work, print]
    for _ in range(2):
        Timed(CASE, work, Patience())([work], dense, "cpu")  # type: ignore[arg-type]
    [(one, first, _), (other, second, _)] = raced
    assert first is second
    assert one is not other


@pytest.mark.parametrize("first", [0, 1])
@pytest.mark.parametrize(
    ("own", "dense", "expected"),
    [(2e-2, 2e-2, ["own", "dense"]), (2e-2, 3e-3, ["own"]), (3e-3, 2e-2, ["dense"]), (3e-3, 3e-3, [])],
)
def test_which_work_is_timed_first_is_drawn_and_it_runs_last_of_those_that_do_not_settle(
    raced: list[tuple[Any, Any, Plan]],
    monkeypatch: pytest.MonkeyPatch,
    own: float,
    dense: float,
    expected: list[str],
    first: int,
) -> None:
    ran: list[str] = []
    case = CASE._replace(device="cpu", regime="warm")
    monkeypatch.setattr(timed, "KNOWN", {f"seconds {case}": [own, dense]})
    monkeypatch.setattr("random.SystemRandom.getrandbits", lambda *_: first)
    race = Timed(case, time.perf_counter, Patience())
    race(lambda: ran.append("own"), lambda: ran.append("dense"), "cpu")
    [(_, _, plan)] = raced
    assert plan.is_reversed == bool(first)
    assert ran == expected[:: -1 if first else 1]


def test_warm_weights_are_one_copy() -> None:
    assert as_regime([work, print], "graph") == [work]
    assert as_regime([work, print], "graph-cold") == [work, print]
    assert as_regime(work, "graph-cold") == [work]


def test_what_cannot_be_captured_is_launched_by_the_host_in_every_process(
    raced: list[tuple[Any, Any, Plan]], monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[object] = []

    def refused(works: Sequence[Work]) -> Replayed:
        tried.append(works)
        if works[0] is work:
            raise InputError("it waits for the host")
        return Replayed(works)

    monkeypatch.setattr(timed, "captured", refused)
    for _ in range(2):
        race = Timed(CASE, work, Patience())  # type: ignore[arg-type]
        race([work], [print], "cpu")
        assert race.facts["launched"] == "by the host"
        assert race.facts["not_captured"] == "it waits for the host"
        assert race.facts["dense_launched"] == "as a graph"
    assert tried.count([work]) == 1  # its reason is passed on, and the second process does not try
    assert [own for own, _, _ in raced] == [work, work]


def test_dense_launched_by_the_host_is_never_captured(raced: list[tuple[Any, Any, Plan]]) -> None:
    race = Timed(CASE, work, Patience())  # type: ignore[arg-type]
    race([work], [AsLaunched(work)], "cpu")
    assert race.facts["dense_launched"] == "by the host"
    assert isinstance(raced[0][1], AsLaunched)


def test_products_are_in_the_precision_of_the_case() -> None:
    before = torch.backends.cuda.matmul.fp32_precision
    with precision_of("tf32"):
        assert torch.backends.cuda.matmul.fp32_precision == "tf32"
        with precision_of("float32"):
            assert torch.backends.cuda.matmul.fp32_precision == "ieee"
    assert torch.backends.cuda.matmul.fp32_precision == before


@pytest.mark.parametrize(("regime", "device"), [("warm", "cpu"), ("busy", "cpu"), ("warm", "cuda")])
@pytest.mark.parametrize("waited", [True, False])
def test_that_cores_are_shared_is_passed_on_and_they_are_claimed_from_the_start(
    monkeypatch: pytest.MonkeyPatch, regime: str, device: str, *, waited: bool
) -> None:
    told: list[str] = []

    class Told(Cores):
        def claim(self) -> None:
            told.append("claim")
            self.are_claimed = True

        def release(self) -> None:
            told.append("release")
            self.are_claimed = False

        def save_up(self, seconds: float) -> None:
            told.append(f"{seconds:g}")

    cores, known = Told(), {timed.SHARED: True}
    monkeypatch.setattr(timed, "TEAMS", cores)
    monkeypatch.setattr(timed, "KNOWN", known)
    monkeypatch.setattr(timed, "race", lambda *_, **__: Race([1e-5], [2e-5]))
    monkeypatch.setattr(timed, "handover_seconds", lambda: 1e-7)
    monkeypatch.setattr(timed, "neighbours", lambda _: contextlib.nullcontext())
    race = Timed(CASE._replace(regime=regime, device=device), work, Patience())  # type: ignore[arg-type]
    is_claimed = (regime, device) == ("warm", "cpu")
    assert told == ["claim"] * is_claimed
    cores.waited = 1.0 if waited else 0.0
    race(work, work, "cpu", Plan(1, 1))
    if is_claimed:  # for what comes before its rounds
        assert told[1] == f"{WARM_UP_SECONDS:g}"
    assert known.get(timed.SAVED_UP, 0.0) == (1.0 if waited and is_claimed else 0.0)
    assert known[timed.SHARED] == (waited or not is_claimed)
    assert race.race.handovers == []  # beside other processes it would be their time on the cores


def test_a_busy_case_is_raced_beside_neighbours_in_long_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[Any] = []

    @contextlib.contextmanager
    def neighbours(count: int) -> Iterator[None]:
        told.append(count)
        yield
        told.append("gone")

    def race(*arguments: Any, is_alone: bool = True, cores: object = None) -> Race:
        told.append((arguments[3], is_alone))
        return Race([1e-5], [2e-5])

    monkeypatch.setattr(timed, "neighbours", neighbours)
    monkeypatch.setattr(timed, "race", race)
    cases = [CASE._replace(regime=regime, threads=4) for regime in ("warm", "busy")]
    monkeypatch.setattr(timed, "KNOWN", {f"seconds {case}": [1e-3, 1e-3] for case in cases})
    for case in cases:
        Timed(case, time.perf_counter, Patience())(work, work, "cpu")
    [(plan, is_alone), half, (longer, beside), gone] = told
    assert (is_alone, half, beside, gone) == (True, 2, False, "gone")
    assert longer.loops == longer.dense_loops == 50 * plan.loops


@pytest.mark.parametrize(("device", "regime", "kept"), [("cpu", "warm", [2e-7]), ("cpu", "busy", []), ("cuda", "warm", [])])
def test_a_visit_says_how_far_apart_its_cores_were_at_the_most(
    device: str, regime: str, kept: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    told = iter([3e-8, 2e-7])
    monkeypatch.setattr(timed, "handover_seconds", lambda: next(told))
    monkeypatch.setattr(timed, "race", lambda *_, **__: Race([1e-5], [2e-5]))
    monkeypatch.setattr(timed, "neighbours", lambda _: contextlib.nullcontext())
    race = Timed(CASE._replace(regime=regime, device=device), work, Patience())  # type: ignore[arg-type]
    race(work, work, "cpu", Plan(1, 1))
    assert race.race.handovers == kept


def test_nothing_is_said_of_cores_where_a_thread_had_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timed, "handover_seconds", lambda: 0.0)
    monkeypatch.setattr(timed, "race", lambda *_, **__: Race([1e-5], [2e-5]))
    race = Timed(CASE._replace(regime="warm"), work, Patience())  # type: ignore[arg-type]
    race(work, work, "cpu", Plan(1, 1))
    assert race.race.handovers == []
