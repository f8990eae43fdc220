"""Accuracy after each epoch against what it took, and how soon each arm comes to dense's: two figures."""

import math
from collections.abc import Iterator, Mapping, Sequence

from bench.findings.figures.learning import DENSE, Curve, Learning
from bench.findings.time_to_accuracy.seeds import MARGIN
from bench.findings.time_to_accuracy.verdict import GOAL
from bench.report.content import Content
from bench.report.figure import Data, Figure, Panel, Spec
from bench.report.figures.learning import (
    AXES,
    BELOW,
    ROW,
    accuracy_axis,
    arms_of,
    at_the_edge,
    conditions,
    far_below,
    heading,
    level_line,
    taken_axis,
)
from bench.report.figures.theme import INK, LINK, RATIO, RULE, WORDS, around, chart, layer, number, styles
from bench.statistics.intervals import SIGN_VALUES
from bench.tables.text import seconds as duration
from bench.tables.trained.time_to_accuracy import COLUMNS

CURVES = (
    "Accuracy on the validation split after each epoch (of random labels on the training samples), the mean over the seeds, "
    "its band from the lowest to the highest. The solid line is the target, the mean over the seeds of dense's best less "
    f"{MARGIN:g}; a ring marks the first epoch at which an arm's mean is as high. Since schema 12 sparse and narrow arms go on "
    "until dense's time is over, here as long as all of their seeds do. Time is that of the epochs alone, on a "
    "logarithmic axis; FLOPs are counted ones (2 a multiply-add), spread evenly over the epochs. "
    f"{BELOW}"
)
TIMES = (
    f"Time until an arm is within {MARGIN:g} of dense's best accuracy on the validation split, over dense's in the same seed: "
    f"the median over the seeds and its 95 % interval, or the range below {SIGN_VALUES} seeds, which have none. Left of the "
    "solid line is sooner than dense, left of the dashed one in a third of its time. A bar that ends at the right edge has no "
    "upper end: in too many seeds the arm never gets there. An empty mark is what it took at least, where half of them do not."
)


def learning_curves(content: Content) -> Iterator[Figure]:
    """Yield the figure of learning curves, where a training has one."""
    told = [one for one in content.learning if one.curves]
    names = arms_of(content)
    panels = [_curves(one, names, axis) for one in told for axis in ("seconds", "flops", "epochs")]
    if panels:
        yield Figure("learning-curves", "Learning curves", CURVES, panels, _curve_data(told))


def _curves(one: Learning, names: Sequence[str], axis: str) -> Panel:
    assert one.target is not None
    style = styles(names, [curve.arm for curve in one.curves])
    colour = {"color": style["color"]}
    values, rings = list[Spec](), list[Spec]()
    for curve in one.curves:
        for epoch in curve.epochs:
            taken = {"seconds": epoch.seconds, "flops": epoch.flops, "epochs": epoch.number}[axis]
            mean, low, high = epoch.accuracy
            words = f"{curve.arm}, epoch {epoch.number}: accuracy {epoch.accuracy}"
            point = {"name": curve.arm, "taken": taken, "accuracy": mean, "low": low, "high": high, "words": words}
            values.append(point)
            if epoch is curve.reached:
                rings.append(point | {"words": f"{curve.arm} reaches the target here, in epoch {epoch.number}"})
    far = far_below({curve.arm: curve.epochs[-1].accuracy.mean for curve in one.curves}, one.target)
    near, last = [value for value in values if value["name"] not in far], {value["name"]: value for value in values}
    y = accuracy_axis([value[bound] for value in near for bound in ("low", "high")] + [one.target])
    x = taken_axis(axis, [*values, *rings], is_log=axis == "seconds")
    layers = [
        level_line(one.target),
        layer(values, {"type": "area", "opacity": 0.14}, x=x, y={**y, "field": "low"}, y2={"field": "high"}, **colour),
        layer(values, {"type": "line", "strokeWidth": 2}, x=x, y=y, **colour, strokeDash=style["strokeDash"]),
        layer(values, {"type": "point", "size": 28, "filled": True, "opacity": 1}, x=x, y=y, **colour, shape=style["shape"]),
        layer(rings, {"type": "point", "size": 190, "filled": False, "strokeWidth": 2.5, "shape": "circle", "opacity": 1},
              x=x, y=y, **colour, description=WORDS),
        *at_the_edge([value for name, value in last.items() if name in far], x, y, **colour, shape=style["shape"]),
    ]  # fmt: skip
    text = " ".join(_when(curve) for curve in one.curves)
    return Panel(f"{heading(one)}: against {AXES[axis][0]}", f"{conditions(one)} {text}", chart(layers))


