"""The text of a line of a history: read back as it was, short, and checked."""

import contextlib
import json
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from support.damage import STRANGE
from support.each_row import each_row
from support.history_lines import METRICS, history_line
from support.pages import blocks, page
from support.result_strategies import built

from pytest_mlpatterns.records.history import Change, CommitPosition, Course, HistoryLine, PairedRatio, digest_of
from pytest_mlpatterns.records.launch import LaunchValue
from pytest_mlpatterns.records.verdict import Kind
from pytest_mlpatterns.units import Unit

COMMITS = st.builds(
    CommitPosition, st.just("") | st.text("0123456789abcdef", min_size=4, max_size=64), st.integers(0, 2**31)
)
_NAMES = st.text(min_size=1, max_size=20)
_SIZES = st.floats(1e-12, 1e29)
VALUES = st.lists(
    st.builds(LaunchValue, _SIZES | st.just(0.0) | _SIZES.map(float.__neg__), st.floats(0, 20)), min_size=1, max_size=4
).map(tuple)
"""A metric of any launches."""
_RATIOS = st.lists(st.builds(PairedRatio, st.floats(-20, 20), st.floats(0, 20)), min_size=1, max_size=4).map(tuple)
_DATES = st.datetimes().map(lambda date: f"2026-{date:%m-%dT%H:%M:%SZ}")
_PLAIN = built(
    HistoryLine,
    at=COMMITS,
    date=_DATES,
    values=st.dictionaries(_NAMES, VALUES, max_size=3),
    ratios=st.just({}),
    reference=st.none(),
)
LINES = _PLAIN | st.builds(replace, _PLAIN, ratios=st.dictionaries(_NAMES, _RATIOS, max_size=3), reference=COMMITS)
"""Any line that is complete."""


MEMBERS = {
    *("at", "clean", "date", "facts", "figures", "kind", "machine", "ratios", "ref", "setup", "test", "v", "values")
}
FULL = history_line(
    7,
    clean=False,
    kind=Kind.UNDECIDED,
    ratios={"rtm": (PairedRatio(0.0123, 0.0045), PairedRatio(-0.01, 0.005))},
    reference=CommitPosition("0123456789ab", 5),
    figures={"queue_time": (Unit.DURATION, "lower")},
)
"""A line with every member."""


def changed(**members: object) -> str:
    """The text of a line with other members."""
    return json.dumps({**FULL.to_json(), **members})


@settings(deadline=None)
@given(LINES)
def test_a_line_reads_back_as_it_was_written(line: HistoryLine) -> None:
    text = line.to_text()
    read = HistoryLine.from_text(text)
    assert read.to_text() == text
    assert json.loads(text) == read.to_json()
    assert text.isascii()
    assert text.isprintable()
    unrounded = ("values", "ratios")
    same = {name: getattr(line, name) for name in HistoryLine.__slots__ if name not in unrounded}
    assert {name: getattr(read, name) for name in same} == same
    for name, launches in line.values.items():
        for before, after in zip(launches, read.values[name], strict=True):
            assert after.value == pytest.approx(before.value, rel=6e-4, abs=0)
            assert after.relative_error == pytest.approx(min(before.relative_error, 10), rel=0.06, abs=0)
    for name, paired in line.ratios.items():
        for one, other in zip(paired, read.ratios[name], strict=True):
            assert other.log_ratio == pytest.approx(one.log_ratio, rel=6e-4, abs=0)
            assert other.error == pytest.approx(min(one.error, 10), rel=0.06, abs=0)


def test_values_compare_and_print_as_a_dict() -> None:
    line = history_line(values={"rtm": (LaunchValue(1000.0, 0.01),)})
    read = HistoryLine.from_text(line.to_text())
    assert read == line
    assert repr(read.values) == repr(line.values)
    assert (len(read.values), list(read.values)) == (1, ["rtm"])


@pytest.mark.parametrize(("launches", "metrics", "most"), [(3, 5, 470), (3, 6, 510), (4, 6, 570), (4, 7, 620)])
def test_a_usual_line_is_short(launches: int, metrics: int, most: int) -> None:
    text = history_line(123, launches=launches, metrics=METRICS[:metrics]).to_text()
    assert 300 < len(text) < most


