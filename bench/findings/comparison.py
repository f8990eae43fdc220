"""Two runs in, what changed between them out, case by case, with interval and verdict.

What is judged is the speed-up over dense: old and new candidate were each timed beside dense in the same process, and what the
machine did to both is not in it. The candidate's own time and dense's are told beside it, since a speed-up also falls where
dense became faster. Where old and new took turns, dense itself is judged too, by the clock.

Two runs may have found dense fastest in two ways. As much as one of them gained by its own may then be the reference's alone,
and is taken off the change.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from bench.findings.layer_groups import Group, Member, groups
from bench.runs.saved import Measured, Run, SavedRow
from bench.statistics.changes import change
from bench.statistics.empirical_null import widened
from bench.statistics.intervals import Interval
from bench.statistics.verdicts import MARGIN, MIN_PROCESSES, Evidence, judged

VERDICTS = ("slower", "faster", "same", "undecided", "new", "gone", "changed definition")
# Two cases that agree in these are one case, whatever it is called.
DEFINITION = (
    *("op", "model", "layer", "update", "shape", "batch", "sparsity", "device", "dtype", "threads", "data", "protocol"),
    *("regime", "skew", "flops_counted", "dense_flops_counted", "parameters", "nnz", "epochs", "waiting"),
)
COSTS = ("bytes_stored", "peak_bytes", "flops_executed", "final_loss", "test_accuracy")  # what no clock measures


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
    def slowdown(self) -> float:
        """How much longer it takes beside dense, as a fraction: 0.2 where it takes 1.2 times as long."""
        return self.evidence.slowdown if self.evidence else 0.0


class Comparison(NamedTuple):
    """Two runs, old and new, and what became of each case."""

    old: Run
    new: Run
    changes: list[CaseChange]
    not_asked: int = 0  # cases of the old run that the new one was not asked to measure
    groups: Sequence[Group] = ()  # where processes took turns, the slowest first

    @property
    def is_sound(self) -> bool:
        """Whether the clock of one run may be held against that of the other."""
        return self.old.hardware == self.new.hardware

    def having(self, *verdicts: str) -> list[CaseChange]:
        """Return the cases with one of these verdicts."""
        return [one for one in self.changes if one.verdict in verdicts]


def compare(
    old: Run, new: Run, *, paired: bool = False, asked: Callable[[str, SavedRow], bool] = lambda *_: True
) -> Comparison:
    """Return what changed from `old` to `new`; `paired` where their processes of one number took turns.

    `asked` tells of an old case that the new run lacks whether it was to measure it; if not, the case is only counted.
    """
    matched = list(_matched(old.cases, new.cases))
    known: dict[str, CaseChange] = {}
    for was, name, before, after in matched:
        known[name] = _changed(was, name, before, after, paired=paired)
    evidence = {name: one.evidence for name, one in known.items() if one.evidence and not one.verdict}
    if not paired:
        evidence = widened(evidence, {name: known[name].row.layer for name in evidence})
    told = judged(evidence)
    for name, bare in known.items():
        if not bare.verdict:
            one = bare._replace(evidence=evidence.get(name, bare.evidence))
            verdict = told.get(name, "undecided")
            if verdict == "same" and one.slack:  # what was taken off may have hidden a change
                verdict = "undecided"
            known[name] = one._replace(verdict=verdict, note=_note(one, verdict))
    old_names = {was for was, *_ in matched}
    gone = [(name, case) for name, case in old.cases.items() if name not in old_names]
    known |= {name: CaseChange(name, "new", None, case) for name, case in new.cases.items() if name not in known}
    lost = [CaseChange(name, "gone", case, None) for name, case in gone if asked(name, case.row)]
    ordered = sorted([*known.values(), *lost], key=lambda one: (VERDICTS.index(one.verdict), -abs(one.slowdown), one.name))
    members = {
        name: Member(after.row, *_judged_by(before, after, paired=paired))
        for _, name, before, after in matched
        if paired and known[name].verdict != "changed definition"
    }
    return Comparison(old, new, ordered, len(gone) - len(lost), groups(members))


def _matched(old: dict[str, Measured], new: dict[str, Measured]) -> Iterator[tuple[str, str, Measured, Measured]]:
    """Yield the cases that are in both, by their names; of those left over the renamed, by their definitions."""
    for name in old.keys() & new.keys():
        yield name, name, old[name], new[name]
    both = ((old, new), (new, old))
    left = [{name: _definition(case.row) for name, case in run.items() if name not in other} for run, other in both]
    counts = [Counter(definitions.values()) for definitions in left]
    names = {definition: name for name, definition in left[0].items()}
    for name, definition in left[1].items():
        if counts[0][definition] == counts[1][definition] == 1:
            yield names[definition], name, old[names[definition]], new[name]


def _definition(row: SavedRow) -> tuple[Any, ...]:
    return tuple(getattr(row, field) for field in DEFINITION)


def _changed(was: str, name: str, old: Measured, new: Measured, *, paired: bool) -> CaseChange:
    """Return the case with all but a verdict on its time, which takes all cases."""
    differing = [field for field in DEFINITION if getattr(old.row, field) != getattr(new.row, field)]
    if differing:
        field = differing[0]
        note = f"{field} was {getattr(old.row, field)} and is {getattr(new.row, field)}"
        return CaseChange(name, "changed definition", old, new, note=note)
    evidence = change(*_judged_by(old, new, paired=paired), paired=paired)
    times = [change(*pair, paired=paired) for pair in ((old.seconds, new.seconds), (old.dense_seconds, new.dense_seconds))]
    own, dense = (one.interval if one else None for one in times)
    return CaseChange(name, "", old, new, evidence, own, dense, "" if was == name else f"was {was}", reference_slack(old, new))


def _judged_by(old: Measured, new: Measured, *, paired: bool) -> tuple[Mapping[int, float], Mapping[int, float]]:
    """Return what each process says of the case, old and new: its speed-up, or where turns were taken dense's speed.

    The new is less what may be due to dense's being run in another way.
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
    """Return the logarithm of the largest change that may be due to dense's being run in another way than before.

    It is what either run gained by its way; infinite, where one that differs does not tell.
    """
    if old.row.dense_layout == new.row.dense_layout:
        return 0.0
    gains = [one.row.dense_layout_gain for one in (old, new)]
    if None in gains:
        return math.inf
    return max(abs(math.log(gain)) for gain in gains if gain)


