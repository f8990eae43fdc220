"""What was found in a run in, the answer in the terminal out, each table with how to read it."""

import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence

from rich.table import Table

from bench.findings.answer import Answer
from bench.findings.costs import Bandwidth, Bytes, Energy, Interference, Memory, Roofline, UpdateCosts
from bench.findings.grouping import Told
from bench.findings.precisions import Precisions
from bench.findings.speedups import Fractions, SpeedUps, Verdicts
from bench.findings.step_split import Split, StepSplits
from bench.statistics.verdicts import MARGIN, WRONG_VERDICTS
from bench.tables.text import MARKS, new_console, new_table, print_table, seconds, size, text_of
from bench.tables.trainings import trainings_table


def lines(answer: Answer) -> Iterator[str]:
    """Yield the lines of all tables that were filled."""
    console = new_console()
    for speed_ups in answer.speed_ups:
        print_table(console, *_speed_ups(speed_ups))
        console.print(_noise_floor(speed_ups))
    for table in map(_precisions, answer.precisions):
        print_table(console, *table)
    if answer.verdicts:
        console.print(_verdicts(answer.verdicts))
        print_table(console, *_realised(answer.realised))
    for table in (
        *([_rooflines(answer.rooflines)] if answer.rooflines else []),
        *map(_bandwidth, answer.bandwidths),
        *map(_memory, answer.memories),
        *map(_energy, answer.energies),
        *map(_step_splits, answer.step_splits),
        *map(_update_costs, answer.update_costs),
        *map(_interference, answer.interferences),
    ):
        print_table(console, *table)
    for trainings in answer.trainings:
        print_table(console, *trainings_table(trainings))
        for sentence in trainings.sentences:
            console.print(textwrap.fill(sentence, 120))
        console.print()
    yield from text_of(console)


def marked(told: Told) -> str:
    """Return a speed-up with its verdict's mark."""
    return f"{told.speedup} {MARKS[told.verdict]}"


def _named(sparsities: Iterable[float]) -> list[str]:
    return [f"{sparsity:g}" for sparsity in sparsities]


def _cells(points: Mapping[float, str], sparsities: Iterable[float]) -> list[str]:
    return [points.get(sparsity, "") for sparsity in sparsities]


def _all_sparsities(of: Iterable[Mapping[float, object]]) -> list[float]:
    return sorted({sparsity for points in of for sparsity in points})


def _speed_ups(found: SpeedUps) -> tuple[str, Table]:
    title = f"Speed-up over dense by sparsity, {found.place}: median of the processes [95 % interval]"
    table = new_table(["operation", "layer", *_named(found.sparsities), "break-even"], left=2)
    for op, layer, points, break_even in found.curves:
        cells = _cells({sparsity: marked(told) for sparsity, told in points.items()}, found.sparsities)
        table.add_row(op, layer, *cells, break_even)
    return title, table


def _noise_floor(found: SpeedUps) -> str:
    text = ", ".join(f"{op} {speedup}" for op, speedup in found.controls) if found.controls else "not measured, deselected"
    dense = ", ".join(f"{op} {how}" for op, how in found.references.items())
    fastest = f"\nDense was fastest as: {dense}." if dense else ""
    launched = f"\nLaunched by the host, as no graph holds them: {', '.join(found.launched)}." if found.launched else ""
    return f"Noise floor, dense against its own clone: {text}.{fastest}{launched}\n"


def _precisions(found: Precisions) -> tuple[str, Table]:
    """Return a table of lower precisions: what they gain dense itself, and each layer against dense in them."""
    title = f"Precision is a rival: against dense in fewer bits, {found.place}: median of the processes [95 % interval]"
    if found.dense:
        gains = ", ".join(f"{op} in {precision} {gain}" for op, precision, gain in found.dense)
        title += f"\n(dense itself gains: {gains})"
    table = new_table(["operation", "layer", "against", *_named(found.sparsities)], left=3)
    for op, layer, precision, points in found.layers:
        cells = _cells({sparsity: str(ratio) for sparsity, ratio in points.items()}, found.sparsities)
        table.add_row(op, layer, f"dense {precision}", *cells)
    return title, table


def _verdicts(found: Verdicts) -> str:
    """Return how many cases have which verdict, and what the marks mean."""
    counts = ", ".join(f"{found.counts.get(verdict, 0)} {verdict} ({mark})" for verdict, mark in MARKS.items())
    return (
        f"Verdicts: {counts}. Of all faster and slower, {WRONG_VERDICTS:.0%} at most is expected to be wrong; same is an "
        f"interval within {MARGIN:.0%} of 1. {found.narrow} of {found.cases} intervals are narrower than +-10%.\n"
    )


def _realised(found: Sequence[Fractions]) -> tuple[str, Table]:
    sparsities = _all_sparsities(one.points for one in found)
    title = "Realised fraction: the measured speed-up over the counted one (1 would be all of it)"
    table = new_table(["shape", "operation", "layer", *_named(sparsities)], left=3)
    for place, op, layer, points in found:
        cells = _cells({at: _fraction(fraction) for at, fraction in points.items()}, sparsities)
        table.add_row(str(place), op, layer, *cells)
    return title, table


