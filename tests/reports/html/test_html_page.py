"""The HTML report in a real browser, opened from a file: it draws, sorts, filters and prints, and asks for nothing.

One Chromium serves the whole session; every test has a page of its own.
"""

from __future__ import annotations

import base64
import json
from importlib.resources import files
from typing import TYPE_CHECKING

import pytest
from msgspec.structs import replace
from support.reported import HOSTILE, everything, report
from support.services.browser import Browser, BrowserError, chromium
from support.synthetic import LAYERS, capacity, counterpart, result, verdict

from pytest_mlpatterns.records.verdict import Outcome
from pytest_mlpatterns.units import format_duration, format_percent, format_rate, format_size

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from support.services.browser import Page

    from pytest_mlpatterns.records.result import TestResult

PATH = chromium()

pytestmark = [
    pytest.mark.processes,
    pytest.mark.skipif(PATH is None, reason="no Chromium is installed: apt-get install chromium"),
]

DRAWN = """[...document.querySelectorAll("figure.chart")].map(figure => {
  const shapes = figure.querySelectorAll("svg :is(path, rect, circle, line)");
  const boxes = [...shapes].map(shape => shape.getBoundingClientRect());
  return boxes.filter(box => box.width + box.height > 2).length;
})"""
VISIBLE_ROWS = """[...document.querySelectorAll("#overview-table tbody tr")].filter(row => !row.hidden).map(
  row => row.cells[0].dataset.value)"""
FOCUS = """(() => {
  const at = document.activeElement;
  const shown = at.closest("label") ?? at;
  const style = getComputedStyle(shown), box = shown.getBoundingClientRect();
  return {
    what: at.id || at.getAttribute("name") || at.className || at.tagName.toLowerCase(),
    text: at.textContent.trim().slice(0, 40),
    ring: style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 2,
    seen: box.width > 0 && box.height > 0 && box.left >= 0,
  };
})()"""


@pytest.fixture(scope="session")
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


def draw_all(page: Page) -> list[int]:
    """Open every test, make the window as high as the page, and count what each chart consists of."""
    page.evaluate("document.querySelectorAll('details.test, details.group').forEach(one => one.open = true)")
    width = page.evaluate("innerWidth")
    page.size(width, 40_000)
    page.wait("[...document.querySelectorAll('figure.chart')].every(figure => figure.querySelector('svg'))")
    drawn: list[int] = page.evaluate(DRAWN)
    return drawn


@pytest.mark.parametrize("width", [1280, 375, 320])
def test_every_chart_is_drawn_without_a_word_and_without_a_request(opened: Callable[..., Page], width: int) -> None:
    page = opened(width=width)
    drawn = draw_all(page)
    assert len(drawn) > 30
    assert min(drawn) >= 3
    assert page.evaluate("document.querySelectorAll('svg[role=img][aria-labelledby]').length") == len(drawn)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.messages == []
    assert [address.partition(":")[0] for address in page.requests] == ["file"]


@pytest.mark.parametrize("width", [1280, 800, 390])
def test_every_column_of_figures_stands_under_its_heading_and_the_outcome_is_in_sight(
    opened: Callable[..., Page], width: int
) -> None:
    page = opened(width=width)
    page.evaluate("document.querySelectorAll('details.test, details.group').forEach(one => one.open = true)")
    apart = page.evaluate("""[...document.querySelectorAll('table.figures')].flatMap(table => {
      const seen = row => [...row.cells].filter(cell => cell.getClientRects().length);
      const head = seen(table.tHead.rows[0]);
      return [...table.tBodies[0].rows].map(seen).filter(row => row.length === head.length || row.length > 3).map(row =>
        Math.max(...row.map((cell, at) => Math.abs(
          cell.getBoundingClientRect().right - (head[at]?.getBoundingClientRect().right ?? 1e9)))));
    })""")
    assert len(apart) > 20
    assert max(apart) < 1
    outcomes = page.evaluate(
        "[...document.querySelectorAll('table.comparison tr > :last-child')]"
        ".map(one => one.getBoundingClientRect().right)"
    )
    assert outcomes
    assert max(outcomes) <= width


