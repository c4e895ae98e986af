"""In a narrow terminal the names of patterns stay whole: what does not fit goes on below."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.synthetic import PROPERTY, make_setup, result

from pytest_mlpatterns.reports.text.summary_table import summary_lines
from pytest_mlpatterns.reports.text.terminal_text import Span, TextColumn, folded, width_of

LONG = "cached(ttl=1min)|batched(max_batch_size=8, max_wait=5ms)"
PATTERNS = ("replicated(replicas=2)", LONG, "microservice", "single")


def rows(width: int) -> list[str]:
    tests = [result(f"perf/test_perf.py::test_under_load[{one}]", setup=make_setup(one)) for one in PATTERNS]
    return ["".join(span.text for span in line) for line in summary_lines(tests, width)]


@pytest.mark.parametrize("width", [70, 80, 99])
def test_patterns_are_readable_in_a_narrow_terminal(width: int) -> None:
    lines = rows(width)
    text = "\n".join(lines)
    assert all(name in text for name in ("replicated", "cached", "batched", "microservice", "single"))
    assert "…" not in text.replace("…", "", sum(line.startswith("…") for line in lines))
    assert max(map(width_of, lines)) <= width
    assert [line for line in lines if line != line.rstrip()] == []


def test_wide_terminal_has_one_line_a_test() -> None:
    assert len([line for line in rows(160) if "::test_under_load" in line]) == len(PATTERNS)


@PROPERTY
@given(st.lists(st.sampled_from([*PATTERNS, ""]), min_size=1), st.integers(30, 120))
def test_nothing_of_a_pattern_is_lost(patterns: list[str], width: int) -> None:
    columns = [
        TextColumn("test", [Span("test_it") for _ in patterns], right=False, least=4, cut_left=True),
        TextColumn("pattern", [Span(one) for one in patterns], right=False, least=6),
        TextColumn("median latency", [Span("4.1 ms") for _ in patterns]),
    ]
    found, below = folded(columns, width)
    for pattern, cell, lines in zip(patterns, found[1].cells, below, strict=True):
        rest = "".join(line.strip() for line in lines)
        whole = rest if cell.text.endswith("…") else cell.text + rest
        assert whole.replace(" ", "") == pattern.replace(" ", "")