def _note(one: CaseChange, verdict: str) -> str:
    """Return what the reader of a verdict would ask next."""
    assert one.old is not None
    assert one.new is not None
    notes = [one.note] if one.note else []
    if verdict in ("slower", "faster") and one.own_time and one.dense_time and one.row.layer != "dense":
        sign = 1 if verdict == "slower" else -1
        own, dense = ((interval.median - 1) * sign for interval in (one.own_time, one.dense_time))
        if -dense > max(own, 0):  # of the change, more is dense's than the candidate's
            notes.append(f"dense is {'faster' if sign > 0 else 'slower'}")
    if verdict in ("slower", "faster") and one.slack:
        ways = [measured.row.dense_layout for measured in (one.old, one.new)]
        notes.append(f"dense was {ways[0]} and is {ways[1]}: {math.expm1(one.slack):.0%} is taken off for that")
    if math.isinf(one.slack):
        ways = [measured.row.dense_layout for measured in (one.old, one.new)]
        notes.append(f"dense was {ways[0]} and is {ways[1]}, which may be all of it")
    few = min(len(one.old.speedups), len(one.new.speedups))
    if verdict == "undecided" and few < MIN_PROCESSES:
        notes.append(f"{few} processes" if few else "what each process said was not saved")
    return "; ".join(notes)


def costs(comparison: Comparison) -> Iterator[str]:
    """Yield a line for each figure that no clock measures and that changed by more than the margin."""
    for one in comparison.changes:
        if one.old is None or one.new is None or one.verdict == "changed definition":
            continue
        for field in COSTS:
            before, after = (getattr(measured.row, field) for measured in (one.old, one.new))
            if before is None or after is None or before == after:
                continue
            if field == "test_accuracy":
                if abs(after - before) > 0.01:
                    yield f"{one.name}: {field} was {before:.3f} and is {after:.3f}"
            elif not before or abs(after / before - 1) > MARGIN:
                yield f"{one.name}: {field} was {before:.4g} and is {after:.4g}"


def by_layer(changes: Iterable[CaseChange]) -> dict[str, list[CaseChange]]:
    """Return the cases layer by layer, an update rule's beside the layer it moves."""
    layers: dict[str, list[CaseChange]] = {}
    for one in changes:
        layers.setdefault(one.row.layer, []).append(one)
    return layers
