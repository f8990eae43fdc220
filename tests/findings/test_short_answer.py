"""What is told first: nothing is chosen on noise, and every figure is a row's."""

import shlex
from typing import Any

import pytest

from bench.findings.short_answer import short_answer
from bench.findings.undecided import command
from bench.tables.short_answer import lines
from bench.tables.text import Screen
from tests.helpers.in_process import run
from tests.helpers.rows import WIDE, row

MEASURED = 8  # processes


def measured(level: float, verdict: str, **fields: Any) -> dict[str, Any]:
    """A row of eight processes that have nearly this speed-up."""
    speedups = [level * (1 + number / 1000) for number in range(MEASURED)]
    return row(
        speedup=speedups[4], speedup_low=speedups[0], speedup_high=speedups[-1], verdict=verdict, process_speedups=speedups,
        process_numbers=list(range(MEASURED)), process_seconds=[1e-3 / one for one in speedups],
        process_dense_seconds=[1e-3] * MEASURED, dense_seconds=1e-3, **{"sparsity": 0.9} | fields,
    )  # fmt: skip


def dense(**fields: Any) -> dict[str, Any]:
    return measured(1.0, "same", **{"model": "dense", "layer": "dense", "sparsity": 0.0} | fields)


def told(*rows: dict[str, Any]) -> str:
    return "\n".join(lines(short_answer(rows, "zen"), WIDE))


def test_the_fastest_layer_is_named_with_interval_memory_and_break_even() -> None:
    text = told(measured(3.0, "faster"), measured(0.5, "slower", sparsity=0.5), measured(2.0, "faster", layer="tiled"))
    assert "On zen (cpu, float32, 2 threads) sparsity 0.9 pays in forward" in text
    assert "forward 8x8b4, dense 1 ms: csr 3.01 [3.00 3.02]x, bytes 0.25, from 0.7" in text
    assert "tiled" not in text


def test_at_sparsity_0_it_is_no_sparsity_that_pays() -> None:
    assert "On zen (cpu, float32, 2 threads) every weight kept pays in forward" in told(measured(3.0, "faster", sparsity=0.0))


def test_layers_that_processes_do_not_tell_apart_are_named_together() -> None:
    other = measured(3.0, "faster", layer="tiled")
    other["process_speedups"] = other["process_speedups"][::-1]
    assert "csr or tiled 3.01" in told(measured(3.0, "faster"), other)


def test_without_a_verdict_nothing_pays() -> None:
    text = told(measured(3.0, "undecided"), measured(0.5, "slower", layer="masked"))
    assert "is undecided in forward" in text
    assert "pays" not in text
    assert "undecided: csr 3.01 [3.00 3.02]x; slower: masked 0.50 [0.50 0.50]x" in text
    assert "does not pay in forward" in told(measured(0.5, "slower"))


def test_a_layer_that_pays_only_at_a_higher_sparsity_is_told_there() -> None:
    text = told(measured(0.5, "slower"), measured(2.0, "faster", sparsity=0.99))
    assert "pays only if it is higher in forward" in text
    assert "nothing decided faster at 0.9, but csr 2.01 [2.00 2.01]x at 0.99" in text


def test_one_sample_is_a_kind_of_its_own() -> None:
    text = told(measured(3.0, "faster", batch=1), measured(0.5, "slower"))
    assert "pays in forward of one sample; does not pay in forward" in text


@pytest.mark.parametrize(("level", "words"), [(4.0, "better in forward 1.33"), (2.0, "slower in forward;")])
def test_narrow_dense_is_held_against_the_layer(level: float, words: str) -> None:
    text = told(measured(3.0, "faster"), measured(level, "faster", model="narrow", layer="dense"))
    assert f"narrow dense against that layer: {words}" in text
    assert "accuracy: not measured" in text
    assert "csr 3.01" in text
    is_beaten = level > 3.0
    assert ("sparsity 0.9 beats dense but not narrow dense in forward (" in text) is is_beaten
    assert ("sparsity 0.9 pays in forward (" in text) is not is_beaten


def test_what_pays_is_told_before_what_is_behind_a_rival_without_zeros() -> None:
    rivals = measured(4.0, "faster", model="narrow", layer="dense"), dense(), dense(dtype="bfloat16")
    rivals[2]["process_dense_seconds"] = [2e-4] * MEASURED
    others = measured(3.0, "faster", op="step"), measured(0.5, "slower", batch=1), measured(3.0, "faster", batch=64)
    text = told(measured(3.0, "faster"), *rivals, *others)
    words = "pays in step; beats dense but not narrow dense or bfloat16 dense in forward; does not pay in forward of one sample"
    assert f"On zen (cpu, float32, 2 threads) sparsity 0.9 {words} (" in text
    assert "elsewhere" not in text  # it is faster than dense at both


