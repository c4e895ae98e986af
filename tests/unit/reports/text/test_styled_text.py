"""Lines for a terminal: measured in columns, shortened, filled up, and spelled in ASCII."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.each_row import each_row
from support.synthetic import PROPERTY

from pytest_mlpatterns.reports.text.terminal_text import Span, Style, cut, in_ascii, line, padded, text_of, width_of


@each_row(
    ("text", "spelled"),
    ("median latency 4.13 ms → 115 µs", "median latency 4.13 ms -> 115 us"),
    ("± – − … × ≥", "+- - - .. x >="),
    ("✓ ✗ ·", "+ x -"),
    ("▁▂▃▄▅▆▇█", "._-=+*%#"),
    ("test_ä[日本]", "test_\\xe4[\\u65e5\\u672c]"),
    ("plain", "plain"),
)
def test_our_signs_are_spelled_and_others_escaped(text: str, spelled: str) -> None:
    assert in_ascii(text) == spelled


@PROPERTY
@given(st.text())
def test_any_text_can_be_written_in_ascii(text: str) -> None:
    assert in_ascii(text).isascii()


@each_row(("text", "width"), [("abc", 3), ("→±", 2), ("日本", 4), ("e\u0301", 1), ("", 0)])
def test_width_is_in_columns(text: str, width: int) -> None:
    assert width_of(text) == width


@PROPERTY
@given(st.text(max_size=20), st.integers(0, 25), st.booleans())
def test_a_text_is_cut_to_a_width_and_keeps_one_of_its_ends(text: str, width: int, left: bool) -> None:
    found = cut(text, width, left=left)
    assert width_of(found) <= max(width, 1)
    if width_of(text) <= width:
        assert found == text
    else:
        assert (text.endswith(found[1:]) and found[0] == "…") if left else text.startswith(found[:-1])


@pytest.mark.parametrize(("right", "text"), [(False, "日 "), (True, " 日")])
def test_a_text_is_filled_up_to_a_width(right: bool, text: str) -> None:
    assert padded("日", 3, right=right) == text
    assert padded("longer", 3, right=right) == "longer"


def test_a_line_is_its_text() -> None:
    assert text_of((Span("a ", Style.BAD), Span("b  "))) == "a b"
    assert line("x", Style.OPEN) == (Span("x", Style.OPEN),)