def test_members_are_sorted_and_usual_ones_are_left_out() -> None:
    plain, full = json.loads(history_line().to_text()), json.loads(FULL.to_text())
    assert list(plain) == sorted(MEMBERS - {"clean", "figures", "kind", "ratios", "ref"})
    assert list(full) == sorted(MEMBERS)


def test_the_line_of_the_reference_is_one() -> None:
    """The page shows it in lines, between its members."""
    (block,) = (one for one in blocks("text") if one.page.endswith("how-to/history.md") and one.text.startswith("{"))
    text = block.text.replace("\n", "")
    line = HistoryLine.from_text(text)
    assert line.to_text() == text
    assert line.values["rtm"][0] == LaunchValue(8_713_000.0, 0.0087)
    assert line.ratios["rtm"][0] == PairedRatio(0.0042, 0.0031)
    described = re.findall(r"^\| `([a-z]+)` \|", page(block.page), re.MULTILINE)
    assert described == sorted(MEMBERS)


def test_numbers_have_the_digits_that_their_errors_deserve() -> None:
    values = {"rtm": (LaunchValue(12345678.0, 0.01234), LaunchValue(12345678.0, 0.00123), LaunchValue(-0.5, 100.0))}
    text = history_line(values=values, ratios=FULL.ratios, reference=FULL.reference).to_text()
    assert '"values":{"rtm":[1235e4,120,12346e3,12,-0.5,1e5]}' in text
    assert '"ratios":{"rtm":[123,45,-100,50]}' in text
    assert '"at":["a1b2c3d4e5f6",1]' in text
    assert '"at":["a1b2c3d4e5f6",1000]' in history_line(at=CommitPosition("a1b2c3d4e5f6", 1000)).to_text()


def test_launches_that_are_no_numbers_are_left_out() -> None:
    values = {"rtm": (LaunchValue(float("nan"), 0.1), LaunchValue(5.0, 0.01)), "p95": (LaunchValue(1, float("inf")),)}
    ratios = {"rtm": (PairedRatio(float("inf"), 0.1),)}
    read = HistoryLine.from_text(replace(FULL, values=values, ratios=ratios).to_text())
    assert read.values == {"rtm": (LaunchValue(5.0, 0.01),)}
    assert read.ratios == {}


def test_members_of_later_versions_are_ignored_and_their_lines_refused() -> None:
    for member in ({"weather": "rain"}, {"runs": 12}):  # "runs" is of the compaction of earlier versions
        assert HistoryLine.from_text(changed(**member)) == HistoryLine.from_text(FULL.to_text())
    with pytest.raises(ValueError, match="has version 2, this pytest-mlpatterns reads up to 1; upgrade it"):
        HistoryLine.from_text(changed(v=2))


