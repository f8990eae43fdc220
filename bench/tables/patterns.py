"""How the patterns of masks fare beside one another in, a table of it for operations and one for trainings out."""

from rich.text import Text

from bench.findings.advice import POINTS, Advice, Choice, points
from bench.findings.grouping import NARROW
from bench.findings.speedups import AtEqualSparsity, Best
from bench.tables.costs import named
from bench.tables.grid import Cell, Grid
from bench.tables.text import MARKS, coloured

# How the marks and colours of verdicts are read here: same is as good as dense, slower is worse than it.
VERDICTS = {"little": "same", "more": "slower", "undecided": "undecided"}


def at_equal_sparsity(found: AtEqualSparsity) -> tuple[str, Grid]:
    """Return the table of what each pattern's fastest layer does at one place."""
    title = (
        f"Patterns at equal sparsity, {found.place}: the fastest layer of each against dense, and how many times the speed of "
        "the fastest unstructured layer it has, median of the processes [95 % interval]"
    )
    headers = [header for at in named(found.sparsities) for header in (at, f"{at} over unstructured")]
    table = Grid(["operation", "pattern", *headers], keys=2)
    for op, pattern, best in found.patterns:
        cells = [
            cell for at in found.sparsities for cell in (_against_dense(best.get(at)), _against_unstructured(best.get(at)))
        ]
        table.add_row(op, pattern, *cells)
    return title, table


def _against_dense(best: Best | None) -> Cell:
    return coloured(f"{best.layer} {best.told.speedup} {MARKS[best.told.verdict]}", best.told.verdict) if best else ""


def _against_unstructured(best: Best | None) -> str:
    return str(best.against_unstructured) if best and best.against_unstructured else ""


def advice_table(found: Advice) -> tuple[str, Grid]:
    """Return the table of what patterns save and cost in trainings on one data set."""
    samples = f", {found.test_samples} test samples" if found.test_samples else ""
    over = f"{found.seeds} seed{'s' * (found.seeds != 1)}{samples}"
    title = (
        f"Patterns trained on {found.data}, {found.shape} ({found.conditions}; {over}): of each the "
        f"fastest arm not shown to lose over {POINTS} point (= no more, - more, ? undecided; seeds that may tell)"
    )
    table = Grid(["sparsity", "pattern", "arm", "speed-up", "points lost", "seeds", "bytes"], keys=3)
    for choice in found.shown:
        arm = "" if choice.pattern == NARROW else choice.name
        needed = "" if choice.seeds_needed is None else str(choice.seeds_needed)
        stored = "" if choice.stored is None else f"{choice.stored:.2f}"
        table.add_row(f"{choice.sparsity:g}", choice.pattern, arm, str(choice.speedup), _lost(choice), needed, stored)
    return title, table


def _lost(choice: Choice) -> Text:
    verdict = VERDICTS[choice.loses]
    told = points(choice.lost) if choice.lost else ""
    return coloured(f"{told} {MARKS[verdict]}".strip(), verdict)
