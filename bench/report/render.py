"""Panels in, pictures out: SVG with text that can be read and searched, or PNG, both without a browser or a network."""

import html
import re
from collections.abc import Sequence
from types import ModuleType

from bench.report.figure import Panel, Spec
from bench.report.figures.theme import CONFIG, PAPER
from sparse_models.errors import InputError

COLUMNS = 2  # of panels in a picture by itself
SCALE = 2  # pixels of a PNG for each of a panel
# Vega makes links absolute: an anchor of the page is to stay one.
ABSOLUTE = re.compile(r'xlink:href="[^"#]*#')
EMPTY = re.compile(r'<path (?:class="(?:background|foreground)" )?aria-hidden="true" d="(?:M0,0h0v0h0Z)?"[^>]*/>'
                   r'|<path class="(?:background|foreground)" aria-hidden="true" d="(?:M0,0h0v0h0Z)?"[^>]*/>')  # fmt: skip


def vega() -> ModuleType:
    """Return the renderer; raises InputError, one sentence, where it is not installed."""
    try:
        import vl_convert  # noqa: PLC0415  # an optional dependency, and nobody else's
    except ImportError:
        raise InputError(
            "expected vl-convert-python, which draws the figures, got none; pip install -e '.[report]' brings it"
        ) from None
    return vl_convert


def svg(panel: Panel, label: str) -> str:
    """Return a panel as an element of a page, which `label`, the id of its text there, describes."""
    drawn = str(vega().vegalite_to_svg(_whole(panel.spec), allowed_base_urls=[]))
    drawn = EMPTY.sub("", ABSOLUTE.sub('href="#', drawn))
    width, height = re.findall(r'(?:width|height)="([\d.]+)"', drawn)[:2]
    words = f'role="group" aria-label="{html.escape(panel.title)}" aria-describedby="{html.escape(label)}"'
    return re.sub(r"<svg [^>]*>", f'<svg {words} viewBox="0 0 {width} {height}" width="{width}">', drawn, count=1)


def picture(panels: Sequence[Panel], suffix: str) -> bytes:
    """Return panels as one picture of their own, on paper: .svg or .png."""
    titled = [{**panel.spec, "title": panel.title} for panel in panels]
    apart = dict.fromkeys(("color", "shape", "strokeDash", "x", "y"), "independent")
    spec = {**_whole({"concat": titled, "columns": COLUMNS, "resolve": {"scale": apart}}), "background": PAPER}
    if suffix == ".png":
        return bytes(vega().vegalite_to_png(spec, scale=SCALE, allowed_base_urls=[]))
    # By itself a picture has no table that a point could lead to.
    drawn = str(vega().vegalite_to_svg(spec, allowed_base_urls=[]))
    return re.sub(r"<a xlink:href=[^>]*>|</a>", "", drawn).encode()


def _whole(spec: Spec) -> Spec:
    return {"$schema": "https://vega.github.io/schema/vega-lite/v5.json", "config": CONFIG, **spec}
