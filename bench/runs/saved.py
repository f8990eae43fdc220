"""What is read back of saved runs, as plain records: of each case its row, and what each of its processes said."""

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal, NamedTuple

import msgspec
from msgspec import Meta

from bench.runs.plain_text import Text
from bench.runs.row import Row
from bench.statistics.intervals import Interval
from bench.statistics.samples import Sample
from bench.statistics.verdicts import process_interval
from sparse_models.errors import InputError

MAX_PROCESSES = 1_000  # of one case: a comparison holds each of one run against each of the other
Positive = Annotated[float, Meta(gt=1e-15, lt=1e15)]
Count = Annotated[int, Meta(ge=0, lt=2**53)]
Fraction = Annotated[float, Meta(ge=0, le=1)]
Loss = Annotated[float, Meta(gt=-1e15, lt=1e15)]


class SavedRow(msgspec.Struct, gc=False):
    """What is read back of a row; see bench.runs.row for what each field says."""

    op: Text
    model: Text
    layer: Text
    update: Text
    shape: Text
    batch: Count
    sparsity: Fraction
    device: Text
    dtype: Text
    threads: Count
    data: Text
    protocol: Text
    seed: Count
    regime: Text
    skew: Annotated[float, Meta(ge=0, le=1e6)]
    distribution: Text
    zeros: Fraction
    speedup: Positive
    speedup_low: Positive
    speedup_high: Positive
    seconds: Positive
    dense_seconds: Positive
    interval_over: Text
    verdict: Literal["faster", "slower", "same", "undecided"]
    process_numbers: list[Count]
    process_speedups: list[Positive]
    process_seconds: list[Positive]
    process_dense_seconds: list[Positive]
    flops_counted: Annotated[float, Meta(ge=0, lt=1e30)]
    dense_flops_counted: Annotated[float, Meta(ge=0, lt=1e30)]
    flops_executed: Annotated[float, Meta(ge=0, lt=1e30)]
    parameters: Count
    nnz: Count
    bytes_stored: Count
    # What became of the time for which another process had a core: see bench.runs.upgrades.
    waiting: Literal["counted", "left out", "taken off", "never counted"] = "never counted"
    bound_fraction: Positive | None = None
    peak_bytes: Count | None = None
    dense_layout: Text | None = None
    dense_layout_gain: Positive | None = None
    asked_epochs: Count = 0
    asked_interval: Count = 0
    epochs: Count | None = None
    test_accuracy: Fraction | None = None
    final_loss: Loss | None = None
    # What a report draws, where it was measured.
    weights: Count | None = None
    dense_bytes_stored: Count | None = None
    tile_bytes: Count | None = None
    bound_gflops: Positive | None = None
    bytes_moved: Count | None = None
    bound_gb_per_s: Positive | None = None
    other_layout_cost: Positive | None = None
    joules: Positive | None = None
    dense_joules: Positive | None = None
    not_captured: str | None = None  # an error's words
    learning_rate: Positive | None = None
    training_seconds: Positive | None = None
    dense_final_loss: Loss | None = None
    dense_test_accuracy: Fraction | None = None
    test_samples: Count | None = None
    epoch_seconds: list[Positive] | None = None
    dense_epoch_seconds: list[Positive] | None = None
    epoch_accuracies: list[Fraction] | None = None
    dense_epoch_accuracies: list[Fraction] | None = None
    # Of a network that was pruned, by seed.
    dense_accuracies: list[Fraction] | None = None
    pruned_accuracies: list[Fraction] | None = None
    tuned_accuracies: list[Fraction] | None = None
    tuning_epochs: Count | None = None
    epoch_test_accuracies: list[Fraction] | None = None
    # Of the epochs after as many as dense had, until dense's time was over.
    later_epoch_seconds: list[Positive] | None = None
    later_epoch_accuracies: list[Fraction] | None = None
    later_epoch_test_accuracies: list[Fraction] | None = None
    dense_epoch_test_accuracies: list[Fraction] | None = None
    dense_variant: Text | None = None  # in which a training's dense steps were taken
    # Of a network whose activations have a threshold.
    hidden_zeros: list[Fraction] | None = None
    seeds: Count | None = None
    seed_test_accuracies: list[Fraction] | None = None
    dense_seed_test_accuracies: list[Fraction] | None = None
    training_peak_bytes: Count | None = None
    dense_training_peak_bytes: Count | None = None

    @property
    def gflops(self) -> float:
        """What the candidate reached; the seconds of a training are those of an epoch, and its FLOPs those of all."""
        return self.flops_executed / (self.seconds * (self.epochs or 1)) / 1e9


