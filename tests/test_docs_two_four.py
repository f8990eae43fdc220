"""The page on 2:4 takes every figure of its tables from the file that is saved beside it, and leaves none of that out."""

import json
import re

from tests.helpers.in_process import ROOT

SAVED = json.loads((ROOT / "docs/gpu/h200_two_four.json").read_text())
PAGE = (ROOT / "docs/two_four.md").read_text()


def rows(start: str) -> list[list[str]]:
    """The cells of the rows of a table whose first line starts so; the first row is its head."""
    lines = PAGE[PAGE.index(f"| {start}") :].split("\n\n")[0].splitlines()
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if not line.startswith("|---")]


def speedups(operation: str, *by: str) -> dict[tuple[object, ...], float]:
    return {
        (f"{row['outputs']}x{row['inputs']}", *(row[name] for name in by)): row["speedup"]
        for row in SAVED["rows"]
        if row["operation"] == operation and not row["search"]
    }


def test_the_forward_table_is_what_is_saved() -> None:
    head, *body = rows("forward")
    batches = [int(cell) for cell in head[1:]]
    told = {
        (shape.split()[0], batch): float(cell)
        for shape, *cells in body
        for batch, cell in zip(batches, cells, strict=True)
        if cell
    }
    assert told == speedups("forward", "batch")


def test_the_table_of_steps_is_what_is_saved() -> None:
    told: dict[tuple[object, ...], float] = {}
    for shape, stays, found in rows("a training step")[1:]:
        match = re.fullmatch(r"(\d+x\d+), batch (\d+)", shape)
        assert match is not None
        told |= {(match[1], int(match[2]), False): float(stays), (match[1], int(match[2]), True): float(found)}
    assert told == speedups("step", "batch", "pruning")


def test_the_text_tells_what_is_saved() -> None:
    text, head = " ".join(PAGE.split()), SAVED["head"]
    [searched] = [row["speedup"] for row in SAVED["rows"] if row["search"]]
    usual = speedups("forward", "batch")[("4096x4096", 8192)]
    worst = [speedup for (_, batch), speedup in speedups("forward", "batch").items() if batch == 16]
    for told in (
        f"from {usual} to {searched} by a search",
        f"took {1 / max(worst):.1f} to {1 / min(worst):.1f} times as long",
        f"took {head['pruning_us']['us']} us (4096x4096), where all three dense products took {head['dense_step_us']['us']}",
        f"took {head['eager']['launched_ms']} ms so, and {head['eager']['replayed_ms']} ms as a graph",
        "cuSPARSELt {cusparselt}".format(**head),
        f"PyTorch {head['torch'].partition('+')[0]}",
    ):
        assert told in text, told