def pruned(sparsity: float, level: float, verdict: str, **fields: Any) -> dict[str, Any]:
    accuracies = {"dense_accuracies": [0.9, 0.92], "pruned_accuracies": [0.5, 0.5], "tuned_accuracies": [0.93, 0.95]}
    return measured(
        level, verdict, **{"op": "pruned", "data": "net", "sparsity": sparsity, "tuning_epochs": 1, **accuracies} | fields
    )


def test_whole_networks_that_were_pruned_tell_speed_and_accuracy_together() -> None:
    rows = [pruned(0.9, 0.5, "slower", batch=64), pruned(0.9, 2.0, "undecided", batch=1), pruned(0.5, 9.0, "faster")]
    figures = "net csr 2.01 [2.00 2.01]x b1 (undecided), 0.50 [0.50 0.50]x b64, accuracy 0.940 (dense 0.910)"
    assert f"\nwhole networks pruned to 0.9, inference: {figures}" in told(*rows, measured(3.0, "faster"))
    assert "pruned networks alone were measured" in told(*rows)
    assert "whole networks" not in told(measured(3.0, "faster"))


def test_dense_in_fewer_bits_is_held_against_the_layer() -> None:
    low = dense(dtype="bfloat16") | {"process_dense_seconds": [2e-4] * MEASURED}
    text = told(measured(3.0, "faster"), dense(), low)
    assert "bfloat16 dense against that layer: better in forward 1.66" in text
    assert "accuracy: not measured" in text


def test_what_zeros_alone_gain_is_told_where_kernels_that_keep_every_weight_gain_too() -> None:
    def unpruned(level: float, verdict: str, **fields: Any) -> dict[str, Any]:
        return measured(level, verdict, model="unpruned", layer="block16", sparsity=0.0, **fields)

    sparse = measured(3.0, "faster"), measured(2.0, "faster", op="step")
    text = told(*sparse, unpruned(1.5, "faster"), unpruned(0.8, "slower", op="step"))
    alone = "over unpruned block16 forward 2.00 [2.00 2.00]x; all in step, where that is not faster than dense"
    assert f"\nof that by zeros alone: {alone}\n" in text
    assert "forward 8x8b4, dense 1 ms: csr 3.01" in text  # nobody chooses to keep every weight
    assert "All 2 cases are decided." in text
    assert "against that layer" not in text
    assert "all in forward and step, where" in told(*sparse, unpruned(0.8, "slower"), unpruned(1.0, "same", op="step"))
    unknown = told(*sparse, unpruned(1.5, "undecided"), unpruned(1.0, "same", op="step"))
    assert "over unpruned block16 forward 2.00 [2.00 2.00]x; all in step, where" in unknown
    assert "zeros alone" not in told(*sparse, unpruned(1.5, "faster", op="backward"), unpruned(1.5, "faster", batch=1))


def test_layers_of_other_patterns_are_rivals_and_not_what_is_asked_about(blocks: None) -> None:
    faster = measured(4.0, "faster", layer="blocks")
    text = told(measured(3.0, "faster"), faster, measured(2.0, "faster", layer="tiled"))
    assert "forward 8x8b4, dense 1 ms: csr 3.01" in text
    assert "blocks against that layer: better in forward 1.33 [1.33 1.33]x; accuracy: not measured" in text
    assert "forward 8x8b4, dense 1 ms: blocks 4.02" in told(faster)  # asked for by itself
    assert "blocks against" not in told(measured(3.0, "faster"), measured(4.0, "faster", layer="blocks", sparsity=0.8))
    trained = row(op="train", data="digits", protocol="tuned", sparsity=0.9, layer="blocks")
    assert "1.33]x; accuracy: see training" in told(measured(3.0, "faster"), faster, trained)


def test_what_is_better_in_all_is_told_from_its_least_to_its_most(blocks: None) -> None:
    rows = [measured(level, "faster", layer=layer, op=op) for layer, op, level in (
        ("csr", "forward", 2.0), ("blocks", "forward", 3.0), ("csr", "step", 2.0), ("blocks", "step", 5.0),
    )]  # fmt: skip
    assert "blocks against that layer: better in all, 1.50 [1.50 1.50]x to 2.50 [2.50 2.50]x; accuracy" in told(*rows)


def test_compiled_dense_is_named() -> None:
    rows = measured(0.5, "slower", op="training_step", dense_layout="compiled")
    assert "training_step 8x8b4, compiled dense 1 ms: slower: csr 0.50 [0.50 0.50]x" in told(rows)


def test_trainings_tell_accuracy() -> None:
    common = {"op": "train", "data": "digits", "protocol": "tuned", "sparsity": 0.8}
    text = told(*(row(**common, seed=seed) for seed in range(3)), row(**common, model="narrow", layer="dense"))
    assert "training on digits (tuned) at 0.8: 1 faster of 1 arm, 2.00x, accuracy 0.750 (dense 0.875)" in text
    assert "narrow dense 1.00 [0.90 1.10]x, accuracy 0.750" in text


