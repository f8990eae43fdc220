"""What a machine can resolve in, the table of it out."""

from collections.abc import Iterator

from bench.findings.calibration import Resolution
from bench.tables.grid import Grid, print_table
from bench.tables.text import Screen, new_console, print_text, text_of

HEADERS = (
    "planted",
    "called slower",
    "called faster",
    "slower, alone among identical",
    "interval holds the truth",
    "half-width",
)


def lines(found: Resolution | None, overhead: float, screen: Screen | None = None) -> Iterator[str]:
    """Yield the lines that tell what was found, and at what cost; `overhead` are the engine's own seconds in a call."""
    console = new_console(screen)
    print_text(
        console, "Works against their own clones, with extra calls planted: what was called, and how often intervals are right"
    )
    if found:
        table = Grid(HEADERS)
        for percent, *rates, half_width in found.planted:
            table.add_row(f"{percent} %", *map(str, rates), f"{half_width:.1%}")
        print_table(console, "", table)
        print_text(console, _sentences(found, overhead))
    else:
        print_text(console, "no run is complete: ask for more time with --budget")
    yield from text_of(console)


def _sentences(found: Resolution, overhead: float) -> str:
    half, most = found.floor
    return (
        f"\nFalse alarms on identical code: {found.alarms}."
        f"\nThe interval holds the truth: {found.covered} of all comparisons."
        f"\nNoise floor: half of the intervals of identical code lie within {half:.1%} of 1, nine tenths within {most:.1%}."
        f"\nCost: {found.seconds_a_case:.1f} s a case. Time: {found.spent}."
        f"\nThe engine's own part, starting processes and bookkeeping: {found.engine_part:.1%} of the time in which works "
        f"ran; its loop and clock add {overhead * 1e9:.0f} ns to a call."
    )
