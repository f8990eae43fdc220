"""The columns of the full table, each with what it shows of a case and the number by which it is sorted."""

from collections.abc import Callable
from typing import NamedTuple

from bench.findings.figures.entries import Entry
from bench.tables.text import seconds


class Column(NamedTuple):
    """A column: its header, a cell's text, and the number behind it where it is one."""

    header: str
    text: Callable[[Entry], str]
    number: Callable[[Entry], float | None] | None = None

    @property
    def is_number(self) -> bool:
        """Whether the column is sorted by numbers."""
        return self.number is not None

    def value(self, entry: Entry) -> str:
        """Return the number behind a cell as a script reads it, empty where there is none."""
        value = self.number(entry) if self.number else None
        return "" if value is None else f"{value:.6g}"


def _plain(value: float | None, style: str = ".2f") -> str:
    return "" if value is None else format(value, style)


COLUMNS = (
    Column("operation", lambda one: one.op),
    Column("layer or arm", lambda one: one.layer),
    Column("sparsity", lambda one: f"{one.sparsity:g}", lambda one: one.sparsity),
    Column("verdict", lambda one: one.verdict),
    Column("times dense's speed", lambda one: str(one.speedup), lambda one: one.speedup.median),
    Column("noise floor", lambda one: str(one.noise or ""), lambda one: one.noise.half_width if one.noise else None),
    Column("shape", lambda one: one.place.shape),
    Column("batch", lambda one: str(one.place.batch), lambda one: one.place.batch),
    Column("conditions", lambda one: one.place.conditions),
    Column("data", lambda one: one.data),
    Column("time", lambda one: seconds(one.seconds), lambda one: one.seconds),
    Column("dense's time", lambda one: seconds(one.dense_seconds), lambda one: one.dense_seconds),
    Column("of what FLOPs promise", lambda one: _plain(one.realised_fraction), lambda one: one.realised_fraction),
    Column("GFLOP/s", lambda one: _plain(one.gflops, ".3g"), lambda one: one.gflops),
    Column("bytes, of dense's", lambda one: _plain(one.stored), lambda one: one.stored),
    Column("accuracy", lambda one: _plain(one.accuracy, ".3f"), lambda one: one.accuracy),
    Column("processes", lambda one: str(one.processes), lambda one: one.processes),
)
