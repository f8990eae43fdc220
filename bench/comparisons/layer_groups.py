"""Cases of one layer, and those of one operation of it, judged together: many noisy cases decide what none of them can.

Only where old and new processes took turns (`continuous`): each pair of neighbours gives every case a change, and the median
over the cases of a group is the group's. What disturbed one case, or moved it to another page of memory, is no matter to the
median; what the machine did to all of them is in both processes of a pair. Between saved runs it is in one and not the other,
and a group would only be surer of it.
"""

import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from bench.findings.grouping import layer_name
from bench.runs.saved import SavedRow
from bench.statistics.changes import change
from bench.statistics.verdicts import Evidence, judged

LEAST_CASES = 3  # of fewer, each speaks for itself


class Member(NamedTuple):
    """A case, and what its old and new processes say of it, by their numbers."""

    row: SavedRow
    old: Mapping[int, float]
    new: Mapping[int, float]


class Group(NamedTuple):
    """Cases that were judged together."""

    name: str
    cases: list[str]
    evidence: Evidence  # on the new speed-up over the old one, as of a case
    verdict: str = "undecided"

    @property
    def slowdown(self) -> float:
        """How much longer the cases take beside dense, as a fraction."""
        return self.evidence.slowdown


def groups(members: Mapping[str, Member]) -> list[Group]:
    """Return the groups of the cases that took turns, the slowest first; trainings, whose processes are seeds, are in none."""
    cases: dict[str, list[str]] = {}
    for name, member in members.items():
        row = member.row
        if row.op != "train":
            layer = f"{layer_name(row.model, row.layer)} on {row.device}"
            cases.setdefault(layer, []).append(name)
            cases.setdefault(f"{row.op} of {layer}", []).append(name)
    found = {
        tuple(names): Group(group, names, evidence)  # an operation that is all of a layer is told once
        for group, names in reversed(cases.items())
        if len(names) >= LEAST_CASES and (evidence := _together([members[name] for name in names]))
    }
    told = judged({group.name: group.evidence for group in found.values()})
    return sorted((group._replace(verdict=told[group.name]) for group in found.values()), key=lambda one: -one.slowdown)


def _together(members: Sequence[Member]) -> Evidence | None:
    """Return what is known of the change of some cases together; None where too few processes measured them."""
    changes = dict(_changes(members))
    return change(dict.fromkeys(changes, 1.0), changes, paired=True)


def _changes(members: Sequence[Member]) -> Iterator[tuple[int, float]]:
    """Yield, for each pair of processes in which at least half of the cases were measured, the median change of these."""
    for number in sorted({number for member in members for number in member.new}):
        both = [member for member in members if number in member.old and number in member.new]
        if 2 * len(both) >= len(members):
            logs = [math.log(member.new[number] / member.old[number]) for member in both]
            yield number, math.exp(statistics.median(logs))
