"""Colours stand out from paper and screen and differ in grey, and no two names of a figure look alike."""

import itertools
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.report.figures.theme import DARK, GRID, INK, PAPER, PARTS, QUIET, RULE, SERIES, around, styles

TEXT, MARK, APART = 4.5, 3.0, 1.15  # the contrasts of WCAG 2.2, and that of neighbours in a stack, which have a rim


def light(colour: str) -> float:
    """The relative luminance of a colour, as #rrggbb."""
    values = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    red, green, blue = (value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in values)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    low, high = sorted((light(one), light(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize(("least", "colours"), [(TEXT, [INK, QUIET]), (MARK, [*SERIES, RULE])], ids=["text", "marks"])
def test_what_is_drawn_stands_out_from_paper_and_from_a_dark_screen(least: float, colours: list[str]) -> None:
    for colour in colours:
        assert contrast(colour, PAPER) >= least, colour
        assert contrast(DARK[colour], DARK[PAPER]) >= least, colour


def test_every_colour_has_another_in_the_dark() -> None:
    assert not SERIES.keys() & PARTS.keys()
    assert {*SERIES, *PARTS, INK, QUIET, RULE, GRID, PAPER} == DARK.keys()
    assert all(colour == colour.lower() for colour in DARK)  # as a style sheet finds it


def test_neighbours_in_a_stack_differ_in_grey() -> None:
    for scheme in (list(PARTS), list(PARTS.values())):
        assert all(contrast(one, other) >= APART for one, other in itertools.pairwise(scheme)), scheme


@given(st.lists(st.text(max_size=5), min_size=1, max_size=30, unique=True), st.data())
def test_no_two_names_look_alike_and_a_name_looks_the_same_in_every_panel(names: list[str], data: st.DataObject) -> None:
    shown = data.draw(st.lists(st.sampled_from(names), min_size=1, unique=True))
    looks = [
        {
            name: json.dumps([encoding["scale"]["range"][encoding["scale"]["domain"].index(name)] for encoding in of.values()])
            for name in some
        }
        for some, of in ((names, styles(names, names)), (shown, styles(names, shown)))
    ]
    assert len(set(looks[0].values())) == len(names)
    assert all(looks[0][name] == look for name, look in looks[1].items())


@given(st.lists(st.floats(1e-3, 1e3), max_size=5))
def test_an_axis_holds_all_it_shows(values: list[float]) -> None:
    low, high = around(values, (0.5, 2))
    assert all(low < value < high for value in (*values, 0.5, 2))
