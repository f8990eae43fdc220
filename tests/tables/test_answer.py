from typing import Any

import pytest

from bench.findings.answer import answer_of
from bench.statistics.intervals import Interval
from bench.statistics.verdicts import MARGIN, WRONG_VERDICTS
from bench.tables import answer as tables
from bench.tables.text import seconds, size
from tests.helpers.rows import WIDE, levels, row


@pytest.mark.parametrize(("value", "text"), [(1.234, "1.23 s"), (0.01234, "12.3 ms"), (4.2e-5, "42 us")])
def test_seconds_in_the_unit_that_suits(value: float, text: str) -> None:
    assert seconds(value) == text


def test_a_ratio_shows_its_interval() -> None:
    assert str(Interval(1.454, 1.401, 12.34)) == "1.45 [1.40 12.3]"
    assert str(Interval(9.999, 9.99, 10.0)) == "10.00 [9.99 10.0]"


def lines(rows: list[dict[str, Any]]) -> str:
    return "\n".join(tables.lines(answer_of(rows), WIDE))


def test_speedups_stand_by_layer_and_sparsity_with_break_even_and_noise_floor() -> None:
    rows = levels([0.4, 0.9, 1.2, 2, 4], width=0.1)
    text = lines([row(model="dense", layer="dense", sparsity=0.0, speedup=1.01, speedup_low=0.97, speedup_high=1.04), *rows])
    assert "Speed-up over dense by sparsity, 8x8 batch 4 (cpu, float32, 2 threads)" in text
    assert "1.20 [1.08 1.32] ?" in text
    assert "Verdicts: 0 faster (+), 0 slower (-), 0 same (=), 6 undecided (?)." in text
    assert "Noise floor, dense against its own clone: forward 1.01 [0.97 1.04]." in text


def test_it_is_told_which_dense_it_was() -> None:
    text = lines([row(dense_layout="feature-major"), row(op="step", dense_layout="compiled")])
    assert "Dense was fastest as: forward feature-major, step compiled." in text


def test_no_cell_is_ever_cut() -> None:
    rows = [row(layer="a_layer_with_quite_a_long_name", sparsity=number / 100) for number in range(60)]
    text = lines(rows)
    assert "…" not in text
    assert text.count("1.00 [0.90 1.10]") == 60


def test_updates_are_told_in_dense_steps() -> None:
    text = lines([row(op="update", update="set", speedup=0.5, speedup_low=0.4, speedup_high=0.8)])
    assert "1 ms = 2.00 [1.25 2.50]" in text


def trainings(**fields: Any) -> list[dict[str, Any]]:
    common = {"op": "train", "data": "digits", "protocol": "tuned", **fields}
    return [
        *(row(**common, model="dense", layer="dense", sparsity=0.0, seed=seed) for seed in range(3)),
        *(row(**common, sparsity=0.8, seed=seed, test_accuracy=0.7 + seed / 10) for seed in range(3)),
        *(row(**common, model="narrow", layer="dense", sparsity=0.8, seed=seed) for seed in range(3)),
    ]


def test_the_seeds_table_has_a_line_for_each_arm_with_mean_and_range() -> None:
    text = lines(trainings())
    for what in ("dense", "static csr", "narrow", "1,234", "321", "0.800", "500 ms", "0.800 (0.700 0.900)", "2 G", "4 G"):
        assert what in text


def sentences(rows: list[dict[str, Any]]) -> list[str]:
    [found] = answer_of(rows).trainings
    return found.sentences


def test_the_sentence_is_made_of_the_figures() -> None:
    [text] = sentences(trainings())
    assert text == (
        "digits, tuned: at sparsity 0.8 sparse training saved time: 2.00 times dense's speed where counted FLOPs promise "
        "5.0 times, at test accuracy 0.800 (dense 0.875) and training loss 0.250 (dense 0.125); narrow dense of as many "
        "weights ran at 2.00 [2.00 2.00] times dense's speed, at test accuracy 0.750 (dense 0.875) and training loss 0.250 "
        "(dense 0.125)."
    )


@pytest.mark.parametrize(
    ("dense", "verdict"),
    [
        (0.5, "cost time"),
        (2.0, "saved time"),
        (1.0, "saved time in 0 and cost time in 0 of 1 arm, and is undecided in the others"),
    ],
)
def test_the_verdict_follows_the_interval(dense: float, verdict: str) -> None:
    [text] = sentences(trainings(process_speedups=[dense]))
    assert f"sparse training {verdict}" in text


def test_memory_is_told_beside_dense() -> None:
    step = {"op": "step", "peak_bytes": 2**20, "dense_peak_bytes": 2**22, "other_layout_cost": 1.25}
    dense = row(**step, model="dense", layer="dense", sparsity=0.0, bytes_stored=1200) | {"peak_bytes": 2**22}
    text = lines([dense, row(**step)])
    assert "Memory, 8x8 batch 4 (cpu, float32, 2 threads)" in text
    assert "(dense: 1.17 KiB stored, 4 MiB peak)" in text
    told = [line.split() for line in text[text.index("Memory, 8x8") :].splitlines()]
    assert ["csr", "stored", "0.25"] in told
    assert ["peak", "1", "MiB"] in told
    assert ["other", "layout", "1.25"] in told


