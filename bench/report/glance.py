"""What a reader wants to know within a minute, as a table: what pays, how much, from where on, and at what cost."""

from bench.findings.costs import PrunedNetwork
from bench.findings.grouping import UNLEARNABLE
from bench.findings.short_answer import Kind, Layer
from bench.findings.trainings import Arm, Trainings
from bench.report.content import Content
from bench.report.figure import Data
from bench.tables.short_answer import work_of
from bench.tables.text import seconds

HEADERS = (
    "kind of work",
    "dense takes",
    "fastest sparse layer, or arm",
    "times dense's speed [95 % interval]",
    "as fast as dense from sparsity",
    "bytes stored, of dense's",
    "rivals that are faster still",
    "accuracy",
)


def glance(content: Content) -> Data:
    """Return the table: a line for each kind of work, each pruned network, each arm of the trainings that are told first."""
    short = content.short
    trained = sorted({arm.sparsity for found in short.trainings for arm in found.arms if arm.model == "sparse"})
    accuracy = f"see training, at {' or '.join(f'{at:g}' for at in trained)}" if trained else "not measured"
    rows = [_of_kind(kind, accuracy) for kind in short.kinds]
    rows += [_of_pruned(one, batch) for found in short.pruned for one in found.networks for batch in sorted(one.speedups)]
    rows += [_of_arm(found, arm) for found in short.trainings for arm in found.arms if arm.model != "dense"]
    return Data(HEADERS, rows, [""] * len(rows))


def _of_kind(kind: Kind, accuracy: str) -> tuple[str, ...]:
    work = f"{work_of(kind)}, {kind.place.size}", seconds(kind.dense_seconds)
    if kind.best is None:
        told = "; ".join(f"{layer.name} {layer.speedup} {layer.verdict}" for layer in kind.others)
        is_open = any(layer.verdict == "undecided" for layer in kind.others)
        return (*work, f"{'undecided' if is_open else 'none is faster'} at {kind.asked:g}", told, "", "", "", "")
    best = kind.best
    layer = f"{' or '.join([best.name, *best.alike])} at {best.sparsity:g}"
    better = [f"{rival.name}, {rival.against} times that" for rival in kind.rivals if rival.is_better]
    rivals = "; ".join(better) or "none of those measured"
    return (*work, layer, str(best.speedup), _from(best), _bytes(best), rivals, accuracy)


def _from(best: Layer) -> str:
    return best.break_even or "one sparsity measured"


def _bytes(best: Layer) -> str:
    return "" if best.stored is None else f"{best.stored:.2f}"


def _of_pruned(found: PrunedNetwork, batch: int) -> tuple[str, ...]:
    told = found.speedups[batch]
    speedup = f"{told.speedup}{' undecided' * (told.verdict == 'undecided')}"
    accuracy = f"{found.tuned.mean:.3f} (dense {found.dense.mean:.3f})"
    layer = f"{found.layer} at {found.sparsity:g}"
    work = f"inference of {found.name}, pruned, batch {batch}", seconds(found.dense_seconds[batch])
    return (*work, layer, speedup, "", f"{found.stored:.2f}", "", accuracy)


def _of_arm(found: Trainings, arm: Arm) -> tuple[str, ...]:
    work = f"training on {found.data} ({found.protocol}), {found.epochs} epochs"
    name = f"{arm.name} dense" if arm.model == "narrow" else arm.name
    accuracy = f"{arm.test_accuracy.mean:.3f} (dense {arm.dense_test_accuracy:.3f})"
    if found.data in UNLEARNABLE:
        accuracy = "labels are random"
    dense = next((seconds(one.seconds) for one in found.arms if one.model == "dense"), "")
    return (work, dense, f"{name} at {arm.sparsity:g}", str(arm.speedup), "", "", "", accuracy)
