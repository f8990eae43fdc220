"""How accurate each arm ends for what it took, and the ratios to dense; what these figures share with those of curves."""

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from bench.findings.advice import points as in_points
from bench.findings.figures.learning import DENSE, End, Learning
from bench.report.content import Content
from bench.report.figure import Data, Figure, Panel, Spec
from bench.report.figures.theme import INK, LINK, RATIO, WORDS, around, chart, label, layer, number, styles
from bench.tables.text import seconds as duration
from bench.tables.text import size

FAR = 0.1  # of accuracy: an arm that ends as far below the line would press all others into it
BELOW = (
    f"Where most arms end within {FAR:g} of the line, the axis is theirs: any other stands at its lower edge, with an arrow "
    "and the accuracy at which it ends."
)
ENDS = (
    "Test accuracy at the end of the training, the mean over the seeds and its range, against what it took: further left "
    f"is cheaper, higher is better. The solid line is dense's level. {BELOW}"
)
FOREST = (
    "Beside dense of the same seed. Left of 1 is slower, right of it faster, for as many epochs; left of 0 is less "
    "accurate, in percentage points, on the test split. The bars are 95 % intervals; where one crosses the line, nothing "
    f"is decided. What is more than {100 * FAR:g} points less accurate, where most are not, stands at the left edge, with an "
    "arrow and its figure."
)
# What a training took, with the units from large to small in which an axis may tell it.
AXES: Mapping[str, tuple[str, Sequence[tuple[float, str]]]] = {
    "seconds": ("time", ((1, "s"), (1e-3, "ms"))),
    "flops": ("counted FLOPs", ((1e12, "TFLOP"), (1e9, "GFLOP"), (1e6, "MFLOP"))),
    "epochs": ("epochs", ((1, ""),)),
    "bytes": ("bytes stored", ((2**20, "MiB"), (2**10, "KiB"), (1, "B"))),
}
ROW = 22  # pixels


def accuracy(content: Content) -> Iterator[Figure]:
    """Yield the figure of how accurate each arm ends for what it took, and the forest plot of the ratios to dense."""
    names, links = arms_of(content), {one.case: one.anchor for one in content.entries}
    told = [one for one in content.learning if any(end.arm != DENSE for end in one.ends)]
    panels = [_ends(one, names, axis, links) for one in told if one.is_learnable for axis in ("seconds", "flops", "bytes")]
    if panels:
        yield Figure("accuracy", "Accuracy for what it took", ENDS, panels, _end_data(told, links))
    if told:
        forest = [panel for one in told for panel in _forest(one, names, links)]
        yield Figure("ratios", "Trainings beside dense", FOREST, forest, _end_data(told, links))


def arms_of(content: Content) -> list[str]:
    """Return all arms, each once: what has a colour has it in all figures."""
    return list(dict.fromkeys(end.arm for one in content.learning for end in one.ends))


def heading(one: Learning) -> str:
    """Return what panels of some trainings are called."""
    return f"{one.data}, {one.shape}, {one.protocol}"


def conditions(one: Learning) -> str:
    """Return under which conditions they ran, in a sentence."""
    labels = "" if one.is_learnable else " Its labels are random: no other sample tells anything about them."
    return f"{one.conditions}; {one.epochs} epochs, {one.seeds} seed{'s' * (one.seeds != 1)}.{labels}"


def level_line(level: float) -> Spec:
    """Return the layer of a line at an accuracy."""
    return layer([{"level": level}], {"type": "rule", "color": INK, "strokeWidth": 1.5},
                 y={"field": "level", "type": "quantitative"})  # fmt: skip


def accuracy_axis(values: Sequence[float]) -> Spec:
    """Return the axis of accuracies that holds all values."""
    low, high = min(values), max(values)
    margin = max(0.01, (high - low) * 0.08)
    return number("accuracy", "accuracy", kind="linear", domain=(max(0, low - margin), min(1, high + margin)),
                  scale={"zero": False}, axis={"tickCount": 5})  # fmt: skip


def far_below(ends: Mapping[str, float], level: float) -> set[str]:
    """Return the arms, by the accuracies at which they end, that are far below a level; none where most are."""
    far = {name for name, accuracy in ends.items() if accuracy < level - FAR}
    return far if 2 * len(far) < len(ends) else set()


def at_the_edge(values: Sequence[Spec], x: Spec, y: Spec, **style: Spec) -> list[Spec]:
    """Return the layers of arms far below the axis: each mark at its lower edge, and above it an arrow with the accuracy."""
    told = [{**value, "accuracy": y["scale"]["domain"][0], "told": f"\u2193 {value['accuracy']:.3f}"} for value in values]
    mark = {"type": "point", "size": 90, "filled": True, "opacity": 1, "clip": False}
    layers = [layer(told, mark, x=x, y=y, **style)] if told else []
    for above, value in enumerate(told, 1):  # one over the other, lest two be as expensive
        layers += label([value], "told", {"dy": -14 * above, "fontSize": 11, "clip": False}, x=x, y=y)
    return layers


def taken_axis(axis: str, values: Sequence[Spec], *, is_log: bool = False) -> Spec:
    """Return an axis of what a training took, from nothing on or logarithmic, and put the values in its unit."""
    most = max(value["taken"] for value in values)
    what, units = AXES[axis]
    unit, name = next((one for one in units if most >= one[0]), units[-1])
    for value in values:
        value["taken"] /= unit
    title = f"{what}, {name}" if name else what
    if is_log:
        return number("taken", title, domain=around([value["taken"] for value in values], (math.inf, 0)), axis={"tickCount": 5})
    return number("taken", title, kind="linear", domain=(0, most / unit * 1.06), axis={"tickCount": 5})


