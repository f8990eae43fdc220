"""The page in a real browser: silent, asking for nothing, readable at any width, and all of it within reach of the keyboard."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.report.page import page
from bench.report.sections import sections_of
from tests.helpers.browser import CHROMIUM, Browser, browser
from tests.helpers.reports import HOSTILE, content, hostile

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="expected chromium, got none; apt-get install chromium brings it")
WIDTHS = (360, 768, 1280)
# The least contrast to the paper (WCAG 2.2): of words in figures, of marks that have no rim, and of the words of the page.
CONTRASTS = """(() => {
  const linear = (value) => value <= .04045 ? value / 12.92 : ((value + .055) / 1.055) ** 2.4;
  const light = (text) => { const [r, g, b] = text.match(/[\\d.]+/g).map((value) => linear(value / 255));
    return .2126 * r + .7152 * g + .0722 * b; };
  const paper = light(getComputedStyle(document.body).backgroundColor) + .05;
  const contrast = (text) => { const own = light(text) + .05; return Math.max(own, paper) / Math.min(own, paper); };
  const least = (names, kind) => Math.min(...[...document.querySelectorAll(names)].map((one) =>
    contrast(getComputedStyle(one)[kind])));
  return [least("svg text:not([stroke])", "fill"), least("svg .mark-symbol path[fill^='#']:not([stroke])", "fill"),
    least("h1, p, a[href^='#'], summary, td, figcaption, dt", "color")];
})()"""
ROWS = "[...document.querySelectorAll('#rows tbody tr')]"


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with browser(tmp_path_factory.mktemp("profile")) as own:
        yield own


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    told = content()
    path = tmp_path_factory.mktemp("report") / "report.html"
    path.write_text(page(told, sections_of(told)))
    return path


def is_silent(chromium: Browser, path: Path) -> None:
    assert chromium.said == []
    assert chromium.asked == [path.absolute().as_uri()]


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
def test_nothing_is_wider_than_the_window_said_or_asked_for(chromium: Browser, report: Path, width: int, dark: bool) -> None:
    chromium.open(report, width=width, dark=dark)
    assert chromium.tell("document.documentElement.scrollWidth") <= width
    assert chromium.tell("[...document.querySelectorAll('svg')].every(one => one.getBoundingClientRect().width > 200)")
    is_silent(chromium, report)


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_all_that_is_drawn_stands_out_from_the_paper(chromium: Browser, report: Path, dark: bool) -> None:
    """Contrast by WCAG 2.2: 4.5 for text, 3 for what else says something."""
    chromium.open(report, dark=dark)
    worst = chromium.tell(CONTRASTS)
    assert worst[0] >= 4.5
    assert worst[1] >= 3
    assert worst[2] >= 4.5


def test_nothing_of_a_name_is_executed(chromium: Browser, tmp_path: Path) -> None:
    told = hostile()
    path = tmp_path / "report.html"
    path.write_text(page(told, sections_of(told)))
    chromium.open(path)
    assert chromium.tell("document.scripts.length") == 1
    chromium.tell(
        "document.querySelectorAll('svg a').forEach(one => one.dispatchEvent(new Event('mouseover', {bubbles: true})))"
    )
    assert chromium.tell("document.querySelector('#tip').children.length") == 0
    text = chromium.tell("document.body.textContent")
    assert all(name in text for name in HOSTILE)
    is_silent(chromium, path)


def test_the_policy_of_the_page_stops_a_script_that_is_not_its_own(chromium: Browser, report: Path, tmp_path: Path) -> None:
    path = tmp_path / "changed.html"
    path.write_text(report.read_text().replace("</main>", "</main><script>document.title = 'ran'</script>"))
    chromium.open(path)
    assert "sparsity" in chromium.tell("document.title")
    assert any("Content Security Policy" in line for line in chromium.said)


def test_the_verdict_stands_above_how_soon_arms_come_to_denses_accuracy(chromium: Browser, report: Path) -> None:
    chromium.open(report)
    assert "tiled at 0.8 comes within" in chromium.tell("document.querySelector('#accuracy').nextElementSibling.textContent")
    figure = "document.querySelector('#figure-time-to-accuracy').closest('figure')"
    fills = f"[...{figure}.querySelectorAll('svg .mark-symbol path')].map(one => getComputedStyle(one).fill)"
    assert [fill == "none" for fill in chromium.tell(fills)] == [False, True]  # the second arm never gets there
    cells = f"[...{figure}.querySelectorAll('tbody tr')].map(one => [one.cells[1].textContent, one.cells[3].textContent])"
    assert chromium.tell(cells) == [["dense", "3 of 3"], ["static tiled", "3 of 3"], ["narrow", "0 of 3"]]


def test_a_point_leads_to_its_row_whatever_is_filtered(chromium: Browser, report: Path) -> None:
    chromium.open(report)
    chromium.tell("form.elements.words.value = 'no such case'; filter()")
    assert chromium.tell(f"{ROWS}.filter(one => !one.hidden).length") == 0
    link = chromium.tell(
        "document.querySelector('#figure-speed-up').closest('figure').querySelector('svg a').getAttribute('href')"
    )
    chromium.tell(
        f"new Promise(done => {{ addEventListener('hashchange', () => setTimeout(done)); location.hash = '{link}'; }})"
    )
    assert chromium.tell("document.activeElement.id") == link[1:]
    assert chromium.tell(f"!document.querySelector('{link}').hidden")
    box = chromium.tell(f"document.querySelector('{link}').getBoundingClientRect().top")
    assert 0 <= box <= 900


def test_the_table_sorts_by_what_its_cells_stand_for(chromium: Browser, report: Path) -> None:
    chromium.open(report)
    for column, kind in ((4, "Number(cell.dataset.value)"), (1, "cell.textContent")):
        values = f"{ROWS}.map(row => row.cells[{column}]).map(cell => {kind})"
        chromium.tell(f"document.querySelectorAll('#rows th button')[{column}].click()")
        rising = chromium.tell(values)
        assert rising == sorted(rising)
        assert chromium.tell(f"table.tHead.rows[0].cells[{column}].ariaSort") == "ascending"
        chromium.tell(f"document.querySelectorAll('#rows th button')[{column}].click()")
        assert chromium.tell(values) == sorted(rising, reverse=True)


def test_the_table_shows_what_is_asked_for(chromium: Browser, report: Path) -> None:
    chromium.open(report)
    chromium.tell("form.elements.words.value = 'tiled FORWARD'; form.elements.verdict.value = 'slower'; filter()")
    shown = chromium.tell(f"{ROWS}.filter(one => !one.hidden).map(one => one.textContent)")
    assert len(shown) == 1
    assert "slower" in shown[0]
    assert chromium.tell("document.querySelector('#shown').textContent").startswith("1 of ")


def test_the_keyboard_reaches_everything_and_what_it_reaches_is_told(chromium: Browser, report: Path) -> None:
    chromium.open(report)
    wanted = chromium.tell("""[...document.querySelectorAll(
      'a[href], button, input, select, summary, [tabindex="0"]')].filter(one => one.checkVisibility()).length""")
    seen = set()
    for number in range(wanted + 5):
        chromium.press("Tab")
        where = "[...document.querySelectorAll('*')].indexOf(document.activeElement)"
        seen.add(chromium.tell(where))
        if number < 30 and chromium.tell("Boolean(document.activeElement.closest('svg'))"):
            label = "document.activeElement.querySelector('[aria-label]').getAttribute('aria-label')"
            assert chromium.tell("document.querySelector('#tip').textContent") == chromium.tell(label)
    assert len(seen) >= wanted


def test_without_scripts_it_is_all_there_as_a_plain_table(chromium: Browser, report: Path) -> None:
    chromium.open(report, scripts=False)
    shown = chromium.call("DOM.getDocument", depth=0)["root"]["nodeId"]
    html = chromium.call("DOM.getOuterHTML", nodeId=shown)["outerHTML"]
    assert "<button" not in html
    assert '<form id="filter" hidden="">' in html
    is_silent(chromium, report)


def test_on_paper_nothing_is_cut_off(chromium: Browser, report: Path) -> None:
    chromium.open(report, width=768, media="print")
    assert chromium.tell("getComputedStyle(document.querySelector('nav')).display") == "none"
    assert chromium.tell("[...document.querySelectorAll('.tall')].every(one => getComputedStyle(one).overflow == 'visible')")
    assert chromium.call("Page.printToPDF")["data"]
