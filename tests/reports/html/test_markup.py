"""HTML as values: text stays text wherever it is put."""

from __future__ import annotations

import json
import re
from html import unescape

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.synthetic import PROPERTY

from pytest_mlpatterns.reports.html.markup import Markup, data_script, tag
from pytest_mlpatterns.wording import HIDDEN, visible

SPELLED = {ord(sign): f"\\\\u{ord(sign):04x}" for sign in HIDDEN if sign not in "\u2028\u2029"}
"""Hidden characters in JSON, where those of C0 are escaped already."""
HOSTILE = "</script><script>alert(1)</script><!-- \" ' & \u2028"


@pytest.mark.parametrize(
    ("made", "text"),
    [
        (tag("p", "a < b & c"), "<p>a &lt; b &amp; c</p>"),
        (tag("p", tag("b", "x"), None, "y"), "<p><b>x</b>y</p>"),
        (tag("p"), "<p></p>"),
        (tag("meta", name="viewport", content="a"), '<meta name="viewport" content="a">'),
        (tag("a", "x", href='"><script>'), '<a href="&quot;&gt;&lt;script&gt;">x</a>'),
        (
            tag("td", class_="number", data_value=0, aria_sort=None, hidden=False, open=True),
            '<td class="number" data-value="0" open></td>',
        ),
    ],
    ids=["text", "elements", "empty", "void", "an attribute", "attributes"],
)
def test_an_element_is_written_as_html_has_it(made: Markup, text: str) -> None:
    assert made == text
    assert isinstance(made, Markup)


@PROPERTY
@given(st.text())
def test_no_text_leaves_the_element_or_attribute_that_it_was_put_in(text: str) -> None:
    found = re.fullmatch(r'<p title="([^"<>]*)">([^<>]*)</p>', tag("p", text, title=text), flags=re.DOTALL)
    assert found
    assert [unescape(part) for part in found.groups()] == [visible(text)] * 2


@PROPERTY
@given(st.recursive(st.none() | st.text() | st.integers(), st.lists, max_leaves=10))
def test_data_comes_back_as_it_was_and_cannot_end_its_script(data: object) -> None:
    found = re.fullmatch(r'<script type="application/json">([^<>&]*)</script>', data_script(data), flags=re.DOTALL)
    assert found
    assert json.loads(found[1]) == json.loads(json.dumps(data, ensure_ascii=False).translate(SPELLED))


def test_characters_that_could_end_a_script_are_escaped() -> None:
    written = data_script([HOSTILE])
    assert written.count("<") == 2
    assert "\\u003c/script\\u003e" in written
    assert "\\u2028" in written
