"""Rows in, the lines of the full table out, each under an anchor that a point of a figure leads to."""

from collections.abc import Mapping
from typing import NamedTuple

from bench.findings.figures.learning import arm_name
from bench.findings.grouping import Place, layer_named, speedup_of
from bench.runs.row import Row
from bench.statistics.intervals import Interval


class Entry(NamedTuple):
    """One case: what it is, how fast beside dense, and the interval of dense against its own clone there (the noise floor)."""

    anchor: str
    case: str
    op: str
    layer: str  # of a training, its arm
    sparsity: float
    place: Place
    data: str
    speedup: Interval
    verdict: str
    noise: Interval | None
    seconds: float
    dense_seconds: float
    processes: int
    realised_fraction: float | None
    gflops: float
    stored: float | None  # bytes, over dense's
    accuracy: float | None


def entries(rows: Mapping[str, Row]) -> list[Entry]:
    """Return the lines of the full table, in the order of the rows."""
    floors = {(row["op"], Place.of(row)): speedup_of(row) for row in rows.values() if row["model"] == "dense"}
    return [_entry(f"row-{number}", name, row, floors) for number, (name, row) in enumerate(rows.items(), 1)]


def _entry(anchor: str, name: str, row: Row, floors: Mapping[tuple[str, Place], Interval]) -> Entry:
    place, is_trained = Place.of(row), row["op"] == "train"
    dense_bytes = row.get("dense_bytes_stored")
    return Entry(
        anchor,
        name,
        row["op"],
        arm_name(row) if is_trained else str(layer_named(row)["layer"]),
        row["sparsity"],
        place,
        f"{row['data']} {row['protocol']} seed {row['seed']}" if is_trained else "",
        speedup_of(row),
        row["verdict"],
        None if is_trained else floors.get((row["op"], place)),
        row["seconds"],
        row["dense_seconds"],
        len(row["process_numbers"]),
        row["realised_fraction"],
        row["gflops"],
        row["bytes_stored"] / dense_bytes if dense_bytes else None,
        row.get("test_accuracy"),
    )


def anchors(found: list[Entry]) -> dict[tuple[str, str, float, Place], str]:
    """Return the anchors of all cases but trainings, by operation, layer, sparsity and place."""
    return {(one.op, one.layer, one.sparsity, one.place): one.anchor for one in found if one.op != "train"}
