"""The rows of trainings in, which pattern to choose out: what each saves in time beside what it costs in accuracy.

Seeds are the processes of a training: an arm and dense, or two arms, are compared seed by seed. What is lost is told against
dense of the same seed, on the same test samples; how much other samples would move it is in no interval.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Literal, NamedTuple

from bench.findings.grouping import (
    BESIDE_ONE_DENSE,
    NARROW,
    UNKNOWN,
    by_fields,
    by_training,
    conditions_of,
    patterned,
    shape_of,
    sparsities_of,
)
from bench.findings.trainings import speedup_over_seeds
from bench.grids import UNPRUNED
from bench.runs.row import Row
from bench.statistics.intervals import Interval
from bench.statistics.losses import MARGIN_LOST, loss_of
from bench.statistics.sequential import FEWEST
from bench.statistics.verdicts import difference_interval, process_interval, values_needed
from sparse_models.masks import UNSTRUCTURED

POINTS = f"{MARGIN_LOST:.0%}".rstrip("%")  # in points


class Choice(NamedTuple):
    """One arm: how fast it is, what it loses in accuracy against dense, and what it stores as a fraction of dense's bytes."""

    pattern: str
    layer: str
    update: str
    sparsity: float
    speedup: Interval
    speedups: Mapping[int, float]  # by seed
    accuracies: Mapping[int, float]
    lost: Interval | None  # over seeds; None where there is but one
    loses: Literal["little", "more", "undecided"]  # than MARGIN_LOST
    seeds_needed: int | None  # to decide that, if seeds go on to differ as these do; None where it is decided, or very many
    stored: float | None

    @property
    def name(self) -> str:
        """The arm in a few words."""
        return NARROW if self.pattern == NARROW else f"{self.update} {self.layer}"


class Advice(NamedTuple):
    """On one data set: all arms, the one that stands for its pattern at each sparsity, and what is to be said of them."""

    data: str
    shape: str
    conditions: str
    seeds: int
    test_samples: int | None  # the same for all seeds; None where the rows do not tell
    choices: list[Choice]
    shown: list[Choice]
    sentences: list[str]


def advice(rows: Sequence[Row]) -> list[Advice]:
    """Return what the rows of trainings tell of patterns, by data set; nothing where one alone was trained.

    Only where each arm had a learning rate of its own: with one for all, the pattern that it suits would look best.
    """
    found = []
    tuned = [patterned(row) for row in rows if row["protocol"] == "tuned" and row["model"] in ("sparse", "narrow")]
    dense_bytes = {_where(row): row["bytes_stored"] for row in rows if row["model"] == "dense"}
    for trained in by_training(tuned):
        group = [row for row in trained if row["model"] != UNPRUNED]
        sparse = [row for row in group if row["model"] == "sparse"]
        if len({row["pattern_key"] for row in sparse}) < 2:
            continue
        arms = [of_arm for _, of_arm in by_fields(group, "model", "pattern_key", "layer", "update", "sparsity", "distribution")]
        choices = [_choice(arm, dense_bytes.get(_where(arm[0]))) for arm in arms]
        seeds = len({row["seed"] for row in group})
        shown = list(_shown(arms, choices))
        sentences = [text for at in sparsities_of(sparse) if (text := _fastest_at(at, shown))]
        sentences.append(_fastest_of_all(choices))
        first = group[0]
        what = (first["data"], shape_of(group), conditions_of(group), seeds, first.get("test_samples"))
        found.append(Advice(*what, choices, shown, sentences))
    return found


def _where(row: Row) -> tuple[str, ...]:
    return tuple(str(row.get(field, UNKNOWN)) for field in BESIDE_ONE_DENSE)


def _choice(rows: Sequence[Row], dense_bytes: int | None) -> Choice:
    """Return what the rows of one arm, one a seed, tell."""
    first = rows[0]
    dense, own = ([row[field] for row in rows] for field in ("dense_test_accuracy", "test_accuracy"))
    lost = loss_of(dense, own)
    return Choice(
        pattern=NARROW if first["model"] == "narrow" else first["pattern"],
        layer=first["layer"],
        update=first["update"],
        sparsity=first["sparsity"],
        speedup=speedup_over_seeds(rows),
        speedups={row["seed"]: row["speedup"] for row in rows},
        accuracies={row["seed"]: row["test_accuracy"] for row in rows},
        lost=lost.interval,
        loses=lost.verdict,
        seeds_needed=values_needed(lost.differences, MARGIN_LOST) if lost.interval and lost.verdict == "undecided" else None,
        stored=first["bytes_stored"] / dense_bytes if dense_bytes else None,
    )


def _shown(arms: Sequence[Sequence[Row]], choices: Sequence[Choice]) -> Iterator[Choice]:
    """Yield for each sparsity and pattern the fastest of its arms that are not shown to lose much, or else of all."""
    keys = [(arm[0]["sparsity"], arm[0]["model"] == "narrow", arm[0]["pattern_key"]) for arm in arms]
    for key in sorted(dict.fromkeys(keys), key=lambda key: key[:2]):
        own = [choice for one, choice in zip(keys, choices, strict=True) if one == key]
        yield fastest(_not_losing(own) or own)


def _not_losing(choices: Sequence[Choice]) -> list[Choice]:
    return [choice for choice in choices if choice.loses != "more"]


