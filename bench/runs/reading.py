"""Saved files in, runs out; what is no run of this suite is told in one sentence, whatever it is.

A file may be cut, come from elsewhere, or be made to harm. It is read with a bound on its bytes, by a parser that takes the
fields named here and walks past all else without keeping it, and every figure and name is checked before it is used.
"""

import sys
from collections.abc import Collection, Iterator, Mapping
from itertools import islice
from typing import Any, TypeVar

import msgspec

from bench.machine.fingerprint import fingerprint, hardware
from bench.runs.compact import rows_of
from bench.runs.files import MAX_BYTES
from bench.runs.plain_text import Text, printable
from bench.runs.row import SCHEMA
from bench.runs.saved import MAX_PROCESSES, TEXTS, Positive, Run, SavedRow, joined_over_seeds
from bench.runs.upgrades import facts_of, fields_upgraded, upgraded
from sparse_models.errors import InputError

MAX_CASES = 20_000
_T = TypeVar("_T")
FIRST_TABLE = 6  # the schema from which on a file holds a table of its rows


class _Benchmark(msgspec.Struct):
    fullname: Text
    extra_info: msgspec.Raw


class _Schema(msgspec.Struct):
    schema: int


class _Commit(msgspec.Struct):
    id: Text
    dirty: bool = False
    branch: msgspec.Raw = msgspec.Raw(b"null")


class _Bounds(msgspec.Struct):
    dense_gflops: Positive


class _Machine(msgspec.Struct):
    bounds: dict[Text, _Bounds] = {}


class _File(msgspec.Struct):
    benchmarks: list[_Benchmark]
    datetime: Text
    commit_info: _Commit
    machine: msgspec.Raw = msgspec.Raw(b"{}")
    machine_info: msgspec.Raw = msgspec.Raw(b"{}")  # pytest-benchmark's
    schema: int = 0  # from FIRST_TABLE on; before, and where other benchmarks were saved beside ours, it is in each row
    rows: dict[str, msgspec.Raw] = {}
    process_figures: str = ""
    failures: msgspec.Raw = msgspec.Raw(b"null")


_FILE, _SCHEMA, _ROW = msgspec.json.Decoder(_File), msgspec.json.Decoder(_Schema), msgspec.json.Decoder(SavedRow)
_COMMIT = msgspec.json.Decoder(_Commit)
_PLAIN, _FIELDS = msgspec.json.Decoder(dict[str, Any]), msgspec.json.Decoder(dict[str, msgspec.Raw])
READ = {*SavedRow.__struct_fields__, "processes"}


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
        rows = dict(_rows(file))
        if len(rows) < len(file.benchmarks):
            raise InputError("two cases of one name")
        facts = _PLAIN.decode(file.machine) or facts_of(_PLAIN.decode(file.machine_info))
        return _run(name, file.datetime, file.commit_info, facts, rows)._replace(failures=_failures(file.failures))
    except RecursionError:
        raise InputError("nested too deeply") from None
    except KeyError as error:
        raise InputError(f"a row without {printable(str(error))}") from None
    except (msgspec.MsgspecError, UnicodeError, ArithmeticError, AttributeError, TypeError, ValueError) as error:
        raise InputError(printable(str(error))) from None


def run_of(name: str, time: str, commit: Mapping[str, Any], machine: Mapping[str, Any], rows: Mapping[str, Any]) -> Run:
    """Return the run of this very session, from the rows by the names of their cases, as it would be read back."""
    read = {case: _row(case, msgspec.json.encode(row)) for case, row in rows.items()}
    return _run(name, time, _COMMIT.decode(msgspec.json.encode(commit)), machine, read)


def _run(name: str, time: str, commit: _Commit, facts: Mapping[str, Any], rows: dict[str, SavedRow]) -> Run:
    bounds = {device: bound.dense_gflops for device, bound in msgspec.convert(facts, _Machine).bounds.items()}
    branch = _told(commit.branch, str) or ""
    what = (name, time, commit.id, commit.dirty, fingerprint(facts), hardware(facts), bounds, joined_over_seeds(rows))
    return Run(*what, rows=rows, facts=facts, branch=printable(branch))


def _failures(content: msgspec.Raw) -> dict[str, str]:
    told = _told(content, dict[str, str]) or {}
    return {printable(name): printable(why) for name, why in islice(told.items(), MAX_CASES)}


def _told(content: msgspec.Raw, kind: type[_T]) -> _T | None:
    """Return what is told beside the figures, None where it is of another type: a run is no worse for that."""
    try:
        return msgspec.json.decode(content, type=kind)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return None


def _rows(file: _File) -> Iterator[tuple[str, SavedRow]]:
    """Yield the rows by the names of their cases: from the table that a file holds, or case by case."""
    if not file.schema:
        yield from ((benchmark.fullname, _row(benchmark.fullname, benchmark.extra_info)) for benchmark in file.benchmarks)
        return
    if not FIRST_TABLE <= file.schema <= SCHEMA:
        raise InputError(f"expected rows of schema 1 to {SCHEMA}, got {file.schema}; a newer version may read them")
    others = [_taken(_FIELDS.decode(benchmark.extra_info), READ) for benchmark in file.benchmarks]
    table = rows_of(_taken(file.rows, READ), file.process_figures, others)
    if file.schema < SCHEMA:
        table = [upgraded(row | {"schema": file.schema}) for row in table]
    for benchmark, row in zip(file.benchmarks, msgspec.convert(table, list[SavedRow]), strict=True):
        yield benchmark.fullname, _checked(benchmark.fullname, row)


def _row(name: str, content: bytes) -> SavedRow:
    try:
        schema = _SCHEMA.decode(content).schema
    except msgspec.ValidationError:
        raise InputError("not a run of this suite: its cases have no rows") from None
    if schema == SCHEMA:
        return _checked(name, _ROW.decode(content))
    row = upgraded(_taken(_FIELDS.decode(content), READ | fields_upgraded(schema)))
    return _checked(name, msgspec.convert(row, SavedRow), least=0 if schema == 1 else 1)


def _taken(fields: Mapping[str, msgspec.Raw], wanted: Collection[str]) -> dict[str, Any]:
    """Return the values of those fields that are wanted."""
    return {field: msgspec.json.decode(value) for field, value in fields.items() if field in wanted}


def _checked(name: str, row: SavedRow, least: int = 1) -> SavedRow:
    """Return the row unless its figures contradict each other; `least` is of processes."""
    for field in TEXTS:  # of which there are few different ones
        setattr(row, field, sys.intern(getattr(row, field)))
    samples = (row.process_speedups, row.process_seconds, row.process_dense_seconds)
    if len(row.process_numbers) < least or {len(sample) for sample in samples} != {len(row.process_numbers)}:
        raise InputError(f"{name}: not one figure for each process")
    if len(row.process_numbers) > MAX_PROCESSES:
        raise InputError(f"{name}: more than {MAX_PROCESSES} processes")
    if len(set(row.process_numbers)) < len(row.process_numbers):
        raise InputError(f"{name}: a process twice")
    if not row.speedup_low <= row.speedup <= row.speedup_high:
        raise InputError(f"{name}: an interval that does not hold its median")
    return row