@pytest.mark.parametrize("width", [390, 320])
def test_on_a_phone_no_figure_of_the_overview_is_cut(opened: Callable[..., Page], width: int) -> None:
    page = opened(width=width)
    ends = page.evaluate("""[...document.querySelectorAll('#overview-table tbody td')].map(cell => {
      const text = document.createRange();
      text.selectNodeContents(cell);
      return text.getBoundingClientRect().right - cell.closest('tr').getBoundingClientRect().right;
    })""")
    assert len(ends) > 50
    assert max(ends) < 1


def test_one_wide_interval_does_not_flatten_the_other_changes(opened: Callable[..., Page]) -> None:
    huge = replace(verdict(Outcome.INCONCLUSIVE, metric="p99", change=(4.0, 0.3, 25.45)), tolerance=0.5)
    calm = verdict(Outcome.FAIL, change=(0.367, 0.288, 0.451))
    same = verdict(Outcome.PASS, metric="cpu_per_request", change=(0.0, -0.05, 0.05))
    page = opened([result("t.py::test_it", passed=False, verdicts=(calm, huge, same), reference=counterpart())])
    draw_all(page)
    chart = (
        "[...document.querySelectorAll('figure.chart')].find(one => one.textContent.includes('worse is to the right'))"
    )
    worse, none = page.evaluate(f"[...{chart}.querySelectorAll('circle')].map(one => Number(one.getAttribute('cx')))")
    assert worse - none > 40  # px; an axis up to +2545 % left 6
    assert page.evaluate(f"{chart}.querySelector('svg').textContent.includes('▶')")
    assert page.evaluate(f"{chart}.textContent.includes('400 % worse')")


def test_charts_are_drawn_anew_where_the_window_changes(opened: Callable[..., Page]) -> None:
    page = opened([result()])
    page.size(1280, 4000)
    page.wait("document.querySelector('#test-0-1 svg')")
    width = "document.querySelector('#test-0-1 svg').getBoundingClientRect().width"
    before = page.evaluate(width)
    page.size(375, 4000)
    page.wait("document.querySelector('#test-0-1').dataset.width < 375")
    assert page.evaluate(width) < before
    assert page.evaluate("document.documentElement.scrollWidth") <= 375


def test_text_of_users_is_shown_and_not_run(opened: Callable[..., Page]) -> None:
    page = opened()
    draw_all(page)
    page.evaluate("document.querySelectorAll('details.data').forEach(one => one.open = true)")
    page.wait("[...document.querySelectorAll('details.data')].every(one => one.querySelector('table'))")
    assert page.evaluate("document.querySelectorAll('main img, main script:not([type])').length") == 0
    names = page.evaluate("[...document.querySelectorAll('details.test h3')].map(one => one.textContent)")
    assert f"test_perf.py::test_hostile[{HOSTILE}]" in names
    assert page.messages == []


def test_the_policy_stops_other_scripts_and_requests(opened: Callable[..., Page]) -> None:
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


def test_the_table_behind_a_chart_says_the_same(opened: Callable[..., Page]) -> None:
    page = opened([result(layers=LAYERS[1:2])])
    page.evaluate("document.querySelectorAll('details.data').forEach(one => one.open = true)")
    page.wait("[...document.querySelectorAll('details.data')].every(one => one.querySelector('table'))")
    rows = page.evaluate("""[...document.querySelectorAll('figure.chart')].find(
      figure => figure.textContent.includes('Batch sizes')).querySelector('table').innerText.split('\\n')""")
    assert rows == [
        "inputs in the batch\tshare of calls\tcalls",
        "2\t40.0 %\t10",
        "4\t20.0 %\t5",
        "6\t40.0 %\t10",
    ]


