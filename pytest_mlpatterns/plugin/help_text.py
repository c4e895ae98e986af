"""The text of ``--perf-help``: what a test can write, with one line for each name."""

import inspect
import shutil
import sys
from collections.abc import Mapping, Sequence
from textwrap import shorten

import pytest

import pytest_mlpatterns
from pytest_mlpatterns import patterns
from pytest_mlpatterns.analysis.metrics.definitions import METRICS
from pytest_mlpatterns.analysis.metrics.metric import Metric, Role
from pytest_mlpatterns.config.arguments import ARGUMENT_HELP
from pytest_mlpatterns.judging.perf import Perf
from pytest_mlpatterns.patterns import Pattern
from pytest_mlpatterns.plugin import entry
from pytest_mlpatterns.plugin.name_hints import FIXTURES
from pytest_mlpatterns.plugin.terminal import Terminal
from pytest_mlpatterns.reports.text.comparison import MEANINGS
from pytest_mlpatterns.reports.text.terminal_text import wrapped

_WORDS = {
    "median latency": "median latency, the response time median (RTM)",
    "TTFT": "time to first token (TTFT)",
    "ITL": "inter-token latency (ITL)",
    "TPOT": "time per output token (TPOT)",
    "capacity (NMRT)": "capacity, the number of requests at max throughput (NMRT)",
    "CPU share (ASL)": "CPU share of the machine, the average system load (ASL)",
    "PC": MEANINGS["PC"],
    "SC": "scalability coefficient, NMRT × HSX × ASL",
    "HSX": f"{MEANINGS['HSX']}, of HSXt, HSXe and HSXc",
    "HSXt": "time of scaling out, as a share",
    "HSXe": "efficiency of doubling the replicas, as a share",
    "HSXc": "cost of doubling the replicas, as a share",
}
"""Labels of metrics, and abbreviations in them."""
_GAP = 2  # Spaces between the two columns
_NARROWEST = 40  # Least width of the explanations


def help_lines(width: int) -> list[str]:
    """The lines that ``--perf-help`` prints."""
    ours = {name: found for name in patterns.__all__ if (found := getattr(patterns, name)) is not Pattern}
    methods = {
        name: method
        for name, method in inspect.getmembers(Perf, inspect.isfunction)
        if name.startswith(("assert_", "measure_")) or name == "predict"
    }
    fixtures = {name: inspect.unwrap(getattr(entry, name)) for name in FIXTURES}
    sections = (
        ("Fixtures: define perf_model and perf_payload, or perf_target; ask for perf", _summaries(fixtures)),
        ("Arguments of the marker: @pytest.mark.perf(concurrency=4, ...)", ARGUMENT_HELP.items()),
        ("Serving patterns: pattern=Cached() | Batched()", _summaries(ours)),
        ("Assertions and measurements: perf.assert_rtm_below('50ms')", _summaries(methods)),
        (
            "Metrics: names in compare=, tolerance= and --perf-rank; lower is better if nothing else is written",
            [(name, _meaning(metric)) for name, metric in METRICS.items()],
        ),
    )
    lines = [f"pytest-mlpatterns {pytest_mlpatterns.__version__}"]
    for title, rows in sections:
        lines += ["", title, *_table(list(rows), width)]
    return [*lines, "", "Options: pytest --help. A first test: python -m pytest_mlpatterns new"]


def print_help(config: pytest.Config) -> None:
    """Print the help to the terminal of a run that collects nothing."""
    terminal = Terminal(config)  # as wide as a run's, which does not begin
    sys.stdout.write("\n".join(map(terminal.spell, help_lines(shutil.get_terminal_size().columns))) + "\n")


def _table(rows: Sequence[tuple[str, str]], width: int) -> list[str]:
    """Names, and what each means, which may go on below."""
    indent = 2 + max(len(name) for name, _ in rows) + _GAP
    room = max(width, indent + _NARROWEST)
    return [line for name, text in rows for line in wrapped(text, room, f"  {name:<{indent - 2}}", others=" " * indent)]


def _meaning(metric: Metric) -> str:
    words = _WORDS.get(metric.label) or " ".join(_WORDS.get(word, word) for word in metric.label.split(" "))
    better = "; higher is better" if metric.better == "higher" else ""
    judged = "; compared if it is counted" if metric.is_counted else "; compared by default"
    return f"{words}{better}{judged if metric.roles & {Role.PRIMARY, Role.GUARD} else ''}"


def _summaries(found: Mapping[str, object]) -> list[tuple[str, str]]:
    """Each name with the first paragraph of its docstring, up to its first full stop."""
    paragraphs = {name: (inspect.getdoc(one) or "").partition("\n\n")[0] for name, one in found.items()}
    texts = {name: " ".join(text.split()).replace("``", "") for name, text in paragraphs.items()}
    return [(name, shorten(text.partition(". ")[0].rstrip("."), 160, placeholder=" …")) for name, text in texts.items()]