def test_a_kernel_stands_beside_what_bounds_it() -> None:
    bounded = {"tile_bytes": 2**17, "bound_gflops": 200.0}
    text = lines([row(**bounded, gflops=160.0, bound_fraction=0.8), row(sparsity=0.9)])
    [line] = [line for line in text.splitlines() if "80%" in line]
    assert line.split()[-3:] == ["csr", "160/200", "80%"]
    assert "Roofline" not in lines([row()])


def test_operations_in_turns_with_pytorchs_stand_apart_from_speed_ups() -> None:
    text = lines([row(op="beside", layer="tiled", speedup=0.5, speedup_low=0.4, speedup_high=0.6, verdict="slower")])
    assert "In turns with PyTorch's own products, against each by itself, 8x8 batch 4" in text
    assert "0.50 [0.40 0.60] -" in text
    assert "Speed-up over dense" not in text


def test_skewed_masks_stand_in_tables_of_their_own() -> None:
    text = lines([row(), row(skew=0.25)])
    assert "8x8 batch 4 (cpu, float32, 2 threads)" in text
    assert "8x8 batch 4 (cpu, float32, 2 threads, rows skewed by 0.25)" in text


def test_the_realised_fraction_stands_by_shape_operation_and_layer() -> None:
    text = lines([row(sparsity=0.5, realised_fraction=0.125), row(sparsity=0.9, realised_fraction=0.25)])
    [line] = [line for line in text.splitlines() if "0.12" in line]
    assert line.split("  ")[0].strip() == "8x8 batch 4"
    assert "Realised fraction (cpu, float32, 2 threads)" in text
    assert line.split()[-4:] == ["forward", "csr", "0.12", "0.25"]
    assert "0.004" in lines([row(realised_fraction=0.0042)])


def test_regimes_stand_in_tables_of_their_own() -> None:
    text = lines([row(), row(regime="cold")])
    assert text.count("Speed-up over dense by sparsity") == 2
    assert "(cpu, float32, 2 threads, cold caches)" in text


def test_narrow_intervals_are_counted() -> None:
    rows = [row(speedup=2.0, speedup_low=low, speedup_high=high) for low, high in ((1.9, 2.1), (1.7, 2.1), (1.9, 2.3))]
    assert "1 of 3 intervals are narrower than +-10%." in lines(rows)


@pytest.mark.parametrize(("value", "text"), [(12, "12 B"), (2048, "2 KiB"), (5 * 2**20, "5 MiB"), (3 * 2**30, "3 GiB")])
def test_bytes_in_the_unit_that_suits(value: float, text: str) -> None:
    assert size(value) == text


def test_no_noise_floor_and_the_rate_of_wrong_verdicts_are_said() -> None:
    text = lines([row()])
    assert "Noise floor, dense against its own clone: not measured, deselected." in text
    assert f"Of all faster and slower, {WRONG_VERDICTS:.0%} at most is expected to be wrong; same is an interval" in text
    assert f"interval within {MARGIN:.0%} of 1." in text


@pytest.mark.parametrize(("low", "adds_up"), [(-0.1, True), (0.05, False)])
def test_a_step_whose_parts_make_it_up_says_so(low: float, adds_up: bool) -> None:
    rest = {"unaccounted_fraction": 0.1, "unaccounted_fraction_low": low, "unaccounted_fraction_high": 0.2}
    text = lines([row(op="step", **rest, adds_up=adds_up, process_seconds=[1.0]), row(op="optimizer")])
    assert f"10% [{low:.0%} 20%]" in text
    assert ("adds up" in text.replace("added up", "")) == adds_up


def test_what_a_gpu_adds_is_told() -> None:
    eight = {"process_numbers": list(range(8)), "process_seconds": [1e-3] * 8, "process_dense_seconds": [4e-3] * 8}
    dense: dict[str, Any] = {"model": "dense", "layer": "dense", "sparsity": 0.0}
    cold = {"bytes_moved": 4e6, "bound_gb_per_s": 8.0, "joules": 0.5, "dense_joules": 2.0, "not_captured": "it waits"}
    rival = eight | {"process_dense_seconds": [2e-3] * 8, "dtype": "tf32"}
    text = lines([row(**eight | cold), row(**eight | dense), row(**rival | dense)])
    assert "Launched by the host, as no graph holds them: forward csr." in text
    assert "(over dense at its best: forward dense tf32 2.00 [2.00 2.00])" in text
    assert "dense tf32   2.00 [2.00 2.00]" in text
    assert "4 = 50%" in text
    assert "Energy of the whole card" in text
    assert "0.25" in text
    assert text.count("Speed-up over dense by sparsity") == 1


def test_kernels_that_keep_every_weight_are_told_of_by_themselves() -> None:
    unpruned = {"model": "unpruned", "layer": "block16", "sparsity": 0.0, "speedup": 1.5}
    assert "(over dense at its best: forward unpruned block16 1.50 [0.90 1.10])" in lines([row(**unpruned)])