def as_row(saved: SavedRow) -> Row:
    """Return a row as findings take it: what is not known is not there, and what other fields tell is."""
    counted = saved.dense_flops_counted / saved.flops_counted if saved.flops_counted else None
    return {
        **{field: value for field, value in msgspec.structs.asdict(saved).items() if value is not None},
        "gflops": saved.gflops,
        "realised_fraction": saved.speedup / counted if counted else None,
        **({"effective_sparsity": 1 - saved.nnz / saved.weights} if saved.weights else {}),
    }


TEXTS = tuple(field.name for field in msgspec.structs.fields(SavedRow) if field.type is Text)


class Measured(NamedTuple):
    """One case of a run: its row, and what each process said of it. A training's seeds are its processes."""

    row: SavedRow
    speedups: Sample
    seconds: Sample
    dense_seconds: Sample


class Run(NamedTuple):
    """One saved run."""

    name: str  # where it was found
    time: str  # ISO 8601
    commit: str
    is_dirty: bool
    machine: str  # fingerprint of hardware and software
    hardware: str
    dense_gflops: dict[str, float]  # what dense products reached at the start of the run, by device
    cases: dict[str, Measured]
    rows: Mapping[str, SavedRow] = {}  # by the names of their cases, each training by itself
    facts: Mapping[str, Any] = {}  # of the machine, as the file tells them: nothing of them is checked
    branch: str = ""
    failures: Mapping[str, str] = {}  # why a case has no row, by its name

    @property
    def label(self) -> str:
        """The run in a few words."""
        changed = " with changes" if self.is_dirty else ""
        commit = self.commit if self.commit.isalpha() else self.commit[:9]  # "unversioned", where git is none
        return f"{self.name} ({commit}{changed}, {self.time[:16].replace('T', ' ')})"


def joined_over_seeds(rows: dict[str, SavedRow]) -> dict[str, Measured]:
    """Return the cases by name, the trainings of one arm as one case: each seed is what a process is elsewhere."""
    arms: dict[str, list[SavedRow]] = {}
    for name, row in rows.items():
        arms.setdefault(arm_of(name) if row.op == "train" else name, []).append(row)
    cases = {}
    for name, group in arms.items():
        row = group[0]
        if len(group) > min(MAX_PROCESSES, len({one.seed for one in group if one.op == row.op})):
            raise InputError(f"{name}: not one training for each of at most {MAX_PROCESSES} seeds")
        if row.op == "train":
            numbers = [one.seed for one in group]
            figures = [[getattr(one, field) for one in group] for field in ("speedup", "seconds", "dense_seconds")]
        else:
            numbers = row.process_numbers
            figures = [row.process_speedups, row.process_seconds, row.process_dense_seconds]
        cases[name] = Measured(row, *(Sample(numbers, values) for values in figures))
    return cases


def arm_of(name: str) -> str:
    """Return the name of a training's arm, whatever its seed; other names as they are."""
    return re.sub(r"-seed\d+", "", name)


def interval(measured: Measured) -> Interval:
    """Return the speed-up of a case with its interval."""
    if measured.row.op == "train" and len(measured.speedups) > 1:
        return process_interval(list(measured.speedups.values()))
    return Interval(measured.row.speedup, measured.row.speedup_low, measured.row.speedup_high)
