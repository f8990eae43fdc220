"""What was measured of kernels' variants in, a table for each kind of kernel out."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby

from bench.tables.grid import Grid, print_table
from bench.tables.text import Screen, new_console, print_text, text_of
from sparse_models.kernels.variant import Choice, Variant


def lines(found: Mapping[str, Choice], disturbed: Sequence[str], seconds: float, screen: Screen | None = None) -> Iterator[str]:
    """Yield the lines that tell what was tried for each class of works, what came of it, and what it cost in all."""
    console = new_console(screen)
    print_text(console, "Seconds of each variant over those of the default (*: chosen; gain: its speed-up over the default)")
    for (kernel, rest), group in groupby(sorted(found, key=_kind), _kind):
        names = list(group)
        usual = next(iter(found[names[0]].tried))
        way = "vectors in a tile x non-zeros together, with other bytes of a vector, threads or panels where they are named"
        print_table(console, f"\n{kernel}, {rest}: {way}", _table(found, names, usual))
    for name in disturbed:
        print_text(console, f"{name}: another process disturbed it; by default, and measured at the next use")
    measured = sum(choice.seconds for choice in found.values())
    print_text(console, f"{len(found)} classes measured in {measured:.2f} s; with all around it {seconds:.2f} s")
    yield from text_of(console)


def _kind(name: str) -> tuple[str, str]:
    """Return a class's kernel, and its number type and threads."""
    work, _, rest = name.partition(", ")
    return work.rpartition(" ")[0], rest.partition(", ")[2]


def _table(found: Mapping[str, Choice], names: Sequence[str], usual: Variant) -> Grid:
    tried = list(dict.fromkeys(variant for name in names for variant in found[name].tried))
    table = Grid(["shape", "kept", *(_header(variant, usual) for variant in tried), "gain", "ms"], keys=2)
    for name in names:
        choice = found[name]
        work, kept, *_ = name.split(", ")
        cells = (_cell(choice, variant) for variant in tried)
        table.add_row(work.split()[-1], kept.split()[0], *cells, f"{choice.gain:.2f}x", f"{choice.seconds * 1e3:.0f}")
    return table


def _header(variant: Variant, usual: Variant) -> str:
    """Return a variant in a few characters: of what is not vectors or non-zeros only what is not as usual."""
    way = f"{variant.vectors}x{variant.together}" if variant.vectors else "layers"
    other = {
        f"{variant.vector_bytes}B": variant.vector_bytes != usual.vector_bytes,
        f"{variant.threads}t": variant.threads != usual.threads,
        f"{variant.panel_bytes // 2**10}K" if variant.panel_bytes else "whole": variant.panel_bytes != usual.panel_bytes,
    }
    return " ".join([way, *(text for text, differs in other.items() if differs)])


def _cell(choice: Choice, variant: Variant) -> str:
    if variant not in choice.tried:
        return ""
    return f"{choice.tried[variant]:.2f}{'*' if variant == choice.variant else ' '}"
