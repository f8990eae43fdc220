"""What a threshold of activations saves and costs in, a table of it out."""

from bench.findings.activations.thresholds import Thresholds
from bench.tables.grid import Grid
from bench.tables.text import marked, seconds


def thresholds(found: Thresholds) -> tuple[str, Grid]:
    """Return the table of one data set and network."""
    title = (
        f"Small activations set to 0, {found.data} {found.place}: a test sample through the whole network, against trained "
        f"dense of {found.dense_accuracy:.1%} ({found.seeds} seeds, {found.test_samples} test samples); "
        "thresholds by training samples, at 0 a ReLU"
    )
    table = Grid(["layer", "sparsity", "share", "zeros found", "accuracy", "points lost", "seconds", "speed-up"], keys=3)
    for arm in found.arms:
        zeros = " ".join(f"{share:.2f}" for share in arm.hidden_zeros)
        lost = f"{100 * (found.dense_accuracy - arm.accuracy) + 0.0:.1f}"
        what = (arm.layer, f"{arm.sparsity:g}", f"{arm.share:g}", zeros, f"{arm.accuracy:.1%}", lost)
        table.add_row(*what, seconds(arm.seconds), marked(arm.speedup))
    return title, table
