"""A plan in, what is told of it out: what is to become of each layer, all that was tried, the whole, and the calls."""

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from bench.models.masks import reading_of
from bench.models.selected import NONE
from bench.plans.plan import AGREES, LayerPlan, LayerRival, Option, Plan
from bench.plans.rivals import RIVALS
from bench.plans.whole import RivalRaced
from bench.statistics.intervals import Interval
from bench.tables.grid import Cell, Grid, print_table
from bench.tables.text import MARKS, Screen, coloured, new_console, print_text, seconds, size, text_of

# Before masks of a file: what `torch.nn.utils.prune` pruned has others, and stays dense, with zeros, where the file has none.
IMPORTS_OF_PRUNED = "from torch import nn\nfrom torch.nn.utils import prune"
PRUNED_UNDONE = """for module in model.modules():
    if isinstance(module, nn.Linear | nn.Conv2d) and hasattr(module, "weight_mask"):
        prune.remove(module, "weight")"""


def lines(plan: Plan, left_out: Mapping[str, str], screen: Screen | None = None) -> Iterator[str]:
    """Yield the lines that tell a plan."""
    console = new_console(screen)
    for title, grid in tables(plan):
        print_table(console, title, grid)
    for sentence in sentences(plan, left_out):
        print_text(console, sentence)
    if plan.calls:
        print_text(console, "\nTo make it so, where `model` is what the function returns:\n")
        for line in pasted(plan).splitlines():
            console.print(line, soft_wrap=True)
    yield from text_of(console)


def pasted(plan: Plan) -> str:
    """Return the lines of Python that make a plan, none where nothing is exchanged."""
    imports, lines = ["from sparse_models import sparsify"], list(map(str, plan.calls))
    for file in {call.file for call in plan.calls} - {NONE}:  # one at most
        of_file, masks = reading_of(Path(file))
        imports = [of_file, *([IMPORTS_OF_PRUNED] if plan.is_pruned else []), *imports]
        lines = [masks, *([PRUNED_UNDONE] if plan.is_pruned else []), *lines]
    return "\n".join([*imports, "", *lines]) if lines else ""


def tables(plan: Plan) -> list[tuple[str, Grid]]:
    """Return the tables with their titles: what is to become of each layer, and how fast each kind of layer is."""
    if not plan.layers:
        return []
    chosen = Grid(["layer", "weight", "samples", "dense", "choice", "speed-up", "kept", "pays from"])
    for one in plan.layers:
        choice = one.choice
        what = [choice.kind.layer, _told(choice), f"{choice.kept:.0%}"] if choice else ["dense", "", ""]
        chosen.add_row(*_where(one), seconds(one.dense_seconds), *what, _pays_from(one))
    kinds = list(dict.fromkeys(option.kind for one in plan.layers for option in one.options))
    rivals = list(dict.fromkeys(rival.name for one in plan.layers for rival in one.rivals))
    tried = Grid(["layer", *(f"dense {name}" for name in rivals), *map(str, kinds)])
    for one in plan.layers:
        cells = {rival.name: _marked(rival) for rival in one.rivals} | {
            str(option.kind): _marked(option) for option in one.options
        }
        tried.add_row(one.layer.name, *(cells.get(str(column), "") for column in (*rivals, *kinds)))
    plans = Grid(["", *map(str, kinds), "dense", "the whole"])
    for each in sorted(plan.tried, key=lambda one: one.gain, reverse=True):
        counts = [str(sum(one == kind for one in each.choices) or "") for kind in (*kinds, None)]
        plans.add_row("taken" if each.is_taken else "", *counts, f"{each.gain:.2f}")
    return [
        (
            "Each layer where it stands in the model: seconds dense in one pass, and the choice as fast as so many times dense",
            chosen,
        ),
        ("Plans tried: how many layers are what, and how many times as fast as yours, by the processes that choose", plans),
        (
            "Each layer where all are of a kind, as many times as fast as dense (+ faster, - slower, = the same, ? undecided)",
            tried,
        ),
    ]


