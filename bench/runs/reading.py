"""Saved files in, runs out; what is no run of this suite is told in one sentence, whatever it is.

A file may be cut, come from elsewhere, or be made to harm. It is read with a bound on its bytes, by a parser that takes the
fields named here and walks past the raw pairs without keeping them, and every figure and name is checked before it is used.
"""

import sys
from collections.abc import Mapping
from typing import Any

import msgspec

from bench.machine.fingerprint import fingerprint, hardware
from bench.runs.files import MAX_BYTES
from bench.runs.plain_text import Text, printable
from bench.runs.row import SCHEMA
from bench.runs.saved import MAX_PROCESSES, TEXTS, Positive, Run, SavedRow, joined_over_seeds
from sparse_models.errors import InputError

MAX_CASES = 20_000


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


_FILE, _SCHEMA, _ROW = msgspec.json.Decoder(_File), msgspec.json.Decoder(_Schema), msgspec.json.Decoder(SavedRow)
_MACHINE, _FACTS = msgspec.json.Decoder(_Machine), msgspec.json.Decoder(dict[str, Any])


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


def _run(name: str, time: str, commit: _Commit, machine: bytes, rows: dict[str, SavedRow]) -> Run:
    facts = _FACTS.decode(machine)
    bounds = {device: bound.dense_gflops for device, bound in _MACHINE.decode(machine).bounds.items()}
    return Run(name, time, commit.id, commit.dirty, fingerprint(facts), hardware(facts), bounds, joined_over_seeds(rows))


def _row(name: str, content: bytes) -> SavedRow:
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