def _ends(one: Learning, names: Sequence[str], axis: str, links: Mapping[str, str]) -> Panel:
    style = styles(names, [end.arm for end in one.ends])
    values: list[Spec] = []
    for end in one.ends:
        taken = {"seconds": end.seconds, "flops": end.flops, "bytes": end.bytes_stored}[axis]
        held = "" if end.peak_bytes is None else f", at most {size(end.peak_bytes)} while it trains"
        stored = f"{size(end.bytes_stored)}{held}"
        amount = {"seconds": duration(end.seconds), "flops": f"{end.flops:.3g} FLOPs", "bytes": stored}[axis]
        mean, low, high = end.accuracy
        words = f"{end.arm}: accuracy {end.accuracy}, {amount}"
        values.append({"name": end.arm, "taken": taken, "accuracy": mean, "low": low, "high": high, "words": words,
                       "link": f"#{links[end.case]}"})  # fmt: skip
    far = far_below({value["name"]: value["accuracy"] for value in values}, one.test_level)
    near = [value for value in values if value["name"] not in far]
    y = accuracy_axis([value[bound] for value in near for bound in ("low", "high")] + [one.test_level])
    x, colour = taken_axis(axis, values), {"color": style["color"]}
    marked = {**colour, "shape": style["shape"], "href": LINK, "description": WORDS}
    layers = [
        level_line(one.test_level),
        layer(near, {"type": "rule", "strokeWidth": 2}, x=x, y={**y, "field": "low"}, y2={"field": "high"}, **colour),
        layer(near, {"type": "point", "size": 90, "filled": True, "opacity": 1}, x=x, y=y, **marked),
        *at_the_edge([value for value in values if value["name"] in far], x, y, **marked),
    ]  # fmt: skip
    text = " ".join(f"{value['words']}." for value in values)
    return Panel(f"{heading(one)}: against {AXES[axis][0]}", f"{conditions(one)} {text}", chart(layers))


def _forest(one: Learning, names: Sequence[str], links: Mapping[str, str]) -> Iterator[Panel]:
    ends = [end for end in one.ends if end.arm != DENSE]
    speeds = [_bar(end, end.speedup, f"{end.speedup} times dense's speed", links) for end in ends]
    domain = around([value[bound] for value in speeds for bound in ("low", "high")], (0.8, 1.25))
    x = number("middle", "times dense's speed", domain=domain, axis=RATIO)
    yield _plot(f"{heading(one)}: speed", one, speeds, names, x, 1)
    differences = [
        _bar(end, tuple(100 * bound for bound in end.difference), f"{in_points(end.difference)} points of accuracy", links)
        for end in ends
        if end.difference
    ]
    if differences and one.is_learnable:
        far = far_below({value["name"]: value["middle"] / 100 for value in differences}, 0)
        bounds = [0, *(value[bound] for value in differences if value["name"] not in far for bound in ("low", "high"))]
        margin = max(0.2, 0.05 * (max(bounds) - min(bounds)))
        domain = (min(bounds) - margin, max(bounds) + margin)
        x = number("middle", "points of accuracy, over dense's", kind="linear", domain=domain, axis={"tickCount": 5})
        yield _plot(f"{heading(one)}: accuracy", one, differences, names, x, 0, far)


def _bar(end: End, interval: Any, told: str, links: Mapping[str, str]) -> Spec:
    middle, low, high = interval
    return {"name": end.arm, "middle": middle, "low": low, "high": high, "words": f"{end.arm}: {told}",
            "link": f"#{links[end.case]}"}  # fmt: skip


def _plot(
    title: str, one: Learning, values: Sequence[Spec], names: Sequence[str], x: Spec, none: float, far: Collection[str] = ()
) -> Panel:
    shown = [value["name"] for value in values]
    style = styles(names, shown)
    bare = {kind: {**encoding, "legend": None} for kind, encoding in style.items()}
    y = {"field": "name", "type": "nominal", "sort": shown, "title": None}
    near = [value for value in values if value["name"] not in far]
    edge = x["scale"]["domain"][0]
    told = [{**value, "middle": edge, "told": f"\u2190 {value['middle']:.1f}"} for value in values if value["name"] in far]
    layers = [
        layer([{}], {"type": "rule", "color": INK, "strokeWidth": 1.5}, x={"datum": none, "type": "quantitative"}),
        layer(near, {"type": "rule", "strokeWidth": 2}, y=y, x={**x, "field": "low"}, x2={"field": "high"},
              color=bare["color"]),
        layer([*near, *told], {"type": "point", "size": 80, "filled": True, "opacity": 1, "clip": False}, x=x, y=y,
              color=bare["color"], shape=bare["shape"], href=LINK, description=WORDS),
        *(label(told, "told", {"dx": 8, "align": "left", "fontSize": 11}, x=x, y=y) if told else ()),
    ]  # fmt: skip
    text = " ".join(f"{value['words']}." for value in values)
    return Panel(title, f"{conditions(one)} {text}", chart(layers, height={"step": ROW}))


def _end_data(told: Sequence[Learning], links: Mapping[str, str]) -> Data:
    headers = (
        "trained on",
        "arm",
        "test accuracy",
        "over dense's, in points",
        "speed-up",
        "training",
        "counted FLOPs",
        "stored",
        "peak of memory",
    )
    rows, anchors = [], []
    for one in told:
        for end in one.ends:
            lost = in_points(end.difference) if end.difference else ""
            peak = "-" if end.peak_bytes is None else size(end.peak_bytes)
            took = (duration(end.seconds), f"{end.flops:.3g}", size(end.bytes_stored), peak)
            rows.append((heading(one), end.arm, str(end.accuracy), lost, str(end.speedup), *took))
            anchors.append(links[end.case])
    return Data(headers, rows, anchors)
