"""The picture of the terminal is the text of the terminal."""

from xml.etree import ElementTree

from support.pictures import declared, terminal_svg

from pytest_mlpatterns.reports.text.summary_table import summary_lines
from pytest_mlpatterns.reports.text.terminal_text import text_of


def test_picture_has_every_word_of_the_terminal() -> None:
    lines = summary_lines(declared(), 80)
    picture = ElementTree.fromstring(terminal_svg(lines))
    words = " ".join(text for part in picture.iter() for text in (part.text or "").split())
    assert words.split() == [word for line in lines for word in text_of(line).split()]
