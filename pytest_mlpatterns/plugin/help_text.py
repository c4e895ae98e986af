"""The text of ``--perf-help``: what a test can write, with one line for each name.

The nearest known name for one that a user misspelled: an option of ours, or a fixture.
"""

from __future__ import annotations

import inspect
import shutil
import sys
from textwrap import shorten
from typing import TYPE_CHECKING

import pytest

import pytest_mlpatterns
from pytest_mlpatterns import patterns
from pytest_mlpatterns.analysis.metrics.definitions import METRICS
from pytest_mlpatterns.analysis.metrics.metric import Metric, Role
from pytest_mlpatterns.config.arguments import ARGUMENT_HELP
from pytest_mlpatterns.judging.perf import Perf
from pytest_mlpatterns.patterns import Pattern
from pytest_mlpatterns.plugin import entry
from pytest_mlpatterns.plugin.terminal import Terminal
from pytest_mlpatterns.reports.text.terminal_text import wrapped
from pytest_mlpatterns.wording import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from types import ModuleType


FIXTURES = ("perf", "perf_deploy", "perf_deploy_session", "perf_model", "perf_payload", "perf_target")
"""The fixtures of this plugin."""
_PREFIX = "--perf-"
_REMOVED = {"calibrate": "since each launch shows how fast the machine is"}
"""Options of earlier versions, by name, and why they were removed."""
_PLURAL = 0.9  # Likeness from which an argument of the marker is rather an option: ``pattern`` of ``patterns`` has 0.93


def require_known_options(unknown: Iterable[str], known: Sequence[str]) -> None:
    """Refuse an option that looks like one of ours, or was one.

    Raises pytest.UsageError: the message names whether the key was removed, is almost one of ours, is an argument of
    the marker, or resembles none.
    """
    for argument in unknown:
        option = argument.partition("=")[0]
        name = option.removeprefix(_PREFIX)
        if name != option and name in _REMOVED:
            raise pytest.UsageError(f"{option} was removed, {_REMOVED[name]}; leave it out")
        if name != option and (hint := _hint(name, known, f"{_PREFIX}{{}}")):
            raise pytest.UsageError(f"{option} is not an option; {hint}pytest --help lists all")


def require_known_keys(unknown: Iterable[str], known: Sequence[str]) -> None:
    """Refuse keys of the ini file that begin like ours and that no loaded plugin has.

    ``known``: our keys, without ``perf_``. Raises pytest.UsageError: one of them was removed, is almost one of ours, or
    is an argument of the marker; the message names it.
    """
    for key in unknown:
        name = key.removeprefix("perf_")
        if name in _REMOVED:
            raise pytest.UsageError(f"{key} was removed, {_REMOVED[name]}; delete the line")
        hint = _hint(name, known, "perf_{}") or "no loaded plugin has it; delete the line, or load that plugin; "
        raise pytest.UsageError(f"{key} is not an ini key; {hint}pytest --help lists all")


def _hint(name: str, known: Sequence[str], form: str) -> str:
    """What was meant by a name that is no option; empty if it is none of ours, so that another plugin may have it."""
    argument = name.replace("-", "_")
    marker = f"{argument} is set in the marker: pytest.mark.perf({argument}=...); " if argument in ARGUMENT_HELP else ""
    return did_you_mean(name, known, form, likeness=_PLURAL) or marker or did_you_mean(name, known, form)


def fixture_hint(name: str) -> str:
    """The question whether a fixture of ours was meant; empty if none is similar."""
    return did_you_mean(name, FIXTURES).rstrip()


def misspelled_fixture(wanted: str, modules: Iterable[ModuleType]) -> str:
    """A name in the test file or a conftest file that is probably a misspelled fixture; empty if none."""
    import difflib

    names = [name for module in modules for name in vars(module) if name not in FIXTURES and "perf" in name]
    return next(iter(difflib.get_close_matches(wanted, names, n=1, cutoff=0.8)), "")


_FIXTURES = ("perf_model", "perf_payload", "perf_target", "perf", "perf_deploy", "perf_deploy_session")
_WORDS = {
    "RTM": "response time median (RTM)",
    "TTFT": "time to first token (TTFT)",
    "ITL": "inter-token latency (ITL)",
    "TPOT": "time per output token (TPOT)",
    "NMRT": "requests per second at max throughput (NMRT)",
    "ASL": "average system load (ASL)",
    "PC": "performance coefficient, 1 / (RTM × ASL)",
    "SC": "scalability coefficient, NMRT × HSX × ASL",
    "HSX": "horizontal scaling index, of HSXt, HSXe and HSXc",
    "HSXt": "time of scaling out, as a share",
    "HSXe": "efficiency of doubling the replicas, as a share",
    "HSXc": "cost of doubling the replicas, as a share",
}
"""Abbreviations in the labels of metrics."""
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
    fixtures = {name: inspect.unwrap(getattr(entry, name)) for name in _FIXTURES}
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
    terminal = Terminal(config)  # whose width is that of a run, which does not begin
    sys.stdout.write("\n".join(map(terminal.spell, help_lines(shutil.get_terminal_size().columns))) + "\n")


def _table(rows: Sequence[tuple[str, str]], width: int) -> list[str]:
    """Names, and what each means, which may go on below."""
    indent = 2 + max(len(name) for name, _ in rows) + _GAP
    room = max(width, indent + _NARROWEST)
    return [line for name, text in rows for line in wrapped(text, room, f"  {name:<{indent - 2}}", others=" " * indent)]


def _meaning(metric: Metric) -> str:
    words = " ".join(_WORDS.get(word, word) for word in metric.label.split(" "))
    better = "; higher is better" if metric.better == "higher" else ""
    return f"{words}{better}{'; compared by default' if metric.roles & {Role.PRIMARY, Role.GUARD} else ''}"


def _summaries(found: Mapping[str, object]) -> list[tuple[str, str]]:
    """Each name with the first paragraph of its docstring, up to its first full stop."""
    paragraphs = {name: (inspect.getdoc(one) or "").partition("\n\n")[0] for name, one in found.items()}
    texts = {name: " ".join(text.split()).replace("``", "") for name, text in paragraphs.items()}
    return [(name, shorten(text.partition(". ")[0].rstrip("."), 160, placeholder=" …")) for name, text in texts.items()]