def fastest(choices: Sequence[Choice]) -> Choice:
    """Return the arm of the highest speed-up over dense."""
    return max(choices, key=lambda choice: choice.speedup.median)


def _alike(leader: Choice, choices: Sequence[Choice]) -> list[Choice]:
    """Return the others that seeds cannot tell from the fastest by their speed."""
    others = [choice for choice in choices if choice is not leader]
    return [other for other in others if (faster := _times_as_fast(leader, other)) is None or faster.low <= 1]


def _times_as_fast(one: Choice, other: Choice) -> Interval | None:
    common = sorted(one.speedups.keys() & other.speedups.keys())
    return process_interval([one.speedups[seed] / other.speedups[seed] for seed in common]) if len(common) > 1 else None


def _more_accurate(one: Choice, other: Choice) -> Interval | None:
    common = sorted(one.accuracies.keys() & other.accuracies.keys())
    return difference_interval([one.accuracies[seed] - other.accuracies[seed] for seed in common]) if len(common) > 1 else None


def _fastest_at(sparsity: float, shown: Sequence[Choice]) -> str | None:
    """Return which pattern is fastest at a sparsity and how it fares beside unstructured; None where one is there alone."""
    there = [choice for choice in shown if choice.sparsity == sparsity and choice.pattern != NARROW]
    if len(there) < 2:
        return None
    leader = fastest(there)
    alike = _alike(leader, there)
    if alike:
        names = _any([_with_pattern(choice) for choice in (leader, *alike)])
        return f"At {sparsity:g}: which is fastest, {names}, {_seeds(leader)} cannot tell."
    free = [choice for choice in there if choice.pattern == UNSTRUCTURED.name and choice is not leader]
    other = fastest(free or [choice for choice in there if choice is not leader])
    return (
        f"At {sparsity:g}: {_with_pattern(leader)} is the fastest, {_times_as_fast(leader, other)} times as fast as "
        f"{_with_pattern(other)}, {_beside(leader, other)}."
    )


def _beside(one: Choice, other: Choice) -> str:
    """Return how the accuracy of one compares with another's, of which two seeds at least have both."""
    more = _more_accurate(one, other)
    assert more is not None
    if more.low == more.high == 0:
        return "at the same accuracy"
    if more.low > 0:
        return f"at {points(more)} points more accuracy"
    less = Interval(-more.median, -more.high, -more.low)
    if less.low > 0:
        return f"at {points(less)} points less accuracy"
    told = f"and {_seeds(one)} cannot tell which is more accurate"
    if max(more.high, less.high) <= MARGIN_LOST:
        return f"{told}, by at most {POINTS} point"
    by = f"the first by {points(more)}" if more.median >= 0 else f"the second by {points(less)}"
    return f"{told} ({by} points)"


def _fastest_of_all(choices: Sequence[Choice]) -> str:
    """Return which arm is the fastest of those that are not shown to lose more than the margin, and which sparse one."""
    kept = _not_losing(choices)
    if not kept:
        return f"All {len(choices)} arms lose more than {POINTS} point of dense's accuracy."
    told = f"Not shown to lose more than {POINTS} point: {len(kept)} of {len(choices)} arms"
    leader, sparse = fastest(kept), [choice for choice in kept if choice.pattern != NARROW]
    if leader.speedup.low <= 1:
        return f"{told}, none of which is shown to be faster than dense: {_told(leader)}."
    told = f"{told}. The fastest is {_told(leader)}"
    alike = _alike(leader, kept)
    best = [] if leader in sparse or not sparse else [fastest(sparse)]
    if others := [_at(choice) for choice in alike if choice not in best]:
        told = f"{told}; {_any(others)} may be as fast"
    for choice in best:
        told = f"{told}; of sparse arms{', perhaps as fast,' * (choice in alike)} {_told(choice)}"
    return f"{told}."


def _any(names: Sequence[str], most: int = 3) -> str:
    """Return one name or another, and how many there are beside the first of them."""
    more = len(names) - most
    return " or ".join([*names[:most], *[f"{more} other{'s' * (more > 1)}"] * (more > 0)])


def _told(choice: Choice) -> str:
    """Return an arm with its speed-up and what it loses."""
    speed = f"{_at(choice)}: {choice.speedup}x dense"
    if choice.lost is None:
        return f"{speed}, and what it loses {_seeds(choice)} cannot tell (--seeds {FEWEST} may)"
    lost = f"{speed}, {points(choice.lost)} lost"
    if choice.loses != "undecided":
        return lost
    needed = f"--seeds {choice.seeds_needed} may" if choice.seeds_needed else "nor may 100"
    return f"{lost}, which {_seeds(choice)} cannot tell from more than {POINTS} ({needed})"


def _at(choice: Choice) -> str:
    return f"{_with_pattern(choice)} at {choice.sparsity:g}"


def _with_pattern(choice: Choice) -> str:
    return choice.name if choice.pattern == NARROW else f"{choice.name} ({choice.pattern})"


def _seeds(choice: Choice) -> str:
    count = len(choice.accuracies)
    return f"{count} seed{'s' * (count != 1)}"


def points(fraction: Interval) -> str:
    """Return a difference of accuracies in percentage points, as 0.3 [-0.4 1.0]."""
    return "{:.1f} [{:.1f} {:.1f}]".format(*(round(value * 100, 1) + 0.0 for value in fraction))  # no -0.0
