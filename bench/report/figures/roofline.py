"""GFLOP/s and intensity of each kernel, under what the machine gives at best."""

from collections.abc import Iterator, Sequence

from bench.findings.figures.kernels import Kernel, Roof
from bench.report.content import Content
from bench.report.figure import Data, Figure, Panel, Spec
from bench.report.figures.theme import INK, LINK, WORDS, around, chart, label, layer, number, styles

READING = (
    "Each point is a kernel: executed GFLOP/s against executed FLOPs for each byte that must move at least (weights and "
    "structure once, activations once). The flat line is what dense products reached at the start of the run (a kernel may "
    "do better), the slanted one what memory gave to a copy. Points above the slanted line are fed from caches, where warm "
    "calls find their data; near the flat line a kernel is limited by arithmetic, far below both by something else: its "
    "instructions, or waiting."
)
DECADES = {"values": [digit * 10.0**power for power in range(-4, 7) for digit in (1, 3)], "format": "~g", "labelOverlap": True}


def roofline(content: Content) -> Iterator[Figure]:
    """Yield the figure of all devices and number types."""
    panels = [_panel(content, roof) for roof in content.roofs]
    if panels:
        yield Figure("roofline", "Roofline", READING, panels, _data(content))


def _panel(content: Content, roof: Roof) -> Panel:
    names = list(dict.fromkeys(kernel.layer for one in content.roofs for kernel in one.kernels))
    shown = list(dict.fromkeys(kernel.layer for kernel in roof.kernels))
    style = styles(names, shown)
    values = [_point(content, kernel) for kernel in roof.kernels]
    intensities = [kernel.intensity for kernel in roof.kernels]
    xs = around(intensities, (min(1.0, *intensities), max(10.0, *intensities)), 1.5)
    reached = [kernel.gflops for kernel in roof.kernels] + ([roof.gflops] if roof.gflops else [])
    ys = around(reached, (min(reached), max(reached)), 1.6)
    x = number("intensity", "executed FLOPs for each byte", domain=xs, axis=DECADES)
    y = number("gflops", "GFLOP/s executed", domain=ys, axis=DECADES)
    layers = [
        *_roof(roof, xs, ys, x, y),
        layer(values, {"type": "point", "size": 50, "filled": True, "opacity": 0.85}, x=x, y=y, color=style["color"],
              shape=style["shape"], href=LINK, description=WORDS),
    ]  # fmt: skip
    return Panel(f"{roof.device}, {roof.dtype}", _text(roof), chart(layers))


def _roof(roof: Roof, xs: tuple[float, float], ys: tuple[float, float], x: Spec, y: Spec) -> Iterator[Spec]:
    """Yield the lines of the bounds that were measured, each with its name."""
    most = roof.gflops or ys[1]
    line = {"type": "line", "color": INK, "strokeWidth": 1.5}
    if roof.gb_per_s:
        ridge = most / roof.gb_per_s
        slope = [{"intensity": at, "gflops": at * roof.gb_per_s} for at in (ys[0] / roof.gb_per_s, ridge)]
        yield layer(slope, line, x=x, y=y)
        at = max(xs[0], ys[0] / roof.gb_per_s) * 1.15
        named = [{"intensity": at, "gflops": at * roof.gb_per_s, "label": f"{roof.gb_per_s:.0f} GB/s"}]
        if at < xs[1] and at * roof.gb_per_s < ys[1]:
            yield from label(named, "label", {"align": "left", "baseline": "top", "dx": 8}, x=x, y=y)
    if roof.gflops:
        start = roof.gflops / roof.gb_per_s if roof.gb_per_s else xs[0]
        flat = [{"intensity": at, "gflops": roof.gflops} for at in (start, max(xs[1], start))]
        yield layer(flat, line, x=x, y=y)
        named = [{"intensity": start, "gflops": roof.gflops, "label": f"dense {roof.gflops:.0f} GFLOP/s"}]
        yield from label(named, "label", {"align": "right", "baseline": "bottom", "dx": -4}, x=x, y=y)  # where few points are


def _point(content: Content, kernel: Kernel) -> Spec:
    link = content.links.get((kernel.op, kernel.layer, kernel.sparsity, kernel.place), "")
    bound = f", {kernel.gflops / kernel.bound_gflops:.0%} of its own bound" if kernel.bound_gflops else ""
    words = f"{kernel.layer} at {kernel.sparsity:g}, {kernel.op} {kernel.place.size}: {kernel.gflops:.3g} GFLOP/s{bound}"
    return {"name": kernel.layer, "intensity": kernel.intensity, "gflops": kernel.gflops, "words": words, "link": f"#{link}"}


def _text(roof: Roof) -> str:
    told = [f"Dense products reached {roof.gflops:.0f} GFLOP/s."] if roof.gflops else []
    told += [f"Memory gave {roof.gb_per_s:.0f} GB/s to a copy."] if roof.gb_per_s else []
    told = told or ["The run tells no bounds of the machine: the points stand without a roof."]
    return " ".join([*told, *_fastest(roof.kernels)])


def _fastest(kernels: Sequence[Kernel]) -> Iterator[str]:
    """Yield for each layer what its fastest kernel reaches."""
    for layer_name in dict.fromkeys(kernel.layer for kernel in kernels):
        best = max((kernel for kernel in kernels if kernel.layer == layer_name), key=lambda kernel: kernel.gflops)
        yield f"{layer_name}: {best.gflops:.3g} GFLOP/s at most, {best.op} {best.place.size} at {best.sparsity:g}."


def _data(content: Content) -> Data:
    headers = ("operation", "where", "layer", "sparsity", "GFLOP/s", "FLOPs a byte", "own bound, GFLOP/s")
    rows, links = [], []
    for kernel in (kernel for roof in content.roofs for kernel in roof.kernels):
        bound = f"{kernel.bound_gflops:.3g}" if kernel.bound_gflops else ""
        figures = (f"{kernel.gflops:.3g}", f"{kernel.intensity:.3g}", bound)
        rows.append((kernel.op, str(kernel.place), kernel.layer, f"{kernel.sparsity:g}", *figures))
        links.append(content.links.get((kernel.op, kernel.layer, kernel.sparsity, kernel.place), ""))
    return Data(headers, rows, links)
