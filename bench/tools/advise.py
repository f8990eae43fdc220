"""Which layers of your own model to make sparse on this machine: each kind timed in the model, what pays, and the whole."""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.hooks.progress import Progress
from bench.hooks.values import positive, threads
from bench.machine.facts import facts
from bench.models.layers import inspected
from bench.models.loading import FORM
from bench.models.selected import NONE, given_masks, sparsity_of
from bench.plans.arms import OPS, default_kinds, exchangeable
from bench.plans.asked import BUDGET, Asked
from bench.plans.measuring import Advised, advise
from bench.report.markdown import table
from bench.runs.files import as_json, write_whole
from bench.tables.plan import lines, pasted, sentences, tables
from bench.tables.text import screen_of_output, wrapped
from sparse_models.errors import InputError
from sparse_models.masks import check_sparsity

HELP = "tell which layers of your own model to make sparse"
SPARSITY = 0.9
WRITTEN = (".json", ".md")


def add_arguments(tool: argparse.ArgumentParser) -> None:
    """Add the tool's options."""
    what = f"a function of yours, {FORM} or path/to/file.py:function, that returns a module and an example batch"
    tool.add_argument("--model", required=True, metavar=FORM.upper(), help=what)
    tool.add_argument("--sparsity", metavar="FRACTION", help=f"of zeros in a layer; default: {SPARSITY:g}")
    tool.add_argument("--mask", metavar="FILE", help="masks of your own, by the names of layers: .npz or .safetensors")
    tool.add_argument("--op", default=OPS[0], choices=OPS, help=f"inference or a training step; default: {OPS[0]}")
    tool.add_argument("--layer", metavar="LIST", help="kinds of layers to try; default: those of the default grid")
    tool.add_argument("--threads", metavar="N", help="CPU threads; default: PyTorch's own")
    tool.add_argument("--budget", default=BUDGET, metavar="SECONDS", help=f"for all of it; default: {BUDGET:g}")
    tool.add_argument(
        "--out", action="append", type=Path, default=[], metavar="PATH", help="a .json or .md file to write it to"
    )


def run(asked: argparse.Namespace, tell: Callable[[str], None]) -> int:
    """Measure, print the plan and write it; 1 where nothing is known, 130 where Ctrl-C cut it short."""
    for path in asked.out:
        if path.suffix not in WRITTEN or not path.parent.is_dir():
            raise InputError(
                f"--out: expected a path that ends in {' or '.join(WRITTEN)}, in a folder that exists, got {path}; change it"
            )
    layers = asked.layer.split(",") if asked.layer else None
    mask = NONE if asked.mask is None else asked.mask
    kinds = default_kinds(_sparsity(asked), layers)
    wanted = Asked(asked.model, asked.op, kinds, threads(asked.threads), positive(str(asked.budget)), mask)
    found = inspected(wanted.target)
    where = f"{wanted.op}, {found.shape}, cpu, {wanted.threads} thread{'s' * (wanted.threads != 1)}"
    there = exchangeable(*wanted.source)
    which = f"layer{'s' * (len(there) != 1)}{f' with masks in {mask},' * (mask != NONE)}"
    many = f"{len(there)} {which} at sparsity {kinds[0].sparsity:g}"
    tell(f"{wanted.target} ({where}):")
    tell(f"{many}, at most {wanted.budget:g} s (--budget)")
    progress = Progress(_write, screen_of_output().width if sys.stdout.isatty() else None)
    try:
        advised = advise(wanted, progress.show)
    finally:
        progress.clear()
    for line in lines(advised.plan, advised.left_out):
        tell(line)
    notes = [f"left dense: {sentence}" for sentence in found.left_dense]
    notes += [f"left out, as the forward pass never calls them: {', '.join(found.never_called)}"] * bool(found.never_called)
    masked = {one.name for one in there}
    without = [one.name for one in found.exchangeable if not masked & set(one.names)]
    notes += [f"left dense, as {wanted.mask} has no mask of it: {', '.join(without)}"] * bool(without)
    for note in notes:
        for line in wrapped(note, screen_of_output().width):
            tell(line)
    if advised.disturbed:
        tell(
            f"{advised.disturbed} of {advised.plan.processes + advised.disturbed} processes say nothing: others disturbed them"
        )
    if advised.is_interrupted:
        tell("interrupted: this is what was known by then")
    for path in asked.out:
        write_whole(path, as_json(record(wanted, advised)) + b"\n" if path.suffix == ".json" else _markdown(wanted, advised))
        tell(f"saved {path}")
    return 130 if advised.is_interrupted else int(not advised.plan.layers)


def _sparsity(asked: argparse.Namespace) -> float:
    """Return the sparsity that is asked for, or that of the masks."""
    if asked.mask is None:
        return check_sparsity(SPARSITY if asked.sparsity is None else asked.sparsity)
    if asked.mask == NONE:
        raise InputError(f"--mask: expected a file of masks, got {NONE}; leave it out, or name a file")
    held = sparsity_of(*given_masks(asked.model, asked.mask).values())
    if asked.sparsity is not None:
        raise InputError(f"--sparsity: expected none beside masks, whose own is {held:g}; leave it out")
    return held


def _write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


def record(asked: Asked, advised: Advised) -> dict[str, Any]:
    """Return a plan, plain, for JSON."""
    plan = advised.plan
    return {
        "kind": "plan",
        "schema": 4,
        "machine": facts(["cpu"]),
        "model": asked.target,
        "op": asked.op,
        "threads": asked.threads,
        "mask": asked.mask,
        "sparsity": asked.kinds[0].sparsity,
        "seconds": advised.seconds,
        "layers": [_plain(one) for one in plan.layers],
        "left_out": dict(advised.left_out),
        "tried": _plain(plan.tried),
        "processes": plan.processes,
        "disturbed_processes": advised.disturbed,
        "predicted": _plain(plan.predicted),
        "measured": _plain(plan.raced),
        "rivals": _plain(plan.rivals),
        "dense_bytes": plan.dense_bytes,
        "bytes": plan.bytes,
        "calls": pasted(plan),
    }


def _plain(value: Any) -> Any:
    """Return records within records as dictionaries."""
    if hasattr(value, "_asdict"):
        return {name: _plain(part) for name, part in value._asdict().items()}
    return [_plain(part) for part in value] if isinstance(value, list | tuple) else value


def _markdown(asked: Asked, advised: Advised) -> bytes:
    """Return a plan as Markdown."""
    parts = [f"# What to make sparse in {asked.target}: {asked.op}, {asked.threads} threads"]
    for title, grid in tables(advised.plan):
        parts += [title, table(grid.headers, [[str(cell) for cell in row] for row in grid.rows])]
    parts += sentences(advised.plan, advised.left_out)
    parts += [f"```python\n{pasted(advised.plan)}\n```"] * bool(advised.plan.calls)
    return ("\n\n".join(parts) + "\n").encode()
