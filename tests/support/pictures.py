"""The pictures of README and documentation: ``make pictures``. Made of declared results, so nothing is measured."""

import base64
import sys
import tempfile
from collections.abc import Sequence
from html import escape
from pathlib import Path

from msgspec.structs import replace

from pytest_mlpatterns.analysis.metrics.definitions import LOCATIONS, METRICS
from pytest_mlpatterns.analysis.verdicts.tolerances import with_medians
from pytest_mlpatterns.analysis.verdicts.verdicts import judge_change, judge_limit
from pytest_mlpatterns.records.launch import Estimate, LaunchValue
from pytest_mlpatterns.records.result import TestResult
from pytest_mlpatterns.records.result_parts import Reference
from pytest_mlpatterns.records.verdict import Verdict
from pytest_mlpatterns.reports.html.history_page import history_page
from pytest_mlpatterns.reports.text.summary_table import summary_lines
from pytest_mlpatterns.reports.text.terminal_text import Line, Span, Style, line, width_of
from support.histories import CHANGES, SERIES
from support.profiles import slower_normalize
from support.reported import report
from support.services.browser import Browser, chromium
from support.synthetic import MS, counterpart, make_setup, result

_COLUMNS = 80
_PAGE = (1172, 1400)
_HISTORY_HEIGHT = 960
_FLAME_HEIGHT = 560
_LETTER, _LINE, _MARGIN = 8.4, 19, 16
"""Size of a letter and of the border, in pixels."""
_COLOURS = {
    Style.PLAIN: "#e6e6e6",
    Style.STRONG: "#ffffff",
    Style.FAINT: "#9aa4ad",
    Style.GOOD: "#7ddf8a",
    Style.BAD: "#ff8f7a",
    Style.OPEN: "#f2cf63",
}


def declared() -> list[TestResult]:
    """A test that got slower, one that did not, and one under another pattern."""
    slower = tuple(_change(name, now, before) for name, now, before in _SLOWER)
    return [
        result(
            "test_perf.py::test_digits", passed=False, verdicts=slower, reference=_with_mean(3.29), metrics=_METRICS
        ),
        result(
            "test_perf.py::test_search",
            verdicts=(_change("rtm", (4.11, 4.13), (4.1, 4.2, 4.1)), _LIMIT),
            reference=counterpart(4.13 * MS),
        ),
        result(
            "test_perf.py::test_ranking",
            setup=make_setup("cached(ttl=1min)|batched(max_batch_size=8)"),
            verdicts=(_change("rtm", (4.11, 4.12), (6.1, 6.2, 6.1)),),
            reference=counterpart(6.1 * MS),
        ),
    ]


_MEAN = 1.03
"""Mean latencies of the declared services, as multiples of their medians."""
_SLOWER = (
    ("rtm", (4.11, 4.13, 4.12), (3.28, 3.3, 3.29)),
    ("throughput", (1230, 1238, 1234), (1540, 1551, 1546)),
    ("p95", (9.8, 9.9, 9.9), (8.1, 8.2, 8.1)),
    ("cpu_per_request", (0.82, 0.83, 0.83), (0.66, 0.66, 0.67)),
    ("peak_memory", (66.1, 66.2, 66.1), (65.8, 65.9, 65.9)),
    ("cold_start", (212, 219, 214), (209, 214, 211)),
)
"""Metrics of the test that got slower: now, and before; times in milliseconds, memory in MiB."""
_METRICS = {**result().metrics, "latency_mean": (_MEAN * 4.12 * MS, _MEAN * 4.06 * MS, _MEAN * 4.18 * MS)}
_SCALE = {"throughput": 1.0, "peak_memory": 2.0**20}
_LIMIT = judge_limit(METRICS["rtm"], Estimate(4.12 * MS, 4.05 * MS, 4.19 * MS), 20 * MS)


