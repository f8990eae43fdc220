"""What was found in a run in, the answer in the terminal out, each table with how to read it."""

from collections.abc import Iterator

from rich.text import Text

from bench.findings.answer import Answer
from bench.findings.costs import Interference, UpdateCosts
from bench.findings.other_dense import OtherDense
from bench.findings.speedups import SpeedUps, Verdicts
from bench.findings.step_split import Split, StepSplits
from bench.findings.time_to_accuracy import verdict
from bench.statistics.verdicts import MARGIN, WRONG_VERDICTS
from bench.tables.activations.by_zeros import by_place, by_zeros
from bench.tables.activations.thresholds import thresholds
from bench.tables.costs import bandwidth, by_conditions, cells, energy, memory, named, pruned, realised, rooflines
from bench.tables.grid import Cell, Grid, print_table
from bench.tables.patterns import advice_table, at_equal_sparsity
from bench.tables.text import MARKS, Screen, marked, new_console, print_text, seconds, text_of
from bench.tables.trained.time_to_accuracy import time_to_accuracy_table
from bench.tables.trained.trainings import trainings_table


def lines(answer: Answer, screen: Screen | None = None) -> Iterator[str]:
    """Yield the lines of all tables that were filled."""
    console = new_console(screen)
    for speed_ups in answer.speed_ups:
        print_table(console, *_speed_ups(speed_ups))
        print_text(console, _noise_floor(speed_ups))
    for table in (*map(at_equal_sparsity, answer.patterns), *map(_other_dense, answer.other_dense)):
        print_table(console, *table)
    if answer.verdicts:
        print_text(console, _verdicts(answer.verdicts))
    for table in (
        *map(realised, by_conditions(answer.realised)),
        *map(rooflines, by_conditions(answer.rooflines)),
        *map(bandwidth, answer.bandwidths),
        *map(memory, answer.memories),
        *map(energy, answer.energies),
        *map(_step_splits, answer.step_splits),
        *map(_update_costs, answer.update_costs),
        *map(_interference, answer.interferences),
        *map(pruned, answer.pruned),
        *map(by_zeros, by_place(answer.by_zeros)),
        *map(thresholds, answer.thresholds),
    ):
        print_table(console, *table)
    for trainings in answer.trainings:
        print_table(console, *trainings_table(trainings))
        for sentence in trainings.sentences:
            print_text(console, sentence)
        console.print()
    for timed in answer.time_to_accuracy:
        print_table(console, *time_to_accuracy_table(timed))
        print_text(console, verdict.sentence(timed))
        console.print()
    for advice in answer.advice:
        print_table(console, *advice_table(advice))
        for sentence in advice.sentences:
            print_text(console, sentence)
        console.print()
    yield from text_of(console)


def _speed_ups(found: SpeedUps) -> tuple[str, Grid]:
    title = f"Speed-up over dense by sparsity, {found.place}: median of the processes [95 % interval]"
    table = Grid(["operation", "layer", *named(found.sparsities), "break-even"], keys=2)
    for curve in found.curves:
        told = cells({sparsity: marked(told) for sparsity, told in curve.points.items()}, found.sparsities)
        table.add_row(curve.op, curve.layer, *told, curve.break_even)
    return title, table


def _noise_floor(found: SpeedUps) -> str:
    text = ", ".join(f"{op} {speedup}" for op, speedup in found.controls) if found.controls else "not measured, deselected"
    dense = ", ".join(f"{op} {how}" for op, how in found.references.items())
    fastest = f"\nDense was fastest as: {dense}." if dense else ""
    launched = f"\nLaunched by the host, as no graph holds them: {', '.join(found.launched)}." if found.launched else ""
    return f"Noise floor, dense against its own clone: {text}.{fastest}{launched}\n"


def _other_dense(found: OtherDense) -> tuple[str, Grid]:
    """Return a table of dense in other ways: what they gain over dense at its best, and each layer against them."""
    title = (
        f"Against dense in other ways, {found.place}: in fewer bits, and unpruned, every weight kept by kernels of ours, over "
        "which zeros alone gain: median of the processes [95 % interval]"
    )
    if found.dense:
        gains = ", ".join(f"{op} {name} {gain}" for op, name, gain in found.dense)
        title += f"\n(over dense at its best: {gains})"
    table = Grid(["operation", "layer", "against", *named(found.sparsities)], keys=3)
    for op, layer, name, points in found.layers:
        told = cells({sparsity: str(ratio) for sparsity, ratio in points.items()}, found.sparsities)
        table.add_row(op, layer, name, *told)
    return title, table


def _verdicts(found: Verdicts) -> str:
    """Return how many cases have which verdict, and what the marks mean."""
    counts = ", ".join(f"{found.counts.get(verdict, 0)} {verdict} ({mark})" for verdict, mark in MARKS.items())
    return (
        f"Verdicts: {counts}. Of all faster and slower, {WRONG_VERDICTS:.0%} at most is expected to be wrong; same is an "
        f"interval within {MARGIN:.0%} of 1. {found.narrow} of {found.cases} intervals are narrower than +-10%.\n"
    )


def _step_splits(found: StepSplits) -> tuple[str, Grid]:
    title = (
        f"Where a step's time goes, {found.place}: the part of the layer's own step, and its speed-up over dense's part "
        "(unaccounted: ReLU, autograd's own walk, gradients reset and added up; a mask update is told in the layer's own steps)"
    )
    headers = ["layer", "sparsity", "step", *(name.replace("_", " ") for name in found.parts), "unaccounted"]
    table = Grid([*headers, *(f"{rule} update" for rule in found.rules)], keys=2)
    for split in found.splits:
        step = "" if split.seconds is None else seconds(split.seconds)
        updates = [str(split.updates.get(rule, "")) for rule in found.rules]
        parts = [_part(split, name) for name in found.parts]
        table.add_row(split.layer, f"{split.sparsity:g}", step, *parts, _unaccounted(split), *updates)
    return title, table


def _part(split: Split, name: str) -> Cell:
    if name not in split.parts:
        return ""
    fraction, told = split.parts[name]
    return Text.assemble("" if fraction is None else f"{fraction:.0%} ", marked(told))


def _unaccounted(split: Split) -> str:
    if split.unaccounted is None:
        return ""
    middle, low, high = split.unaccounted
    return f"{middle:.0%} [{low:.0%} {high:.0%}]" + (" adds up" if split.adds_up else "")


def _update_costs(found: UpdateCosts) -> tuple[str, Grid]:
    title = f"Cost of one mask update in dense training steps, {found.place}: median of the processes [95 % interval]"
    table = Grid(["rule", "layer", *named(found.sparsities)], keys=2)
    for rule, layer, points in found.costs:
        told = {sparsity: f"{seconds(taken)} = {steps}" for sparsity, (taken, steps) in points.items()}
        table.add_row(rule, layer, *cells(told, found.sparsities))
    return title, table


def _interference(found: Interference) -> tuple[str, Grid]:
    title = f"In turns with PyTorch's own products, against each by itself, {found.place}: below 1 they disturb one another"
    table = Grid(["layer", *named(found.sparsities)])
    for layer, points in found.layers.items():
        table.add_row(layer, *cells({at: marked(told) for at, told in points.items()}, found.sparsities))
    return title, table
