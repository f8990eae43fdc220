"""What a run tells of its machine, as names and values, and the command that measures it again."""

import shlex
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from bench.grids import UNPRUNED
from bench.report.content import Content
from bench.runs.plain_text import printable
from bench.shapes import Shape

DEEPEST, MOST = 5, 200  # levels and lines of facts, which may come from anywhere


class Again(NamedTuple):
    """How to measure a run again: in a sentence, and the lines for a shell."""

    words: str
    commands: list[str]


def facts(content: Content) -> list[tuple[str, str]]:
    """Return the facts of the machine by their place, those that are known."""
    return list(_flat(content.run.facts, ""))[:MOST]


def _flat(value: Any, place: str, depth: int = 0) -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping) and depth < DEEPEST:
        for name, inner in value.items():
            yield from _flat(inner, f"{place} {printable(str(name), 60)}".strip(), depth + 1)
    elif isinstance(value, list) and any(isinstance(one, Mapping) for one in value):  # as what each process took
        yield place, f"{len(value)}, each told in the file"
    elif value is not None and value not in ("", [], {}):
        yield place, printable(str(value))


def again(content: Content) -> Again:
    """Return the commands that measure the run again, as far as it tells what it was asked for."""
    run = content.run
    asked = run.facts.get("run", {}).get("asked") if isinstance(run.facts.get("run"), Mapping) else None
    is_told = isinstance(asked, list) and all(isinstance(word, str) for word in asked)
    words = [printable(word) for word in asked] if isinstance(asked, list) and is_told else list(_words(content))
    told = (
        "" if is_told else " The run does not tell what it was asked for: the last line but one measures its cases, and others."
    )
    is_dirty = " It was measured with changes that are not committed." if run.is_dirty else ""
    named = shlex.quote(run.name)
    checkout = [] if run.commit.isalpha() else [f"git checkout {shlex.quote(run.commit)}"]
    return Again(
        f"From a checkout, on the same machine.{is_dirty}{told}",
        [
            *checkout,
            "make .venv/ready",
            " ".join([".venv/bin/pytest bench --benchmark-autosave", *map(shlex.quote, words)]),
            f".venv/bin/python -m bench report {named} --out report.html",
        ],
    )


def _words(content: Content) -> Iterator[str]:
    """Yield the options that ask for all of what the rows are of."""
    rows = list(content.rows.values())
    layered = [row for row in rows if row["op"] != "train"]
    named = [row for row in rows if row["model"] != UNPRUNED]  # which comes with dense
    for option, field, among in (("op", "op", rows), ("layer", "layer", named), ("device", "device", rows[:1]),
                                 ("dtype", "dtype", layered), ("threads", "threads", rows)):  # fmt: skip
        values = dict.fromkeys(str(row[field]) for row in among)
        if values:
            yield from (f"--{option}", ",".join(values))
    shapes = dict.fromkeys(
        str(Shape(tuple(map(int, row["shape"].split("x"))), row["batch"])) for row in layered if row["model"] != "narrow"
    )
    if shapes:
        yield from ("--shape", ",".join(shapes))
