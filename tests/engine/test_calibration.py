"""What is planted: so many more calls of the same work."""

import pytest

from bench.engine import calibration
from bench.engine.calibration import PLANTED, jobs_of


def test_every_work_is_planted_every_slowdown_and_identical_code_twice() -> None:
    works: dict[str, list[int]] = {}
    for job in jobs_of("cpu", 1):
        works.setdefault(job.name.rpartition(" ")[0], []).append(int(job.case.data))
    assert len(works) > 10
    assert all(planted == list(PLANTED) for planted in works.values())


@pytest.mark.parametrize(("planted", "calls"), [(0, (1, 1)), (5, (21, 20)), (10, (11, 10)), (20, (6, 5))])
def test_what_is_planted_is_more_calls_of_the_same_work(
    planted: int, calls: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = [0, 0]
    arms = iter(range(2))

    def operation(*_: object) -> object:
        arm = next(arms)
        return lambda: made.__setitem__(arm, made[arm] + 1)

    monkeypatch.setattr(calibration, "operation", operation)
    case = next(job.case for job in jobs_of("cpu", 1) if job.case.data == str(planted))
    calibration.clone_race(case, lambda candidate, reference, *_: (candidate(), reference()))  # type: ignore[arg-type]
    assert tuple(made) == calls
