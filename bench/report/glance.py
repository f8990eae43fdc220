"""What a reader wants to know within a minute, as a table: what pays, how much, from where on, and at what cost."""

from bench.findings.grouping import UNLEARNABLE
from bench.findings.short_answer import Kind, Layer
from bench.findings.trainings import Arm, Trainings
from bench.report.content import Content
from bench.report.figure import Data
from bench.tables.short_answer import work_of

HEADERS = (
    "kind of work",
    "fastest sparse layer, or arm",
    "times dense's speed [95 % interval]",
    "as fast as dense from sparsity",
    "bytes stored, of dense's",
    "rivals that are faster still",
    "accuracy",
)


def glance(content: Content) -> Data:
    """Return the table: a line for each kind of work, and for each arm of the trainings that are told first."""
    rows = [_of_kind(kind, is_trained=bool(content.short.trainings)) for kind in content.short.kinds]
    rows += [_of_arm(found, arm) for found in content.short.trainings for arm in found.arms if arm.model != "dense"]
    return Data(HEADERS, rows, [""] * len(rows))


def _of_kind(kind: Kind, *, is_trained: bool) -> tuple[str, ...]:
    work = f"{work_of(kind)}, {kind.place.size}"
    if kind.best is None:
        told = "; ".join(f"{layer.name} {layer.speedup} {layer.verdict}" for layer in kind.others)
        is_open = any(layer.verdict == "undecided" for layer in kind.others)
        return (work, f"{'undecided' if is_open else 'none is faster'} at {kind.asked:g}", told, "", "", "", "")
    best = kind.best
    layer = f"{' or '.join([best.name, *best.alike])} at {best.sparsity:g}"
    better = [f"{rival.name}, {rival.against} times that" for rival in kind.rivals if rival.is_better]
    rivals = "; ".join(better) or "none of those measured"
    return (work, layer, str(best.speedup), _from(best), _bytes(best), rivals, "see training" if is_trained else "not measured")


def _from(best: Layer) -> str:
    return best.break_even or "one sparsity measured"


def _bytes(best: Layer) -> str:
    return "" if best.stored is None else f"{best.stored:.2f}"


def _of_arm(found: Trainings, arm: Arm) -> tuple[str, ...]:
    work = f"training on {found.data} ({found.protocol}), {found.epochs} epochs"
    name = f"{arm.name} dense" if arm.model == "narrow" else arm.name
    accuracy = f"{arm.test_accuracy.mean:.3f} (dense {arm.dense_test_accuracy:.3f})"
    is_chance = found.data in UNLEARNABLE
    return (work, f"{name} at {arm.sparsity:g}", str(arm.speedup), "", "", "", "labels are random" if is_chance else accuracy)
