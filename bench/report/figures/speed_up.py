"""Speed-up against sparsity: a curve with its band for each layer, where it breaks even, what FLOPs promise, and the rivals."""

from collections.abc import Iterator, Mapping, Sequence

from bench.findings.grouping import NARROW, Told
from bench.findings.other_dense import OtherDense
from bench.findings.speedups import Curve, SpeedUps
from bench.report.content import Content
from bench.report.figure import Data, Figure, Panel, Spec
from bench.report.figures.theme import (
    INK,
    LINK,
    QUIET,
    RATIO,
    WIDTH,
    WORDS,
    around,
    chart,
    label,
    layer,
    number,
    styles,
)

READING = (
    "Above 1 a layer is faster than dense at its best, below it is slower; the band is the 95 % interval. A triangle on "
    "the line of 1 marks where a layer breaks even, the bar through it its interval. The grey dots are what counted "
    "FLOPs promise. Horizontal marks are rivals that need no zeros: narrow dense of as many weights, dense in fewer bits, and "
    "unpruned, which keeps every weight by kernels of ours. Dense itself is compiled wherever that was found to be fastest. "
    "All panels have the same axes. Each point leads to its row in the full table."
)


def speed_up(content: Content) -> Iterator[Figure]:
    """Yield the figure of all operations and shapes, if any has a sparsity to be drawn at."""
    places = [(found, op) for found in content.answer.speed_ups for op in dict.fromkeys(curve.op for curve in found.curves)]
    drawn = [(found, [curve for curve in found.curves if curve.op == op and _drawn(curve)], op) for found, op in places]
    drawn = [one for one in drawn if one[1]]
    if not drawn:
        return
    names = list(dict.fromkeys(curve.layer for _, curves, _ in drawn for curve in curves))
    every = [told.speedup for _, curves, _ in drawn for curve in curves for told in _drawn(curve).values()]
    gains = [gain["speedup"] for found, _, op in drawn for gain in _gains(found, op, content.answer.other_dense)]
    ends = around([*gains, *(bound for one in every for bound in (one.low, one.high))], (0.5, 2))
    densities = [1 - at for _, curves, _ in drawn for curve in curves for at in _drawn(curve)]
    axes = _axes(ends, densities)
    is_told = len({found.place.conditions for found, _, _ in drawn}) > 1
    panels = [
        _panel(content, found, op, curves, names, axes)._replace(title=_title(found, op, is_told=is_told))
        for found, curves, op in drawn
    ]
    yield Figure("speed-up", "Speed-up over dense by sparsity", READING, panels, _data(content, drawn))


def _title(found: SpeedUps, op: str, *, is_told: bool) -> str:
    """Return what a panel is of, with its conditions where panels differ in them."""
    return f"{op} {found.place}" if is_told else f"{op} {found.place.size}"


def _drawn(curve: Curve) -> Mapping[float, Told]:
    """Return the points that a logarithmic axis of densities has a place for."""
    return {at: told for at, told in curve.points.items() if 0 < at < 1}


def _axes(ends: tuple[float, float], densities: Sequence[float]) -> dict[str, Spec]:
    shown = sorted(set(densities), reverse=True)
    axis = {"values": shown, "labelExpr": "format(1 - datum.value, '.4~f')", "labelOverlap": "greedy"}
    domain, scale = (min(shown) / 1.25, max(shown) * 1.25), {"reverse": True}
    return {
        "x": number("density", "sparsity", domain=domain, axis=axis, scale=scale),
        "y": number("speedup", "times dense's speed", domain=ends, axis=RATIO),
    }


