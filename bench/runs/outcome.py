"""What was measured of a case, as plain records that the engine fills: pairs, process by process."""

import statistics
from collections.abc import Sequence
from typing import Any, NamedTuple

from bench.statistics.intervals import SIGN_VALUES

# A round in which a thread waited for a core that another process had measures that process too. Such a wait is a few
# milliseconds or none; what is left below this fraction are the kernel's own threads. A wait is told when it ends, and may have
# begun before the round: never is more than MOST_WAITED of a round taken off for it.
DISTURBED, MOST_WAITED = 0.02, 0.9


class Race(NamedTuple):
    """Seconds per call of each pair, in the order measured, and what else is known of each; `timed` are those of all rounds."""

    seconds: list[float]
    dense_seconds: list[float]
    timed: float = 0.0
    waited: Sequence[float] = ()  # the fraction of each round for which a thread had no core; none where that is not known
    dense_waited: Sequence[float] = ()
    host_seconds: Sequence[float] = ()  # on a GPU
    dense_host_seconds: Sequence[float] = ()

    def joined(self, other: "Race") -> "Race":
        """Return the pairs of this and of another visit in the same process."""
        return Race(
            [*self.seconds, *other.seconds],
            [*self.dense_seconds, *other.dense_seconds],
            self.timed + other.timed,
            [*self.waited, *other.waited],
            [*self.dense_waited, *other.dense_waited],
            [*self.host_seconds, *other.host_seconds],
            [*self.dense_host_seconds, *other.dense_host_seconds],
        )

    @property
    def undisturbed(self) -> list[int]:
        """The numbers of the pairs that no other process disturbed, as far as is known."""
        both = zip(self.waited, self.dense_waited, strict=True)
        clean = [max(fractions) <= DISTURBED for fractions in both] or [True] * len(self.seconds)
        return [number for number, is_clean in enumerate(clean) if is_clean]

    @property
    def counted(self) -> list[int]:
        """The numbers of the pairs that count: those no other process disturbed or, if they make no interval, all."""
        return self.undisturbed if len(self.undisturbed) >= SIGN_VALUES else list(range(len(self.seconds)))

    def times(self, arm: str) -> list[float]:
        """Return `seconds` or `dense_seconds`, less the time for which a thread of a disturbed round had no core."""
        waited: Sequence[float] = getattr(self, arm.replace("seconds", "waited")) or [0.0] * len(self.seconds)
        return [
            seconds * (1 - min(fraction, MOST_WAITED)) if fraction > DISTURBED else seconds
            for seconds, fraction in zip(getattr(self, arm), waited, strict=True)
        ]

    @property
    def speedups(self) -> list[float]:
        """The dense time over the candidate's, pair by pair, of the pairs that count."""
        seconds, dense_seconds = self.times("seconds"), self.times("dense_seconds")
        return [dense_seconds[number] / seconds[number] for number in self.counted]

    @property
    def speedup(self) -> float:
        """What this process says: the median over the pairs that count."""
        return statistics.median(self.speedups)

    def median(self, arm: str) -> float:
        """Return the median over the pairs that count of `seconds`, `dense_seconds` or either on the host."""
        times = getattr(self, arm) if "host" in arm else self.times(arm)
        return statistics.median(times[number] for number in self.counted)


class Outcome:
    """What the processes said of one case so far."""

    def __init__(self) -> None:
        """Start with nothing."""
        self.races: list[Race] = []
        self.processes: list[int] = []  # which process each race is from
        self.facts: dict[str, Any] = {}
        self.failure: str | None = None

    def add(self, process: int, race: Race, facts: dict[str, Any]) -> None:
        """Take what a process measured in one visit: all its visits make one race."""
        self.facts = self.facts or facts
        if process in self.processes:
            at = self.processes.index(process)
            self.races[at] = self.races[at].joined(race)
        else:
            self.processes.append(process)
            self.races.append(race)

    @property
    def speedups(self) -> list[float]:
        """One speed-up a process."""
        return [race.speedup for race in self.races]
