"""Words of messages: plurals, lists, suggestions, brackets; and words that no message has."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import ROOT
from support.each_row import each_row
from support.fuzz.hostile import Anything, Unhelpful, deep_list

from pytest_mlpatterns import wording


@each_row(
    ("number", "nouns", "text"),
    (1, ("request",), "1 request"),
    (0, ("request",), "0 requests"),
    (2_000, ("request",), "2,000 requests"),
    (1, ("launch", "launches"), "1 launch"),
    (3, ("launch", "launches"), "3 launches"),
)
def test_a_noun_agrees_with_its_number(number: int, nouns: tuple[str, ...], text: str) -> None:
    assert wording.count(number, *nouns) == text


@pytest.mark.parametrize(
    ("names", "text"), [((), ""), (("a",), "a"), (("a", "b"), "a and b"), (("a", "b", "c"), "a, b and c")]
)
def test_lists_join_their_last_name_by_and(names: tuple[str, ...], text: str) -> None:
    assert wording.listed(names) == text
    assert wording.listed(names, "or") == text.replace(" and ", " or ")


@each_row(
    ("given", "form", "hint"),
    ("cachd", "{}", "did you mean cached? "),
    ("cachd", "{}=", "did you mean cached=? "),
    ("cachd", "{!r}", "did you mean 'cached'? "),
    ("zzz", "{}", ""),
    ("cached", "{}", ""),
)
def test_only_a_similar_name_is_suggested(given: str, form: str, hint: str) -> None:
    assert wording.did_you_mean(given, ["single", "cached"], form) == hint


@pytest.mark.parametrize(("known", "hint"), [(["rtm", "mean"], "did you mean rtm? "), (["median_ttft"], "")])
def test_a_name_that_it_has_elsewhere_is_suggested_if_it_is_known(known: list[str], hint: str) -> None:
    assert wording.did_you_mean("latency", known, others={"latency": "rtm"}) == hint


@pytest.mark.parametrize(
    ("text", "parts"),
    [("a,b", ["a", "b"]), ("a(1,2),b[3,(4,5)]", ["a(1,2)", "b[3,(4,5)]"]), ("", [""]), (",", ["", ""])],
)
def test_separators_inside_brackets_do_not_split(text: str, parts: list[str]) -> None:
    assert wording.split_outside_brackets(text, ",") == parts


@each_row(
    ("text", "shown"),
    ("a\tb\nc ä → 🙂 \u200d", "a\tb\nc ä → 🙂 \u200d"),
    ("\x1b[2J\x1b]0;owned\x07", "\\x1b[2J\\x1b]0;owned\\x07"),
    ("\x9b31m", "\\x9b31m"),
    ("4 %\r100 %\r\nnext", "4 %\\x0d100 %\nnext"),
    ("\u202egnp.\u2066x\u200f", "\\u202egnp.\\u2066x\\u200f"),
    ("\udce4.py", "\\udce4.py"),
    ("\x00\x7f", "\\x00\\x7f"),
    ("::error file=a::b\n \t\u3000::stop-commands::x", "\\x3a:error file=a::b\n \t\u3000\\x3a:stop-commands::x"),
    ("\r\n::set-output name=a::b\x0b\r::debug::c", "\n\\x3a:set-output name=a::b\\x0b\\x0d::debug::c"),
    ("a ##[error]b ##[command]c", "a ##\\x5berror]b ##\\x5bcommand]c"),
    ("a ##vso[task.setvariable]b", "a ##vso\\x5btask.setvariable]b"),
    ("##teamcity[buildStop] ##VSO[x] ##other[y]", "##teamcity\\x5bbuildStop] ##VSO\\x5bx] ##other[y]"),
    ("test_a.py::test_one[##]\n: :\n| ::error::", "test_a.py::test_one[##]\n: :\n| ::error::"),
)
def test_hidden_characters_are_spelled_and_all_others_stay(text: str, shown: str) -> None:
    assert wording.visible(text) == shown
    assert not wording.HIDDEN & set(wording.visible(text))
    assert wording.visible(shown) == shown


def test_each_line_that_a_service_printed_has_a_mark() -> None:
    assert wording.marked("") == ""
    assert wording.marked("one\r\n\n  ::error::two\x0bthree\u2028::four") == (
        "| one\n| \n|   ::error::two\n| three\n| ::four"
    )


def test_a_text_of_spaces_is_searched_for_commands_in_linear_time() -> None:
    assert wording.visible(" " * 10**6) == " " * 10**6


@each_row(
    ("value", "text"),
    ("a\0b\x1b[2J", r"'a\x00b\x1b[2J'"),
    (Anything(), "one line and another"),
    (Unhelpful(), "a value of type Unhelpful"),
    (10**5000, "a value of type int"),
    (deep_list(5000), "a value of type list"),
    ("x" * 298, "'" + "x" * 298 + "'"),
    ("x" * 299, "'" + "x" * 249 + "… (301 characters)"),
)
def test_a_value_is_shown_in_one_short_line(value: object, text: str) -> None:
    assert wording.shown(value) == text


@pytest.mark.parametrize(
    ("name", "text"),
    [("a b.json", "a b.json"), ("a\nb", r"'a\nb'"), ("x" * 301, "'" + "x" * 249 + "… (303 characters)")],
    ids=["plain", "line break", "long"],
)
def test_a_name_stands_as_it_is_if_it_can(name: str, text: str) -> None:
    assert wording.named(name) == text


_REFUSED = re.compile(
    r"\b(?:the|at) present\b|(?<!-)\bsettle[sd]?\b|\bguards?\b|\bprimary\b|\bstanding\b|\bblocks?\b|"
    r"\barithmetic mean\b|(?-i:\bRTM\b)",
    re.IGNORECASE,
)
"""Words of the code that a user does not know: they say this run, decided, other metrics, the median latency."""
_LEFT = {
    "analysis/metrics/metrics.py": {"rtm"},  # the paper's formula
    "loadgen/http2.py": {"block"},  # the word of HTTP/2
    "plugin/help_text.py": {"rtm"},  # explained, as in reports/text/comparison.py
    "reports/text/comparison.py": {"rtm"},
}
"""Where messages still have one, by module."""


def _messages(module: Path) -> Iterator[str]:
    """The sentences in the literals of a module; docstrings are none."""
    tree = ast.parse(module.read_text(encoding="utf-8"))
    documents = {
        id(statement.value)
        for node in ast.walk(tree)
        if isinstance(body := getattr(node, "body", None), list)
        for statement in body
        if isinstance(statement, ast.Expr)
    }
    for node in ast.walk(tree):
        is_text = isinstance(node, ast.Constant) and isinstance(node.value, str)
        if is_text and id(node) not in documents and " " in node.value.strip():
            yield node.value


def test_no_message_has_a_word_of_the_code() -> None:
    package = ROOT / "pytest_mlpatterns"
    found = {
        (str(place), word.lower())
        for module in package.rglob("*.py")
        if _REFUSED.search(module.read_text(encoding="utf-8"))
        for text in _messages(module)
        for word in _REFUSED.findall(text)
        if word.lower() not in _LEFT.get(str(place := module.relative_to(package)), ())
    }
    assert not found