def _panel(
    content: Content, found: SpeedUps, op: str, curves: Sequence[Curve], names: Sequence[str], axes: dict[str, Spec]
) -> Panel:
    style = styles(names, [curve.layer for curve in curves])
    colour = {"color": style["color"]}
    points = [_point(content, found, curve, at, told) for curve in curves for at, told in sorted(_drawn(curve).items())]
    lines, narrow = ([one for one in points if (one["name"] == NARROW) is is_rival] for is_rival in (False, True))
    counted = sorted({at: gain for curve in curves for at, gain in curve.counted.items() if 0 < at < 1}.items())
    band = {"y": {**axes["y"], "field": "low"}, "y2": {"field": "high"}}
    rule = {"y": {"datum": 1, "type": "quantitative"}}
    evens = [_even(curve) for curve in curves if curve.crossing and 0 < curve.crossing.median < 1]
    gains = _gains(found, op, content.answer.other_dense)
    highest = axes["y"]["scale"]["domain"][1]
    promised = [{"density": 1 - at, "speedup": gain, "label": "FLOPs promise"} for at, gain in counted if gain < highest]
    layers = [
        layer([{"density": 1 - at, "speedup": gain} for at, gain in counted], {"type": "line", "color": QUIET,
              "strokeDash": [2, 3], "strokeWidth": 1.5}, **axes),
        layer([{}], {"type": "rule", "color": INK, "strokeWidth": 1.5}, **rule),
        layer(gains, {"type": "rule", "color": QUIET, "strokeDash": [8, 4], "strokeWidth": 1.5}, y=axes["y"]),
        layer(lines, {"type": "area", "opacity": 0.16}, x=axes["x"], **band, **colour),
        layer(lines, {"type": "line", "strokeWidth": 2}, **axes, **colour, strokeDash=style["strokeDash"]),
        layer(narrow, {"type": "tick", "thickness": 3, "size": 26, "orient": "horizontal"}, **axes, **colour),
        *(
            text
            for some, side in ((gains[:1], {"baseline": "bottom", "dy": -2}), (gains[1:], {"baseline": "top", "dy": 2}))
            # Beside the plot, where no curve goes through the words.
            for text in label(some, "label", {"align": "left", "dx": 4, "clip": False, **side}, x={"value": WIDTH}, y=axes["y"])
        ),
        *label(promised[-1:], "label", {"align": "right", "dx": -8, "baseline": "middle"}, **axes),
        layer(evens, {"type": "rule", "strokeWidth": 5, "opacity": 0.7}, x={**axes["x"], "field": "low"},
              x2={"field": "high"}, y={"datum": 1, "type": "quantitative"}, **colour),
        layer(evens, {"type": "point", "shape": "triangle-down", "size": 90, "filled": True, "opacity": 1, "yOffset": -6},
              x=axes["x"], y={"datum": 1, "type": "quantitative"}, **colour, description=WORDS),
        layer(points, {"type": "point", "size": 60, "filled": True, "opacity": 1}, **axes, **colour, shape=style["shape"],
              href=LINK, description=WORDS),
    ]  # fmt: skip
    text = " ".join([*(_sentence(curve) for curve in curves), *(f"{gain['words']}." for gain in gains)])
    return Panel(f"{op} {found.place.size}", f"{found.place.conditions}. {text}", chart(layers))


def _point(content: Content, found: SpeedUps, curve: Curve, at: float, told: Told) -> Spec:
    median, low, high = told.speedup
    link = content.links.get((curve.op, curve.layer, at, found.place), "")
    words = f"{curve.layer} at {at:g}: {told.speedup} times dense's speed, {told.verdict}"
    return {"name": curve.layer, "density": 1 - at, "speedup": median, "low": low, "high": high, "words": words,
            "link": f"#{link}"}  # fmt: skip


def _even(curve: Curve) -> Spec:
    """Return where a curve breaks even; an interval that goes beyond the sparsities measured ends with them."""
    assert curve.crossing
    first, last = min(_drawn(curve)), max(_drawn(curve))
    median, low, high = (1 - min(max(bound, first), last) for bound in curve.crossing)
    words = f"{curve.layer} breaks even at sparsity {curve.break_even}"
    return {"name": curve.layer, "density": median, "low": high, "high": low, "words": words}


def _gains(found: SpeedUps, op: str, ways: Sequence[OtherDense]) -> list[Spec]:
    """Return what dense gains in other ways at a place, the most first: its label stands above its line, and others below."""
    gains = [(name, gain) for one in ways if one.place == found.place for of, name, gain in one.dense if of == op]
    return [
        {"speedup": gain.median, "label": f"{name} {gain.median:.3g}", "words": f"{name} {gain}"}
        for name, gain in sorted(gains, key=lambda one: -one[1].median)
    ]


def _sentence(curve: Curve) -> str:
    at = sorted(_drawn(curve))
    first, last = curve.points[at[0]], curve.points[at[-1]]
    ends = f"{first.speedup}x ({first.verdict}) at {at[0]:g}"
    ends += f", {last.speedup}x ({last.verdict}) at {at[-1]:g}" if len(at) > 1 else ""
    return f"{curve.layer}: {ends}{f', break-even {curve.break_even}' if curve.break_even else ''}."


def _data(content: Content, drawn: Sequence[tuple[SpeedUps, Sequence[Curve], str]]) -> Data:
    headers = ("operation", "where", "layer", "sparsity", "speed-up", "low", "high", "verdict", "FLOPs promise", "break-even")
    rows, links = [], []
    for found, curves, op in drawn:
        for curve in curves:
            for at, (speedup, verdict) in sorted(curve.points.items()):
                counted = f"{curve.counted[at]:.3g}" if at in curve.counted else ""
                figures = [f"{value:.3g}" for value in speedup]
                rows.append((op, str(found.place), curve.layer, f"{at:g}", *figures, verdict, counted, curve.break_even))
                links.append(content.links.get((op, curve.layer, at, found.place), ""))
    return Data(headers, rows, links)