def _fraction(value: float) -> str:
    return f"{value:.2f}" if value >= 0.01 else f"{value:.1g}"


def _rooflines(found: Sequence[Roofline]) -> tuple[str, Table]:
    sparsities = _all_sparsities(one.points for one in found)
    title = "Roofline: GFLOP/s executed, and how much that is of multiply-adds which each load a vector of a tile as large"
    table = new_table(["shape", "operation", "layer", "tile", "bound", *_named(sparsities)], left=3)
    for place, op, layer, tile_bytes, bound, points in found:
        cells = _cells({at: f"{gflops:.0f} = {fraction:.0%}" for at, (gflops, fraction) in points.items()}, sparsities)
        table.add_row(str(place), op, layer, size(tile_bytes), f"{bound:.0f}", *cells)
    return title, table


def _bandwidth(found: Bandwidth) -> tuple[str, Table]:
    title = f"GB/s moved, weights from memory, and the part of the {found.bound_gb_per_s:.0f} that it gives, {found.place}"
    if found.dense_gb_per_s:
        title += f"\n(dense: {found.dense_gb_per_s:.0f} = {found.dense_gb_per_s / found.bound_gb_per_s:.0%})"
    table = new_table(["layer", *_named(found.sparsities)])
    for layer, points in found.layers.items():
        cells = {at: f"{rate:.0f} = {rate / found.bound_gb_per_s:.0%}" for at, rate in points.items()}
        table.add_row(layer, *_cells(cells, found.sparsities))
    return title, table


def _memory(found: Memory) -> tuple[str, Table]:
    title = (
        f"Memory, {found.place}: bytes stored as a fraction of dense's, the peak above them while stepping, and what a step\n"
        "takes of its time with activations in the layout that the layer does not prefer"
    )
    if found.dense:
        stored, peak = found.dense
        title += f" (dense: {size(stored)} stored, {size(peak)} peak)"
    table = new_table(["layer", *_named(found.sparsities)])
    for layer, points in found.layers.items():
        table.add_row(layer, *_cells({at: _bytes(taken) for at, taken in points.items()}, found.sparsities))
    return title, table


def _bytes(taken: Bytes) -> str:
    return f"{taken.stored:.2f} stored, {size(taken.peak_bytes)} peak, {taken.other_layout:.2f} time"


def _energy(found: Energy) -> tuple[str, Table]:
    dense = ", ".join(f"{op} {joules * 1e3:.3g} mJ" for op, joules in found.dense.items())
    title = f"Energy of the whole card, {found.place}: joules of a call as a fraction of dense's ({dense})"
    table = new_table(["operation", "layer", *_named(found.sparsities)], left=2)
    for op, layer, points in found.layers:
        table.add_row(op, layer, *_cells({at: f"{fraction:.2f}" for at, fraction in points.items()}, found.sparsities))
    return title, table


def _step_splits(found: StepSplits) -> tuple[str, Table]:
    title = (
        f"Where a step's time goes, {found.place}: the part of the layer's own step, and its speed-up over dense's part\n"
        "(unaccounted: ReLU, autograd's own walk, gradients reset and added up; a mask update is told in the layer's own steps)"
    )
    headers = ["layer", "sparsity", "step", *(name.replace("_", " ") for name in found.parts), "unaccounted"]
    table = new_table([*headers, *(f"{rule} update" for rule in found.rules)])
    for split in found.splits:
        step = "" if split.seconds is None else seconds(split.seconds)
        updates = [str(split.updates.get(rule, "")) for rule in found.rules]
        parts = [_part(split, name) for name in found.parts]
        table.add_row(split.layer, f"{split.sparsity:g}", step, *parts, _unaccounted(split), *updates)
    return title, table


def _part(split: Split, name: str) -> str:
    if name not in split.parts:
        return ""
    fraction, told = split.parts[name]
    return f"{'' if fraction is None else f'{fraction:.0%}'} {marked(told)}"


def _unaccounted(split: Split) -> str:
    if split.unaccounted is None:
        return ""
    middle, low, high = split.unaccounted
    return f"{middle:.0%} [{low:.0%} {high:.0%}]" + (" adds up" if split.adds_up else "")


def _update_costs(found: UpdateCosts) -> tuple[str, Table]:
    title = f"Cost of one mask update in dense training steps, {found.place}: median of the processes [95 % interval]"
    table = new_table(["rule", "layer", *_named(found.sparsities)], left=2)
    for rule, layer, points in found.costs:
        cells = {sparsity: f"{seconds(taken)} = {steps}" for sparsity, (taken, steps) in points.items()}
        table.add_row(rule, layer, *_cells(cells, found.sparsities))
    return title, table


def _interference(found: Interference) -> tuple[str, Table]:
    title = f"In turns with PyTorch's own products, against each by itself, {found.place}: below 1 they disturb one another"
    table = new_table(["layer", *_named(found.sparsities)])
    for layer, points in found.layers.items():
        table.add_row(layer, *_cells({at: marked(told) for at, told in points.items()}, found.sparsities))
    return title, table
