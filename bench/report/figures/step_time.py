"""Where a step's time goes: its parts stacked, a mask update behind them, dense beside each layer."""

from collections.abc import Iterator, Sequence

from bench.findings.step_split import Split, StepSplits
from bench.grids import UPDATE_INTERVAL
from bench.report.content import LINKS, Content
from bench.report.figure import Data, Figure, Panel, Spec
from bench.report.figures.theme import INK, LINK, PARTS, WORDS, chart, layer, number
from bench.tables.text import seconds as duration

REST, UPDATE = "unaccounted", f"mask update, 1 in {UPDATE_INTERVAL} steps"
READING = (
    "Each bar is one whole step, shorter is faster; its parts were timed by themselves. Unaccounted is what no part holds: "
    "ReLU, autograd's own walk, gradients reset and added up; where the parts sum to more than the step it is left out. "
    f"Behind the step stands a mask update of the dearest rule that was measured, by a {UPDATE_INTERVAL}th, as trainings "
    f"here do one in {UPDATE_INTERVAL} steps."
)
BAR = 26  # pixels


def step_time(content: Content) -> Iterator[Figure]:
    """Yield the figure of all places at which the parts of a step were measured."""
    panels, rows, links = [], list[tuple[str, ...]](), list[str]()
    for found in content.answer.step_splits:
        splits = [split for split in found.splits if split.seconds is not None and split.unaccounted is not None]
        if splits:
            panels.append(_panel(found, splits, content.links))
        for split in found.splits:
            links.append(content.links.get(("step", split.layer, split.sparsity, found.place), ""))
            rows.append(_row(found, split))
    if panels:
        headers = ("where", "layer", "sparsity", "step", "parts, of the step", REST, "mask update, in steps")
        yield Figure("step-time", "Where a step's time goes", READING, panels, Data(headers, rows, links))


def _row(found: StepSplits, split: Split) -> tuple[str, ...]:
    parts = ", ".join(f"{_plain(name)} {part.fraction:.0%}" for name, part in split.parts.items() if part.fraction is not None)
    rest = f"{split.unaccounted.median:.0%}" if split.unaccounted else ""
    updates = ", ".join(f"{rule} {cost}" for rule, cost in split.updates.items())
    whole = "" if split.seconds is None else duration(split.seconds)
    return (str(found.place), split.layer, f"{split.sparsity:g}", whole, parts, rest, updates)


def _plain(name: str) -> str:
    return {"training_forward": "forward"}.get(name, name.replace("_", " "))


def _panel(found: StepSplits, splits: Sequence[Split], links: LINKS) -> Panel:
    parts = [*(_plain(name) for name in found.parts), REST, UPDATE]
    values = [value for split in splits for value in _values(found, split, parts, links)]
    bars = list(dict.fromkeys(value["bar"] for value in values))
    scale = {"domain": parts, "range": list(PARTS)[: len(parts)]}
    legend = {"orient": "bottom", "columns": 2, "title": None, "labelLimit": 220, "symbolStrokeColor": INK}
    spec = layer(
        values,
        {"type": "bar", "stroke": INK, "strokeWidth": 0.7},
        y={"field": "bar", "type": "nominal", "sort": bars, "title": None, "axis": {"labelFontSize": 12}},
        x=number("milliseconds", "ms a step", kind="linear", stack="zero", axis={"tickCount": 5}),
        color={"field": "part", "type": "nominal", "sort": parts, "scale": scale, "legend": legend},
        order={"field": "order", "type": "quantitative"},
        href=LINK,
        description=WORDS,
    )
    text = " ".join(f"{split.layer} at {split.sparsity:g}: {duration(split.seconds or 0)} a step." for split in splits)
    return Panel(f"step {found.place.size}", f"{found.place.conditions}. {text}", chart([spec], height={"step": BAR}))


def _values(found: StepSplits, split: Split, parts: Sequence[str], links: LINKS) -> Iterator[Spec]:
    assert split.seconds is not None
    assert split.unaccounted is not None
    fractions = {_plain(name): part.fraction for name, part in split.parts.items() if part.fraction is not None}
    fractions[REST] = max(0.0, split.unaccounted.median)
    if split.updates:
        fractions[UPDATE] = max(cost.median for cost in split.updates.values()) / UPDATE_INTERVAL
    bar = split.layer if split.layer == "dense" else f"{split.layer} {split.sparsity:g}"
    link = links.get(("step", split.layer, split.sparsity, found.place), "")
    for name, fraction in fractions.items():
        took = fraction * split.seconds
        words = f"{bar}: {name} {duration(took)}, {fraction:.0%} of the step"
        yield {"bar": bar, "part": name, "order": parts.index(name), "milliseconds": took * 1e3, "words": words,
               "link": f"#{link}"}  # fmt: skip
