"""`--fail-slower`: a comparison in, the lines for which a build is to fail out.

A case fails where it is slower beyond doubt and, by estimate, by as much as its limit; where processes took turns, so does a
layer, or an operation of one, over all of its cases together. The gate fails closed: where nothing can be compared, where a
case that it is to watch is gone or means something else, and where no verdict was possible at all.
"""

import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from bench.comparisons.cases import CaseChange
from bench.comparisons.comparison import Comparison
from bench.comparisons.layer_groups import Group
from bench.statistics.changes import MIN_PAIRS, MIN_PROCESSES
from sparse_models.errors import InputError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

TABLE = "tool.sparse-models.fail-slower"  # in pyproject.toml: a percentage, or "off", for each pattern of names
SHOWN = 20


class Limits(NamedTuple):
    """From which slowdown on a case fails: one for all, and others for names that match a pattern, the last of which holds."""

    default: float
    patterns: Mapping[str, float | None] = {}

    def of(self, name: str) -> float | None:
        """Return the limit of a case as a fraction; None where it is not watched."""
        matching = [limit for pattern, limit in self.patterns.items() if re.fullmatch(regular(pattern), name)]
        return matching[-1] if matching else self.default


def regular(pattern: str) -> str:
    """Return a pattern as a regular expression for all of a name: * stands for anything, brackets for themselves."""
    return ".*".join(map(re.escape, pattern.split("*")))


def percentage(text: str) -> float:
    """Return the fraction that a percentage stands for; raises InputError, one sentence, for anything else."""
    match = re.fullmatch(r"(\d{1,4}(?:\.\d{1,3})?) ?%", text.strip())
    if not match or float(match[1]) == 0:
        raise InputError(f"expected a percentage above 0, got {text!r}; for example 10%")
    return float(match[1]) / 100


def read_limits(text: str, folder: Path) -> Limits:
    """Return the limits: `text` for all, and those in the folder's pyproject.toml; raises InputError, one sentence."""
    path = folder / "pyproject.toml"
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    except (OSError, ValueError) as error:
        raise InputError(f"expected a pyproject.toml that can be read, got {error}") from None
    table = content
    for name in TABLE.split("."):
        table = table.get(name, {}) if isinstance(table, dict) else {}
    if not isinstance(table, dict) or not all(isinstance(limit, str) for limit in table.values()):
        raise InputError(f'[{TABLE}] in pyproject.toml: expected lines such as "*csr_linear*" = "25%", got {table!r}')
    try:
        patterns = {pattern: None if limit == "off" else percentage(limit) for pattern, limit in table.items()}
    except InputError as error:
        raise InputError(f"[{TABLE}] in pyproject.toml: {error}, or off") from None
    return Limits(percentage(text), patterns)


def failures(comparison: Comparison, limits: Limits) -> list[str]:
    """Return a line for each reason to fail; none where the gate passes."""
    return list(_failures(comparison, limits))


def _failures(comparison: Comparison, limits: Limits) -> Iterator[str]:
    if not comparison.is_sound:
        yield (
            f"other hardware: {comparison.old.label} is of {comparison.old.hardware}, and this is {comparison.new.hardware}; "
            "a run of this machine is needed"
        )
        return
    yield from _uncertain(comparison, limits)
    for group in comparison.groups:
        yield from _slower(group, _limit_of(group, limits), over=f" over its {len(group.cases)} cases together")
    for one in comparison.changes:
        yield from _slower(one, limits.of(one.name), note=f" ({one.note})" if one.note else "")


def _slower(one: CaseChange | Group, limit: float | None, over: str = "", note: str = "") -> Iterator[str]:
    """Yield the line for what is slower by as much as its limit, if it is and is watched."""
    if limit is not None and one.verdict == "slower" and one.slowdown >= limit:
        yield f"{one.name}: slower by {one.slowdown:.0%}{over}, {limit:.0%} allowed{note}"


def _uncertain(comparison: Comparison, limits: Limits) -> Iterator[str]:
    """Yield a line for each reason for which what is watched cannot be told to be no slower."""
    watched = [one for one in comparison.changes if limits.of(one.name) is not None]
    common = [one for one in watched if one.verdict not in ("new", "gone", "changed definition")]
    for one in watched:
        if one.verdict == "gone":
            yield f"{one.name}: gone"
        elif one.verdict == "changed definition":
            yield f"{one.name}: changed definition ({one.note})"
    if not common:
        yield f"no case that is to be watched is in both runs, {comparison.old.label} and the new one"
    elif not any(one.verdict == "same" or one.is_decidable for one in common):
        needed = f"{MIN_PROCESSES} processes in both runs that a verdict takes ({MIN_PAIRS} in turns)"
        yield f"no case has the {needed}; raise --budget and --processes"


def _limit_of(group: Group, limits: Limits) -> float | None:
    """Return the largest limit of the group's cases; None where one of them is not watched."""
    allowed = [limits.of(name) for name in group.cases]
    return None if None in allowed else max(limit for limit in allowed if limit is not None)