def _where(one: LayerPlan) -> list[Cell]:
    rows = "+".join(map(str, dict.fromkeys(one.layer.rows)))
    weight = (one.layer.outputs, one.layer.inputs // math.prod(one.layer.kernel), *one.layer.kernel)
    return [one.layer.name, "x".join(map(str, weight)), rows]


def _told(option: Option) -> Cell:
    return coloured(f"{option.speedup} {MARKS[option.verdict]}", option.verdict)


def _marked(option: Option | LayerRival) -> Cell:
    return coloured(f"{option.speedup.median:.2f} {MARKS[option.verdict]}", option.verdict)


def _pays_from(one: LayerPlan) -> str:
    """Return from which sparsity on the leading kind is faster than dense."""
    if one.break_even is None or one.leading is None:
        return ""
    which = "" if one.choice else f"{one.leading.kind.layer} "
    return f"{which}{told_break_even(one.break_even, one.measured_at)}"


def told_break_even(even: Interval, measured: Sequence[float]) -> str:
    """Return a break-even in a few characters: a sparsity, or that it is beyond those measured."""
    first, last = min(measured), max(measured)
    return f"<{first:g}" if even.median < first else f">{last:g}" if even.median > last else f"{even.median:.2f}"


def sentences(plan: Plan, left_out: Mapping[str, str]) -> Iterator[str]:
    """Yield what is to be said of the whole, and of what was left out."""
    chosen = sum(one.choice is not None for one in plan.layers)
    if not plan.layers:
        yield "Nothing is known: the time was over before two processes had told anything; ask for more with --budget."
    elif not chosen:
        yield "No layer is to be exchanged: by no plan that was tried is the whole faster."
    else:
        yield from _whole(plan, chosen)
        yield (
            "kept: what the weights that stay have of the sum of all absolute weights. What that costs in accuracy is not "
            "measured here: train on, and look."
        )
    for rival in plan.rivals:
        yield _of_rival(plan, rival)
    for kind, why in left_out.items():
        yield f"{kind} is left out: {why}"


def _of_rival(plan: Plan, rival: RivalRaced) -> str:
    """Return what is to be said of the whole, dense in another way: its gain, and whether it beats the plan, or choices."""
    raced, against = rival.raced, rival.against_plan
    told = f"Dense {RIVALS[rival.name].told}, the whole is {raced.speedup} {MARKS[raced.verdict]} times as fast as yours"
    told += f" ({seconds(raced.seconds)})"
    if against and plan.calls:
        told += {
            "faster": f", and {against} times as fast as the plan: it beats the plan.",
            "slower": f"; the plan is {against.inverse} times as fast as that.",
            "same": ", and as fast as the plan.",
        }.get(rival.verdict or "", f", and {against} times as fast as the plan: which is faster is not decided.")
    else:
        told += "."
    better = [
        one.layer.name for one in plan.layers for own in one.rivals if own.name == rival.name and own.against_choice == "faster"
    ]
    return told + f" It beats the choices for {', '.join(better)}." * bool(better)


def _whole(plan: Plan, chosen: int) -> Iterator[str]:
    assert plan.predicted is not None
    many = f"{chosen} of {len(plan.layers)} layers exchanged"
    promised = f"predicted {plan.predicted} times as fast, from what processes that had no part in choosing measured in place"
    if plan.raced is None:
        yield f"The whole model, {many}: {promised}; the whole itself was not measured."
    else:
        raced = plan.raced
        took = f"{seconds(raced.dense_seconds)} dense, {seconds(raced.seconds)} then, over {raced.processes} fresh processes"
        yield f"The whole model, {many}: {promised}; measured {raced.speedup} {MARKS[raced.verdict]} ({took})."
    if plan.raced and not plan.agrees:
        apart = math.expm1(abs(math.log(plan.predicted.median / raced.speedup.median)))
        yield f"Predicted and measured are {apart:.0%} apart, more than {AGREES:.0%}: go by what was measured."
    if not plan.calls:
        yield "As a whole the model is not shown to be faster that way: leave it dense, or ask for more --budget."
    if plan.bytes is not None:
        yield f"Weights and what says where they stand: {size(plan.dense_bytes)} dense, {size(plan.bytes)} then."
