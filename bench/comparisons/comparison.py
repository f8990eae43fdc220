"""Two runs in, what changed between them out, case by case, with interval and verdict.

What is judged is the speed-up over dense: old and new candidate were each timed beside dense in the same process, and what the
machine did to both is not in it. The candidate's own time and dense's are told beside it, since a speed-up also falls where
dense became faster. Where old and new took turns, dense itself is judged too, by the clock.

Two runs may have found dense fastest in two ways. As much as one of them gained by its own may then be the reference's alone,
and is taken off the change.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from typing import NamedTuple

from bench.comparisons.cases import VERDICTS, CaseChange, changed, definition_of, judged_by, note_of
from bench.comparisons.layer_groups import Group, Member, groups
from bench.comparisons.summary import Summary, summary_of
from bench.runs.saved import Measured, Run, SavedRow
from bench.statistics.empirical_null import least_told, widened
from bench.statistics.verdicts import judged


class Comparison(NamedTuple):
    """Two runs, old and new, and what became of each case."""

    old: Run
    new: Run
    changes: list[CaseChange]
    not_asked: int  # cases of the old run that the new one was not asked to measure
    groups: list[Group]  # where processes took turns, the slowest first
    summary: Summary

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
        known[name] = changed(was, name, before, after, paired=paired)
    evidence = {name: one.evidence for name, one in known.items() if one.evidence and not one.verdict}
    layers = {name: known[name].row.layer for name in evidence}  # by its kernels, which unpruned cases have in common with it
    least = None if paired else least_told(evidence, layers)
    if not paired:
        evidence = widened(evidence, layers)
    told = judged(evidence)
    for name, bare in known.items():
        if not bare.verdict:
            one = bare._replace(evidence=evidence.get(name, bare.evidence))
            verdict = told.get(name, "undecided")
            if verdict == "same" and one.slack:  # what was taken off may have hidden a change
                verdict = "undecided"
            known[name] = one._replace(verdict=verdict, note=note_of(one, verdict))
    old_names = {was for was, *_ in matched}
    gone = [(name, case) for name, case in old.cases.items() if name not in old_names]
    known |= {name: CaseChange(name, "new", None, case) for name, case in new.cases.items() if name not in known}
    lost = [CaseChange(name, "gone", case, None) for name, case in gone if asked(name, case.row)]
    ordered = sorted([*known.values(), *lost], key=lambda one: (VERDICTS.index(one.verdict), -abs(one.slowdown), one.name))
    members = {
        name: Member(after.row, *judged_by(before, after, paired=paired))
        for _, name, before, after in matched
        if paired and known[name].verdict != "changed definition"
    }
    together = groups(members)
    return Comparison(old, new, ordered, len(gone) - len(lost), together, summary_of(ordered, together, least))


def _matched(old: dict[str, Measured], new: dict[str, Measured]) -> Iterator[tuple[str, str, Measured, Measured]]:
    """Yield the cases that are in both, by their names; of those left over the renamed, by their definitions."""
    for name in old.keys() & new.keys():
        yield name, name, old[name], new[name]
    both = ((old, new), (new, old))
    left = [{name: definition_of(case.row) for name, case in run.items() if name not in other} for run, other in both]
    counts = [Counter(definitions.values()) for definitions in left]
    names = {definition: name for name, definition in left[0].items()}
    for name, definition in left[1].items():
        if counts[0][definition] == counts[1][definition] == 1:
            yield names[definition], name, old[names[definition]], new[name]
