"""A saved run in, the rows that findings can be computed of out, and a sentence on what had to be left out."""

import re
from collections.abc import Iterator
from typing import NamedTuple

from bench.cases import Case
from bench.findings.step_split import add_splits
from bench.runs.row import Row
from bench.runs.saved import Run, as_row
from bench.shapes import Shape

OF_A_TRAINING = (
    *("learning_rate", "training_seconds", "final_loss", "test_accuracy", "dense_final_loss", "dense_test_accuracy"),
    *("effective_sparsity", "epochs"),
)
# Figures that are told only beside others: without these they are left out.
TOGETHER = {
    "bound_gflops": ("tile_bytes", "gflops"),
    "bytes_moved": ("bound_gb_per_s",),
    "peak_bytes": ("dense_bytes_stored",),
}


class Source(NamedTuple):
    """The rows of a run by the names of their cases, and what a reader must know of those that are not among them."""

    rows: dict[str, Row]
    notes: list[str]


def source_of(run: Run) -> Source:
    """Return the rows of a run as they were when it was measured, as far as the file tells them."""
    rows = {name: as_row(saved) for name, saved in run.rows.items()}
    strange = [name for name, row in rows.items() if not re.fullmatch(r"\d{1,9}(x\d{1,9})+", row["shape"])]
    bare = [name for name, row in rows.items() if row["op"] == "train" and not row.keys() >= set(OF_A_TRAINING)]
    told = {name: _whole(row) for name, row in rows.items() if name not in {*strange, *bare}}
    add_splits({_case(row): row for row in told.values()})
    return Source(told, list(_notes(run, strange, bare, list(told.values()))))


def _whole(row: Row) -> Row:
    lacking = {field for field, others in TOGETHER.items() if any(other not in row for other in others)}
    return {field: value for field, value in row.items() if field not in lacking}


def _case(row: Row) -> Case:
    shape = Shape(tuple(map(int, row["shape"].split("x"))), row["batch"])
    return Case(**{field: row[field] for field in Case._fields} | {"shape": str(shape)})


def _notes(run: Run, strange: list[str], bare: list[str], rows: list[Row]) -> Iterator[str]:
    if run.failures:
        yield f"{_cases(len(run.failures))} failed and have no figures; they are listed below the table."
    if strange:
        yield f"{_cases(len(strange))} left out, whose shape is none."
    if bare:
        yield f"{_cases(len(bare))} of trainings left out, for the run does not tell all of {', '.join(OF_A_TRAINING)}."
    if len(rows) == 1:
        yield "The run has a single case: there is nothing to set beside it, and no curve to draw."
    if rows and not any(row["process_numbers"] for row in rows):
        yield "Its schema kept no figures of single processes: intervals are over pairs, and nothing is decided."
    trained = [row for row in rows if row["op"] == "train"]
    if trained and not any("epoch_accuracies" in row for row in trained):
        yield "Its trainings have no learning curves, which were recorded from schema 9 on: only their ends are drawn."


def _cases(count: int) -> str:
    return f"{count} case{'s' * (count != 1)}"
