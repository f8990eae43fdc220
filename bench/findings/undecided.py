"""The rows of a run in, what it could not decide out, and what is to be measured to decide it."""

from collections.abc import Sequence
from typing import NamedTuple

from bench.cases import Case
from bench.engine.jobs import PROCESSES
from bench.findings.grouping import Place, by_fields, sparsities_of
from bench.grids import OF_A_MODEL
from bench.runs.row import Row
from bench.shapes import Shape, default_regime

LONGER = 300  # seconds for a few cases, which a whole run gives to all


class Undecided(NamedTuple):
    """How many cases have no verdict, of how many, and a command for most of those that are told first, or of all."""

    cases: int
    of: int
    asked_again: int  # those that the command measures
    command: list[str]  # words; empty where all is decided


def undecided(rows: Sequence[Row], told: Sequence[Row]) -> Undecided:
    """Return what the rows of whole operations leave undecided; `told` are those of which the reader hears first."""
    sparse, first = _open(rows), _open(told)
    groups = [group for _, group in by_fields(first or sparse, "op", *Place._fields)]
    group = max(groups, key=len, default=[])
    cases = sum(row["model"] != "dense" for row in rows)
    return Undecided(len(sparse), cases, len(group), command(group) if group else [])


def _open(rows: Sequence[Row]) -> list[Row]:
    return [row for row in rows if row["verdict"] == "undecided" and row["model"] == "sparse"]


def command(rows: Sequence[Row]) -> list[str]:
    """Return the command that measures these rows, of one operation at one place, in more processes and for longer."""
    row = rows[0]
    shape = Shape(tuple(map(int, row["shape"].split("x"))), row["batch"])
    case = Case(**{field: row[field] for field in Case._fields} | {"shape": str(shape)})
    measured = max(len(one["process_numbers"]) for one in rows)
    sparsities = {"sparsity": ",".join(f"{sparsity:g}" for sparsity in sparsities_of(rows))}
    what = {"shape": case.shape} | sparsities
    if row["op"] in OF_A_MODEL:
        what = {"model": case.data} | (sparsities if case.distribution == "-" else {"mask": case.distribution})
    asked = {
        "op": row["op"],
        "layer": ",".join(dict.fromkeys(one["layer"] for one in rows)),
        **what,
        "device": row["device"],
        "dtype": row["dtype"],
        "threads": str(row["threads"]),
        **({} if row["regime"] == default_regime(case.op, case.shape, case.device) else {"regime": row["regime"]}),
        **({"skew": f"{row['skew']:g}"} if row["skew"] else {}),
        **({"zeros": f"{row['zeros']:g}"} if row["zeros"] else {}),
        **({"processes": str(2 * measured)} if measured >= PROCESSES else {}),
        "budget": str(LONGER),
    }
    return ["pytest", "bench", *(word for option, value in asked.items() for word in (f"--{option}", value))]
