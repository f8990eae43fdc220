"""Networks that were trained dense and pruned: how accurate each is, fine-tuned, for how fast it infers."""

from collections.abc import Iterator

from bench.findings.costs import Pruned, PrunedNetwork
from bench.report.content import Content
from bench.report.figure import Data, Figure, Panel, Spec
from bench.report.figures.learning import accuracy_axis
from bench.report.figures.theme import INK, RATIO, WORDS, around, chart, layer, number, styles

READING = (
    "Test accuracy after fine-tuning, the mean over the seeds and its range, against the speed of inference over dense at its "
    "best: right of the line is faster, higher is better. A dense network stands at 1 with the accuracy in the table."
)


def pruned(content: Content) -> Iterator[Figure]:
    """Yield the figure of pruned networks, a panel for each number of samples; nothing where none was measured."""
    panels = [_panel(one, batch) for one in content.answer.pruned for batch in one.batches]
    if panels:
        yield Figure("pruned", "Pruned by magnitude after training", READING, panels, _data(content.answer.pruned))


def _name(network: PrunedNetwork) -> str:
    return f"{network.name} {network.layer} {network.sparsity:g}"


def _panel(one: Pruned, batch: int) -> Panel:
    values: list[Spec] = []
    for network in one.networks:
        if batch in network.speedups:
            told, (mean, low, high) = network.speedups[batch], network.tuned
            middle, slowest, fastest = told.speedup
            words = f"{_name(network)}: {told.speedup} times dense's speed, {told.verdict}; accuracy {network.tuned}"
            values.append({"name": _name(network), "speedup": middle, "slowest": slowest, "fastest": fastest,
                           "accuracy": mean, "low": low, "high": high, "words": words})  # fmt: skip
    style = styles([_name(network) for network in one.networks], [value["name"] for value in values])
    domain = around([value[bound] for value in values for bound in ("slowest", "fastest")], (0.8, 1.25))
    x, y = (
        number("speedup", "times dense's speed", domain=domain, axis=RATIO),
        accuracy_axis([value[bound] for value in values for bound in ("low", "high")]),
    )
    colour, bar = {"color": style["color"]}, {"type": "rule", "strokeWidth": 2}
    layers = [
        layer([{}], {"type": "rule", "color": INK, "strokeWidth": 1.5}, x={"datum": 1, "type": "quantitative"}),
        layer(values, bar, x=x, y={**y, "field": "low"}, y2={"field": "high"}, **colour),
        layer(values, bar, x={**x, "field": "slowest"}, x2={"field": "fastest"}, y=y, **colour),
        layer(values, {"type": "point", "size": 90, "filled": True, "opacity": 1}, x=x, y=y, **colour, shape=style["shape"],
              description=WORDS),
    ]  # fmt: skip
    samples = f"{batch} sample{'s' * (batch != 1)}"
    text = f"{one.conditions}; {one.seeds} seeds. " + " ".join(f"{value['words']}." for value in values)
    return Panel(f"Inference of {samples}", text, chart(layers))


def _data(found: list[Pruned]) -> Data:
    batches = sorted({batch for one in found for batch in one.batches})
    headers = ("network", "layer", "sparsity", "dense", "pruned", "fine-tuned", "bytes", *(f"batch {one}" for one in batches))
    rows = []
    for one in found:
        for network in one.networks:
            accuracies = (str(network.dense), str(network.pruned), str(network.tuned))
            known = [network.speedups.get(batch) for batch in batches]
            speeds = [f"{told.speedup}, {told.verdict}" if told else "" for told in known]
            rows.append((network.name, network.layer, f"{network.sparsity:g}", *accuracies, f"{network.stored:.2f}", *speeds))
    return Data(headers, rows, [""] * len(rows))
