import pytest

from bench import bench_beside
from bench.bench_beside import TURNS
from bench.cases import Case
from bench.engine.pairing import Plan
from bench.works.reference import Reference, dense_reference
from bench.works.replays import Works, listed


def test_the_same_calls_are_made_in_turns_and_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    monkeypatch.setattr("bench.works.once_per_run.KNOWN", {})
    monkeypatch.setattr(bench_beside, "operation", lambda *_: lambda: calls.append("own"))
    reference = dense_reference

    def dense(case: Case) -> Reference:
        return reference(case)._replace(works=[lambda: calls.append("dense")])

    monkeypatch.setattr(bench_beside, "dense_reference", dense)
    made: list[list[str]] = []

    class Race:
        once = False

        def __call__(self, candidate: Works, reference: Works, device: str, plan: Plan | None = None) -> None:
            for works in (candidate, reference):
                calls.clear()
                [work] = listed(works)
                work()
                made.append(list(calls))

    case = Case("beside", "sparse", "tiled", "static", "8x8b4", 0.5, "cpu", "float32", 1)
    facts = bench_beside.bench_beside(case, Race())
    assert made == [["own", "dense"] * TURNS, ["own"] * TURNS + ["dense"] * TURNS]
    assert facts["flops_executed"] == TURNS * 2 * 4 * (32 + 64)
