"""HTML as values: text stays text wherever it is put."""

import re
from html import unescape

from hypothesis import given
from hypothesis import strategies as st
from support.each_row import each_row
from support.synthetic import PROPERTY

from pytest_mlpatterns.reports.html.fragments import Markup, tag
from pytest_mlpatterns.wording import visible


@each_row(
    ("made", "text"),
    (tag("p", "a < b & c"), "<p>a &lt; b &amp; c</p>"),
    (tag("p", tag("b", "x"), None, "y"), "<p><b>x</b>y</p>"),
    (tag("p"), "<p></p>"),
    (tag("meta", name="viewport", content="a"), '<meta name="viewport" content="a">'),
    (tag("a", "x", href='"><script>'), '<a href="&quot;&gt;&lt;script&gt;">x</a>'),
    (
        tag("td", class_="number", data_value=0, aria_sort=None, hidden=False, open=True),
        '<td class="number" data-value="0" open>',
    ),
    (tag("path", d="M0 0"), '<path d="M0 0"/>'),
    (tag("path", tag("title", "x")), "<path><title>x</title></path>"),
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
