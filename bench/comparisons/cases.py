"""One case in two runs: what is judged of it, what may be due to its reference alone, and what a reader would ask next."""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from bench.runs.saved import Measured, SavedRow
from bench.statistics.changes import change
from bench.statistics.intervals import Interval
from bench.statistics.verdicts import Evidence

VERDICTS = ("slower", "faster", "same", "undecided", "new", "gone", "changed definition")
# Two cases that agree in these are one case, whatever it is called.
DEFINITION = (
    *("op", "model", "layer", "update", "shape", "batch", "sparsity", "device", "dtype", "threads", "data", "protocol"),
    *(
        "regime",
        "skew",
        "distribution",
        "zeros",
        "flops_counted",
        "dense_flops_counted",
        "parameters",
        "nnz",
        "epochs",
        "waiting",
    ),
)


class CaseChange(NamedTuple):
    """What became of one case."""

    name: str
    verdict: str
    old: Measured | None
    new: Measured | None
    evidence: Evidence | None = None  # on the new speed-up over the old one; on dense by the clock, old time over new
    own_time: Interval | None = None  # new over old
    dense_time: Interval | None = None  # new over old
    note: str = ""
    slack: float = 0.0  # see reference_slack

    @property
    def row(self) -> SavedRow:
        """The case's row, the newer one where there are two."""
        measured = self.new or self.old
        assert measured is not None
        return measured.row

    @property
    def is_decidable(self) -> bool:
        """Whether there are processes enough to decide."""
        return self.evidence is not None and self.evidence.suffices

    @property
    def slowdown(self) -> float:
        """How much longer it takes beside dense, as a fraction: 0.2 where it takes 1.2 times as long."""
        return self.evidence.slowdown if self.evidence else 0.0


def definition_of(row: SavedRow) -> tuple[Any, ...]:
    """Return what a case is, whatever it is called."""
    return tuple(getattr(row, field) for field in DEFINITION)


def changed(was: str, name: str, old: Measured, new: Measured, *, paired: bool) -> CaseChange:
    """Return the case with all but a verdict on its time, which takes all cases."""
    differing = [field for field in DEFINITION if getattr(old.row, field) != getattr(new.row, field)]
    if differing:
        field = differing[0]
        note = f"{field} was {getattr(old.row, field)} and is {getattr(new.row, field)}"
        return CaseChange(name, "changed definition", old, new, note=note)
    evidence = change(*judged_by(old, new, paired=paired), paired=paired)
    times = [change(*pair, paired=paired) for pair in ((old.seconds, new.seconds), (old.dense_seconds, new.dense_seconds))]
    own, dense = (one.interval if one else None for one in times)
    return CaseChange(name, "", old, new, evidence, own, dense, "" if was == name else f"was {was}", reference_slack(old, new))


def judged_by(old: Measured, new: Measured, *, paired: bool) -> tuple[Mapping[int, float], Mapping[int, float]]:
    """Return what each process says of the case, old and new: its speed-up, or where turns were taken dense's speed.

    The new is less what may be due to dense's being run in another layout.
    """
    is_dense = paired and new.row.layer == "dense" and new.row.model == "dense"
    before, after = (_speeds(one.seconds) if is_dense else one.speedups for one in (old, new))
    slack = reference_slack(old, new)
    evidence = change(before, after, paired=paired) if slack else None
    if evidence is None:
        return before, after
    excess = math.log(evidence.interval.median)
    taken_off = math.exp(-math.copysign(min(abs(excess), slack), excess))
    return before, {number: value * taken_off for number, value in after.items()}


def _speeds(seconds: Mapping[int, float]) -> Mapping[int, float]:
    return {number: 1 / value for number, value in seconds.items()}


def reference_slack(old: Measured, new: Measured) -> float:
    """Return the logarithm of the largest change that may be due to dense's being run in another layout than before.

    It is what either run gained by its layout; infinite, where one that differs does not tell.
    """
    if old.row.dense_layout == new.row.dense_layout:
        return 0.0
    gains = [one.row.dense_layout_gain for one in (old, new)]
    if None in gains:
        return math.inf
    return max(abs(math.log(gain)) for gain in gains if gain)


def note_of(one: CaseChange, verdict: str) -> str:
    """Return what the reader of a verdict would ask next."""
    assert one.old is not None
    assert one.new is not None
    notes = [one.note] if one.note else []
    if verdict in ("slower", "faster") and one.own_time and one.dense_time and one.row.layer != "dense":
        sign = 1 if verdict == "slower" else -1
        own, dense = ((interval.median - 1) * sign for interval in (one.own_time, one.dense_time))
        if -dense > max(own, 0):  # of the change, more is dense's than the candidate's
            notes.append(f"dense is {'faster' if sign > 0 else 'slower'}")
    layouts = f"dense was {one.old.row.dense_layout} and is {one.new.row.dense_layout}"
    if math.isinf(one.slack):
        notes.append(f"{layouts}, which may be all of it")
    elif verdict in ("slower", "faster") and one.slack:
        notes.append(f"{layouts}: {math.expm1(one.slack):.0%} is taken off for that")
    if verdict == "undecided" and not one.is_decidable:
        few = min(len(one.old.speedups), len(one.new.speedups))
        notes.append(f"{few} processes" if few else "what each process said was not saved")
    return "; ".join(notes)
