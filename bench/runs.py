"""Saved files in, runs out; what is no run of this suite is told in one sentence, whatever it is.

A file may be cut, come from elsewhere, or be made to harm. It is read with a bound on its bytes, by a parser that takes the
fields named here and walks past the raw pairs without keeping them, and every figure and name is checked before it is used.
"""

import re
import sys
from collections.abc import Mapping
from typing import Annotated, Any, Literal, NamedTuple

import msgspec
from msgspec import Meta

from bench.fingerprint import fingerprint, hardware
from bench.intervals import Interval
from bench.row import SCHEMA
from bench.samples import Sample
from bench.verdicts import process_interval
from sparse_models.errors import InputError

MAX_BYTES = 2**26  # twenty times a run of the default grid
MAX_CASES = 20_000
MAX_PROCESSES = 1_000  # of one case: a comparison holds each of one run against each of the other
Text = Annotated[str, Meta(max_length=300, pattern=r"^[\w./:=+,\[\] -]*\Z")]  # no markup, no control characters, one line
Positive = Annotated[float, Meta(gt=1e-15, lt=1e15)]
Count = Annotated[int, Meta(ge=0, lt=2**53)]
Fraction = Annotated[float, Meta(ge=0, le=1)]


class Row(msgspec.Struct, gc=False):
    """What is read back of a row; see bench.row for what each field says."""

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
    gflops: Annotated[float, Meta(ge=0, lt=1e15)]
    bound_fraction: Positive | None = None
    peak_bytes: Count | None = None
    dense_layout: Text | None = None
    dense_layout_gain: Positive | None = None
    epochs: Count | None = None
    test_accuracy: Fraction | None = None
    final_loss: Annotated[float, Meta(gt=-1e15, lt=1e15)] | None = None


TEXTS = tuple(field.name for field in msgspec.structs.fields(Row) if field.type is Text)


class _Benchmark(msgspec.Struct):
    fullname: Text
    extra_info: msgspec.Raw


class _Schema(msgspec.Struct):
    schema: int


class _Commit(msgspec.Struct):
    id: Text
    dirty: bool = False


class _Bounds(msgspec.Struct):
    dense_gflops: Positive


class _Machine(msgspec.Struct):
    bounds: dict[Text, _Bounds]


class _File(msgspec.Struct):
    benchmarks: list[_Benchmark]
    datetime: Text
    commit_info: _Commit
    machine: msgspec.Raw = msgspec.Raw(b"null")


_FILE, _SCHEMA, _ROW = msgspec.json.Decoder(_File), msgspec.json.Decoder(_Schema), msgspec.json.Decoder(Row)
_MACHINE, _FACTS = msgspec.json.Decoder(_Machine), msgspec.json.Decoder(dict[str, Any])


class Measured(NamedTuple):
    """One case of a run: its row, and what each process said of it. A training's seeds are its processes."""

    row: Row
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

    @property
    def label(self) -> str:
        """The run in a few words."""
        changed = " with changes" if self.is_dirty else ""
        commit = self.commit if self.commit.isalpha() else self.commit[:9]  # "unversioned", where git is none
        return f"{self.name} ({commit}{changed}, {self.time[:16].replace('T', ' ')})"


def parse(name: str, content: bytes) -> Run:
    """Return the run that a file holds; raises InputError, one sentence without the file's name, for whatever is none."""
    if len(content) > MAX_BYTES:
        raise InputError(f"more than {MAX_BYTES // 2**20} MiB")
    try:
        file = _FILE.decode(content)
        if not file.benchmarks:
            raise InputError("no benchmarks in it")
        if len(file.benchmarks) > MAX_CASES:
            raise InputError(f"more than {MAX_CASES} cases")
        rows = {benchmark.fullname: _row(benchmark.fullname, benchmark.extra_info) for benchmark in file.benchmarks}
        if len(rows) < len(file.benchmarks):
            raise InputError("two cases of one name")
        return _run(name, file.datetime, file.commit_info, file.machine, rows)
    except RecursionError:
        raise InputError("nested too deeply") from None
    except (msgspec.MsgspecError, UnicodeError, TypeError, ValueError) as error:
        raise InputError(printable(str(error))) from None


def run_of(name: str, time: str, commit: Mapping[str, Any], machine: Mapping[str, Any], rows: Mapping[str, Any]) -> Run:
    """Return the run of this very session, from the rows by the names of their cases, as it would be read back."""
    read = {case: _row(case, msgspec.json.encode(row)) for case, row in rows.items()}
    return _run(name, time, msgspec.convert(commit, _Commit), msgspec.json.encode(machine), read)


def _run(name: str, time: str, commit: _Commit, machine: bytes, rows: dict[str, Row]) -> Run:
    facts = _FACTS.decode(machine)
    bounds = {device: bound.dense_gflops for device, bound in _MACHINE.decode(machine).bounds.items()}
    return Run(name, time, commit.id, commit.dirty, fingerprint(facts), hardware(facts), bounds, joined_over_seeds(rows))


def _row(name: str, content: bytes) -> Row:
    try:
        schema = _SCHEMA.decode(content).schema
    except msgspec.ValidationError:
        raise InputError("not a run of this suite: its cases have no rows") from None
    if schema != SCHEMA:
        raise InputError(f"rows of schema {printable(str(schema))}, and this version reads {SCHEMA}; measure anew")
    row = _ROW.decode(content)
    for field in TEXTS:  # of which there are few different ones
        setattr(row, field, sys.intern(getattr(row, field)))
    samples = (row.process_speedups, row.process_seconds, row.process_dense_seconds)
    if not row.process_numbers or {len(sample) for sample in samples} != {len(row.process_numbers)}:
        raise InputError(f"{name}: not one figure for each process")
    if len(row.process_numbers) > MAX_PROCESSES:
        raise InputError(f"{name}: more than {MAX_PROCESSES} processes")
    if len(set(row.process_numbers)) < len(row.process_numbers):
        raise InputError(f"{name}: a process twice")
    if not row.speedup_low <= row.speedup <= row.speedup_high:
        raise InputError(f"{name}: an interval that does not hold its median")
    return row


def joined_over_seeds(rows: dict[str, Row]) -> dict[str, Measured]:
    """Return the cases by name, the trainings of one arm as one case: each seed is what a process is elsewhere."""
    arms: dict[str, list[Row]] = {}
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


def printable(text: str, most: int = 200) -> str:
    """Return text of unknown origin as one short line that a terminal shows and does not obey."""
    plain = "".join(
        char if char.isprintable() else char.encode("unicode_escape", "replace").decode() for char in text[: most + 1]
    )
    return plain if len(plain) <= most else plain[: most - 3] + "..."
