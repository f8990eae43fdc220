"""Rows in, the answer in the terminal out."""

import textwrap
from collections import Counter
from collections.abc import Iterator, Sequence

from rich.table import Table

from bench.cases import PARTS, WHOLE
from bench.findings.break_even import break_even, told
from bench.findings.step_split import update_steps
from bench.findings.trainings import summaries, trainings
from bench.runs.row import Row
from bench.statistics.verdicts import MARGIN, WRONG_VERDICTS
from bench.tables.text import (
    groups,
    interval_of,
    new_console,
    new_table,
    print_table,
    ratio,
    seconds,
    size,
    speedup,
    text_of,
    what,
)

WHERE = ("shape", "batch", "device", "dtype", "threads", "regime", "skew")  # rows that agree in these stand in one table


def answer(rows: Sequence[Row]) -> Iterator[str]:
    """Yield the lines of all tables that `rows` fill, each with how to read it."""
    console = new_console()
    layers = [row for row in rows if row["op"] in WHOLE]
    parts = [row for row in rows if row["op"] in PARTS]
    updates = [row for row in rows if row["op"] == "update"]
    beside = [row for row in rows if row["op"] == "beside"]
    for _, group in groups(layers, *WHERE):
        print_table(console, *_speedups(group))
        console.print(_noise_floor(group))
    if layers:
        console.print(_verdicts(layers + parts + beside))
        print_table(console, *_realised(layers))
    bounded = [row for row in layers + parts if "bound_gflops" in row]
    if bounded:
        print_table(console, *_roofline(bounded))
    for _, group in groups((row for row in layers if "peak_bytes" in row), *WHERE):
        print_table(console, *_memory(group))
    for _, group in groups(parts, *WHERE):
        print_table(console, *_split(group, [row for row in rows if all(row[field] == group[0][field] for field in WHERE)]))
    for _, group in groups(updates, *WHERE):
        print_table(console, *_update_costs(group))
    for _, group in groups(beside, *WHERE):
        print_table(console, *_beside(group))
    for _, group in groups((row for row in rows if row["op"] == "train"), "data", "protocol", "device", "dtype", "threads"):
        print_table(console, *trainings(group))
        for sentence in summaries(group):
            console.print(textwrap.fill(sentence, 120))
        console.print()
    yield from text_of(console)


MARKS = {"faster": "+", "slower": "-", "same": "=", "undecided": "?"}


def _marked(row: Row) -> str:
    return f"{speedup(row)} {MARKS[row['verdict']]}"


def _speedups(rows: list[Row]) -> tuple[str, Table]:
    rows = [row for row in rows if row["model"] != "dense"] or rows
    sparsities = sorted({row["sparsity"] for row in rows})
    title = f"Speed-up over dense by sparsity, {what(rows[0])}: median of the processes [95 % interval]"
    table = new_table(["operation", "layer", *(f"{sparsity:g}" for sparsity in sparsities), "break-even"], left=2)
    for (op, layer), group in groups(rows, "op", "layer"):
        cells = {row["sparsity"]: _marked(row) for row in group}
        even = told(break_even(group), group) if len(group) > 1 else ""
        table.add_row(op, layer, *(cells.get(sparsity, "") for sparsity in sparsities), even)
    return title, table


def _verdicts(rows: list[Row]) -> str:
    """Return how many cases have which verdict, and what the marks mean."""
    found = Counter(row["verdict"] for row in rows)
    counts = ", ".join(f"{found[verdict]} {verdict} ({mark})" for verdict, mark in MARKS.items())
    narrow = sum(interval_of(row).half_width <= 0.1 for row in rows)
    return (
        f"Verdicts: {counts}. Of all faster and slower, {WRONG_VERDICTS:.0%} at most is expected to be wrong; same is an "
        f"interval within {MARGIN:.0%} of 1. {narrow} of {len(rows)} intervals are narrower than +-10%.\n"
    )


def _noise_floor(rows: list[Row]) -> str:
    controls = [f"{row['op']} {speedup(row)}" for row in rows if row["model"] == "dense"]
    text = ", ".join(controls) if controls else "not measured, deselected"
    return f"Noise floor, dense against its own clone: {text}.\n"


def _realised(rows: list[Row]) -> tuple[str, Table]:
    """Return how much of the counted saving became time."""
    rows = [row for row in rows if row["realised_fraction"] is not None and row["model"] != "dense"]
    sparsities = sorted({row["sparsity"] for row in rows})
    title = "Realised fraction: the measured speed-up over the counted one (1 would be all of it)"
    table = new_table(["shape", "operation", "layer", *(f"{sparsity:g}" for sparsity in sparsities)], left=3)
    for (*_, op, layer), group in groups(rows, *WHERE, "op", "layer"):
        cells = {row["sparsity"]: f"{row['realised_fraction']:.2f}" for row in group}
        table.add_row(what(group[0]), op, layer, *(cells.get(value, "") for value in sparsities))
    return title, table


