"""What a reader wants to know first in, at most 20 lines for the end of the screen out."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from bench.findings.activations.paying import Paying
from bench.findings.advice import POINTS, points
from bench.findings.costs import PrunedNetwork
from bench.findings.grouping import NARROW
from bench.findings.short_answer import Kind, Layer, ShortAnswer
from bench.findings.time_to_accuracy.verdict import brief as brief_verdict
from bench.findings.trainings import brief
from bench.findings.undecided import Undecided
from bench.grids import UNPRUNED
from bench.statistics.sequential import FEWEST
from bench.tables.text import Screen, new_console, print_text, seconds, text_of, wrapped

MOST = 20  # lines: of a screen of 24, with the lines around them
INDENT = "  "
# What is left out last to first where not all fits.
ONE_SAMPLE, PRUNED, TRAINED, ZEROS, STEPPED, RIVAL, FORWARD, MORE = range(8)

PAYS, HIGHER, UNDECIDED, NOT = STATUSES = ("pays in", "pays only if it is higher in", "is undecided in", "does not pay in")
VERDICTS = {"faster": "pays", "undecided": "is undecided", "same": "does not pay", "slower": "does not pay"}


class _Item(NamedTuple):
    """Lines that belong together, and how soon they are left out; None where they never are."""

    rank: int | None
    lines: list[str]


def headline(found: ShortAnswer) -> str:
    """Return the answer in one sentence, with how to read the figures after it."""
    conditions = f" ({found.conditions[0]})" if len(found.conditions) == 1 else ""
    on = f"On {found.machine}{conditions}"
    if not found.kinds:
        alone = {"trainings": found.trainings, "networks whose small activations are 0": found.activations}
        alone |= {"pruned networks": found.pruned}
        measured = [name for name, what in alone.items() if what]
        return f"{on} {_listed(measured) + ' alone were' if measured else 'no speed-up of a whole operation was'} measured."
    works: dict[str, list[str]] = {}
    for kind in found.kinds:
        works.setdefault(_status(kind), []).append(work_of(kind))
    asked = sorted({kind.asked for kind in found.kinds})
    at = f"sparsity {' or '.join(f'{sparsity:g}' for sparsity in asked)}" if any(asked) else "every weight kept"
    ordered = sorted(works, key=lambda status: STATUSES.index(status) if status in STATUSES else 0.5)  # beaten after PAYS
    told = "; ".join(f"{status} {_listed(works[status])}" for status in ordered)
    return f"{on} {at} {told} (x: times dense's speed; bytes: stored, over dense's; from: break-even)."


def headlines(found: ShortAnswer, screen: Screen | None = None) -> Iterator[str]:
    """Yield the answer in one sentence alone, for those who begin to read at the top."""
    console = new_console(screen)
    print_text(console, headline(found))
    yield from text_of(console)


def _status(kind: Kind) -> str:
    if kind.best and kind.best.sparsity == kind.asked:
        ahead = [rival.name for rival in kind.rivals if rival.is_better and rival.model in ("dense", "narrow")]
        return f"beats dense but not {' or '.join(ahead)} in" if ahead else PAYS  # who has no need of zeros has no use for them
    if kind.best:
        return HIGHER
    return UNDECIDED if any(layer.verdict == "undecided" for layer in kind.others) else NOT


def lines(found: ShortAnswer, screen: Screen | None = None) -> Iterator[str]:
    """Yield the lines of the short answer; what is left out for want of room is in the tables."""
    console = new_console(screen)
    items = [
        _Item(None, wrapped(headline(found), console.width)),
        *(
            _Item(_rank(kind), wrapped(_kind(kind, names_conditions=len(found.conditions) > 1), console.width, INDENT))
            for kind in found.kinds
        ),
        *(_Item(None, wrapped(text, console.width, INDENT)) for text in _by_zeros_alone(found)),
        *(_Item(rank, wrapped(text, console.width, INDENT)) for rank, text in _rivals(found)),
        *(
            _Item(MORE if number else ZEROS, wrapped(_zeros(one), console.width, INDENT))
            for number, one in enumerate(found.activations)
        ),
        *(_Item(PRUNED, wrapped(text, console.width, INDENT)) for text in _pruned(found)),
        *(_Item(rank, wrapped(text, console.width, INDENT)) for rank, text in _trained(found)),
        _Item(None, list(_undecided(found.undecided, console.width))),
    ]
    for item in _fitting(items):
        for line in item.lines:
            print_text(console, line)
    yield from text_of(console)


def _trained(found: ShortAnswer) -> Iterator[tuple[int, str]]:
    """Yield on each data set how soon to leave it out, and what came of training: to dense's accuracy, else at equal epochs."""
    verdicts = {(one.data, one.shape, one.protocol, one.conditions): brief_verdict(one) for one in found.time_to_accuracy}
    for number, one in enumerate(found.trainings):
        verdict = verdicts.get((one.data, one.shape, one.protocol, one.conditions))
        for text in [verdict] if verdict else brief(one):
            yield MORE if number < len(found.trainings) - 1 else TRAINED, text


