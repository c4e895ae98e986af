"""The flame graph in a real browser: it is drawn, zoomed, searched and read aloud, by pointer and by keyboard."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from support.profiles import present_alone, slower_normalize
from support.reported import report
from support.services.browser import Browser, chromium
from support.synthetic import result

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from support.services.browser import Page

    from pytest_mlpatterns.records.profile import ProfileRecord

PATH = chromium()

pytestmark = [
    pytest.mark.processes,
    pytest.mark.skipif(PATH is None, reason="no Chromium is installed: apt-get install chromium"),
]

BARS = """Object.fromEntries([...document.querySelectorAll(".flame .frame")].map(one => {
  const box = one.querySelector("rect").getBoundingClientRect();
  return [one.textContent, { left: box.left, top: box.top, width: box.width, kind: one.classList[1],
    fill: getComputedStyle(one.querySelector("rect")).fill, label: one.getAttribute("aria-label") }];
}))"""
FOCUSED = "document.activeElement.textContent"
SAID = "document.querySelector('.flame .said').textContent"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    assert PATH is not None
    with Browser.start(PATH, tmp_path_factory.mktemp("browser")) as running:
        yield running


@pytest.fixture
def opened(browser: Browser, tmp_path: Path) -> Iterator[Callable[..., Page]]:
    """Opens the report of one test with this profile, and waits until its graph is drawn."""
    pages: list[Page] = []

    def open_report(profile: ProfileRecord, *, width: int = 1280) -> Page:
        path = tmp_path / "report.html"
        path.write_text(report([result(profile=profile)]), encoding="utf-8")
        page = browser.open(path.as_uri(), width=width, height=900)
        pages.append(page)
        page.evaluate("document.querySelector('.flame').scrollIntoView()")
        page.wait("document.querySelector('.flame .frame')")
        page.settle()
        return page

    yield open_report
    for page in pages:
        browser.close(page)


def bars(page: Page) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = page.evaluate(BARS)
    return found


@pytest.mark.parametrize("width", [1280, 390])
def test_a_bar_is_as_wide_as_its_time_and_below_its_caller(opened: Callable[..., Page], width: int) -> None:
    page = opened(slower_normalize(), width=width)
    drawn = bars(page)
    whole = drawn["all"]["width"]
    assert whole > 0.8 * width
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert drawn["normalize"]["width"] == pytest.approx(whole * 2_700 / 5_339, rel=0.01)
    assert drawn["sort"]["top"] == pytest.approx(drawn["normalize"]["top"] + 20, abs=0.5)
    assert drawn["normalize"]["left"] <= drawn["sort"]["left"] + 0.5
    assert "dumps" not in drawn  # it is gone: no time now
    assert page.messages == []


def test_colours_show_the_change_in_light_and_dark(opened: Callable[..., Page]) -> None:
    page = opened(slower_normalize())
    kinds = {name: bar["kind"] for name, bar in bars(page).items()}
    assert kinds["normalize"] == "slower"
    assert kinds["sort"] == "new"
    assert kinds["wire: decode"] == "same"
    fills = []
    for scheme in ("light", "dark"):
        page.scheme(scheme)
        fills.append({name: bar["fill"] for name, bar in bars(page).items()})
    assert fills[0]["normalize"] != fills[0]["wire: decode"]
    assert all(fills[0][name] != fills[1][name] for name in fills[0])


def test_the_switch_shows_the_other_side_with_what_is_gone(opened: Callable[..., Page]) -> None:
    page = opened(slower_normalize())
    page.evaluate("document.querySelector('.flame input[value=before_ns]').click()")
    page.wait("[...document.querySelectorAll('.flame .frame')].some(one => one.textContent === 'dumps')")
    drawn = bars(page)
    assert drawn["dumps"]["kind"] == "faster"
    assert "sort" not in drawn
    assert drawn["normalize"]["width"] == pytest.approx(drawn["all"]["width"] * 400 / 3_000, rel=0.01)


def test_the_keyboard_goes_from_bar_to_bar_zooms_and_searches(opened: Callable[..., Page]) -> None:
    page = opened(slower_normalize())
    page.evaluate("document.querySelector('.flame .frame[tabindex=\"0\"]').focus()")
    path = []
    for key in ("ArrowDown",) * 6:
        page.press(key)
        path.append(page.evaluate(FOCUSED))
    assert path == ["worker", "HTTP server", "model", "Digits.predict", "normalize", "sort"]
    page.press("ArrowUp")
    assert page.evaluate(FOCUSED) == "normalize"
    assert page.evaluate(SAID) == "normalize (model.py:41): 400 µs → 2.70 ms per request, +2.30 ms"
    page.press("ArrowRight")
    assert page.evaluate(FOCUSED) == "classify"
    page.press("ArrowLeft")
    page.press("Enter")
    drawn = bars(page)
    assert drawn["normalize"]["width"] == pytest.approx(drawn["all"]["width"], abs=1)
    assert "classify" not in drawn
    page.press("Escape")
    assert page.evaluate(FOCUSED) == "all"
    assert "classify" in bars(page)
    page.press("/")
    page.send("Input.insertText", text="NUMPY")
    page.wait("document.querySelector('.flame .found')")
    assert page.evaluate("[...document.querySelectorAll('.flame .found')].map(one => one.textContent)") == ["sort"]
    assert page.evaluate(SAID) == "1 found: 2.28 ms of 5.34 ms per request, 42.7 %"


def test_a_click_zooms_and_a_button_goes_back(opened: Callable[..., Page]) -> None:
    page = opened(slower_normalize())
    page.evaluate("""[...document.querySelectorAll('.flame .frame')].find(one => one.textContent === 'classify')
      .dispatchEvent(new MouseEvent('click', { bubbles: true }))""")
    assert "normalize" not in bars(page)
    page.evaluate("document.querySelector('.flame .controls button').click()")
    assert "normalize" in bars(page)


def test_a_screen_reader_gets_a_tree_with_times(opened: Callable[..., Page]) -> None:
    page = opened(slower_normalize())
    assert page.evaluate("document.querySelector('.flame svg').getAttribute('role')") == "tree"
    items = "[...document.querySelectorAll('.flame [role=treeitem]')]"
    assert page.evaluate(f"{items}.map(one => one.ariaLevel)") == ["1", "2", "3", "4", "4", "5", "6", "7", "6", "4"]
    assert page.evaluate(f"{items}.filter(one => one.tabIndex === 0).length") == 1
    assert bars(page)["sort"]["label"] == (
        "sort (numpy/_core/fromnumeric.py:900): 0 ns → 2.28 ms per request, +2.28 ms"
    )


def test_one_side_alone_is_drawn_without_colours(opened: Callable[..., Page]) -> None:
    page = opened(present_alone())
    drawn = bars(page)
    assert {bar["kind"] for bar in drawn.values()} == {"same"}
    assert drawn["normalize"]["label"] == "normalize (model.py:41): 420 µs per request"
    assert page.messages == []


def test_paper_has_the_graph_and_the_table_but_no_controls(opened: Callable[..., Page]) -> None:
    page = opened(slower_normalize())
    page.send("Emulation.setEmulatedMedia", media="print")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert bars(page)["all"]["width"] == pytest.approx(690, abs=1)
    shown = "getComputedStyle(document.querySelector('.flame .controls')).display"
    assert page.evaluate(shown) == "none"
    assert page.evaluate("document.querySelector('table.functions').getBoundingClientRect().height") > 0
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    page.send("Emulation.setEmulatedMedia", media="")
    page.wait("document.querySelector('.flame .frame rect').getBoundingClientRect().width > 700")
