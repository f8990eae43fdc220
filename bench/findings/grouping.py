"""Which rows belong together: those that were measured at one place, and those that agree in some fields."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from typing import NamedTuple

from bench.grids import UNPRUNED
from bench.runs.row import Row
from bench.statistics.intervals import Interval
from bench.statistics.verdicts import process_interval
from sparse_models.layers import LAYERS

REGIMES = {
    "warm": "",
    "cold": ", cold caches",
    "busy": ", busy neighbours",
    "graph": ", graph replay",
    "graph-cold": ", graph replay, cold weights",
}
NARROW = "narrow dense"  # with as many weights as a layer of its sparsity keeps

UNKNOWN = "-"  # a field that rows of older runs do not have, or the pattern of a layer that this machine does not have
# Trainings that agree in these were held against the same dense, whose FLOPs stand for its shape: narrow networks have another.
BESIDE_ONE_DENSE = ("data", "protocol", "device", "dtype", "threads", "batch", "epochs", "dense_flops_counted")
UNLEARNABLE = ("random",)  # data whose labels no other sample tells anything about: test accuracy is chance


class Place(NamedTuple):
    """Where and how something was measured: rows of one place stand in one table."""

    shape: str
    batch: int
    device: str
    dtype: str
    threads: int
    regime: str
    skew: float
    zeros: float

    @classmethod
    def of(cls, row: Row) -> "Place":
        """Return the place of a row."""
        return cls(*(row[field] for field in cls._fields))

    @property
    def conditions(self) -> str:
        """How it was measured, in words."""
        regime = REGIMES.get(self.regime, f", {self.regime}")  # a run of a newer version may have another
        skew = f", rows skewed by {self.skew:g}" if self.skew else ""
        zeros = f", {self.zeros:g} of the inputs zero" if self.zeros else ""
        return f"{self.device}, {self.dtype}, {self.threads} thread{'s' * (self.threads != 1)}{regime}{skew}{zeros}"

    @property
    def size(self) -> str:
        """The shape and the batch, in words."""
        return f"{self.shape} batch {self.batch}"

    def __str__(self) -> str:
        """Return the place in words."""
        return f"{self.size} ({self.conditions})"


class Told(NamedTuple):
    """What is told of one case: how fast it is beside its reference, and whether that is decided."""

    speedup: Interval
    verdict: str

    @classmethod
    def of(cls, row: Row) -> "Told":
        """Return what a row tells."""
        return cls(speedup_of(row), row["verdict"])


def speedup_of(row: Row) -> Interval:
    """Return the speed-up of a row with its interval."""
    return Interval(row["speedup"], row["speedup_low"], row["speedup_high"])


def layer_name(model: str, layer: str) -> str:
    """Return a layer as it is called: dense in fewer weights, or by own kernels, is no arm of the layer used."""
    return {"narrow": NARROW, UNPRUNED: f"{UNPRUNED} {layer}"}.get(model, layer)


def layer_named(row: Row) -> Row:
    """Return a row with its layer as it is called."""
    return row | {"layer": layer_name(row["model"], row["layer"])}


def patterned(row: Row) -> Row:
    """Return a row with the name of its layer's pattern, and a key: each layer that is not known may be of its own pattern."""
    layer = row["layer"]
    name = LAYERS[layer].pattern.name if layer in LAYERS else UNKNOWN
    return row | {"pattern": name, "pattern_key": f"{UNKNOWN} {layer}" if name == UNKNOWN else name}


def by_fields(rows: Iterable[Row], *fields: str) -> Iterator[tuple[tuple[str, ...], list[Row]]]:
    """Yield the rows that agree in `fields`, group by group, in order of first appearance."""

    def key(row: Row) -> tuple[str, ...]:
        return tuple(str(row.get(field, UNKNOWN)) for field in fields)

    rows = list(rows)
    order = list(dict.fromkeys(map(key, rows)))
    for value, group in groupby(sorted(rows, key=lambda row: order.index(key(row))), key):
        yield value, list(group)


def by_place(rows: Iterable[Row], *fields: str) -> Iterator[tuple[Place, list[Row]]]:
    """Yield the rows of one place that agree in `fields`, group by group, in order of first appearance."""
    for _, group in by_fields(rows, *Place._fields, *fields):
        yield Place.of(group[0]), group


def by_training(rows: Iterable[Row]) -> Iterator[list[Row]]:
    """Yield the trainings that were held against the same dense; those of a layer that keeps every weight are unpruned."""
    whole = (row | {"model": UNPRUNED} if row["model"] == "sparse" and row["sparsity"] == 0 else row for row in rows)
    yield from (group for _, group in by_fields(whole, *BESIDE_ONE_DENSE))


def shape_of(trainings: Iterable[Row]) -> str:
    """Return the shape of dense of some trainings of `by_training`: that of the first that is not narrow."""
    rows = list(trainings)
    return str(next((row for row in rows if row["model"] != "narrow"), rows[0])["shape"])


def conditions_of(trainings: Sequence[Row]) -> str:
    """Return how trainings of `by_training` ran, in words, and how dense took its steps, where the rows tell."""
    variants = sorted({row["dense_variant"] for row in trainings if row.get("dense_variant")})
    return ", ".join([Place.of(trainings[0]).conditions, *[f"dense {' or '.join(variants)}"] * bool(variants)])


def sparsities_of(rows: Iterable[Row]) -> list[float]:
    """Return the different sparsities of some rows, rising."""
    return sorted({row["sparsity"] for row in rows})


def ratio_of(above: Row, field: str, below: Row, other: str) -> Interval | None:
    """Return the ratio of two rows' figures, over the processes that measured both; None where there are not two of them."""
    over = dict(zip(above["process_numbers"], above[field], strict=True))
    under = dict(zip(below["process_numbers"], below[other], strict=True))
    common = sorted(over.keys() & under.keys())
    return process_interval([over[process] / under[process] for process in common]) if len(common) > 1 else None
