"""What was measured of a case, as plain records that the engine fills: pairs, process by process."""

import statistics
from collections.abc import Sequence
from typing import Any, NamedTuple

from sparse_models.kernels.contention import DISTURBED


class Race(NamedTuple):
    """Seconds per call of each pair, in the order measured, and what else is known of each; `timed` are those of all rounds."""

    seconds: list[float]
    dense_seconds: list[float]
    timed: float = 0.0
    waited: Sequence[float] = ()  # the fraction of each round for which a thread had no core; none where that is not known
    dense_waited: Sequence[float] = ()
    host_seconds: Sequence[float] = ()  # on a GPU
    dense_host_seconds: Sequence[float] = ()
    handovers: Sequence[float] = ()  # seconds of a cache line from one thread to the next, of each visit where that is known
    later: Sequence[float] = ()  # seconds of the candidate's calls after the last pair, for as long as the reference took
    later_waited: Sequence[float] = ()

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
            [*self.handovers, *other.handovers],
            [*self.later, *other.later],
            [*self.later_waited, *other.later_waited],
        )

    @property
    def undisturbed(self) -> list[int]:
        """The numbers of the pairs that no other process disturbed, as far as is known."""
        both = zip(self.waited, self.dense_waited, strict=True)
        clean = [max(fractions) <= DISTURBED for fractions in both] or [True] * len(self.seconds)
        return [number for number, is_clean in enumerate(clean) if is_clean]

    @property
    def speedups(self) -> list[float]:
        """The dense time over the candidate's, pair by pair, of the undisturbed pairs, which alone count."""
        return [self.dense_seconds[number] / self.seconds[number] for number in self.undisturbed]

    @property
    def speedup(self) -> float:
        """What this process says: the median over the pairs that count, of which there is one at least."""
        return statistics.median(self.speedups)

    def median(self, arm: str) -> float:
        """Return the median over the pairs that count of `seconds`, `dense_seconds` or either on the host."""
        times: Sequence[float] = getattr(self, arm)
        return statistics.median(times[number] for number in self.undisturbed)

    @property
    def as_if_alone(self) -> "Race":
        """The same pairs, of which no round is known to be disturbed."""
        own, dense, later = ([0.0] * len(waited) for waited in (self.waited, self.dense_waited, self.later_waited))
        return self._replace(waited=own, dense_waited=dense, later_waited=later)

    @property
    def mended(self) -> "Race":
        """The same rounds, of which one that was disturbed took what the nearest undisturbed one did, if there is one.

        Another process that has a core for a moment makes an epoch take up to 70 times as long, and a sum forgets no epoch.
        """
        clean, pairs = self.undisturbed, len(self.seconds)
        if not clean:
            return self
        alone = [number for number, waited in enumerate(self.later_waited, pairs) if waited <= DISTURBED]
        own, own_clean = [*self.seconds, *self.later], [*clean, *alone]
        nearest = [min(clean, key=lambda one: abs(one - number)) for number in range(pairs)]
        later = [own[min(own_clean, key=lambda one: abs(one - number))] for number in range(pairs, len(own))]
        seconds, dense_seconds = ([times[number] for number in nearest] for times in (self.seconds, self.dense_seconds))
        return self._replace(seconds=seconds, dense_seconds=dense_seconds, later=later)


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
    def telling(self) -> dict[int, Race]:
        """The races that have an undisturbed pair, by their processes; the others have nothing to say of the case."""
        return {number: race for number, race in zip(self.processes, self.races, strict=True) if race.undisturbed}

    @property
    def speedups(self) -> list[float]:
        """One speed-up for each process that has one."""
        return [race.speedup for race in self.telling.values()]
