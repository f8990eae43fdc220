"""Several runs: machines side by side, and cases over the runs of one machine."""

import statistics
from collections.abc import Iterator, Mapping, Sequence

from bench.comparisons.machines import Line, Machines
from bench.findings.grouping import NARROW, layer_named
from bench.grids import BEST_LAYERS, OPS, USUAL_SPARSITY
from bench.report.content import Content, Past
from bench.report.figure import Data, Figure, Panel, Spec
from bench.report.figures.theme import INK, QUIET, RATIO, WORDS, around, chart, label, layer, number, styles
from bench.tables.comparison import short

MACHINES = (
    "Each machine's speed-up over its own dense, with its 95 % interval, for cases that more than one of them has: no time "
    "of one is held against another's. Above 1 sparsity pays there."
)
HISTORY = (
    "The speed-up over dense of a case in each run of this machine, oldest first, with its 95 % interval. A vertical line "
    "is a step of its level that the runs' processes tell apart, a dashed one a step that was accepted. Steps take six "
    "runs at least."
)
ROW, PANELS, POINTS = 15, 12, 40  # pixels a line; panels and lines of one at most
LEAST = 1.5  # how far a history's axis reaches from its middle: what is less than noise is to look flat


def machines(content: Content) -> Iterator[Figure]:
    """Yield the figure of machines side by side, where there are several with a case in common."""
    found = content.machines
    if not found or not found.lines:
        return
    groups: dict[str, list[tuple[str, Line]]] = {}
    for line in found.lines:
        told = dict(zip(found.fields, line.what, strict=True))
        if told["layer"] != "dense" or told.get("model") == "narrow":  # dense is 1 everywhere
            groups.setdefault(_work(told), []).append((_arm(told), line))
    names = [f"{side.letter} {side.run.hardware.rpartition('-')[0]}" for side in found.columns]
    every = [cell.told.speedup for line in found.lines for cell in line.cells.values()]
    ends = around([bound for one in every for bound in (one.low, one.high)], (0.5, 2))
    panels = [_beside(work, lines[:POINTS], found, names, ends) for work, lines in groups.items()]
    if panels:
        yield Figure("machines", "Machines side by side", MACHINES, panels, _machine_data(found))


def _work(told: Mapping[str, str]) -> str:
    """Return what a panel is of: of a training its data, of all else its shape."""
    where = [told.get(field, "") for field in ("device", "dtype", "threads")]
    if told["op"] == "train":
        return " ".join(filter(None, ["train", told.get("data"), told.get("protocol"), *where]))
    batch = f"batch {told['batch']}" if "batch" in told else ""
    return " ".join(filter(None, [told["op"], told.get("shape"), batch, *where]))


def _arm(told: Mapping[str, str]) -> str:
    """Return what a line of a panel is of."""
    skew = f"skew {told['skew']}" if told.get("skew", "0.0") != "0.0" else ""
    zeros = f"zeros {told['zeros']}" if told.get("zeros", "0.0") != "0.0" else ""
    moved = told.get("update", "static") if told["op"] in ("train", "update") else ""
    named = layer_named({"model": "sparse", **told})["layer"]
    what = [named] if named == NARROW else [moved, named]
    return " ".join(
        filter(None, [*what, f"{float(told['sparsity']):g}" if "sparsity" in told else "", told.get("regime"), skew, zeros])
    )


def _beside(
    title: str, lines: Sequence[tuple[str, Line]], found: Machines, names: Sequence[str], ends: tuple[float, float]
) -> Panel:
    style = styles(names, names)
    values = [value for arm, line in lines for value in _of_line(arm, line, found, names)]
    shown = list(dict.fromkeys(value["case"] for value in values))
    x = number("speedup", "times its own dense's speed", domain=ends, axis=RATIO)
    y = {"field": "case", "type": "nominal", "sort": shown, "title": None}
    colour, shape = ({**style[kind], "legend": {**style[kind]["legend"], "columns": 1}} for kind in ("color", "shape"))
    layers = [
        layer([{}], {"type": "rule", "color": INK, "strokeWidth": 1.5}, x={"datum": 1, "type": "quantitative"}),
        layer(values, {"type": "rule", "strokeWidth": 2}, y=y, x={**x, "field": "low"}, x2={"field": "high"}, color=colour),
        layer(values, {"type": "point", "size": 60, "filled": True, "opacity": 1}, x=x, y=y, color=colour, shape=shape,
              description=WORDS),
    ]  # fmt: skip
    answers = [line.answer.partition(":")[0] for _, line in lines]
    text = ", ".join(f"{answers.count(answer)} {answer}" for answer in dict.fromkeys(answers))
    return Panel(title, f"Of {len(lines)} cases that several machines have: {text}.", chart(layers, height={"step": ROW}))


def _of_line(arm: str, line: Line, found: Machines, names: Sequence[str]) -> Iterator[Spec]:
    for side, name in zip(found.columns, names, strict=True):
        if cell := line.cells.get(side.letter):
            median, low, high = cell.told.speedup
            words = f"{arm} on {name}: {cell.told.speedup} times dense's speed, {cell.told.verdict}"
            yield {"case": arm, "name": name, "speedup": median, "low": low, "high": high, "words": words}


