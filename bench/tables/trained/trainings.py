"""What came of trainings in, the seed's table out: one line for each arm."""

from collections.abc import Callable

from bench.findings.trainings import Arm, Trainings
from bench.tables.grid import Grid
from bench.tables.text import seconds

COLUMNS: dict[str, Callable[[Arm], str]] = {
    "arm": lambda arm: arm.name,
    "sparsity": lambda arm: f"{arm.sparsity:g}",
    "parameters": lambda arm: f"{arm.parameters:,}",
    "non-zeros": lambda arm: f"{arm.nnz:,}",
    "effective": lambda arm: f"{arm.effective_sparsity:.3f}",
    "rate": lambda arm: f"{arm.learning_rate:g}",
    "training": lambda arm: seconds(arm.seconds),
    "speed-up": lambda arm: str(arm.speedup),
    "final loss": lambda arm: str(arm.final_loss),
    "test accuracy": lambda arm: str(arm.test_accuracy),
    "counted": lambda arm: _flops(arm.flops_counted),
    "executed": lambda arm: _flops(arm.flops_executed),
}


def trainings_table(found: Trainings) -> tuple[str, Grid]:
    """Return the table of a data set under a protocol, and its title."""
    title = (
        f"Trained on {found.data}, {found.shape}, protocol {found.protocol}, {found.epochs} epochs of batch {found.batch} "
        f"({found.conditions}): mean over {found.seeds} seed{'s' * (found.seeds != 1)} (lowest highest)"
    )
    table = Grid(COLUMNS, keys=2)
    for arm in found.arms:
        table.add_row(*(cell(arm) for cell in COLUMNS.values()))
    return title, table


def _flops(value: float) -> str:
    return f"{value / 1e9:.3g} G"