def _fitting(items: Sequence[_Item]) -> list[_Item]:
    """Return the items for which there are lines, those of low rank first of all, in their order."""
    kept: list[_Item] = []
    for item in sorted(items, key=lambda one: -1 if one.rank is None else one.rank):
        if item.rank is None or sum(len(one.lines) for one in (*kept, item)) <= MOST:
            kept.append(item)
    return [item for item in items if item in kept]


def _rank(kind: Kind) -> int:
    if kind.op == "forward":
        return ONE_SAMPLE if kind.is_one_sample else FORWARD
    return {"training_step": TRAINED, "step": STEPPED}.get(kind.op, MORE)


def work_of(kind: Kind) -> str:
    """Return what a kind of work is called."""
    return f"{kind.op} of one sample" if kind.is_one_sample else kind.op


def _listed(names: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1]))) if names else ""


def _kind(kind: Kind, *, names_conditions: bool) -> str:
    """Return what is told of a kind of work; x is times the speed of dense."""
    place = kind.place.size.replace(" batch ", "b") + (f" ({kind.place.conditions})" if names_conditions else "")
    dense = f"{'compiled ' * (kind.reference == 'compiled')}dense\0{seconds(kind.dense_seconds)}".replace(" us", "\0us")
    told = _paying(kind, kind.best) if kind.best else _not_paying(kind)
    pays = bool(kind.best) and _status(kind) != HIGHER
    differs = kind.elsewhere_paying != (kind.elsewhere if pays else 0)
    elsewhere = f"; elsewhere faster in {kind.elsewhere_paying} of {kind.elsewhere}" if differs else ""
    return f"{kind.op} {place}, {dense}: {told}{elsewhere}"


def _paying(kind: Kind, best: Layer) -> str:
    is_late = best.sparsity != kind.asked
    late = f"nothing decided faster at {kind.asked:g}, but " if is_late else ""
    at = f" at {best.sparsity:g}" if is_late else ""
    names = " or ".join([best.name, *best.alike])
    even = f", {_from(best.break_even)}" if best.break_even else ""
    bytes_stored = "" if best.stored is None else f", bytes\0{best.stored:.2f}"  # kept together: see `wrapped`
    return f"{late}{names} {best.speedup}x{at}{bytes_stored}{even}"


def _from(break_even: str) -> str:
    return break_even.replace(" on", "") if break_even.startswith("from") else f"from {break_even.replace('below ', '<')}"


def _zeros(found: Paying) -> str:
    """Return from which share of zeros among activations on they pay, what they do there, and how many keep the accuracy."""
    *before, (share, last) = found.points.items()
    shown = [*before[:1], (share, last)]
    figures = ", ".join(f"{told.speedup}x at {at:g}" for at, told in shown)
    even = "" if found.break_even in ("", "none in range") else f", {_from(found.break_even)}"
    weights = f" with weights {found.sparsity:g} sparse" if found.sparsity else ""
    what = f"activations set to 0 in {found.data}" if found.data else "zero inputs, forward"
    place = found.place.size.replace(" batch ", "b")
    told = f"{what} {place}: {found.layer}{weights} {VERDICTS[last.verdict]}{even}: {figures}"
    if not found.data:
        return told
    if found.lost is None:
        return f"{told}; no share is shown to lose at most {POINTS} point of accuracy"
    return f"{told}, the most shown to lose at most {POINTS} point of accuracy ({points(found.lost)})"


def _pruned(found: ShortAnswer) -> Iterator[str]:
    """Yield how fast and how accurate whole networks are that were trained dense and pruned, at the sparsity asked about."""
    for one in found.pruned:
        told = "; ".join(map(_network, one.networks))
        yield f"whole networks pruned to {one.networks[0].sparsity:g}, inference: {told}"