def _machine_data(found: Machines) -> Data:
    headers = (*found.fields, *(f"{side.letter}: {side.run.machine}" for side in found.columns), "machines")
    rows = []
    for line in found.lines:
        cells = (line.cells.get(side.letter) for side in found.columns)
        told = (f"{cell.told.speedup} {cell.told.verdict}" if cell else "" for cell in cells)
        rows.append((*line.what, *told, line.answer))
    rows += [
        (*one.what[:2], *[""] * (len(found.fields) - 2), *(one.cells.get(side.letter, "") for side in found.columns),
         "break-evens differ" if one.differ else "break-even")
        for one in found.break_evens
    ]  # fmt: skip
    return Data(headers, rows, [""] * len(rows))


def history(content: Content) -> Iterator[Figure]:
    """Yield the figure of cases over the runs of this machine: those with steps first, then those with the most runs."""
    if not content.past:
        return
    order = sorted(content.past, key=_importance)
    shown = order[:PANELS]
    runs = list(dict.fromkeys(point.run.name for one in shown for point in one.series.points))
    reading = HISTORY
    if len(order) > PANELS:
        reading += f" The {PANELS} of {len(order)} cases with steps, or with most runs, are drawn; the data has all."
    panels = [_over_runs(one, runs) for one in shown]
    yield Figure("history", "History on this machine", reading, panels, _history_data(order))


def _importance(past: Past) -> tuple[bool, int, bool, bool, int]:
    """Return by what cases are sorted: steps first, then those in more runs, of the usual layers and sparsity, by operation."""
    row = past.series.points[-1].measured.row
    usual = (row.layer not in BEST_LAYERS, row.sparsity != USUAL_SPARSITY, OPS.index(row.op) if row.op in OPS else 0)
    return not past.steps, -len(past.series.points), *usual


def _over_runs(past: Past, runs: Sequence[str]) -> Panel:
    series = past.series
    middle = statistics.median(point.speedup.median for point in series.points)
    bounds = [bound for point in series.points for bound in (point.speedup.low, point.speedup.high)]
    ends = around(bounds, (middle / LEAST, middle * LEAST), 1.05)
    values: list[Spec] = [
        {"at": runs.index(point.run.name) + 1, "speedup": point.speedup.median, "low": point.speedup.low,
         "high": point.speedup.high, "words": f"{point.run.label}: {point.speedup} times dense's speed"}
        for point in series.points
    ]  # fmt: skip
    x = number("at", "run", kind="linear", domain=(0.5, max(len(runs), 2) + 0.5),
               axis={"format": "d", "tickMinStep": 1, "grid": False})  # fmt: skip
    y = number("speedup", "times dense's speed", domain=ends, axis={"format": "~g", "tickCount": 4})
    style = styles(["run"], ["run"])
    colour = {"color": {"value": style["color"]["scale"]["range"][0]}}
    steps = [{"at": values[one.step.at]["at"] - 0.5, "words": f"{one.status}, {one.step.change}", "is": bool(one.reason),
              "label": "accepted" if one.reason else one.status} for one in past.steps]  # fmt: skip
    layers = [
        layer([{}], {"type": "rule", "color": INK, "strokeWidth": 1.5}, y={"datum": 1, "type": "quantitative"}),
        *(
            layer([step], {"type": "rule", "color": QUIET, "strokeWidth": 2, "strokeDash": [4, 4] if step["is"] else [1, 0]},
                  x=x, description=WORDS)
            for step in steps
        ),
        layer(values, {"type": "rule", "strokeWidth": 2}, x=x, y={**y, "field": "low"}, y2={"field": "high"}, **colour),
        layer(values, {"type": "line", "strokeWidth": 1}, x=x, y=y, **colour),
        layer(values, {"type": "point", "size": 50, "filled": True, "opacity": 1}, x=x, y=y, **colour, description=WORDS),
        *label(steps, "label", {"align": "left", "baseline": "top", "dx": 3}, x=x, y={"value": 2}),
    ]  # fmt: skip
    told = " ".join(f"{one.status} from {one.run.label} on: {one.step.change}." for one in past.steps) or "No step."
    first, last = series.points[0].speedup, series.points[-1].speedup
    return Panel(short(series.case), f"{first}x in the first run, {last}x in the newest. {told}", chart(layers))


def _history_data(order: Sequence[Past]) -> Data:
    headers = ("case", "run", "commit", "speed-up", "step")
    rows = []
    for past in order:
        marks = {one.step.at: f"{one.status}, {one.step.change}" for one in past.steps}
        for number_, point in enumerate(past.series.points):
            commit = point.run.commit[:9]
            what = (short(past.series.case), point.run.name, commit, str(point.speedup))
            rows.append((*what, marks.get(number_, "")))
    return Data(headers, rows, [""] * len(rows))