@each_row(
    ("members", "expected"),
    ({"v": 0}, "has 0 as v, expected a whole number from 1"),
    ({"v": True}, "has true as v"),
    ({"kind": "great"}, 'has the kind "great", expected one of test_error, invalid'),
    ({"kind": ["passed"]}, "has the kind a list of 1"),
    ({"date": "2026-10-03"}, 'has the date "2026-10-03", expected one such as 2026-10-03T12:00:00Z'),
    ({"date": "２026-10-03T12:00:00Z"}, "has the date "),
    ({"clean": 1}, "has 1 as clean, expected true or false"),
    ({"test": 1}, "has 1 as test, expected text"),
    ({"facts": None}, "has null as facts, expected text"),
    ({"figures": 3}, 'has 3 as the figure "figures", expected its unit'),
    ({"figures": {"queue": ["ms", "lower"]}}, 'has a list of 2 as the figure "queue"'),
    ({"machine": "\ud800"}, "has half a surrogate pair in machine"),
    ({"at": ["--upload-pack=x", 1]}, "has a list of 2 as at, expected the hash of a commit and its position"),
    ({"at": ["a1b2c3", -1]}, "has a list of 2 as at"),
    ({"at": ["a1b2c3", True]}, "has a list of 2 as at"),
    ({"at": ["a1b2c3"]}, "has a list of 1 as at"),
    ({"ref": "a1b2c3"}, 'has "a1b2c3" as ref'),
    ({"values": []}, "has a list of 0 as values, expected an object of numbers by metric"),
    ({"values": {"rtm": [1]}}, 'has a list of 1 as "rtm" in values, expected value and error'),
    ({"values": {"rtm": []}}, 'has a list of 0 as "rtm" in values'),
    ({"values": {"p95": [1, 1], "rtm": 5}}, 'has 5 as "rtm" in values'),
    ({"values": {"rtm": ["1", 1]}}, 'has a list of 2 as "rtm" in values'),
    ({"values": {"rtm": [True, 1]}}, 'has a list of 2 as "rtm" in values'),
    ({"values": {"rtm": [1, -1]}}, 'has a list of 2 as "rtm" in values'),
    ({"values": {"rtm": [1e300, 1]}}, 'has a list of 2 as "rtm" in values'),
    ({"values": {"rtm": [-(10**400), 1]}}, 'has a list of 2 as "rtm" in values'),
    ({"values": {"rtm": [1, 100_001]}}, 'has a list of 2 as "rtm" in values'),
    ({"ratios": {"rtm": [1, 9e29]}}, 'has a list of 2 as "rtm" in ratios'),
    ({"values": {f"rtm{n}": [1, 1] for n in range(501)}}, "has 501 metrics in values, expected at most 500"),
    ({"at": ["a1b2c3", 10**300]}, "has a list of 2 as at"),
    ({"ratios": None}, "has null as ratios"),
)
def test_a_damaged_member_is_named(members: dict[str, object], expected: str) -> None:
    with pytest.raises(ValueError, match=f"^{expected}"):
        HistoryLine.from_text(changed(**members))


@each_row("member", sorted(MEMBERS - {"clean", "facts", "figures", "kind", "ref"}))
def test_a_missing_member_is_named(member: str) -> None:
    plain = {name: value for name, value in FULL.to_json().items() if name != member}
    with pytest.raises(ValueError, match=member):
        HistoryLine.from_json(plain)


@each_row(
    ("text", "expected"),
    ("", "is no JSON: "),
    ("{", "is no JSON: "),
    ("[" * 100_000, "is no JSON: its lists and objects are nested too deeply"),
    ('{"v": NaN}', "is no JSON: NaN is no number of JSON"),
    ('{"v": ' + "1" * 5000 + "}", "is no JSON: Exceeds the limit"),
    ("[1, 2]", "is a list of 2, expected an object"),
    ("{}", "has null as v"),
)
def test_a_text_that_is_no_line_is_refused_with_the_reason(text: str, expected: str) -> None:
    with pytest.raises(ValueError, match=f"^{expected}"):
        HistoryLine.from_text(text)


@each_row("strange", STRANGE)
def test_any_value_in_the_place_of_a_member_is_read_or_refused(strange: Any) -> None:
    for plain in ({"values": {"rtm": strange}}, *({member: strange} for member in MEMBERS)):
        with contextlib.suppress(ValueError):
            line = HistoryLine.from_json({**FULL.to_json(), **plain})
            assert HistoryLine.from_text(line.to_text()).to_text() == line.to_text(), plain


def test_digests_do_not_depend_on_the_order() -> None:
    assert digest_of({"a": 1, "b": "é"}) == digest_of({"b": "é", "a": 1})
    assert digest_of({"a": 1}) != digest_of({"a": 2})
    assert digest_of({}) == ""


def test_a_change_is_plain_values_in_json() -> None:
    change = Change(
        test="t.py::test",
        metric="rtm",
        machine="",
        course=Course.RATIOS,
        factor=(1.042, 1.031, 1.053),
        is_worse=True,
        old=CommitPosition("a1b2c3", 7),
        new=CommitPosition("d4e5f6", 8),
        date="2026-10-03T12:00:00Z",
        is_confirmed=False,
        p_value=1e-5,
    )
    plain = change.to_json()
    assert (plain["course"], plain["factor"]) == ("ratios", [1.042, 1.031, 1.053])
    assert plain["old"] == {"commit": "a1b2c3", "position": 7}
    assert json.loads(json.dumps(plain)) == plain
