"""The HTML report and the page of a history in a real browser: they fit, load nothing, print, and all can read them.

One Chromium serves all tests; every test has a page of its own.
"""

import base64
import json
from collections.abc import Callable, Iterator
from importlib.resources import files
from pathlib import Path

import pytest
from support.histories import CHANGES, SERIES
from support.reported import HOSTILE, everything, report
from support.services.browser import Browser, BrowserError, Page, chromium
from support.synthetic import result

from pytest_mlpatterns.records.result import TestResult
from pytest_mlpatterns.reports.html.history_page import history_page

PATH = chromium()

pytestmark = [
    pytest.mark.processes,
    pytest.mark.skipif(PATH is None, reason="no Chromium is installed: apt-get install chromium"),
]

OPEN = "document.querySelectorAll('details').forEach(one => one.open = true)"
FOCUS = """(() => {
  const at = document.activeElement, style = getComputedStyle(at), box = at.getBoundingClientRect();
  return {
    what: at.className || at.tagName.toLowerCase(),
    ring: style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 2,
    seen: box.width > 0 && box.height > 0 && box.left >= 0,
  };
})()"""
NARROW = """[...document.querySelectorAll('svg')].filter(one => one.getClientRects().length).map(one => {
  const box = one.getBoundingClientRect();
  return box.width > 0 && box.height > 0 && box.left >= 0;
})"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    assert PATH is not None
    with Browser.start(PATH, tmp_path_factory.mktemp("browser")) as running:
        yield running


@pytest.fixture
def opened(browser: Browser, tmp_path: Path) -> Iterator[Callable[..., Page]]:
    """Opens the report of these results from a file."""
    pages: list[Page] = []

    def open_report(results: list[TestResult] | None = None, *, width: int = 1280) -> Page:
        path = tmp_path / "report.html"
        path.write_text(report(everything() if results is None else results), encoding="utf-8")
        pages.append(browser.open(path.as_uri(), width=width))
        return pages[-1]

    yield open_report
    for page in pages:
        browser.close(page)


@pytest.fixture
def history(browser: Browser, tmp_path: Path) -> Iterator[Callable[..., Page]]:
    """Opens the page of a history from a file."""
    pages: list[Page] = []

    def open_history(*, width: int = 1280) -> Page:
        path = tmp_path / "history.html"
        path.write_text(history_page(SERIES, CHANGES, "perf-history.jsonl"), encoding="utf-8")
        pages.append(browser.open(path.as_uri(), width=width))
        return pages[-1]

    yield open_history
    for page in pages:
        browser.close(page)


@pytest.mark.parametrize("width", [1400, 900, 400, 320])
@pytest.mark.parametrize("kind", ["opened", "history"])
def test_every_chart_is_drawn_without_a_word_and_without_a_request(
    request: pytest.FixtureRequest, kind: str, width: int
) -> None:
    page = request.getfixturevalue(kind)(width=width)
    page.evaluate(OPEN)
    drawn = page.evaluate(NARROW)
    assert len(drawn) >= (6 if kind == "history" else 40)
    assert all(drawn)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.messages == []
    assert [address.partition(":")[0] for address in page.requests] == ["file"]


@pytest.mark.parametrize("width", [1280, 800, 390])
def test_every_column_of_figures_stands_under_its_heading_and_the_outcome_is_in_sight(
    opened: Callable[..., Page], width: int
) -> None:
    page = opened(width=width)
    page.evaluate(OPEN)
    apart = page.evaluate("""[...document.querySelectorAll('table.metrics')].flatMap(table => {
      const seen = row => [...row.cells].filter(cell => cell.getClientRects().length);
      const head = table.tHead.rows[0].cells;
      return [...table.tBodies[0].rows].map(seen).filter(row => row.length > 1).map(row =>
        Math.max(...row.filter(cell => cell.colSpan === 1).map(cell => Math.abs(
          cell.getBoundingClientRect().right - (head[cell.cellIndex]?.getBoundingClientRect().right ?? 1e9)))));
    })""")
    assert len(apart) > 20
    assert max(apart) < 1
    outcomes = page.evaluate(
        "[...document.querySelectorAll('table.metrics .state')].map(one => one.getBoundingClientRect().right)"
    )
    assert outcomes
    assert max(outcomes) <= width


@pytest.mark.parametrize("width", [390, 320])
def test_on_a_phone_no_figure_of_the_overview_is_cut(opened: Callable[..., Page], width: int) -> None:
    page = opened(width=width)
    ends = page.evaluate("""[...document.querySelectorAll('.overview tbody td')].map(cell => {
      const text = document.createRange();
      text.selectNodeContents(cell);
      return text.getBoundingClientRect().right - cell.closest('tr').getBoundingClientRect().right;
    })""")
    assert len(ends) > 50
    assert max(ends) < 1


def test_text_of_users_is_shown_and_not_run(opened: Callable[..., Page]) -> None:
    page = opened()
    page.evaluate(OPEN)
    assert page.evaluate("document.querySelectorAll('img, script').length") == 0
    names = page.evaluate("[...document.querySelectorAll('details.test h3')].map(one => one.textContent)")
    assert f"test_perf.py::test_hostile[{HOSTILE}]" in names
    assert page.messages == []


def test_the_policy_stops_scripts_and_requests(opened: Callable[..., Page]) -> None:
    page = opened([result()])
    page.evaluate("""{
      const script = document.createElement("script");
      script.textContent = "window.intruded = true";
      document.body.append(script);
      document.body.insertAdjacentHTML("beforeend", "<img src='https://example.org/x.png' onerror='intruded = true'>");
    }""")
    with pytest.raises(BrowserError, match="Failed to fetch"):
        page.evaluate("fetch('https://example.org/')")
    assert page.evaluate("window.intruded") is None
    assert [address.partition(":")[0] for address in page.requests if "example.org" not in address] == ["file"]
    assert len(page.messages) >= 3


def test_a_link_of_the_overview_opens_its_test(opened: Callable[..., Page]) -> None:
    page = opened()
    closed = page.evaluate("document.querySelector('details.test:not([open]) > div').id")
    links = "[...document.querySelectorAll('.overview a')]"
    page.evaluate(f"{links}.find(a => decodeURIComponent(a.hash.slice(1)) === {json.dumps(closed)}).click()")
    page.wait(f"document.getElementById({json.dumps(closed)}).parentElement.open")


@pytest.mark.parametrize("fragment", ["test_perf.py::test_d[a_b%25]", "test_perf.py::test_d[a_b%]"])
def test_a_link_from_elsewhere_opens_its_test(browser: Browser, tmp_path: Path, fragment: str) -> None:
    path = tmp_path / "report.html"
    path.write_text(report([result(name) for name in ("a", "b", "c", "test_perf.py::test_d[a b%]")]), encoding="utf-8")
    page = browser.open(f"{path.as_uri()}#{fragment}")
    page.wait("document.querySelector('details.test[open]')")
    assert page.evaluate("[...document.querySelectorAll('details.test')].map(one => one.open)") == [False] * 3 + [True]
    assert page.evaluate("document.querySelector('details.test[open]').getBoundingClientRect().top < innerHeight")
    assert page.messages == []
    browser.close(page)


# --- keyboard, colours, paper --------------------------------------------------------------------------------------


def test_the_keyboard_reaches_everything_and_shows_where_it_is(opened: Callable[..., Page]) -> None:
    page = opened([result("a", passed=False), *(result(name) for name in "bcde")])
    walked = []
    for _ in range(40):
        page.press("Tab")
        walked.append(page.evaluate(FOCUS))
        if walked[-1]["what"] == "body":
            break
    order = [stop["what"] for stop in walked]
    assert order[0] == "skip"
    assert order.count("summary") == 5
    assert order.count("id") >= 6
    assert all(stop["ring"] and stop["seen"] for stop in walked[:-1])


def test_the_skip_link_leads_to_the_tests_and_a_key_opens_one(opened: Callable[..., Page]) -> None:
    page = opened([result(name) for name in "abcde"])
    page.press("Tab")
    page.press("Enter")
    page.wait("document.activeElement.id === 'tests'")
    page.press("Tab")
    assert page.evaluate("document.querySelector('details.test').open") is False
    page.press("Enter")
    assert page.evaluate("document.querySelector('details.test').open") is True


def test_the_page_is_light_or_dark_as_its_reader_prefers(opened: Callable[..., Page]) -> None:
    page = opened([result()])
    grounds = []
    for scheme in ("light", "dark"):
        page.scheme(scheme)
        grounds.append(page.evaluate("getComputedStyle(document.body).backgroundColor"))
    assert grounds[0] != grounds[1]


def test_paper_has_every_section(opened: Callable[..., Page]) -> None:
    page = opened([result(f"t[{number}]") for number in range(6)])
    closed = base64.b64decode(page.pdf())
    page.evaluate(OPEN)
    paper = base64.b64decode(page.pdf())
    assert paper.startswith(b"%PDF")
    assert closed.count(b"/Type /Page\n") == paper.count(b"/Type /Page\n") >= 6
    assert page.messages == []


# --- accessibility ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["opened", "history"])
@pytest.mark.parametrize(("width", "scheme"), [(1280, "dark"), (375, "light")])
def test_axe_finds_no_violation(request: pytest.FixtureRequest, kind: str, width: int, scheme: str) -> None:
    page = request.getfixturevalue(kind)(width=width)
    page.scheme(scheme)
    page.evaluate(OPEN)
    page.settle()
    page.evaluate(files("axe_core_python").joinpath("axe.min.js").read_text(encoding="utf-8"))
    # What is inside of a chart is presentation, since each is an image with a name.
    found = page.evaluate("axe.run({ exclude: ['figure svg'] }, { resultTypes: ['violations'] })")
    assert {one["id"]: [node["html"] for node in one["nodes"]] for one in found["violations"]} == {}
    assert len(found["passes"]) > 20


# --- the driver itself ----------------------------------------------------------------------------------------------


def test_a_script_that_fails_is_an_error_and_its_page_says_so(opened: Callable[..., Page]) -> None:
    page = opened([])
    with pytest.raises(BrowserError, match="not defined"):
        page.evaluate("nothing_of_this_name")
    page.evaluate(
        "console.log('said', 1); window.late = setTimeout(() => { window.late = 0; throw new Error('later') })"
    )
    page.wait("window.late === 0")
    assert page.messages[0] == "said 1"
    assert "later" in page.messages[1]
