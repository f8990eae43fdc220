"""What came of trainings: figures over the seeds of each arm, and what is said of them together."""

from typing import Any

import pytest

from bench.findings.time_to_accuracy import verdict
from bench.findings.time_to_accuracy.arms import time_to_accuracy
from bench.findings.trainings import OverSeeds, arm_of, brief, trainings
from tests.helpers.rows import learnt, row


def trained(**fields: Any) -> dict[str, Any]:
    return row(**{"op": "train", "data": "digits", "protocol": "seed", "sparsity": 0.8} | fields)


def test_a_figure_over_seeds_is_its_mean_and_range() -> None:
    seeds = [trained(seed=seed, final_loss=loss) for seed, loss in enumerate((0.25, 1.0, 0.25))]
    assert OverSeeds.of(seeds, "final_loss") == (0.5, 0.25, 1.0)
    assert str(OverSeeds.of(seeds, "final_loss")) == "0.500 (0.250 1.000)"


def test_an_arm_is_the_mean_of_its_seeds_in_time_and_in_denses_quality() -> None:
    low, high = ({"training_seconds": v, "dense_final_loss": v, "dense_test_accuracy": v} for v in (0.25, 0.75))
    arm = arm_of([trained(seed=0, **low), trained(seed=1, **high)])
    assert (arm.seconds, arm.dense_final_loss, arm.dense_test_accuracy) == (0.5, 0.5, 0.5)


def test_the_processes_of_all_seeds_make_an_arms_speed_up() -> None:
    arm = arm_of([trained(seed=seed, process_speedups=[speedup]) for seed, speedup in enumerate((1.0, 2.0, 4.0))])
    assert arm.speedup.median == 2.0
    assert arm.speedup.low <= 1.0
    assert arm_of([trained()]).speedup == (1.0, 0.9, 1.1)


def test_rules_are_arms_of_their_own_and_threads_have_tables_of_their_own() -> None:
    [found] = trainings([trained(update=rule, seed=seed) for rule in ("set", "rigl") for seed in range(3)])
    assert [arm.name for arm in found.arms] == ["set csr", "rigl csr"]
    assert found.seeds == 3
    assert [one.conditions for one in trainings([trained(threads=threads) for threads in (1, 2)])] == [
        "cpu, float32, 1 thread",
        "cpu, float32, 2 threads",
    ]


def test_narrow_dense_is_told_at_its_own_sparsity() -> None:
    narrow = {"model": "narrow", "layer": "dense"}
    rows = [trained(sparsity=sparsity) for sparsity in (0.8, 0.9)]
    [found] = trainings([*rows, trained(**narrow, speedup=3.0, speedup_low=3.0, speedup_high=3.0, sparsity=0.9)])
    assert ["narrow dense" in text for text in found.sentences] == [False, True]


def test_a_layer_that_keeps_every_weight_is_no_sparse_arm_and_tells_what_is_not_by_zeros() -> None:
    rows = [trained(seed=seed, process_speedups=[4.0]) for seed in range(3)]
    whole = [trained(sparsity=0.0, layer="block16", seed=seed, process_speedups=[2.0]) for seed in range(3)]
    [found] = trainings([*rows, *whole])
    assert [arm.name for arm in found.arms] == ["static csr", "unpruned block16"]
    [sentence] = found.sentences  # none on sparsity 0
    assert "at sparsity 0.8 sparse training saved time: 4.00 times" in sentence
    assert sentence.endswith("; unpruned block16, which keeps every weight, at 2.00 [2.00 2.00] times.")
    [text] = brief(found)
    assert "1 faster of 1 arm, 4.00x" in text
    assert text.endswith("; unpruned block16 2.00 [2.00 2.00]x")


def test_a_layer_that_keeps_every_weight_is_not_named_however_soon_and_stands_beside_the_arm_that_is() -> None:
    sparse = learnt([([0.9, 0.9], [0.5, 0.5])] * 8)
    whole = learnt([([0.9, 0.9], [0.1, 0.1])] * 8, sparsity=0.0, layer="block16")
    [found] = time_to_accuracy([*sparse, *whole])
    told = verdict.verdict(found)
    assert told
    assert (told.arm.name, told.of) == ("static tiled", 1)
    words = "static tiled at 0.8 in 0.25 [0.25 0.25] of dense's time (at most a third), unpruned block16 in 0.05"
    assert words in verdict.brief(found)


@pytest.mark.parametrize(
    ("speedups", "told"),
    [
        ((2.0, 0.5), "saved time in 1 and cost time in 1 of 2 arms: 0.50 to 2.00 times dense's speed"),
        ((2.0, 1.0), "saved time in 1 and cost time in 0 of 2 arms, and is undecided in the others: 1.00 to 2.00 times"),
    ],
)
def test_arms_that_differ_are_counted_and_told_from_the_lowest_to_the_highest(speedups: tuple[float, ...], told: str) -> None:
    rows = [
        trained(update=rule, seed=seed, process_speedups=[speedup])
        for rule, speedup in zip(("set", "rigl"), speedups, strict=True)
        for seed in range(2)
    ]
    assert told in trainings(rows)[0].sentences[0]


def test_trainings_beside_other_dense_networks_stand_in_tables_of_their_own() -> None:
    narrow = {"model": "narrow", "layer": "dense", "shape": "8x4x8"}
    small = [trained(**narrow, dense_variant="eager"), trained(shape="8x8x8", dense_variant="eager")]
    large = [trained(shape="8x9x8", dense_flops_counted=2e10, dense_variant="compiled")]
    first, second = trainings([*small, *large])
    assert [(first.shape, len(first.arms)), (second.shape, len(second.arms))] == [("8x8x8", 2), ("8x9x8", 1)]
    assert first.conditions == "cpu, float32, 2 threads, dense eager"
    assert second.conditions == "cpu, float32, 2 threads, dense compiled"
