"""A comparison in, what a reader must know of it out: as text for a terminal, as Markdown for a pull request."""

from collections.abc import Iterator, Mapping, Sequence

from bench.comparisons.cases import CaseChange
from bench.comparisons.comparison import Comparison
from bench.comparisons.gate import SHOWN
from bench.comparisons.summary import Summary
from bench.runs.saved import Measured, interval
from bench.statistics.intervals import Interval
from bench.statistics.verdicts import MARGIN
from bench.tables.grid import Grid, print_table
from bench.tables.text import Screen, new_console, print_text, text_of

LISTED = ("slower", "faster", "changed definition", "gone")  # the others are counted
HEADERS = ("case", "verdict", "speed-up before", "speed-up now", "change", "own time", "dense's time", "")
READ = "change: the speed-up now over that before, below 1 is slower; times: now over before, below 1 is less; [95 % interval]"


def text(comparison: Comparison, screen: Screen | None = None) -> Iterator[str]:
    """Yield the lines of a comparison for a terminal."""
    console = new_console(screen)
    for line in _head(comparison):
        print_text(console, line)
    if comparison.is_sound:
        listed, more = _listed(comparison)
        if listed:
            table = Grid(HEADERS)
            for one in listed:
                table.add_row(*_cells(one))
            print_table(console, READ, table)
        for line in more:
            print_text(console, line)
        for line in _tail(comparison.summary):
            print_text(console, line)
    yield from text_of(console)


def markdown(comparison: Comparison, failed: Sequence[str], gate: str) -> Iterator[str]:
    """Yield the lines of a comparison as Markdown; names are in code spans, which take them as they are."""
    yield f"## {'❌' if failed else '✅'} sparse-models: {gate}"
    yield ""
    for line in failed[:SHOWN]:
        yield f"- `{line}`"
    if len(failed) > SHOWN:
        yield f"- and {len(failed) - SHOWN} more"
    yield ""
    for line in _head(comparison):
        yield f"{line}  "
    listed, more = _listed(comparison)
    if listed:
        yield ""
        yield f"{READ}."
        yield ""
        yield f"| {' | '.join(HEADERS)} |"
        yield f"|{' --- |' * len(HEADERS)}"
        for one in listed:
            name, *others = _cells(one)
            yield f"| `{name}` | {' | '.join(others)} |"
    yield ""
    if comparison.is_sound:
        for line in (*more, *_tail(comparison.summary)):
            yield f"{line}  "


def short(name: str) -> str:
    """Return a case's name without its file."""
    return name.rpartition("::")[2].removeprefix("bench_")


def _listed(comparison: Comparison) -> tuple[list[CaseChange], list[str]]:
    """Return what is worth a row, the first of each verdict, and a line for those that are left out."""
    listed: list[CaseChange] = []
    more = []
    for verdict in LISTED if comparison.is_sound else ():
        having = comparison.having(verdict)
        listed += having[:SHOWN]
        if len(having) > SHOWN:
            more.append(f"and {len(having) - SHOWN} more {verdict}")
    return listed, more


def _head(comparison: Comparison) -> Iterator[str]:
    for when, run in (("before:", comparison.old), ("now:   ", comparison.new)):
        yield f"{when} {run.label}" + ("" if run.machine in run.name else f" on {run.machine}")
    if not comparison.is_sound:
        yield "The hardware is another, so that no time may be held against the other's: see where the machines agree, below."
    elif comparison.old.machine != comparison.new.machine:
        yield "The hardware is the same and the software another: what changed may be that."
    if comparison.is_sound:
        asked = f"; {comparison.not_asked} of the run before were not asked for" if comparison.not_asked else ""
        cases = len(comparison.changes)
        yield f"{cases} case{'s' * (cases != 1)}: {_counted(comparison.summary.counts)}{asked}"


def _counted(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {verdict}" for verdict, count in counts.items())


def _tail(summary: Summary) -> Iterator[str]:
    for layer, verdict, cases, of, much in summary.layers:
        yield f"{layer}: {cases} of {of} cases {verdict}, by {much:.0%} (median)"
    if summary.group_counts:
        together = sum(summary.group_counts.values())
        yield f"cases together, {together} layers and operations of layers: {_counted(summary.group_counts)}"
    for group in summary.groups:
        told = f"{group.verdict}, {group.evidence.interval} of the speed-up before"
        yield f"{group.name}, {len(group.cases)} cases together: {told}"
    if summary.least is not None and summary.least > MARGIN:
        many = f"{summary.judged} case{'s' * (summary.judged != 1)}"
        yield (
            f"with {many} between saved runs, differences below {summary.least:.0%} cannot be told from how far two runs "
            "differ as a whole; `python -m bench continuous` can"
        )
    if summary.too_few:
        yield f"{summary.too_few} undecided for too few processes; raise --budget and --processes (trainings: --seeds)"
    if summary.dense:
        low, middle, high = summary.dense
        yield f"dense took {middle:.2f} times as long as before (median of the cases; {low:.2f} to {high:.2f})"
    yield from summary.costs


def _cells(one: CaseChange) -> list[str]:
    change = one.evidence.interval if one.evidence else None
    return [
        short(one.name),
        one.verdict,
        _speedup(one.old),
        _speedup(one.new),
        *(_ratio(each) for each in (change, one.own_time, one.dense_time)),
        one.note,
    ]


def _speedup(measured: Measured | None) -> str:
    return str(interval(measured)) if measured else ""


def _ratio(of: Interval | None) -> str:
    return str(of) if of else ""
