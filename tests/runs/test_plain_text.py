"""Text of unknown origin is shown as it is where that is harmless, and refused or made harmless elsewhere."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.runs.plain_text import printable
from bench.runs.reading import parse
from tests.helpers.damaged import refused
from tests.helpers.saved import put, row, saved, written
from tests.runs.test_reading import WHOLE, told

NAMES = ["\x1b[31mred\x1b[0m", "a\nb", "end\n", "a\r", "a\tb", "\0", "<script>", "a|b", "`code`", "[x](y)!", "*bold*",
         "a\u202eb", "a\u2028b", "\ud800", "x" * 301, "a\\b", "a'b", 'a"b', "a;b", "$(b)", "&amp;", "~", "#", "%s"]  # fmt: skip


@pytest.mark.parametrize("name", NAMES, ids=ascii)
@pytest.mark.parametrize("place", [("benchmarks", 0, "fullname"), ("benchmarks", 0, "extra_info", "layer"), ("datetime",)])
def test_a_name_with_markup_or_control_characters_is_refused(name: str, place: tuple[Any, ...]) -> None:
    refused(written(put(WHOLE, place, name)))


@pytest.mark.parametrize("name", ["../../etc/passwd", "[red]x[/red]", "[link=x]", "", " ", "C:/x", "..", "-rf"])
def test_a_name_of_harmless_characters_is_shown_as_it_is(name: str) -> None:
    run, other = (parse("run", written(saved({name: row(layer=layer)}))) for layer in ("csr", "masked"))
    assert name in told(run, other)


@given(st.text())
def test_text_of_unknown_origin_becomes_one_short_printable_line(unknown: str) -> None:
    assert printable(unknown).isprintable()
    assert len(printable(unknown)) <= 200
    assert printable(unknown) == unknown or not unknown.isprintable() or len(unknown) > 200
