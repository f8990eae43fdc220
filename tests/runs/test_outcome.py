"""What a process says of a case follows from those of its pairs that nothing disturbed."""

from bench.runs.outcome import Outcome, Race
from tests.helpers.fake_engine import FACTS


def disturbed(*seconds: float) -> Race:
    return Race(list(seconds), list(seconds), waited=[0.5] * len(seconds), dense_waited=[0.0] * len(seconds))


def clean(*seconds: float) -> Race:
    return Race(list(seconds), [2 * value for value in seconds], waited=[0.0] * len(seconds), dense_waited=[0.0] * len(seconds))


def test_a_slower_candidate_has_a_speedup_below_1() -> None:
    assert Race([4.0] * 6, [2.0] * 6).speedup == 0.5


def test_pairs_that_another_process_disturbed_never_count() -> None:
    waited = [0.0, 0.5, 0.001, 0.0, 0.0, 0.015, 0.0, 0.0]
    dense_waited = [0.0, 0.0, 0.02, 0.9, 0.0, 0.0, 0.01, 0.0]
    pairs = Race([1.0] * 8, [2.0, 9.0, 2.0, 9.0, 4.0, 2.0, 2.0, 4.0], waited=waited, dense_waited=dense_waited)
    assert pairs.undisturbed == [0, 2, 4, 5, 6, 7]
    assert pairs.speedups == [2, 2, 4, 2, 2, 4]
    assert pairs.speedup == pairs.median("dense_seconds") == 2
    few = pairs._replace(waited=[0.5] * 4 + [0.0, *[0.5] * 3])
    assert few.speedups == [4]
    assert pairs._replace(waited=[0.5] * 8).speedups == []
    assert pairs._replace(waited=[0.5] * 8).as_if_alone.undisturbed == [0, 1, 2, 3, 4, 5, 6, 7]


def test_visits_of_one_process_join_in_order() -> None:
    assert Race([1.0], [2.0], handovers=[3e-8]).joined(Race([1.0], [2.0], handovers=[2e-7])).handovers == [3e-8, 2e-7]
    joined = Race([1.0], [2.0], 3.0, [0.0]).joined(Race([4.0, 5.0], [6.0, 7.0], 8.0, [0.5, 0.25]))
    assert joined == ([1, 4, 5], [2, 6, 7], 11, [0, 0.5, 0.25], [], [], [], [], [], [])


def test_an_outcome_of_disturbed_pairs_alone_has_no_speed_up() -> None:
    outcome = Outcome()
    outcome.add(0, disturbed(1.0, 2.0), FACTS)
    assert outcome.speedups == []
    outcome.add(0, clean(1.0), FACTS)
    assert outcome.speedups == [2.0]
