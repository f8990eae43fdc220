"""What arms took until they were as accurate as dense, as a table, and as the last lines of a run."""

from typing import Any

import pytest

from bench.findings.answer import answer_of
from bench.findings.short_answer import short_answer
from bench.tables import short_answer as short
from bench.tables.answer import lines
from bench.tables.text import Screen
from bench.tables.trained.time_to_accuracy import GOING_ON
from tests.helpers.rows import WIDE, learnt

NARROW = {"model": "narrow", "layer": "dense", "bytes_stored": 100}
DENSE = {"model": "dense", "layer": "dense", "sparsity": 0.0, "bytes_stored": 600}
LEARNT: list[tuple[list[float], list[float]]] = [([0.1, 0.9], [0.1 + seed / 100, 0.1]) for seed in range(8)]
TITLE = "Time to dense's accuracy on digits, 8x8, tuned, 3 epochs of batch 4 (cpu, float32, 2 threads): until an epoch within"


def trained(seeds: int) -> list[dict[str, Any]]:
    own = {"dense_bytes_stored": None}
    return [
        *learnt([([0.8, 0.9], [1.0, 1.0])] * seeds, **DENSE | own),
        *learnt(LEARNT[:seeds], **own),
        *learnt([([0.5, 0.6], [0.4, 0.4])] * seeds, update="set", **own),
        *learnt([([0.5, 0.89], [0.05, 0.05])] * seeds, **NARROW | own),
    ]


def told(rows: list[dict[str, Any]]) -> list[str]:
    text = list(lines(answer_of(rows), WIDE))
    return text[next(number for number, line in enumerate(text) if line.startswith(TITLE)) :]


def cells(text: list[str], arm: str) -> list[str]:
    return next(line for line in text if line.startswith(f" {arm}")).removeprefix(f" {arm}").split()


def test_each_arm_has_a_line_with_what_it_took_the_soonest_first() -> None:
    text = told(trained(8))
    assert "median over 8 seeds [95 % interval]" in text[0]
    assert "test accuracy at the end of the training" in text[0]
    assert [line.split()[0] for line in text[4:8]] == ["static", "dense", "narrow", "set"]
    assert cells(text, "static tiled") == [
        "0.8", "8", "of", "8", "0.12", "[0.10", "0.14]", "1.00", "[1.00", "1.00]", "0.20", "[0.20", "0.20]", "0.50",
        "-", "235", "ms", "2", "s", "2", "2", "0.900", "0.900", "0.900", "0.750", "-12.5", "[-12.5", "-12.5]",
    ]  # fmt: skip
    assert cells(text, "narrow")[:7] == ["0.8", "0", "of", "8", ">0.05", "[0.05", "never]"]
    assert cells(text, "set tiled")[-7:-3] == ["0.600", "0.600", "0.900", "0.750"]


def test_the_title_tells_whether_arms_had_denses_time_or_as_many_epochs() -> None:
    gone_on = [one | {"later_epoch_seconds": [], "later_epoch_accuracies": []} for one in trained(8)]
    before = TITLE.replace(" (cpu", GOING_ON + " (cpu")
    assert any(line.startswith(before) for line in lines(answer_of(gone_on), WIDE))
    for mixed in (trained(8), [*gone_on[1:], trained(8)[0]]):
        assert told(mixed)
        assert GOING_ON not in "".join(lines(answer_of(mixed), WIDE))


@pytest.mark.parametrize("seeds", [1, 5])
def test_below_six_seeds_there_is_no_interval_and_it_says_so(seeds: int) -> None:
    text = told(trained(seeds))
    assert "have an interval)" in text[0]
    assert not any("[" in line for line in text[1:8])
    assert "to name one takes 8 seeds" in "\n".join(text)


def test_the_epoch_that_validation_chose_is_told_where_the_rows_tell_of_it() -> None:
    rows = [row | {"epoch_test_accuracies": [0.3, 0.7], "dense_epoch_test_accuracies": [0.4, 0.75]} for row in trained(8)]
    text = told(rows)
    assert "test accuracy at the epoch that the validation split chose" in text[0]
    assert cells(text, "static tiled")[-4:] == ["0.700", "-5.0", "[-5.0", "-5.0]"]


def test_the_peak_of_memory_is_told_over_denses_where_the_rows_tell_of_it() -> None:
    rows = [
        one | ({"training_peak_bytes": 300, "dense_training_peak_bytes": 1200} if one["update"] != "set" else {})
        for one in trained(8)
    ]
    text = told(rows)
    assert cells(text, "static tiled")[13:16] == ["0.50", "0.25", "235"]
    assert cells(text, "set tiled")[13:15] == ["0.50", "-"]
    assert "0.50 of its bytes, 0.25 of its peak of memory, and " in "\n".join(text)
    assert "peak of memory" not in "\n".join(told(trained(8)))


def test_the_last_lines_tell_what_it_takes_to_come_to_denses_accuracy() -> None:
    text = list(short.lines(short_answer(trained(8), "zen"), WIDE))
    assert text[1] == (
        "to dense's accuracy on digits: static tiled at 0.8 in 0.12 [0.11 0.14] of dense's time (at most a third), "
        "<2.45 [0.00 2.70] of narrow's (undecided), bytes 0.50; accuracy 0.750 (dense 0.875, narrow 0.750)"
    )
    assert len(list(short.lines(short_answer(trained(8), "zen"), Screen()))) <= 6


def test_where_no_arm_is_to_be_named_the_last_lines_tell_of_equal_epochs() -> None:
    text = list(short.lines(short_answer(trained(3), "zen"), WIDE))
    assert text[1].startswith("training on digits (tuned) at 0.8: ")