def _change(name: str, now: Sequence[float], before: Sequence[float]) -> Verdict:
    scale = _SCALE.get(name, MS)

    def sides(factor: float) -> list[list[LaunchValue]]:
        return [[LaunchValue(factor * value * scale, 0.005) for value in values] for values in (now, before)]

    if name not in LOCATIONS:
        return judge_change(METRICS[name], *sides(1.0), tolerance=0.10)
    present, reference = sides(1.0)
    judged = judge_change(LOCATIONS[name], *sides(_MEAN), tolerance=0.10)
    return with_medians(judged, METRICS[name], before=reference, now=present)


def _with_mean(rtm_ms: float) -> Reference:
    """A baseline with this median, and its mean."""
    found = counterpart(rtm_ms * MS)
    mean_ns = _MEAN * rtm_ms * MS
    return replace(found, metrics={**found.metrics, "latency_mean": (mean_ns, 0.99 * mean_ns, 1.01 * mean_ns)})


def terminal_svg(lines: Sequence[Line]) -> str:
    """Lines of a terminal as a picture that is sharp at every size, and whose text can be selected."""
    width = round(2 * _MARGIN + _COLUMNS * _LETTER)
    height = 2 * _MARGIN + len(lines) * _LINE
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        'font-family="ui-monospace, DejaVu Sans Mono, Menlo, Consolas, monospace" font-size="14" role="img">',
        f'<rect width="{width}" height="{height}" rx="8" fill="#15191e"/>',
    ]
    for number, spans in enumerate(lines, 1):
        column = 0
        for span in spans:
            parts += _word(span, column, _MARGIN + number * _LINE - 5)
            column += width_of(span.text)
    return "\n".join([*parts, "</svg>\n"])


def _word(span: Span, column: int, y: int) -> list[str]:
    """A span at its place; its length is fixed, since letters of another font may be wider."""
    text = span.text.strip(" ")
    if not text:
        return []
    x = _MARGIN + (column + len(span.text) - len(span.text.lstrip(" "))) * _LETTER
    weight = ' font-weight="bold"' if span.style in (Style.STRONG, Style.BAD) else ""
    return [
        f'<text x="{x:.1f}" y="{y}" textLength="{width_of(text) * _LETTER:.1f}" fill="{_COLOURS[span.style]}"{weight} '
        f'xml:space="preserve">{escape(text)}</text>'
    ]


def main(folder: Path) -> None:
    """Write ``terminal.svg``, ``report.png``, ``history.png`` and ``flame-graph.png``."""
    results = declared()
    shown = [
        line("$ pytest", Style.STRONG),
        line(f"{'-' * 33} performance {'-' * 34}"),
        *summary_lines(results, _COLUMNS),
    ]
    (folder / "terminal.svg").write_text(terminal_svg(shown), encoding="utf-8")
    browser = chromium()
    if browser is None:
        raise SystemExit("report.png needs Chromium: apt-get install chromium")
    with tempfile.TemporaryDirectory() as directory, Browser.start(browser, Path(directory) / "profile") as running:
        file = Path(directory) / "report.html"
        file.write_text(report(results[:1]), encoding="utf-8")
        page = running.open(file.as_uri(), width=_PAGE[0], height=_PAGE[1])
        page.evaluate("document.querySelectorAll('details').forEach(part => part.open = true)")
        page.settle()
        (folder / "report.png").write_bytes(base64.b64decode(page.screenshot()))
        shown = [series for series in SERIES if "digits" in series.test]
        file.write_text(history_page(shown, CHANGES, "perf-history.jsonl"), encoding="utf-8")
        page = running.open(file.as_uri(), width=_PAGE[0], height=_HISTORY_HEIGHT)
        page.evaluate("document.getElementById('overview')?.closest('section').remove()")
        page.settle()
        (folder / "history.png").write_bytes(base64.b64decode(page.screenshot()))
        file.write_text(report([result(profile=slower_normalize())]), encoding="utf-8")
        page = running.open(file.as_uri(), width=_PAGE[0], height=_FLAME_HEIGHT)
        page.evaluate("document.querySelectorAll('details').forEach(part => part.open = true)")
        page.evaluate("document.querySelector('.flame').scrollIntoView()")
        page.settle()
        (folder / "flame-graph.png").write_bytes(base64.b64decode(page.screenshot()))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