def _when(curve: Curve) -> str:
    if curve.reached is None:
        return f"{curve.arm} never reaches the target on average; seed by seed in {curve.time_ratio} of dense's time."
    return (
        f"{curve.arm} reaches the target on average in epoch {curve.reached.number}, after {duration(curve.reached.seconds)}; "
        f"seed by seed in {curve.time_ratio} of dense's time."
    )


def _curve_data(told: Sequence[Learning]) -> Data:
    headers = (
        "trained on",
        "arm",
        "epochs",
        "accuracy at the end",
        "target",
        "reached in epoch",
        "after",
        "FLOPs until",
    )
    rows = []
    for one in told:
        for curve in one.curves:
            when = curve.reached
            moment = ("never", "", "") if when is None else (str(when.number), duration(when.seconds), f"{when.flops:.3g}")
            end = curve.epochs[-1]
            rows.append((heading(one), curve.arm, str(end.number), str(end.accuracy), f"{one.target:.3f}", *moment))
    return Data(headers, rows, [""] * len(rows))


def time_to_accuracy(content: Content) -> Iterator[Figure]:
    """Yield the figure of how soon each arm comes to dense's accuracy, where one has learning curves, with the table of it."""
    names, links = arms_of(content), {one.case: one.anchor for one in content.entries}
    told = [one for one in content.learning if one.is_learnable and any(curve.arm != DENSE for curve in one.curves)]
    if told:
        panels = [_times(one, names, links) for one in told]
        yield Figure("time-to-accuracy", "Time to dense's accuracy", TIMES, panels, _time_data(content))


def _times(one: Learning, names: Sequence[str], links: Mapping[str, str]) -> Panel:
    curves = sorted((curve for curve in one.curves if curve.arm != DENSE), key=lambda curve: curve.time_ratio.median[::-1])
    known = [bound for curve in curves for bound in (*curve.time_ratio.median, *curve.time_ratio.outer)]
    domain = around([bound for bound in known if math.isfinite(bound)], (GOAL, 1.5))
    cases = {end.arm: end.case for end in one.ends}
    values: list[Spec] = []
    for curve in curves:
        middle, outer = curve.time_ratio.median, curve.time_ratio.outer
        is_there = math.isfinite(middle.high)
        words = f"{curve.arm}: {curve.time_ratio} of dense's time"
        values.append({"name": curve.arm, "middle": middle.high if is_there else middle.low, "low": outer.low,
                       "high": min(outer.high, domain[1]), "there": is_there, "words": words,
                       "link": f"#{links[cases[curve.arm]]}"})  # fmt: skip
    shown = [value["name"] for value in values]
    style = {kind: {**encoding, "legend": None} for kind, encoding in styles(names, shown).items()}
    x = number("middle", "of dense's time", domain=domain, axis=RATIO)
    y: Spec = {"field": "name", "type": "nominal", "sort": shown, "title": None}
    mark: Spec = {"type": "point", "size": 80, "opacity": 1, "strokeWidth": 2}
    encodings = {"x": x, "y": y, "color": style["color"], "shape": style["shape"], "href": LINK, "description": WORDS}
    layers = [
        layer([{}], {"type": "rule", "color": INK, "strokeWidth": 1.5}, x={"datum": 1, "type": "quantitative"}),
        layer([{}], {"type": "rule", "color": RULE, "strokeDash": [4, 3]}, x={"datum": GOAL, "type": "quantitative"}),
        layer(values, {"type": "rule", "strokeWidth": 2}, y=y, x={**x, "field": "low"}, x2={"field": "high"},
              color=style["color"]),
        layer([one for one in values if one["there"]], {**mark, "filled": True}, **encodings),
        layer([one for one in values if not one["there"]], {**mark, "filled": False}, **encodings),
    ]  # fmt: skip
    text = " ".join(f"{value['words']}." for value in values)
    return Panel(heading(one), f"{conditions(one)} {text}", chart(layers, height={"step": ROW}))


def _time_data(content: Content) -> Data:
    told = [(one, arm) for one in content.answer.time_to_accuracy for arm in one.arms]
    rows = [(f"{one.data}, {one.shape}, {one.protocol}", *(cell(arm) for cell in COLUMNS.values())) for one, arm in told]
    return Data(("trained on", *COLUMNS), rows, [""] * len(rows))
