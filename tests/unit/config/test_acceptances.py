"""Acceptances as users write them: in the marker and in the file."""

import datetime
import re
from pathlib import Path

import pytest
from support.each_row import each_row

from pytest_mlpatterns.analysis.metrics.definitions import METRICS, comparable_metrics
from pytest_mlpatterns.config.acceptances import read_accept, read_acceptances
from pytest_mlpatterns.errors import SettingError
from pytest_mlpatterns.records.verdict import Acceptance, rounded_ceiling

SOURCE = "perf(accept=...)"
FILE = Path("perf-accepted.toml")
TABLE = """
[[accepted]]
test = "tests/perf/*"
metric = "rtm"
ceiling = "60 %"
reason = "larger model"
"""


@each_row(
    ("text", "expected"),
    ("rtm +60 %: larger model, #123", Acceptance("rtm", 0.6, "larger model, #123")),
    ("cpu_per_request+7.5%:why", Acceptance("cpu_per_request", 0.075, "why")),
    ("ttft:p95 +300 %: a: b", Acceptance("ttft:p95", 3.0, "a: b")),
    ("rtm +60 %: larger, until 2026-12-31", Acceptance("rtm", 0.6, "larger", until=datetime.date(2026, 12, 31))),
)
def test_a_marker_says_it_in_a_line(text: str, expected: Acceptance) -> None:
    assert read_accept(text, SOURCE) == (expected,)
    (again,) = read_accept(str(expected), SOURCE)
    assert (again.metric, again.ceiling, again.until) == (expected.metric, expected.ceiling, expected.until)


def test_what_a_failure_of_any_metric_advises_can_be_written() -> None:
    for metric in comparable_metrics():
        change = 0.97 if METRICS[metric].better == "higher" or metric == "error_rate" else 2.53
        (accepted,) = read_accept(f"{metric} +{rounded_ceiling(change):g} %: why", SOURCE)
        assert accepted.ceiling >= change, metric


def test_a_marker_may_have_several_or_none() -> None:
    assert [one.metric for one in read_accept(["rtm +60 %: a", "p95 +90 %: b"], SOURCE)] == ["rtm", "p95"]
    assert read_accept(None, SOURCE) == ()


@each_row(
    ("value", "message"),
    (3, "perf(accept=...) is 3, expected text or a list of texts"),
    ([3], "is 3, expected a metric, a ceiling and a reason"),
    ("rtm", "expected a metric, a ceiling and a reason; write accept="),
    ("rtm +60 %:", "expected a metric, a ceiling and a reason"),
    ("rmt +60 %: why", "accepts 'rmt', did you mean rtm? expected one of rtm"),
    ("latency +60 %: why", "accepts 'latency', did you mean rtm? expected one of rtm"),
    ("throughput +160 %: why", "expected at most 1 (100 %)"),
    ("rtm +0 %: why", "expected more than 0"),
    ("rtm +60 %: why, until 2026-02-31", "holds until 2026-02-31, which is no day"),
    (["rtm +60 %: a", "rtm +70 %: b"], "accepts rtm twice"),
    (
        "rtm +60 %: larger, until 2026-12-31, #123",
        "has 'until 2026-12-31' inside its reason, expected the day at its end; write accept=",
    ),
    ("rtm +60 %: larger (until 2026-12-31)", "has 'until 2026-12-31' inside its reason"),
    ("rtm +60 %: larger, Until: 2026-12-31", "has 'Until: 2026-12-31' inside its reason"),
    ("rtm +60 %: until 2026-12-31", "has 'until 2026-12-31' inside its reason"),
)
def test_a_mistake_in_the_marker_is_named(value: object, message: str) -> None:
    with pytest.raises(SettingError, match=re.escape(message)):
        read_accept(value, SOURCE)


def test_a_file_has_a_table_for_each() -> None:
    text = f"# ours\n{TABLE}issue = '#1'\nsince = '1a2b3c4'\nuntil = 2026-12-31\n{TABLE}"
    assert read_acceptances(FILE, "") == ()
    plain = Acceptance("rtm", 0.6, "larger model", "tests/perf/*")
    full = Acceptance(
        "rtm", 0.6, "larger model", "tests/perf/*", issue="#1", since="1a2b3c4", until=datetime.date(2026, 12, 31)
    )
    assert read_acceptances(FILE, text) == (full, plain)


@each_row(
    ("text", "message"),
    ("[[accepted", "cannot be read"),
    ("a = " + "[" * 5_000, "cannot be read: it is nested too deeply; expected TOML with [[accepted]] tables"),
    (TABLE + "a." * 20_000 + "a = 1\n", "cannot be read: line 7 has more than 200 dots; expected TOML"),
    ("[accepted]\n", "has accepted, expected [[accepted]] tables and nothing else"),
    ("[[acepted]]\n", "has acepted, expected [[accepted]] tables"),
    ("accepted = [3]\n", "table 1 is 3, expected a table"),
    (TABLE + "unti = 3\n", "table 1 has unti, did you mean until? expected some of test"),
    (TABLE.replace('reason = "larger model"', ""), 'table 1 has no reason, expected text; write reason = "…"'),
    (TABLE.replace('"60 %"', '"much"'), "table 1: ceiling is 'much'"),
    (TABLE.replace('"60 %"', '"60"'), "table 1: ceiling is '60', expected at most 1 (100 %); write 0.6 or \"60%\""),
    (TABLE.replace('"60 %"', "60"), "table 1: ceiling is 60, expected at most 1 (100 %)"),
    (TABLE + 'until = "2026-12-31"\n', "write until = 2026-12-31, unquoted"),
    (TABLE + "issue = 3\n", "has issue = 3, expected text"),
    (
        TABLE.replace("larger model", "larger model until 2026-12-31"),
        "has 'until 2026-12-31' inside its reason, expected the day in a line of its own; write until = 2026-12-31",
    ),
)
def test_a_mistake_in_the_file_is_named(text: str, message: str) -> None:
    with pytest.raises(SettingError, match=re.escape(message)) as caught:
        read_acceptances(FILE, text)
    assert "perf-accepted.toml" in str(caught.value)


def test_a_figure_of_answers_is_accepted_where_results_named_it() -> None:
    text = TABLE.replace('"rtm"', '"queue:p95"').replace("60 %", "150 %")
    with pytest.raises(SettingError, match="accepts 'queue:p95', did you mean queue_"):
        read_acceptances(FILE, text)
    (found,) = read_acceptances(FILE, f'{text}since = "0a1b2c3d4e5f"\n')
    assert (found.metric, found.ceiling) == ("queue:p95", 1.5)
