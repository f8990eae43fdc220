"""What arms took until they were as accurate as dense in, whether one is sooner than dense and than narrow dense out.

The soonest of many arms looks sooner than it is: some of that is its luck. So a quarter of the seeds, two at least,
choose the arm that is named, and narrow dense, and only the others tell how they fare: so the intervals are those of arms named
beforehand, however many there were to choose from. It takes two seeds to choose and six for an interval.
"""

from collections.abc import Collection, Sequence
from typing import NamedTuple

from bench.findings.grouping import NARROW
from bench.findings.time_to_accuracy.arms import Arm, TimeToAccuracy
from bench.findings.time_to_accuracy.seeds import MARGIN
from bench.grids import UNPRUNED
from bench.statistics.censoring import Median, median_of
from bench.statistics.intervals import SIGN_VALUES

CHOOSING = 2  # seeds, at least
GOAL = 1 / 3  # of dense's time


class Verdict(NamedTuple):
    """The arm that is named and the soonest narrow dense, both by the seeds that did not choose them."""

    arm: Arm
    narrow: Arm | None
    of: int  # sparse arms to choose from
    choosing: int  # seeds
    lacking: int  # seeds that other arms have, and the one that is named has not

    @property
    def over_narrow(self) -> Median | None:
        """The arm's time over that of narrow dense, seed by seed."""
        if self.narrow is None:
            return None
        # Of each its ratio to the dense that was trained in turns with it: what the machine did meanwhile cancels.
        ratios = [(seed.ratios.seconds, self.narrow.seeds[number].ratios.seconds) for number, seed in self.arm.seeds.items()]
        return median_of([own.over(narrow) for own, narrow in ratios])


def verdict(found: TimeToAccuracy) -> Verdict | None:
    """Return which sparse arm is named; None where there is none, or where seeds are too few to choose one of several."""
    arms = [arm for arm in found.arms if arm.model == "sparse"]
    seeds = {seed for arm in arms for seed in arm.seeds}
    choosing = _choosing(arms, seeds) if len(arms) > 1 else set()
    if choosing and len(seeds) < len(choosing) + SIGN_VALUES:
        return None
    arms = [arm for arm in arms if arm.seeds.keys() > choosing]
    if not arms:
        return None
    arm = _soonest(arms, choosing)
    own = arm.among(arm.seeds.keys() - choosing)
    narrow = [one for one in found.arms if one.model == "narrow" and one.seeds.keys() >= choosing | own.seeds.keys()]
    if not choosing:
        narrow = [one for one in narrow if one.sparsity == arm.sparsity]
    rival = _soonest(narrow, choosing).among(own.seeds) if narrow else None
    return Verdict(own, rival, len(arms), len(choosing), len(seeds - arm.seeds.keys()))