def _roofline(rows: list[Row]) -> tuple[str, Table]:
    """Return how near kernels come to what bounds them."""
    sparsities = sorted({row["sparsity"] for row in rows})
    title = "Roofline: GFLOP/s executed, and how much that is of multiply-adds which each load a vector of a tile as large"
    table = new_table(["shape", "operation", "layer", "tile", "bound", *(f"{sparsity:g}" for sparsity in sparsities)], left=3)
    for (*_, op, layer), group in groups(rows, *WHERE, "op", "layer"):
        cells = {row["sparsity"]: f"{row['gflops']:.0f} = {row['bound_fraction']:.0%}" for row in group}
        tile, bound = size(group[0]["tile_bytes"]), f"{group[0]['bound_gflops']:.0f}"
        table.add_row(what(group[0]), op, layer, tile, bound, *(cells.get(sparsity, "") for sparsity in sparsities))
    return title, table


def _memory(rows: list[Row]) -> tuple[str, Table]:
    """Return the bytes stored, and at most held above that while stepping, beside dense's."""
    sparsities = sorted({row["sparsity"] for row in rows if row["model"] != "dense"})
    title = (
        f"Memory, {what(rows[0])}: bytes stored, and the peak above them while stepping, both as a fraction of dense's; and\n"
        "what a step takes of its time with activations in the layout that the layer does not prefer"
    )
    table = new_table(["layer", *(f"{sparsity:g}" for sparsity in sparsities)])
    dense = next((row for row in rows if row["model"] == "dense"), None)
    for (layer,), group in groups(rows, "layer"):
        if group[0]["model"] == "dense":
            continue
        cells = {row["sparsity"]: _bytes(row) for row in group}
        table.add_row(layer, *(cells.get(sparsity, "") for sparsity in sparsities))
    if dense is not None:
        title += f" ({size(dense['bytes_stored'])} stored, {size(dense['peak_bytes'])} peak)"
    return title, table


def _bytes(row: Row) -> str:
    stored = row["bytes_stored"] / row["dense_bytes_stored"]
    peak = f"{row['peak_bytes'] / row['dense_peak_bytes']:.2f}" if row["dense_peak_bytes"] else "?"
    return f"{stored:.2f} stored, {peak} peak, {row['other_layout_cost']:.2f} time"


def _split(parts: list[Row], rows: list[Row]) -> tuple[str, Table]:
    """Return where a step's time goes: each part as a fraction of the layer's own step, and its speed-up over dense's part."""
    names = [part for part in PARTS if any(row["op"] == part for row in parts)]
    rules = sorted({row["update"] for row in rows if row["op"] == "update"})
    title = (
        f"Where a step's time goes, {what(parts[0])}: the part of the layer's own step, and its speed-up over dense's part\n"
        "(unaccounted: ReLU, autograd's own walk, gradients reset and added up; a mask update is told in the layer's own steps)"
    )
    headers = ["layer", "sparsity", "step", *(name.replace("_", " ") for name in names), "unaccounted"]
    table = new_table([*headers, *(f"{rule} update" for rule in rules)])
    for (layer, sparsity), group in groups(parts, "layer", "sparsity"):
        alike = [row for row in rows if (str(row["layer"]), str(row["sparsity"])) == (layer, sparsity)]
        step = next((row for row in alike if row["op"] == "step"), None)
        by_part = {row["op"]: row for row in group}
        cells = [f"{_percent(step, name)} {_marked(by_part[name])}" if name in by_part else "" for name in names]
        updates = update_steps(step, (row for row in alike if row["op"] == "update")) if step else {}
        costs = [ratio(updates[rule]) if rule in updates else "" for rule in rules]
        rest = _percent(step, "unaccounted") + (" adds up" if step and step.get("adds_up") else "")
        table.add_row(layer, f"{float(sparsity):g}", seconds(step["seconds"]) if step else "", *cells, rest, *costs)
    return title, table


def _percent(step: Row | None, part: str) -> str:
    if step is None or f"{part}_fraction" not in step:
        return ""
    middle, low, high = (step[f"{part}_fraction{end}"] for end in ("", "_low", "_high"))
    return f"{middle:.0%} [{low:.0%} {high:.0%}]" if part == "unaccounted" else f"{middle:.0%}"


def _beside(rows: list[Row]) -> tuple[str, Table]:
    """Return whether PyTorch's own operations suffer from a layer's, or it from theirs."""
    sparsities = sorted({row["sparsity"] for row in rows})
    title = f"In turns with PyTorch's own products, against each by itself, {what(rows[0])}: below 1 they disturb one another"
    table = new_table(["layer", *(f"{sparsity:g}" for sparsity in sparsities)])
    for (layer,), group in groups(rows, "layer"):
        cells = {row["sparsity"]: _marked(row) for row in group}
        table.add_row(layer, *(cells.get(sparsity, "") for sparsity in sparsities))
    return title, table


def _update_costs(rows: list[Row]) -> tuple[str, Table]:
    sparsities = sorted({row["sparsity"] for row in rows})
    title = f"Cost of one mask update in dense training steps, {what(rows[0])}: median of the processes [95 % interval]"
    table = new_table(["rule", "layer", *(f"{sparsity:g}" for sparsity in sparsities)], left=2)
    for (update, layer), group in groups(rows, "update", "layer"):
        cells = {
            row["sparsity"]: f"{seconds(row['seconds'])} = "
            + ratio((1 / row["speedup"], 1 / row["speedup_high"], 1 / row["speedup_low"]))
            for row in group
        }
        table.add_row(update, layer, *(cells.get(sparsity, "") for sparsity in sparsities))
    return title, table
