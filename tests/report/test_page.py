"""The page: all of it is there for any run, nothing of it executes, and each point leads to its row."""

import base64
import hashlib
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import msgspec
import pytest

from bench.findings.time_to_accuracy.verdict import sentence
from bench.report.content import Content, content_of
from bench.report.figure import named
from bench.report.figures.learning import far_below
from bench.report.machine import facts
from bench.report.page import page
from bench.report.sections import sections_of
from bench.runs.locate import read_runs
from bench.tables.short_answer import lines
from tests.helpers.in_process import ROOT
from tests.helpers.reports import HOSTILE, content, hostile, read, rows_of, run_of_rows
from tests.helpers.rows import WIDE

SAVED = sorted((ROOT / "tests/runs/saved").glob("*.json"))
MOST = 5 * 2**20  # bytes
VOID = {"meta", "input", "br", "img", "link"}


class Elements(HTMLParser):
    """The elements of a page with their attributes, its text, and whether each that is opened is closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data

    def values(self, attribute: str) -> list[str]:
        return [value for _, attributes in self.found if (value := attributes.get(attribute))]


def shown(told: Content) -> tuple[str, Elements]:
    text = page(told, sections_of(told))
    return text, Elements(text)


@pytest.fixture(scope="module")
def whole() -> tuple[Content, str, Elements]:
    told = content()
    return told, *shown(told)


def test_all_sections_have_their_figures(whole: tuple[Content, str, Elements]) -> None:
    told, _, elements = whole
    names = {figure.name for section in sections_of(told) for figure in section.figures}
    assert names == {"speed-up", "step-time", "time-to-accuracy", "accuracy", "ratios", "learning-curves", "roofline"}
    assert sum(tag == "svg" for tag, _ in elements.found) == sum(
        len(figure.panels) for section in sections_of(told) for figure in section.figures
    )


def test_the_answer_is_that_of_the_terminal(whole: tuple[Content, str, Elements]) -> None:
    told, _, elements = whole
    for line in lines(told.short, WIDE._replace(width=100_000)):
        assert line.strip() in elements.text


def test_the_verdict_on_trainings_stands_in_its_section(whole: tuple[Content, str, Elements]) -> None:
    told, _, elements = whole
    [one] = told.answer.time_to_accuracy
    assert sentence(one) in elements.text


def test_a_link_leads_somewhere_and_a_point_to_the_row_of_its_case(whole: tuple[Content, str, Elements]) -> None:
    told, text, elements = whole
    ids = elements.values("id")
    assert len(ids) == len(set(ids))
    links = elements.values("href")
    assert links
    assert all(link.startswith("#") and link[1:] in ids for link in links), links
    layers = {entry.anchor: entry.layer for entry in told.entries}
    points = re.findall(r'<a href="#(row-\d+)"[^>]*><path aria-label="(\S+) ', text)
    assert len(points) > 10
    assert all(layers[anchor].startswith(layer.rstrip(":")) for anchor, layer in points)


def test_a_figure_has_its_words_and_its_data_beside_it(whole: tuple[Content, str, Elements]) -> None:
    told, _, elements = whole
    ids = set(elements.values("id"))
    assert all(label in ids for label in elements.values("aria-describedby"))
    for section in sections_of(told):
        for figure in section.figures:
            assert figure.data.rows
            assert len(figure.data.rows) == len(figure.data.links)
            assert all(len(row) == len(figure.data.headers) for row in figure.data.rows)
            assert all(panel.text in elements.text for panel in figure.panels)


def test_the_page_asks_for_nothing_and_runs_its_own_script_alone(whole: tuple[Content, str, Elements]) -> None:
    _, text, elements = whole
    assert not re.findall(r"https?://(?!www\.w3\.org/)", text)
    assert not elements.values("src")
    assert not elements.values("style")
    policy = next(attributes["content"] for tag, attributes in elements.found if "http-equiv" in attributes and tag == "meta")
    assert policy
    for kind in ("style", "script"):
        [own] = re.findall(rf"<{kind}>(.*?)</{kind}>", text, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(own.encode()).digest()).decode()
        assert f"{kind}-src 'sha256-{digest}'" in policy
    assert "default-src 'none'" in policy


def test_names_made_to_harm_are_text_and_nothing_else() -> None:
    _, elements = shown(hostile())
    assert all(name in elements.text for name in HOSTILE)
    tags = [tag for tag, _ in elements.found]
    assert tags.count("script") == tags.count("style") == 1
    assert "img" not in tags
    assert not [key for _, attributes in elements.found for key in attributes if key.startswith("on") or key == "autofocus"]
    assert not [link for link in elements.values("href") if not link.startswith("#")]


@pytest.mark.parametrize("path", SAVED, ids=lambda path: path.stem)
def test_a_run_of_any_schema_gives_a_page_that_says_what_it_lacks(path: Path) -> None:
    runs, _ = read_runs([str(path)])
    told = content_of(runs, {})
    text, elements = shown(told)
    schema = int(path.stem.rpartition("_")[2])
    assert len(text) < MOST
    assert ("no learning curves" in elements.text) == (schema < 9)
    assert ("no figures of single processes" in elements.text) == (schema == 1)
    assert f"{len(told.entries)} cases" in elements.text or told.entries


def test_a_run_of_a_single_case_says_so() -> None:
    _, elements = shown(content_of([run_of_rows({"one": read()})], {}))
    assert "single case" in elements.text
    assert "Nothing was trained." in elements.text


def test_a_run_in_which_all_failed_says_what() -> None:
    _, elements = shown(content_of([run_of_rows({}, failures={"the case": "expected a gate that passes"}, cases={})], {}))
    assert "there is no answer in it" in elements.text
    assert "1 case failed" in elements.text
    assert "expected a gate that passes" in elements.text


def test_rows_that_lack_figures_are_left_out_and_told() -> None:
    rows = rows_of()
    bare = {name: read(op="train", data="digits", learning_rate=None, seed=9) for name in ("a", "b")}
    strange = {"c": read(shape="no shape")}
    told = content_of([run_of_rows(rows | bare | strange)], {})
    _, elements = shown(told)
    assert "2 cases of trainings left out" in elements.text
    assert "1 case left out, whose shape is none" in elements.text
    assert len(told.entries) == len(rows)


def test_runs_of_several_machines_are_set_side_by_side_and_those_of_one_in_a_row() -> None:
    few = dict(list(rows_of().items())[:4])
    runs = [run_of_rows(few, name=f"{number}", time=f"2026-01-{number:02}") for number in range(1, 8)]
    runs += [run_of_rows(few, name="other", machine="other", hardware="other-1", time="2026-01-01")]
    told = content_of(runs, {})
    assert told.run.name == "7"
    names = [figure.name for section in sections_of(told) for figure in section.figures]
    assert names[-2:] == ["machines", "history"]
    _, elements = shown(told)
    assert all(f"{run.label}" in elements.text for run in runs)


def test_facts_of_any_kind_are_shown_as_text() -> None:
    deep: object = "end"
    for _ in range(50):
        deep = {"a": deep}
    told = content_of([run_of_rows(rows_of(), facts={"deep": deep, "list": [1, {"x": None}], "n": 10**400, "run": "none"})], {})
    assert "deep a a" in shown(told)[1].text


def test_what_each_process_took_is_no_line_of_the_page() -> None:
    turns = [{"which": f"process {number}", "visits": 9} for number in range(3)]
    told = content_of([run_of_rows(rows_of(), facts={"run": {"turns": turns}})], {})
    assert facts(told) == [("run turns", "3, each told in the file")]


@pytest.mark.parametrize("is_dead", [True, False])
def test_an_arm_far_below_the_others_stands_at_the_edge_with_its_figure(*, is_dead: bool) -> None:
    rows = {name: one for name, one in rows_of().items() if one.op == "train"}
    for name, one in list(rows.items()):
        if one.model == "sparse":
            rows |= {f"{name} {sparsity}": msgspec.structs.replace(one, sparsity=sparsity) for sparsity in (0.5, 0.7)}
        if one.model == "narrow":
            end = 0.1 if is_dead else 0.85
            rows[name] = msgspec.structs.replace(one, test_accuracy=end, epoch_accuracies=[0.1, 0.1, end])
    figures = named(sections_of(content_of([run_of_rows(rows)], {})))
    panels = [*figures["accuracy"].panels, *figures["learning-curves"].panels, figures["ratios"].panels[-1]]
    for panel in panels:
        values = [value for layer in panel.spec["layer"] for value in layer["data"]["values"]]
        assert [value["told"] for value in values if "told" in value][:1] == (
            [] if not is_dead else ["\u2190 -77.5"] if panel is panels[-1] else ["\u2193 0.100"]
        ), panel.title
    x = figures["ratios"].panels[-1].spec["layer"][1]["encoding"]["x"]
    assert x["scale"]["domain"][0] > -10
    y = figures["accuracy"].panels[0].spec["layer"][1]["encoding"]["y"]
    assert y["scale"]["domain"][0] > 0.8
    assert not far_below({"dense": 0.9, "one": 0.1, "other": 0.2}, 0.9)  # an axis for dense alone would show nothing


def test_the_data_of_a_committed_run_is_that_of_its_file() -> None:
    [path] = (ROOT / ".benchmarks").glob("znver5*/0005_*.json")
    runs, _ = read_runs([str(path)])
    told = content_of(runs, {})
    text, _ = shown(told)
    assert len(text) < MOST
    saved = json.loads(path.read_text())
    assert {entry.case for entry in told.entries} == {benchmark["fullname"] for benchmark in saved["benchmarks"]}
    assert [entry.speedup.median for entry in told.entries] == saved["rows"]["speedup"]


def test_pruned_networks_are_drawn_by_batch_and_told_in_the_tables_figures() -> None:
    [file] = (ROOT / ".benchmarks").glob("znver5*/0007*")
    told = content_of(read_runs([str(file)])[0], {})
    [figure] = [figure for section in sections_of(told) for figure in section.figures if figure.name == "pruned"]
    [found] = told.answer.pruned
    assert [panel.title for panel in figure.panels] == ["Inference of 1 sample", "Inference of 64 samples"]
    assert [row[:6] for row in figure.data.rows] == [
        (one.name, one.layer, f"{one.sparsity:g}", *map(str, (one.dense, one.pruned, one.tuned))) for one in found.networks
    ]
    for panel, batch in zip(figure.panels, found.batches, strict=True):
        for one in found.networks:
            assert f"{one.sparsity:g}: {one.speedups[batch].speedup} times dense's speed" in panel.text
        drawn = panel.spec["layer"][-1]["data"]["values"]
        assert [value["accuracy"] for value in drawn] == [one.tuned.mean for one in found.networks]