def _choosing(arms: Sequence[Arm], seeds: Collection[int]) -> set[int]:
    """Return the seeds that choose: a quarter of all, those that most arms have, whatever they tell."""
    lacking = {seed: sum(seed not in arm.seeds for arm in arms) for seed in seeds}
    return set(sorted(seeds, key=lambda seed: (lacking[seed], seed))[: max(CHOOSING, len(seeds) // 4)])


def _soonest(arms: Sequence[Arm], seeds: Collection[int]) -> Arm:
    """Return the arm that is the soonest in the seed in which it is the latest; the first where no seed is to choose."""

    def latest(arm: Arm) -> tuple[float, float]:
        ratios = [arm.seeds[seed].ratios.seconds for seed in seeds]
        return max(ratio.high for ratio in ratios), max(ratio.low for ratio in ratios)

    return min(arms, key=latest) if seeds else arms[0]


def sentence(found: TimeToAccuracy) -> str:
    """Return the verdict in words, every figure read from the rows; empty where no arm is sparse."""
    what, told = f"{found.data}, {found.shape}, {found.protocol}", verdict(found)
    if told is None:
        text = _range(found)
        return f"{what}: {text}." if text else ""
    text = f"{what}: {named(told.arm)} comes within {MARGIN:g} of dense's best accuracy on the validation split{_figures(told)}"
    chose = f" {told.choosing} seeds chose it of {told.of} sparse arms; {len(told.arm.seeds)} others tell this."
    lacking = f" It has no figures of {told.lacking} seed{'s' * (told.lacking != 1)} that others have."
    return f"{text}; test accuracy {_accuracy(told)}.{chose if told.choosing else ''}{lacking if told.lacking else ''}"


def brief(found: TimeToAccuracy) -> str:
    """Return the verdict in a few words; empty where none is to be named."""
    told = verdict(found)
    if told is None:
        return ""
    arm, ratio = told.arm, told.over_narrow
    text = f"to dense's accuracy on {found.data}: {named(arm)} in {arm.time_ratio} of dense's time"
    text += f" ({_how_soon(arm.time_ratio)})"
    text += "".join(f", {one.name} in {one.time_ratio} of it" for one in found.arms if one.model == UNPRUNED)
    text += f", {ratio} of narrow's ({_how_soon(ratio, None)})" if ratio else ""
    text += "" if arm.stored is None else f", bytes {arm.stored:.2f}"
    return f"{text}; accuracy {_accuracy(told, 'narrow')}"


def named(arm: Arm) -> str:
    """Return what an arm is called in a sentence."""
    return f"{NARROW if arm.model == 'narrow' else arm.name} at {arm.sparsity:g}"


def _figures(told: Verdict) -> str:
    arm, ratio = told.arm, told.over_narrow
    text = f" in {arm.time_ratio} of dense's time ({_how_soon(arm.time_ratio)}{_there(arm)}), {arm.flops_ratio} of its FLOPs"
    text += "" if arm.stored is None else f", {arm.stored:.2f} of its bytes"
    text += "" if arm.peak is None else f", {arm.peak:.2f} of its peak of memory"
    if told.narrow and ratio:
        text += f", and {ratio} of the time of {named(told.narrow)} ({_how_soon(ratio, None)}{_there(told.narrow)})"
    return text


def _there(arm: Arm) -> str:
    return f", there in {arm.there} of {len(arm.seeds)} seeds" if arm.there < len(arm.seeds) else ""


def _how_soon(ratio: Median, goal: float | None = GOAL) -> str:
    """Return in words whether the whole interval is at most the goal, below 1 or above it."""
    if ratio.interval is None:
        return f"no interval: it takes {SIGN_VALUES} seeds"
    if goal and ratio.interval.high <= goal:
        return "at most a third"
    if ratio.interval.high < 1:
        return "sooner, a third not shown" if goal else "sooner"
    return "later" if ratio.interval.low > 1 else "undecided"


def _accuracy(told: Verdict, narrow_name: str = NARROW) -> str:
    """Return the median test accuracies of the arm, of dense and of narrow dense."""
    own, narrow = told.arm, told.narrow
    figures = [own.median(lambda seed: seed.test_accuracy), own.median(lambda seed: seed.dense_test_accuracy)]
    figures += [narrow.median(lambda seed: seed.test_accuracy)] if narrow else []
    first, *others = (figure.median.told("{:.3f}".format) for figure in figures)
    return f"{first} ({', '.join(f'{name} {other}' for name, other in zip(('dense', narrow_name), others, strict=False))})"


def _range(found: TimeToAccuracy) -> str:
    """Return what is told of all sparse arms together, where none of them is to be named; empty where there is none."""
    arms = [arm for arm in found.arms if arm.model == "sparse"]  # the soonest first
    if not arms:
        return ""
    always = sum(arm.there == len(arm.seeds) for arm in arms)
    first, last = (arm.time_ratio.median.told("{:.2f}".format) for arm in (arms[0], arms[-1]))
    return (
        f"{always} of {len(arms)} sparse arms come within {MARGIN:g} of dense's best accuracy on the validation split in each "
        f"of their seeds, {first} to {last} of dense's time; to name one takes {CHOOSING + SIGN_VALUES} seeds, "
        f"{CHOOSING} to choose it and {SIGN_VALUES} for an interval at 95 %"
    )
