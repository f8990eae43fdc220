"""The same report as Markdown, as rows and as pictures, and what is said where it cannot be written."""

import csv
import io
import re
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import parquet

from bench.__main__ import main
from bench.report.content import content_of
from bench.report.figure import Panel, named
from bench.report.markdown import code, markdown, table, text
from bench.report.page import ESCAPED
from bench.report.render import picture
from bench.report.rows import as_csv, flat
from bench.report.sections import sections_of
from bench.report.write import DOCUMENTS, PICTURES, check, write
from sparse_models.errors import InputError
from tests.helpers.in_process import ROOT
from tests.helpers.reports import HOSTILE, content, hostile, rows_of, run_of_rows

SMALL = str(ROOT / "tests/runs/saved/schema_9.json")
texts = st.text(max_size=30) | st.sampled_from(HOSTILE)


@given(st.lists(st.tuples(texts, texts), min_size=1, max_size=4))
def test_a_table_of_any_texts_has_as_many_cells_as_it_should(rows: list[tuple[str, str]]) -> None:
    lines = table(["a", "b"], rows).splitlines()
    assert len(lines) == len(rows) + 2
    assert all(len(re.findall(r"(?<!\\)(?:\\\\)*\|", line)) == 3 for line in lines)


@given(texts)
def test_text_has_no_element_link_or_code_in_markdown(value: str) -> None:
    shown = text(value)
    assert "<" not in shown
    assert "\n" not in shown
    assert not re.search(r"(?<!\\)`|(?<!\\)\]\(", shown.replace("\\\\", ""))


@given(texts)
def test_a_code_span_holds_any_text_and_ends_after_it(value: str) -> None:
    shown = code(value)
    fence = re.match("`*", shown)
    assert fence
    assert shown.endswith(fence[0])
    assert fence[0] not in shown[len(fence[0]) : -len(fence[0])]


def test_markdown_tells_what_the_page_tells() -> None:
    told = content()
    shown = markdown(told, sections_of(told))
    assert all(text(sentence.strip()) in shown for sentence in told.sentences)
    assert all(figure.title in shown for figure in named(sections_of(told)).values())
    assert shown.count("\n| ") > len(told.entries)


def test_markdown_shows_names_made_to_harm_as_text() -> None:
    told = hostile()
    shown = markdown(told, sections_of(told))
    # In a code span or an indented block of code anything may stand.
    outside = re.sub(r"(`+)[^`].*?\1(?!`)|^    .*$", "", shown, flags=re.MULTILINE)
    assert set(re.findall(r"<(/?\w+)", outside)) <= {"details", "/details", "summary", "/summary"}
    assert not re.search(r"(?<!\\)\]\(", outside)


def test_rows_come_out_as_they_are(tmp_path: Path) -> None:
    told = content()
    rows = list(csv.DictReader(io.StringIO(as_csv(told).decode())))
    assert [(row["case"], float(row["speedup"])) for row in rows] == [(name, row["speedup"]) for name, row in told.rows.items()]
    write(told, [tmp_path / "rows.parquet"])
    read = parquet.read_table(tmp_path / "rows.parquet").to_pylist()
    assert [{field: value for field, value in row.items() if value is not None} for row in read] == flat(told)


@pytest.mark.parametrize("name", ["=1+1", "+1", "-1+1", "@SUM(1)"])
def test_no_word_is_a_formula_to_a_spreadsheet(name: str) -> None:
    rows = csv.DictReader(io.StringIO(as_csv(hostile(name)).decode()))
    assert {row["layer"] for row in rows} - {"block16"} == {"dense", f"'{name}"}


def test_every_kind_of_file_is_written_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = [tmp_path / f"report{suffix}" for suffix in (*DOCUMENTS, *PICTURES)]
    assert main(["report", SMALL, *(word for path in paths for word in ("--out", str(path)))]) == 0
    out = capsys.readouterr().out
    assert all(path.stat().st_size > 1000 and f"wrote {path}" in out for path in paths)
    assert (tmp_path / "report.png").read_bytes().startswith(b"\x89PNG")
    assert "csr" in (tmp_path / "report.svg").read_text()


def test_a_picture_is_the_first_figure_of_a_run_that_has_not_the_usual_one(tmp_path: Path) -> None:
    trained = content_of([run_of_rows({name: one for name, one in rows_of().items() if one.op == "train"})], {})
    assert write(trained, [tmp_path / "a.svg"]) == "time-to-accuracy"
    assert (tmp_path / "a.svg").stat().st_size > 1000
    assert write(content(), []) == "speed-up"


def test_a_picture_by_itself_leads_nowhere_and_asks_for_nothing() -> None:
    told = hostile()
    [drawn] = [
        picture(figure.panels, ".svg").decode() for name, figure in named(sections_of(told)).items() if name == "accuracy"
    ]
    assert "href" not in drawn
    assert "<script" not in drawn


def test_a_figure_that_asks_for_another_file_gets_none() -> None:
    spec = {"data": {"url": "https://example.org/a.json"}, "mark": "point"}
    with pytest.raises(ValueError, match="not allowed"):
        picture([Panel("title", "text", spec)], ".png")


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["--out", "report.pdf"], "expected a name that ends in one of .html"),
        (["--out", "nowhere/report.html"], "expected a folder that can be written"),
        (["--out", "figure.svg", "--figure", "pie"], r"expected a figure of this run \(.*roofline.*\), got pie"),
        (["--storage", "nothing"], "nothing.*got none"),
    ],
)
def test_what_cannot_be_written_is_one_sentence(
    words: list[str], why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    asked = ["report", *([] if "--storage" in words else [SMALL]), *words]
    with pytest.raises(SystemExit, match="2"):
        main(asked)
    error = capsys.readouterr().err.strip()
    assert re.search(why, error)
    assert "\n" not in error
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("package", "name"), [("vl_convert", "report.html"), ("pyarrow", "report.parquet")])
def test_what_is_not_installed_is_named(package: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(InputError, match=r"pip install -e '\.\[report\]'"):
        write(content(), [tmp_path / name])
    assert list(tmp_path.iterdir()) == []


def test_an_end_of_a_name_is_known_in_any_folder(tmp_path: Path) -> None:
    for suffix in (*DOCUMENTS, *PICTURES):
        check(tmp_path / f"a{suffix}")


def test_templates_escape_unless_told_otherwise() -> None:
    assert ESCAPED.from_string("{{ name }}").render(name=HOSTILE[0]).count("<") == 0
