"""What is read first of a page: its table, and the figure of speed-ups."""

import re

from bench.report.content import content_of
from bench.report.figure import named
from bench.report.figures.theme import WIDTH
from bench.report.glance import glance
from bench.report.render import svg
from bench.report.sections import sections_of
from tests.helpers.reports import content, read, rows_of, run_of_rows


def test_at_a_glance_speed_stands_beside_dense_s_time_and_accuracy_at_its_own_sparsity() -> None:
    accuracies = {f"{when}_accuracies": [at] for when, at in (("dense", 0.95), ("pruned", 0.5), ("tuned", 0.94))}
    cut = {"op": "pruned", "data": "net", "layer": "tiled", "tuning_epochs": 1, "model": "sparse", **accuracies}
    pruned = {f"bench/x.py::cut[{at}]": read(**cut, sparsity=at, dense_seconds=3e-5) for at in (0.5, 0.9)}
    table = glance(content_of([run_of_rows(rows_of() | pruned)], {}))
    by_name = {(row[0], row[2]): dict(zip(table.headers, row, strict=True)) for row in table.rows}
    kind = by_name["forward, 64x64 batch 8", "tiled at 0.9"]
    assert (kind["dense takes"], kind["accuracy"]) == ("2 ms", "see training, at 0.8")  # it is no accuracy at 0.9
    network = by_name["inference of net, pruned, batch 8", "tiled at 0.9"]
    assert (network["dense takes"], network["accuracy"]) == ("30 us", "0.940 (dense 0.950)")
    assert not any("net" in work and "0.5" in layer for work, layer in by_name)
    assert {row[1] for row in table.rows if "training on" in row[0]} == {"500 ms"}


def test_rivals_are_named_beside_the_plot_where_no_curve_is() -> None:
    drawn = svg(named(sections_of(content()))["speed-up"].panels[0], "words")
    places = re.findall(r'<text text-anchor="(\w+)" transform="translate\(([\d.]+),[\d.]+\)"[^>]*>(?:unpruned|dense) ', drawn)
    assert places
    assert all(anchor == "start" and float(x) > WIDTH for anchor, x in places), places
