"""The page of a history in a real browser: its charts are drawn at each width, light and dark, and all can read it."""

from __future__ import annotations

from importlib.resources import files
from typing import TYPE_CHECKING

import pytest
from support.histories import CHANGES, SERIES, series_from
from support.services.browser import Browser, chromium

from pytest_mlpatterns.reports.html.history_page import history_page

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from support.services.browser import Page

PATH = chromium()

pytestmark = [
    pytest.mark.processes,
    pytest.mark.skipif(PATH is None, reason="no Chromium is installed: apt-get install chromium"),
]

MARKS = """[...document.querySelectorAll("figure.chart")].map(figure => ({
  title: figure.querySelector(".title").textContent,
  dots: figure.querySelectorAll("svg circle").length,
  text: figure.querySelector("svg").textContent,
}))"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    assert PATH is not None
    with Browser.start(PATH, tmp_path_factory.mktemp("browser")) as running:
        yield running


@pytest.fixture
def opened(browser: Browser, tmp_path: Path) -> Iterator[Callable[..., Page]]:
    """Opens a page from a file, with every test open and every chart drawn."""
    pages: list[Page] = []

    def open_page(text: str, *, width: int = 1280) -> Page:
        path = tmp_path / "history.html"
        path.write_text(text, encoding="utf-8")
        pages.append(browser.open(path.as_uri(), width=width))
        page = pages[-1]
        page.evaluate("document.querySelectorAll('details.test').forEach(one => one.open = true)")
        page.size(width, 12_000)
        page.wait("[...document.querySelectorAll('figure.chart')].every(figure => figure.querySelector('svg'))")
        return page

    yield open_page
    for page in pages:
        browser.close(page)


@pytest.mark.parametrize("width", [1280, 400, 320])
def test_every_course_is_drawn_with_its_changes_and_fits(opened: Callable[..., Page], width: int) -> None:
    page = opened(history_page(SERIES, CHANGES, "perf-history.jsonl"), width=width)

    drawn = {chart["title"]: chart for chart in page.evaluate(MARKS)}

    assert drawn["RTM"]["dots"] == 44  # the run that is far off is drawn at the edge
    assert "▲" in drawn["RTM"]["text"]
    for title, label in (
        ("RTM", "+6.0 %"),
        ("RTM", "environment"),
        ("p95 latency", "+12.0 % ?"),
        ("Peak memory", "+9.2 %"),
    ):
        assert label in drawn[title]["text"]
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.messages == []
    assert [address.partition(":")[0] for address in page.requests] == ["file"]


@pytest.mark.parametrize(("width", "scheme"), [(1280, "dark"), (400, "light")])
def test_axe_finds_no_violation(opened: Callable[..., Page], width: int, scheme: str) -> None:
    page = opened(history_page(SERIES, CHANGES, "perf-history.jsonl"), width=width)
    page.scheme(scheme)
    page.evaluate("document.querySelector('details.data').open = true")
    page.wait("document.querySelector('details.data table')")
    page.settle()
    page.evaluate(files("axe_core_python").joinpath("axe.min.js").read_text(encoding="utf-8"))
    found = page.evaluate("axe.run({ exclude: ['.chart svg'] }, { resultTypes: ['violations'] })")
    assert {one["id"]: [node["html"] for node in one["nodes"]] for one in found["violations"]} == {}
    assert len(found["passes"]) > 20


def test_tests_are_searched_and_those_of_a_state_hidden(opened: Callable[..., Page]) -> None:
    page = opened(history_page(SERIES, CHANGES))
    page.evaluate("document.querySelector('#filters input[value=worse]').click()")
    shown = page.evaluate("[...document.querySelectorAll('details.test:not([hidden])')].map(one => one.id)")
    assert [name.startswith("test_old.py") for name in shown] == [True]
    assert page.evaluate("document.getElementById('shown').textContent") == "1 of 3 tests shown"


def test_a_pointer_reads_the_run_on_the_colour_of_the_page(opened: Callable[..., Page]) -> None:
    page = opened(history_page(SERIES[:1], CHANGES))
    page.scheme("dark")
    page.settle()
    box = page.evaluate("document.querySelector('figure svg').getBoundingClientRect().toJSON()")
    x, y = box["x"] + box["width"] * 0.8, box["y"] + box["height"] * 0.5
    page.send("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)
    tip = "document.querySelector('figure svg > g:last-child')"
    page.wait(f"{tip}.textContent")
    assert "commit: " in page.evaluate(f"{tip}.textContent")
    card = page.evaluate("getComputedStyle(document.querySelector('details.test')).backgroundColor")
    assert page.evaluate(f"getComputedStyle({tip}.querySelector('path')).fill") == card


@pytest.mark.parametrize("levels", [[1.0], [5e6, 5e6], [1e-30, 1e29], [1e6] * 900])
def test_odd_courses_are_drawn(opened: Callable[..., Page], levels: list[float]) -> None:
    page = opened(history_page([series_from("rtm", levels, error=0.0)], ()))
    assert page.evaluate("document.querySelectorAll('figure svg path, figure svg circle').length") > 0
    assert "NaN" not in page.evaluate("document.querySelector('figure svg').outerHTML")
    assert page.messages == []
