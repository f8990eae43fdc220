"""What a figure is: panels that Vega-Lite draws, what they say in words, and the data that they show."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

Spec = dict[str, Any]  # of Vega-Lite, whose grammar is at https://vega.github.io/vega-lite/docs/


class Panel(NamedTuple):
    """One small chart: its title, what it shows in a sentence or a few, and its Vega-Lite specification."""

    title: str
    text: str
    spec: Spec


class Data(NamedTuple):
    """The data of a figure as a table; `links` are the anchors of its rows, empty where a row is of no single case."""

    headers: Sequence[str]
    rows: Sequence[Sequence[str]]
    links: Sequence[str]


class Figure(NamedTuple):
    """Panels on the same axes under a name by which they are asked for, how to read them, and their data."""

    name: str
    title: str
    reading: str
    panels: Sequence[Panel]
    data: Data


class Section(NamedTuple):
    """A question of the page: its figures, and the answer in sentences where it has one.

    Where there are no figures it is told why, with the command that measures what is missing.
    """

    anchor: str
    title: str
    figures: Sequence[Figure]
    missing: str
    command: str = ""
    sentences: Sequence[str] = ()


def named(sections: Sequence[Section]) -> Mapping[str, Figure]:
    """Return all figures by their names."""
    return {figure.name: figure for section in sections for figure in section.figures}