def test_a_pointer_is_told_the_figures(opened: Callable[..., Page]) -> None:
    page = opened([result(reference=counterpart())])
    page.evaluate("document.querySelector('#test-0-1').scrollIntoView()")
    page.wait("document.querySelector('#test-0-1 svg')")
    page.settle()
    box = page.evaluate("document.querySelector('#test-0-1 svg').getBoundingClientRect().toJSON()")
    x, y = box["x"] + box["width"] * 0.5, box["y"] + box["height"] * 0.5
    page.send("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)
    tip = "document.querySelector('#test-0-1 svg > g:last-child').textContent"
    page.wait(tip)
    told = page.evaluate(tip)
    assert "percentile: p" in told
    assert "baseline: " in told


# --- the overview ------------------------------------------------------------------------------------------------


def test_the_overview_is_sorted_by_a_click_and_back_with_what_is_missing_last(opened: Callable[..., Page]) -> None:
    page = opened()
    sort = (
        "[...document.querySelectorAll('#overview-table thead button')].find(one => one.textContent === 'RTM').click()"
    )
    values = """{
      const at = [...document.querySelectorAll('#overview-table thead th')].findIndex(one => one.textContent === 'RTM');
      [...document.querySelectorAll('#overview-table tbody tr')].map(row => row.cells[at].dataset.value);
    }"""
    states = "[...document.querySelectorAll('#overview-table th')].map(one => one.ariaSort).filter(Boolean)"
    for order, reverse in (("ascending", False), ("descending", True)):
        page.evaluate(sort)
        found = page.evaluate(values)
        known = [float(value) for value in found if value]
        assert known == sorted(known, reverse=reverse)
        assert found[len(known) :] == [""] * (len(found) - len(known)) != []
        assert page.evaluate(states) == [order]


def test_tests_are_sorted_by_their_verdict_the_most_urgent_first(opened: Callable[..., Page]) -> None:
    page = opened()
    page.evaluate("document.querySelectorAll('#overview-table thead button')[1].click()")
    shown = page.evaluate("[...document.querySelectorAll('#overview-table tbody tr')].map(row => row.dataset.state)")
    assert shown[0] == "failed"
    assert shown[-1] == "measured"


def test_the_overview_is_searched_and_filtered_with_the_tests_below(opened: Callable[..., Page]) -> None:
    page = opened()
    count = len(page.evaluate(VISIBLE_ROWS))
    page.evaluate("""{
      const search = document.getElementById("search");
      search.value = "DIGITS cached";
      search.dispatchEvent(new Event("input"));
    }""")
    assert page.evaluate(VISIBLE_ROWS) == ["test_perf.py::test_digits[cached|batched|queued]"]
    assert page.evaluate("document.getElementById('shown').textContent") == f"1 of {count} tests shown"
    hidden = page.evaluate("document.querySelectorAll('details.test[hidden]').length")
    assert hidden == count - 1
    page.evaluate("""{
      const search = document.getElementById("search");
      search.value = "";
      search.dispatchEvent(new Event("input"));
      document.querySelector("#filters input[value=failed]").click();
    }""")
    assert "test_perf.py::test_fails" not in page.evaluate(VISIBLE_ROWS)
    assert "test_perf.py::test_is_open" in page.evaluate(VISIBLE_ROWS)


def test_a_link_of_the_overview_opens_its_test(opened: Callable[..., Page]) -> None:
    page = opened()
    closed = page.evaluate("document.querySelector('details.test:not([open])').id")
    links = "[...document.querySelectorAll('#overview-table a')]"
    page.evaluate(f"{links}.find(a => decodeURIComponent(a.hash.slice(1)) === {json.dumps(closed)}).click()")
    page.wait(f"document.getElementById({json.dumps(closed)}).open")


@pytest.mark.parametrize("fragment", ["test_perf.py::test_d[a_b%25]", "test_perf.py::test_d[a_b%]"])
def test_a_link_from_elsewhere_opens_its_test(browser: Browser, tmp_path: Path, fragment: str) -> None:
    path = tmp_path / "report.html"
    path.write_text(report([result(name) for name in ("a", "b", "c", "test_perf.py::test_d[a b%]")]), encoding="utf-8")
    page = browser.open(f"{path.as_uri()}#{fragment}")
    assert page.evaluate("[...document.querySelectorAll('details.test')].map(one => one.open)") == [False] * 3 + [True]
    assert page.evaluate("document.querySelector('details.test[open]').getBoundingClientRect().top < innerHeight")
    assert page.messages == []
    browser.close(page)


def test_all_tests_are_opened_and_closed_at_once(opened: Callable[..., Page]) -> None:
    page = opened()
    opens = "[...document.querySelectorAll('details.test')].map(one => one.open)"
    for expected, label in ((True, "Close all"), (False, "Open all")):
        page.evaluate("document.getElementById('open-all').click()")
        assert {*page.evaluate(opens)} == {expected}
        assert page.evaluate("document.getElementById('open-all').textContent") == label


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
    assert order[:5] == ["skip", "theme", "id", "search", "state"]
    assert order.index("open-all") > order.index("id", 3)
    assert sum(stop["what"] == "summary" for stop in walked) >= 6
    assert all(stop["ring"] and stop["seen"] for stop in walked[:-1])


def test_the_skip_link_leads_to_the_tests_and_a_key_opens_one(opened: Callable[..., Page]) -> None:
    page = opened([result(name) for name in "abcde"])
    page.press("Tab")
    page.press("Enter")
    page.wait("document.activeElement.id === 'tests'")
    page.press("Tab")
    page.press("Tab")
    assert page.evaluate("document.querySelector('details.test').open") is False
    page.press("Enter")
    assert page.evaluate("document.querySelector('details.test').open") is True


def test_the_page_is_light_or_dark_as_its_reader_prefers_or_says(opened: Callable[..., Page]) -> None:
    page = opened([result()])
    ground = "getComputedStyle(document.body).backgroundColor"
    page.scheme("light")
    light = page.evaluate(ground)
    page.scheme("dark")
    dark = page.evaluate(ground)
    assert light != dark
    page.evaluate("document.querySelector('#theme input[value=light]').click()")
    assert page.evaluate(ground) == light
    page.browser.load(page, page.evaluate("location.href"))
    assert page.evaluate(ground) == light
    page.evaluate("document.querySelector('#theme input[value=auto]').click()")
    assert page.evaluate(ground) == dark


def test_paper_has_every_section_and_every_chart(opened: Callable[..., Page]) -> None:
    page = opened()
    before = page.evaluate("document.querySelectorAll('details.test[open]').length")
    paper = base64.b64decode(page.pdf())
    assert paper.startswith(b"%PDF")
    assert page.evaluate("document.querySelectorAll('details.test[open]').length") == before
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.evaluate("document.querySelectorAll('details.test:not([open]), details.group:not([open])').length") == 0
    assert min(page.evaluate(DRAWN)) >= 3
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert page.evaluate("document.querySelectorAll('details.test[open]').length") == before
    assert page.messages == []


# --- accessibility ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("width", "scheme"), [(1280, "dark"), (375, "light")])
def test_axe_finds_no_violation(opened: Callable[..., Page], width: int, scheme: str) -> None:
    page = opened(width=width)
    page.scheme(scheme)
    page.evaluate("for (const one of document.querySelectorAll('details:not(.data)')) one.open = true")
    page.evaluate("document.querySelector('details.data').open = true")
    page.evaluate("document.querySelector('.flame').scrollIntoView()")
    page.wait("document.querySelector('.flame .frame') && document.querySelector('details.data table')")
    page.settle()
    page.evaluate(files("axe_core_python").joinpath("axe.min.js").read_text(encoding="utf-8"))
    # What is inside of a chart is presentation, since each is an image with a name and has its data as a table.
    found = page.evaluate("axe.run({ exclude: ['.chart svg'] }, { resultTypes: ['violations'] })")
    assert {one["id"]: [node["html"] for node in one["nodes"]] for one in found["violations"]} == {}
    assert len(found["passes"]) > 40


# --- numbers and size -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("unit", "print_in_python", "scale"),
    [
        ("duration", format_duration, 1.0),
        ("size", format_size, 1.0),
        ("rate", format_rate, 1e-3),
        ("ratio", format_percent, 1e-7),
    ],
)
def test_numbers_look_as_they_do_elsewhere(
    opened: Callable[..., Page], unit: str, print_in_python: Callable[[float], str], scale: float
) -> None:
    numbers = [0.0, *(scale * mantissa * 10.0**power for power in range(11) for mantissa in (1, 1.236, 4.567, 9.9961))]
    page = opened([])
    assert page.evaluate(f"{numbers}.map(number => units.format('{unit}', number))") == [*map(print_in_python, numbers)]


def test_of_two_hundred_tests_only_what_is_looked_at_is_drawn(opened: Callable[..., Page]) -> None:
    page = opened([result(f"t[{number}]", layers=LAYERS, capacities=(capacity(),)) for number in range(200)])
    assert page.evaluate("document.querySelectorAll('figure.chart').length") == 2207
    assert page.evaluate("document.querySelectorAll('svg').length") < 50
    page.evaluate("location.hash = '#::t[150]'")
    page.wait("document.getElementById('::t[150]').querySelector('svg')")
    assert page.evaluate("document.querySelectorAll('svg').length") < 60
    assert page.messages == []


# --- the driver itself ----------------------------------------------------------------------------------------------


def test_a_refused_command_is_an_error(browser: Browser) -> None:
    with pytest.raises(BrowserError, match="wasn't found"):
        browser.send("No.such")


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
