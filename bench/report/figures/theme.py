"""How all figures look: colours that differ in hue and in lightness, and shapes and dashes that differ where those do not show.

A figure is drawn once, in the colours for paper. For a dark screen the page's style sheet replaces each colour by its other.
"""

from collections.abc import Sequence
from typing import Any

from bench.report.figure import Spec

INK, QUIET, RULE, GRID, PAPER = "#1a1a1a", "#595959", "#767676", "#e3e3e3", "#ffffff"
# After Okabe and Ito (2008) and Tol (2021), darkened until each has 3:1 against white; the second is for a dark screen.
SERIES = {
    "#0064a4": "#5ab4f0", "#c04a00": "#ff9248", "#00785a": "#2fcf9f", "#a03080": "#f08fd0", "#8a6d00": "#e8c840",
    "#444444": "#c8c8c8", "#1f8fae": "#8fe3f5",
}  # fmt: skip
# From dark to light, so that neighbours in a stack differ in grey as well.
PARTS = {
    "#12355b": "#cfe4fb", "#0b66ad": "#7fbdf2", "#3f978b": "#45a08f", "#b0ae58": "#80803a", "#e3c6a0": "#68503a",
    "#f4f4f4": "#3a3a3a",
}  # fmt: skip
DARK = {**SERIES, **PARTS, INK: "#ececec", QUIET: "#b4b4b4", RULE: "#9a9a9a", GRID: "#3b3b3b", PAPER: "#161616"}
SHAPES = ("circle", "square", "triangle-up", "diamond", "cross", "triangle-down", "triangle-right", "triangle-left")
DASHES = ([1, 0], [6, 3], [2, 2], [8, 3, 2, 3], [12, 3])
WIDTH, HEIGHT = 280, 220  # of the plot itself, in pixels of its own: a page scales it
FONT = "Arial, Helvetica, 'Liberation Sans', sans-serif"  # of one width everywhere: what is beside a word was placed by it


def styles(names: Sequence[str], shown: Sequence[str]) -> dict[str, Spec]:
    """Return the encodings of colour, shape and dash for the names that are `shown`, the same wherever `names` are."""
    at = [list(names).index(name) for name in shown]
    legend = {
        "orient": "bottom",
        "columns": 3,
        "columnPadding": 16,
        "title": None,
        "symbolOpacity": 1,
        "symbolStrokeWidth": 0,
        "symbolSize": 90,
        "labelLimit": 200,
    }

    def encoding(values: Sequence[Any]) -> Spec:
        scale = {"domain": list(shown), "range": [values[number % len(values)] for number in at]}
        return {"field": "name", "type": "nominal", "scale": scale, "legend": legend}

    # In a legend's symbol a dash would only fray the rim.
    dashes = {**encoding(DASHES), "legend": None}
    return {"color": encoding(list(SERIES)), "shape": encoding(SHAPES), "strokeDash": dashes}


def chart(layers: Sequence[Spec], *, width: int = WIDTH, height: int | Spec = HEIGHT) -> Spec:
    """Return a chart of layers that share their axes."""
    return {"width": width, "height": height, "layer": list(layers), "resolve": {"scale": {"color": "shared"}}}


def layer(values: Sequence[Spec], mark: Spec, **encoding: Spec) -> Spec:
    """Return a layer of marks, which what reads a page aloud passes over unless it has a description."""
    has_words = "description" in encoding
    return {"data": {"values": list(values)}, "mark": {"aria": has_words, "clip": True, **mark}, "encoding": encoding}


def number(field: str, title: str | None = None, *, kind: str = "log", **more: Any) -> Spec:
    """Return the encoding of a figure on an axis; the domain and the axis are given by name."""
    domain, axis = more.pop("domain", None), more.pop("axis", {})
    scale = {"type": kind, "nice": False, **({"domain": list(domain)} if domain else {}), **more.pop("scale", {})}
    return {"field": field, "type": "quantitative", "scale": scale, "title": title, "axis": axis, **more}


def label(values: Sequence[Spec], field: str, mark: Spec, **encoding: Spec) -> list[Spec]:
    """Return layers that write a field's words with a rim of paper, so that they can be read across lines."""
    words = {**encoding, "text": {"field": field, "type": "nominal"}}
    rim = {"type": "text", "stroke": PAPER, "strokeWidth": 4, "strokeJoin": "round", "opacity": 0.85, **mark}
    return [layer(values, rim, **words), layer(values, {"type": "text", "color": QUIET, **mark}, **words)]


LINK = {"field": "link", "type": "nominal"}
WORDS = {"field": "words", "type": "nominal"}
TICKS = (0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500)
RATIO = {"values": list(TICKS), "format": "~g"}


def around(values: Sequence[float], least: tuple[float, float], margin: float = 1.12) -> tuple[float, float]:
    """Return the ends of a logarithmic axis that holds all values, and at least the ends given."""
    return min([*values, least[0]]) / margin, max([*values, least[1]]) * margin


CONFIG: Spec = {
    "background": None,
    "font": FONT,
    "padding": 4,
    "view": {"stroke": None},
    "axis": {
        "domainColor": RULE, "gridColor": GRID, "labelColor": INK, "labelFontSize": 12, "tickColor": RULE, "titleColor": INK,
        "titleFontSize": 12, "titleFontWeight": "normal", "labelLimit": 260,
    },
    "legend": {"labelColor": INK, "labelFontSize": 12, "titleColor": INK},
    "title": {"color": INK, "fontSize": 13, "anchor": "start"},
    "text": {"color": INK, "fontSize": 12},
}  # fmt: skip
