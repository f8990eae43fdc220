"""The rows of a run in, what a reader wants to know first out: does sparsity pay, for what, from where on, and at what cost.

Nothing is chosen on noise: a layer pays where its verdict is "faster", two that their processes cannot tell apart are named
together, and what is undecided is told as that.
"""

from collections.abc import Sequence
from typing import NamedTuple

from bench.findings.activations.paying import Paying, fewest_zeros, paying
from bench.findings.break_even import break_even, told
from bench.findings.costs import Pruned, pruned
from bench.findings.grouping import Place, by_fields, layer_named, patterned, ratio_of, sparsities_of, speedup_of
from bench.findings.rivals import Rival, rivals
from bench.findings.time_to_accuracy.arms import TimeToAccuracy, time_to_accuracy
from bench.findings.trainings import Trainings, trainings
from bench.findings.undecided import Undecided, undecided
from bench.grids import OF_A_MODEL, UNPRUNED, USUAL_SPARSITY, WHOLE
from bench.runs.row import Row
from bench.statistics.intervals import Interval
from sparse_models.masks import UNSTRUCTURED

KINDS = (*WHOLE, *OF_A_MODEL)  # in the order in which they are told


class Layer(NamedTuple):
    """What a layer does at a sparsity; other layers that processes cannot tell from it; its bytes as a fraction of dense's."""

    name: str
    alike: list[str]
    sparsity: float
    speedup: Interval
    verdict: str
    break_even: str  # in words; empty where there is none, or one sparsity was measured
    stored: float | None


class Kind(NamedTuple):
    """One kind of work: where it is told, the layer that pays or what each does, its rivals, and where else it was measured."""

    op: str
    place: Place
    is_one_sample: bool
    reference: str | None  # how dense was fastest
    dense_seconds: float  # of a call, beside the layer that is told
    asked: float  # the sparsity at which the question was put
    best: Layer | None  # the one that is faster, at `asked` or else at the next sparsity at which one is
    others: list[Layer]  # where none is faster at any
    processes: int
    rivals: list[Rival]
    elsewhere: int  # other places at which this was measured
    elsewhere_paying: int


class ShortAnswer(NamedTuple):
    """All that is told first; what was not measured is empty."""

    machine: str
    conditions: list[str]
    kinds: list[Kind]
    activations: list[Paying]
    pruned: list[Pruned]  # at the sparsity at which the question was put
    trainings: list[Trainings]
    time_to_accuracy: list[TimeToAccuracy]  # of the same trainings, where they have learning curves
    undecided: Undecided


def short_answer(rows: Sequence[Row], machine: str) -> ShortAnswer:
    """Return the short answer that `rows` give, measured on `machine`."""
    held_against = [layer_named(row) for row in rows if row["op"] in KINDS]
    whole = [row for row in held_against if row["model"] != UNPRUNED]
    kinds = [_kind(group, held_against) for group in _kinds(fewest_zeros(whole))]
    trained = [row for row in rows if row["op"] == "train"]
    trained = [row for row in trained if row["protocol"] == "tuned"] or trained
    told_rows = [row for row in whole if any((row["op"], Place.of(row)) == (kind.op, kind.place) for kind in kinds)]
    told_of = [row for row in rows if row["model"] != "dense"] or rows  # dense in fewer bits is there as a rival
    conditions = list(dict.fromkeys(Place.of(row).conditions for row in fewest_zeros(told_of)))
    activations = paying(whole, [row for row in rows if row["op"] == "threshold"])
    learnt = trainings(trained), time_to_accuracy(trained)
    cut = [row for row in rows if row["op"] == "pruned"]
    networks = pruned([row for row in cut if row["sparsity"] == _nearest(cut)])
    return ShortAnswer(machine, conditions, kinds, activations, networks, *learnt, undecided(whole, told_rows))


def _kinds(whole: Sequence[Row]) -> list[list[list[Row]]]:
    """Return the kinds of work, each as the places at which it was measured: one sample and many are of two kinds."""
    sparse = [row | {"is_one": row["batch"] == 1} for row in whole if row["model"] == "sparse"]
    groups = dict(by_fields(sparse, "op", "is_one"))
    order = sorted(groups, key=lambda key: (KINDS.index(key[0]), key[1] != "True"))
    # One sample's step is no use that anyone has, if another step was measured.
    kept = [key for key in order if key[0] == "forward" or key[1] != "True" or (key[0], "False") not in groups]
    kept = [key for key in kept if key[0] != "backward"] or kept  # which is told with the step that holds it
    return [[group for _, group in by_fields(groups[key], *Place._fields)] for key in kept]


def _kind(places: Sequence[list[Row]], whole: Sequence[Row]) -> Kind:
    """Return what is told of a kind of work at the first of its places, whatever came out there."""
    rows, *elsewhere = places
    first, place = rows[0], Place.of(rows[0])
    rows = _free(rows)
    asked = _nearest(rows)
    best = _best(rows, asked)
    there = [row for row in whole if row["op"] == first["op"]]
    of_best = [row for row in rows if best and row["layer"] == best.name and row["sparsity"] == best.sparsity]
    return Kind(
        op=first["op"],
        place=place,
        is_one_sample=place.batch == 1,
        reference=first.get("dense_layout"),
        dense_seconds=(of_best or rows)[0]["dense_seconds"],
        asked=asked,
        best=best,
        others=[] if best else [_layer(row, rows) for row in rows if row["sparsity"] == asked],
        processes=min(len(row["process_numbers"]) for row in rows),
        rivals=rivals(of_best[0], there) if of_best else [],
        elsewhere=len(elsewhere),
        elsewhere_paying=sum(bool(_faster(group, _nearest(group))) for group in map(_free, elsewhere)),
    )


def _free(rows: Sequence[Row]) -> list[Row]:
    """Return the rows of unstructured layers, where there are any: other patterns are their rivals, at a cost of their own."""
    return [row for row in rows if patterned(row)["pattern"] == UNSTRUCTURED.name] or list(rows)


def _nearest(rows: Sequence[Row]) -> float:
    return min(sparsities_of(rows), key=lambda sparsity: (abs(sparsity - USUAL_SPARSITY), sparsity))


def _faster(rows: Sequence[Row], sparsity: float) -> list[Row]:
    return [row for row in rows if row["sparsity"] == sparsity and row["verdict"] == "faster"]


def _best(rows: Sequence[Row], asked: float) -> Layer | None:
    """Return the layer that pays at the sparsity asked for, or at the next at which one does."""
    for sparsity in [asked, *(one for one in sparsities_of(rows) if one > asked)]:
        if faster := sorted(_faster(rows, sparsity), key=lambda row: -row["speedup"]):
            return _layer(faster[0], rows, faster[1:])
    return None


def _layer(row: Row, rows: Sequence[Row], rest: Sequence[Row] = ()) -> Layer:
    curve = [one for one in rows if one["layer"] == row["layer"]]
    even = told(break_even(curve), curve) if len(curve) > 1 else ""
    alike = [one["layer"] for one in rest if not _is_behind(one, row)]
    return Layer(
        name=row["layer"],
        alike=alike,
        sparsity=row["sparsity"],
        speedup=speedup_of(row),
        verdict=row["verdict"],
        break_even="" if even.startswith("none") else even,  # a curve that falls again has none
        stored=row["bytes_stored"] / row["dense_bytes_stored"] if row.get("dense_bytes_stored") else None,
    )


def _is_behind(row: Row, leader: Row) -> bool:
    """Tell whether processes that measured both agree that one is slower."""
    beside = ratio_of(leader, "process_speedups", row, "process_speedups")
    return beside is not None and beside.low > 1
