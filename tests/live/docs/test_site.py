"""The documentation as a site: it builds without a warning, its links hold, and its search finds what it should."""

import functools
import http.server
import subprocess
import sys
import threading
from collections.abc import Iterator
from html.parser import HTMLParser
from importlib.resources import files
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from support.pages import ROOT
from support.project import clean_environment
from support.services.browser import Browser, Page, chromium

pytestmark = pytest.mark.processes

CHROMIUM = chromium()
FILL_IN = """(() => {{
  const field = document.querySelector("input[name=q]");
  field.value = "{words}";
  return `${{field.form.action}}?${{new URLSearchParams(new FormData(field.form))}}`;
}})()"""
"""Fills in the search, and returns the address to which its form leads."""
SEARCHED = "document.querySelector('#search-results .search-summary')?.innerText.includes('found')"
FOUND = "[...document.querySelectorAll('#search-results li a')].map(link => link.getAttribute('href').split(/[?#]/)[0])"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built site, with every warning an error."""
    target = tmp_path_factory.mktemp("site")
    options = ("--nitpicky", "--fail-on-warning", "--keep-going", "--quiet", "-d", str(target / "doctrees"))
    environment = {name: value for name, value in clean_environment().items() if not name.startswith("COVERAGE_")}
    done = subprocess.run(
        [sys.executable, "-m", "sphinx", *options, str(ROOT / "docs"), str(target / "html")],
        capture_output=True,
        encoding="utf-8",
        env=environment,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return target / "html"


class Links(HTMLParser):
    """What a page links to, and the anchors that it has."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.targets: set[str] = set()
        self.anchors: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name == "id" and value:
                self.anchors.add(value)
            elif name in ("href", "src") and value:
                self.targets.add(value)


def test_links_and_anchors_of_the_site_hold(site: Path) -> None:
    pages = {path: Links(path.read_text(encoding="utf-8")) for path in site.glob("**/*.html")}
    broken = []
    for path, links in pages.items():
        for target in links.targets:
            parts = urlsplit(target)
            if parts.scheme or parts.netloc:
                continue
            found = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            anchor_holds = found not in pages or not parts.fragment or unquote(parts.fragment) in pages[found].anchors
            if not found.exists() or not anchor_holds:
                broken.append(f"{path.relative_to(site)}: {target}")
    assert len(pages) > 25
    assert broken == []


def test_every_page_is_reached_from_the_start(site: Path) -> None:
    pages = {path.relative_to(site).as_posix() for path in site.glob("**/*.html")}
    start = Links((site / "index.html").read_text(encoding="utf-8"))
    generated = {"index.html", "genindex.html", "search.html", "py-modindex.html"}
    assert pages - generated <= {urlsplit(target).path for target in start.targets}


class Quiet(http.server.SimpleHTTPRequestHandler):
    """Serves files without a log."""

    def log_message(self, *args: object) -> None:
        """Nothing is logged."""


@pytest.fixture(scope="module")
def address(site: Path) -> Iterator[str]:
    """The address of a server of the site."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=site)) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    if CHROMIUM is None:
        pytest.skip("no Chromium is installed: apt-get install chromium")
    with Browser.start(CHROMIUM, tmp_path_factory.mktemp("browser")) as running:
        yield running


@pytest.fixture
def start(browser: Browser, address: str) -> Iterator[Page]:
    """The start of the site, opened."""
    page = browser.open(f"{address}/index.html")
    yield page
    browser.close(page)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("alpha spending", {"explanation/verdicts.html", "glossary.html"}),
        ("noisy", {"how-to/noisy-machine.html", "glossary.html"}),
        ("gRPC", {"reference/wires.html"}),
    ],
)
def test_search_of_the_site_finds_the_page(browser: Browser, start: Page, words: str, expected: set[str]) -> None:
    asked = start.evaluate(FILL_IN.format(words=words))
    browser.load(start, asked)
    start.wait(SEARCHED)
    assert expected <= set(start.evaluate(FOUND))


@pytest.mark.parametrize("name", ["index", "how-to/failure", "reference/files"])
def test_axe_finds_no_violation(browser: Browser, start: Page, address: str, name: str) -> None:
    browser.load(start, f"{address}/{name}.html")
    start.evaluate(files("axe_core_python").joinpath("axe.min.js").read_text(encoding="utf-8"))
    found = start.evaluate("axe.run({ resultTypes: ['violations'] })")
    assert {one["id"]: [node["html"] for node in one["nodes"]] for one in found["violations"]} == {}


def test_pages_ask_for_nothing_outside_of_the_site(start: Page, address: str) -> None:
    assert {request for request in start.requests if not request.startswith((address, "data:"))} == set()
    assert start.messages == []