def _network(found: PrunedNetwork) -> str:
    undecided = {batch: " (undecided)" * (told.verdict == "undecided") for batch, told in found.speedups.items()}
    figures = ", ".join(f"{told.speedup}x\0b{batch}{undecided[batch]}" for batch, told in sorted(found.speedups.items()))
    return f"{found.name} {found.layer} {figures}, accuracy\0{found.tuned.mean:.3f} (dense\0{found.dense.mean:.3f})"


def _not_paying(kind: Kind) -> str:
    """Return what each layer does where none is faster, at this sparsity or a higher one."""
    by_verdict: dict[str, list[Layer]] = {}
    for layer in kind.others:
        by_verdict.setdefault(layer.verdict, []).append(layer)
    told = [
        f"{verdict}: {', '.join(f'{layer.name} {layer.speedup}x' for layer in group)}" for verdict, group in by_verdict.items()
    ]
    few = f" (processes: {kind.processes}; {FEWEST} decide at the earliest)" if kind.processes < FEWEST else ""
    return f"{'; '.join(told)}{few}"


def _rivals(found: ShortAnswer) -> Iterator[tuple[int | None, str]]:
    """Yield on each dense model and pattern that may take a sparse layer's place how soon it is left out, and a sentence."""
    known = {rival.name: rival.model for kind in found.kinds for rival in kind.rivals if rival.model != UNPRUNED}
    trained = {NARROW if arm.model == "narrow" else arm.layer for one in found.trainings for arm in one.arms}
    for name, model in sorted(known.items(), key=lambda item: item[1] == "sparse"):
        each = [(kind, rival) for kind in found.kinds for rival in kind.rivals if rival.name == name]
        told = []
        for is_better, words in ((True, "better in"), (False, "slower in"), (None, "undecided in")):
            works = [(work_of(kind), rival.against) for kind, rival in each if rival.is_better is is_better]
            figures = [f"{work} {against}x" if is_better else work for work, against in works]
            if len(works) == len(each) > 1:
                ends = [end(works, key=lambda one: one[1].median) for end in (min, max)]
                figures = [f"all, {' to '.join(f'{against}x' for _, against in ends)}"] if is_better else ["all"]
            told += [f"{words} {', '.join(figures)}"] if works else []
        accuracy = "see training" if name in trained else "not measured"
        rank = RIVAL if any(rival.is_better for _, rival in each) else MORE
        yield None if model == "narrow" else rank, f"{name} against that layer: {'; '.join(told)}; accuracy: {accuracy}"


def _by_zeros_alone(found: ShortAnswer) -> Iterator[str]:
    """Yield a sentence on what the layers that are told gain over kernels of ours that keep every weight, where those gain."""
    each = [(kind, rival) for kind in found.kinds for rival in kind.rivals if rival.model == UNPRUNED]
    for name in dict.fromkeys(rival.name for _, rival in each):
        own = [(work_of(kind), rival) for kind, rival in each if rival.name == name]
        whole = [work for work, rival in own if rival.verdict in ("same", "slower")]
        part = [f"{work} {rival.against.inverse}x" for work, rival in own if work not in whole]  # undecided ones may be faster
        told = [f"over {name} {', '.join(part)}"] if part else []
        told += [f"all in {_listed(whole)}, where that is not faster than dense"] if whole else []
        yield f"of that by zeros alone: {'; '.join(told)}"


def _undecided(found: Undecided, width: int) -> Iterator[str]:
    if not found.of:
        return
    if not found.cases:
        yield f"All {found.of} cases are decided."
        return
    yield from wrapped(f"Undecided: {found.cases} of {found.of} cases. What may decide {found.asked_again} of them:", width)
    yield from _command(found.command, width)


def _command(words: Sequence[str], width: int) -> Iterator[str]:
    r"""Yield a command as a shell takes it, broken by a \ between options."""
    line = INDENT
    for number, word in enumerate(words):
        longer = f"{line}{' ' if line.strip() else ''}{word}"
        starts_option = word.startswith("--")
        following = f" {words[number + 1]}" if starts_option else ""
        if starts_option and len(longer + following) > width - 2:
            yield f"{line} \\"
            longer = f"{INDENT * 2}{word}"
        line = longer
    yield line