def skipping(zeros: float, level: float, verdict: str, **fields: Any) -> dict[str, Any]:
    return measured(level, verdict, **{"layer": "input_skipping", "sparsity": 0.0, "zeros": zeros, "batch": 1} | fields)


def test_from_which_share_of_zero_inputs_on_they_pay_is_told_of_the_weights_that_are_least_sparse() -> None:
    rows = [skipping(0.0, 0.5, "slower"), skipping(0.5, 2.0, "faster"), skipping(0.9, 4.0, "faster")]
    sparse = [row | {"sparsity": 0.8, "layer": layer} for row in rows for layer in ("input_skipping", "tiled")]
    text = told(*sparse, *rows)
    even = "from 0.29 [0.29 0.29]"  # midway in the logarithm between densities 1 and 0.5
    figures = "0.50 [0.50 0.50]x at 0, 4.02 [4.00 4.03]x at 0.9"
    assert f"\nzero inputs, forward 8x8b1: input_skipping pays, {even}: {figures}\n" in text
    assert "On zen (cpu, float32, 2 threads) sparsity 0.8 does not pay in forward of one sample" in text  # without any zeros
    assert "elsewhere" not in text
    assert "zero inputs" not in told(*rows[:1])


def test_what_all_zeros_leave_behind_dense_does_not_pay() -> None:
    rows = [skipping(0.0, 0.5, "slower"), skipping(0.9, 0.75, "slower")]
    assert "input_skipping does not pay: 0.50 [0.50 0.50]x at 0, 0.75 [0.75 0.76]x at 0.9" in told(*rows)


def thresholded(zeros: float, level: float, lost: list[float], **fields: Any) -> dict[str, Any]:
    dense = [0.95 + seed / 1000 for seed in range(len(lost))]
    accuracies = [before - less for before, less in zip(dense, lost, strict=True)]
    base = {"op": "threshold", "data": "digits", "hidden_zeros": [zeros], "seeds": len(lost), "test_samples": 360}
    seeds = {"seed_test_accuracies": accuracies, "dense_seed_test_accuracies": dense, "dense_test_accuracy": 0.95}
    return skipping(zeros, level, "faster", **base, **seeds, **fields)


def test_of_thresholds_the_share_is_told_that_keeps_the_accuracy_over_the_seeds() -> None:
    kept, unsure, lost = [0.0, 0.005, 0.01, 0.0, 0.0, 0.0], [0.0, 0.02, 0.01, 0.0, 0.0, 0.0], [0.3] * 6
    rows = [thresholded(0.0, 1.5, [0.0] * 6), thresholded(0.5, 2.0, kept), thresholded(0.75, 3.0, unsure)]
    text = told(*rows, thresholded(0.9, 4.0, lost), thresholded(0.9, 5.0, kept, layer="tiled"))
    assert "On zen (cpu, float32, 2 threads) networks whose small activations are 0 alone were measured." in text
    assert (
        "activations set to 0 in digits 8x8b1: input_skipping pays, from 0: 1.51 [1.50 1.51]x at 0, 2.01 [2.00 2.01]x at 0.5, "
        "the most shown to lose at most 1 point of accuracy (0.0 [0.0 1.0])" in text
    )
    assert "no share is shown to lose at most 1 point of accuracy" in told(thresholded(0.9, 4.0, lost))
    assert "activations set to 0" not in told(rows[0] | {"seed_test_accuracies": [0.95]})  # as a damaged file may have it
    assert "no share is shown to lose" in told(*(row | {"seed_test_accuracies": [0.95], "dense_seed_test_accuracies": [0.95]}
                                                for row in rows))  # fmt: skip


def test_what_is_undecided_is_counted_and_its_command_runs_as_printed() -> None:
    rows = [measured(1.0, "undecided", shape="8x8x4", sparsity=sparsity, op="step", threads=1) for sparsity in (0.5, 0.9)]
    text = list(lines(short_answer([*rows, measured(2.0, "faster")], "zen"), Screen()))
    assert "Undecided: 2 of 3 cases. What may decide 2 of them:" in text
    printed = "\n".join(text[text.index(next(line for line in text if "pytest bench" in line)) :])
    words = shlex.split(printed.replace("\\\n", ""))  # as a shell does
    assert words == command(rows)
    done = run(*words[2:], "--benchmark-disable", "--answer-only", "-p", "no:unraisableexception")
    assert done.returncode == 0, done.stdout + done.stderr


def test_what_was_measured_in_all_processes_there_are_is_given_more() -> None:
    twelve = {"process_numbers": list(range(12))}
    assert "--processes" not in command([measured(1.0, "undecided")])
    assert command([measured(1.0, "undecided") | twelve])[-4:] == ["--processes", "24", "--budget", "300"]
