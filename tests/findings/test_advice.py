"""What is advised of patterns: nothing that seeds cannot tell, and what is lost beside what is saved."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.findings.advice import Advice, Choice, advice
from bench.statistics.losses import MARGIN_LOST
from tests.helpers.rows import over_seeds

pytestmark = pytest.mark.usefixtures("blocks")

FAST, SLOW = [3.0, 3.1, 3.2], [2.0, 2.1, 2.0]
GOOD, BAD, UNSURE = [0.9, 0.899, 0.901], [0.85, 0.851, 0.852], [0.88, 0.91, 0.89]


def advised(*arms: list[dict[str, Any]]) -> Advice:
    [found] = advice([row for arm in arms for row in arm])
    return found


def free(accuracies: list[float], speedups: list[float], **fields: Any) -> list[dict[str, Any]]:
    return over_seeds(accuracies, speedups, layer="csr", **fields)


def blocked(accuracies: list[float], speedups: list[float], **fields: Any) -> list[dict[str, Any]]:
    return over_seeds(accuracies, speedups, layer="blocks", **fields)


def choice(accuracies: list[float]) -> Choice:
    speedups = [2.0 + seed / 100 for seed in range(len(accuracies))]
    return advised(free(accuracies, speedups), blocked(accuracies, speedups)).choices[0]


def test_one_pattern_alone_is_no_choice_and_nor_is_one_learning_rate_for_all() -> None:
    assert (
        advice(
            [*free(GOOD, FAST), *over_seeds(GOOD, SLOW, layer="tiled"), *over_seeds(GOOD, FAST, model="narrow", layer="dense")]
        )
        == []
    )
    assert advice([*free(GOOD, FAST, protocol="seed"), *blocked(GOOD, SLOW, protocol="seed")]) == []
    assert len(advice([*free(GOOD, FAST), *blocked(GOOD, SLOW)])) == 1


def test_a_pattern_that_keeps_every_weight_is_none_to_choose() -> None:
    whole = [row | {"sparsity": 0.0} for row in blocked(GOOD, SLOW)]
    assert advice([*free(GOOD, FAST), *whole]) == []
    [found] = advice([*free(GOOD, FAST), *blocked(GOOD, SLOW), *whole])
    assert {one.sparsity for one in found.choices} == {0.8}


def test_data_sets_and_threads_are_told_apart() -> None:
    rows = [*free(GOOD, FAST), *blocked(GOOD, SLOW)]
    other = [row | {"threads": 1} for row in rows]
    assert len(advice([*rows, *other, *(row | {"data": "mnist5k"} for row in rows)])) == 3


@given(st.lists(st.floats(0, 1), min_size=2, max_size=12))
def test_what_is_lost_is_held_by_its_interval_seed_by_seed(accuracies: list[float]) -> None:
    found = choice(accuracies)
    lost = sorted(0.9 - accuracy for accuracy in accuracies)
    middle = (lost[(len(lost) - 1) // 2] + lost[len(lost) // 2]) / 2
    assert found.lost is not None
    assert found.lost.median == pytest.approx(middle, abs=1e-8)
    assert found.lost.low <= found.lost.median <= found.lost.high
    decided = {"little": found.lost.high <= MARGIN_LOST, "more": found.lost.low > MARGIN_LOST}
    assert decided.get(found.loses, not any(decided.values()) or len(accuracies) < 3)


def test_dense_of_the_same_seed_is_what_an_arm_is_held_against() -> None:
    """Seeds that differ by 5 points, in dense as well, say no less of what is lost."""
    rows = free([0.85, 0.8, 0.9], FAST)
    for row, dense in zip(rows, (0.9, 0.85, 0.95), strict=True):
        row["dense_test_accuracy"] = dense
    found = advised(rows, blocked(GOOD, SLOW)).choices[0]
    assert found.lost == pytest.approx((0.05, 0.05, 0.05))
    assert found.loses == "more"


@pytest.mark.parametrize(
    ("accuracies", "loses"),
    [
        (GOOD, "little"),
        (BAD, "more"),
        (UNSURE, "undecided"),
        ([0.9], "undecided"),
        ([0.9, 0.9], "undecided"),
        ([0.89] * 3, "little"),
    ],
)
def test_a_loss_is_told_where_seeds_can_tell_it(accuracies: list[float], loses: str) -> None:
    found = choice(accuracies)
    assert found.loses == loses
    assert (found.seeds_needed is None) or loses == "undecided"


def test_of_a_pattern_the_fastest_arm_stands_that_is_not_shown_to_lose_much() -> None:
    arms = [free(BAD, FAST), free(UNSURE, SLOW, update="rigl"), blocked(BAD, SLOW), blocked(BAD, FAST, update="set")]
    found = advised(*arms, over_seeds(GOOD, FAST, model="narrow", layer="dense"))
    assert [one.name for one in found.shown] == ["rigl csr", "set blocks", "narrow dense"]
    assert len(found.choices) == 5


def test_at_equal_sparsity_the_fastest_is_told_with_what_it_costs() -> None:
    at, _ = advised(free(GOOD, SLOW), blocked(BAD, FAST)).sentences
    assert at.startswith("At 0.8: static blocks (4x4 blocks) is the fastest, 1.50 [")
    assert "times as fast as static csr (unstructured), at 4.9 [" in at
    assert at.endswith("points less accuracy.")
    at, _ = advised(free(GOOD, FAST), blocked(BAD, SLOW)).sentences
    assert "static csr (unstructured) is the fastest" in at
    assert at.endswith("points more accuracy.")
    unsure = "cannot tell which is more accurate (the"
    assert f"{unsure} first by 1.1 [" in advised(free(UNSURE, SLOW), blocked(GOOD, FAST)).sentences[0]
    assert f"{unsure} second by 1.1 [" in advised(free(GOOD, SLOW), blocked(UNSURE, FAST)).sentences[0]
    assert (
        "cannot tell which is more accurate, by at most 1 point"
        in advised(free(GOOD, SLOW), blocked([0.9] * 3, FAST)).sentences[0]
    )
    assert "at the same accuracy" in advised(free(GOOD, SLOW), blocked(GOOD, FAST)).sentences[0]


def test_the_fastest_is_held_against_unstructured_masks_even_where_a_third_pattern_is_second() -> None:
    at, _ = advised(free(GOOD, SLOW), blocked(GOOD, [6.0, 6.1, 6.2]), over_seeds(GOOD, FAST, layer="gone")).sentences
    assert "static blocks (4x4 blocks) is the fastest, 3.00 [" in at
    assert "times as fast as static csr (unstructured)" in at


def test_what_seeds_cannot_tell_apart_is_not_called_the_fastest() -> None:
    at, _ = advised(free(GOOD, [2.0, 3.0, 2.5]), blocked(GOOD, [2.6, 2.0, 3.1])).sentences
    assert at == "At 0.8: which is fastest, static blocks (4x4 blocks) or static csr (unstructured), 3 seeds cannot tell."
    many = [free(GOOD, SLOW), *(over_seeds(GOOD, SLOW, layer=f"gone{number}") for number in range(4))]
    assert "static gone1 (-) or 2 others, 3 seeds cannot tell." in advised(*many).sentences[0]
    [at, _] = advised(free(GOOD[:1], SLOW[:1]), blocked(GOOD[:1], FAST[:1])).sentences
    assert "1 seed cannot tell" in at


def test_at_equal_accuracy_an_arm_that_loses_is_none_to_choose() -> None:
    *_, text = advised(free(GOOD, SLOW), blocked(BAD, FAST)).sentences
    assert text.startswith(
        "Not shown to lose more than 1 point: 1 of 2 arms. The fastest is static csr (unstructured) at 0.8: 2.00 ["
    )
    *_, text = advised(free(BAD, SLOW), blocked(BAD, FAST)).sentences
    assert text == "All 2 arms lose more than 1 point of dense's accuracy."


@pytest.mark.parametrize(("speedups", "median"), [([0.9, 0.95, 1.0], "0.95"), ([1.2, 0.99, 1.3], "1.20")])
def test_nothing_is_called_faster_than_dense_that_is_not_shown_to_be(speedups: list[float], median: str) -> None:
    *_, text = advised(free(GOOD, speedups), blocked(GOOD, [0.5, 0.6, 0.5])).sentences
    told = "2 of 2 arms, none of which is shown to be faster than dense: static csr (unstructured) at 0.8"
    assert f"{told}: {median} [" in text


def test_what_three_seeds_cannot_tell_is_said_with_how_many_may() -> None:
    found = advised(free(UNSURE, FAST), blocked(BAD, SLOW))
    needed = found.choices[0].seeds_needed
    assert needed is None or needed > 3
    *_, text = found.sentences
    assert "which 3 seeds cannot tell from more than 1 (" in text
    assert (f"--seeds {needed} may" if needed else "nor may 100") in text
    *_, text = advised(free([0.9], [3.0]), blocked([0.85], [2.0])).sentences
    assert "what it loses 1 seed cannot tell (--seeds 3 may)" in text


def test_narrow_dense_may_be_the_fastest_and_then_the_best_sparse_arm_is_told_too() -> None:
    narrow = over_seeds(GOOD, [5.0, 5.1, 5.2], model="narrow", layer="dense")
    *_, text = advised(free(GOOD, FAST), blocked(BAD, SLOW), narrow).sentences
    assert "The fastest is narrow dense at 0.8: 5.10 [" in text
    assert "; of sparse arms static csr (unstructured) at 0.8: 3.10 [" in text
    unsure = over_seeds(GOOD, [3.3, 3.0, 3.4], model="narrow", layer="dense")
    *_, text = advised(free(GOOD, FAST), blocked(BAD, SLOW), unsure).sentences
    assert "; of sparse arms, perhaps as fast, static csr (unstructured) at 0.8: 3.10 [" in text
    assert text.count("csr") == 1


def test_layers_of_another_machine_have_no_pattern_and_are_not_taken_for_one() -> None:
    found = advised(over_seeds(GOOD, FAST, layer="gone"), over_seeds(GOOD, SLOW, layer="lost"))
    assert [(one.pattern, one.layer) for one in found.shown] == [("-", "gone"), ("-", "lost")]


def test_bytes_are_a_fraction_of_those_of_the_dense_that_was_trained() -> None:
    arms = free(GOOD, FAST, bytes_stored=300), blocked(GOOD, SLOW, bytes_stored=600)
    dense = over_seeds(GOOD, [1.0] * 3, model="dense", layer="dense", sparsity=0.0, bytes_stored=1200)
    assert [one.stored for one in advised(*arms, dense).choices] == [0.25, 0.5]
    assert [one.stored for one in advised(*arms).choices] == [None, None]
