"""One line of a history: what one run measured of one test on one machine, and at which commit.

A line keeps what later readers need to compare runs: the values of each launch with their errors, the ratios to a
revision that was measured interleaved, and digests by which a changed set-up or environment is noticed.

Format, version 1 (2026): one JSON object without spaces or line breaks, its members sorted, in ASCII:
``{"at":[commit, position],"clean":false,"date":…,"facts":…,"kind":…,"machine":…,"ratios":{metric:[ratio, error, …]},
"ref":[commit, position],"setup":…,"test":…,"v":1,"values":{metric:[value, error, …]}}``. The launches of a
metric follow each other, with two numbers each. A value has four significant digits, or five if its error is below
0.2 %. Errors are in hundredths of a percent of the value, in two digits. Ratios are natural logarithms, in units of
0.0001, in four digits, and so are their errors, in two. Absent are ``clean`` if it is true, ``kind`` if the test
passed, and ``facts``, ``ratios`` and ``ref`` if they are empty. Members that this version does not know are ignored,
and a line of a later version is refused: its number changes only if a member changes its meaning.

A change that a history shows: which metric of which test, by how much, between which commits, and how sure it is.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from enum import StrEnum
from itertools import chain
from typing import Any, Literal, TypeVar

from msgspec import Struct, structs

from pytest_mlpatterns.records.codec import Amount, Count, Share, plain
from pytest_mlpatterns.records.json_text import parsed, rounded, shown
from pytest_mlpatterns.records.launch import LaunchValue
from pytest_mlpatterns.records.result_parts import Location
from pytest_mlpatterns.records.verdict import Kind
from pytest_mlpatterns.units import Unit


class Course(StrEnum):
    """What a series of a history consists of."""

    VALUES = "values"  # Absolute values of one machine
    RATIOS = "ratios"  # Ratios to revisions that were measured interleaved; they hold on any machine


class Change(Struct, frozen=True):
    """A change of one metric of one test, from one commit to the next."""

    test: str  # the test's id
    metric: str  # its name
    machine: str  # where the values come from; empty for a course of ratios, which holds on any
    course: Course  # what changed, values or ratios
    factor: tuple[Amount, Amount, Amount]  # ``(value, low, high)``: after over before with its 99 % interval
    is_worse: bool  # whether that is a change for the worse; False if it is not known which values are better
    old: CommitPosition  # the last commit before the change
    new: CommitPosition  # the first commit after it
    date: str  # of the first run after the change, ISO 8601
    is_confirmed: bool  # whether there are enough runs after it; else it is new, and may yet be withdrawn
    p_value: Share  # that an unchanged series shows as much, corrected for the choice of the place

    def to_json(self) -> dict[str, Any]:
        """The same as plain values."""
        return {**plain(self), "factor": list(self.factor)}


class NewChange(Struct, frozen=True):
    """A change that a run made known."""

    change: Change  # what changed
    sentence: str  # the same in words, without the name of the test
    command: str  # the command that finds its commit; empty for a change for the better, or if no commits are known
    fails: bool  # whether it fails the run
    location: Location | None  # where the test is defined

    def to_json(self) -> dict[str, Any]:
        """Plain values for the result file."""
        plain = self.change.to_json()
        return {**plain, "sentence": self.sentence, "command": self.command, "fails_the_run": self.fails}


LINE_VERSION = 1  # Version of the format of a line; a line of a later one is refused
_DIGITS = 10  # Length of a digest in hexadecimal digits; two set-ups of one test never share it by chance
_PER_UNIT = 10_000  # Steps of the unit of errors and ratios in the file, a hundredth of a percent
_STEADY = 20
"""Error below which a value keeps a fifth digit, in hundredths of a percent: four digits can be off by a quarter of
it."""
_MOST_ERROR = 100_000  # Error of a value that decides nothing, in hundredths of a percent; a larger one means no less
_MOST = 1e30  # Size from which a number in the file is not taken for a measured one
_MOST_METRICS = 500  # Most metrics of a line; a usual one has a twentieth of it
_MOST_AT = 2**31  # Highest position of a commit; no repository has as many
_COMMIT = re.compile(r"(?:[0-9a-f]{4,64})?")
_DATE = re.compile(r"\d{4}-[01]\d-[0-3]\dT[0-2]\d:[0-5]\d:[0-6]\d(?:Z|\+00:00)", re.ASCII)
_ZEROS = re.compile(r"(?<=[1-9])0{3,}$")  # Zeros at the end of a whole number, which JSON also has as an exponent
_METRICS = frozenset(("values", "ratios"))
_UNITS = {unit.value: unit for unit in Unit}
_NUMBERS = frozenset((int, float))
_KINDS = {kind.value: kind for kind in Kind}
_Launch = TypeVar("_Launch")


class CommitPosition(Struct, frozen=True):
    """A commit, and where it stands."""

    commit: str = ""  # its hash, 12 digits or more; empty outside git
    position: Count = 0  # number of commits from the first one to this one, along first parents; 0 if unknown


class PairedRatio(Struct, frozen=True):
    """One metric of one launch over its value in a revision's launch beside it."""

    log_ratio: float  # natural logarithm of present over reference
    error: float  # its standard error


class HistoryLine(Struct, frozen=True):
    """What one run measured of one test on one machine."""

    test: str  # the test's id
    machine: str  # identity of the machine or cluster
    date: str  # end of the run, ISO 8601 in UTC with seconds
    at: CommitPosition  # the commit that was checked out
    clean: bool  # whether the files were the commit's
    setup: str  # digest of the set-up; values of different ones are not comparable
    facts: str  # digest of the environment of the service; empty if it is not known
    kind: Kind  # what came of the test
    values: Mapping[str, tuple[LaunchValue, ...]]  # of each launch, by the metric's name
    # of each paired launch, by the metric's name; empty if nothing was measured interleaved
    ratios: Mapping[str, tuple[PairedRatio, ...]] = {}
    reference: CommitPosition | None = None  # the revision that the ratios refer to; None without ratios
    # unit and better values of each figure of answers that it has, by name
    figures: Mapping[str, tuple[Unit, Literal["lower", "higher"]]] = {}

    def to_json(self) -> dict[str, Any]:
        """Plain values, rounded as the file has them; a launch whose value or error is no finite number is left out."""
        plain: dict[str, Any] = {
            "at": _plain_commit(self.at),
            "date": self.date,
            "machine": self.machine,
            "setup": self.setup,
            "test": self.test,
            "v": LINE_VERSION,
            "values": {name: numbers for name, of in self.values.items() if (numbers := _plain(of))},
        }
        if not self.clean:
            plain["clean"] = False
        if self.kind is not Kind.PASSED:
            plain["kind"] = self.kind.value
        if self.facts:
            plain["facts"] = self.facts
        if self.reference is not None:
            plain["ratios"] = {name: numbers for name, of in self.ratios.items() if (numbers := _plain(of))}
            plain["ref"] = _plain_commit(self.reference)
        if self.figures:
            plain["figures"] = {name: [unit.value, better] for name, (unit, better) in self.figures.items()}
        return plain

    @classmethod
    def from_json(cls, plain: object) -> HistoryLine:
        """The line of plain values."""
        if not isinstance(plain, dict):
            raise ValueError(f"is {shown(plain)}, expected an object")
        version = _whole(plain, "v", least=1)
        if version > LINE_VERSION:
            raise ValueError(f"has version {version}, this pytest-mlpatterns reads up to {LINE_VERSION}; upgrade it")
        kind = plain.get("kind", Kind.PASSED.value)
        if kind.__class__ is not str or kind not in _KINDS:
            raise ValueError(f"has the kind {shown(kind)}, expected one of {', '.join(_KINDS)}")
        date = _text(plain, "date")
        if not _DATE.fullmatch(date):
            raise ValueError(f"has the date {shown(date)}, expected one such as 2026-10-03T12:00:00Z")
        clean = plain.get("clean", True)
        if clean.__class__ is not bool:
            raise ValueError(f"has {shown(clean)} as clean, expected true or false")
        reference = _commit(plain, "ref") if "ref" in plain else None
        return cls(
            test=_text(plain, "test"),
            machine=_text(plain, "machine"),
            date=date,
            at=_commit(plain, "at"),
            clean=clean,
            setup=_text(plain, "setup"),
            facts=_text(plain, "facts", default=""),
            kind=_KINDS[kind],
            values=_Launches(_read_value, _checked(plain, "values")),
            ratios={} if reference is None else _Launches(_read_ratio, _checked(plain, "ratios")),
            reference=reference,
            figures=_figures(plain.get("figures", {})),
        )

    def to_text(self) -> str:
        """One line of JSON in ASCII, without its line break."""
        plain = self.to_json()
        members = {name: _in_json(member) for name, member in plain.items()}
        for name in _METRICS & plain.keys():
            lists = (f"{_in_json(metric)}:[{_short(of)}]" for metric, of in sorted(plain[name].items()))
            members[name] = f"{{{','.join(lists)}}}"
        return f"{{{','.join(f'{_in_json(name)}:{members[name]}' for name in sorted(members))}}}"

    @classmethod
    def from_text(cls, text: str) -> HistoryLine:
        """The inverse of :meth:`to_text`."""
        try:
            plain = parsed(text)
        except ValueError as error:
            raise ValueError(f"is no JSON: {error}") from None
        return cls.from_json(plain)


class HistoryRead(Struct, frozen=True):
    """What a history holds."""

    lines: tuple[HistoryLine, ...]  # in the order in which they were appended, without exact duplicates
    warnings: tuple[str, ...] = ()  # what was left out and why, one sentence each; empty if nothing was
    skipped: int = 0  # number of lines that were left out


def digest_of(values: Mapping[str, object]) -> str:
    """A short digest of plain values by name, whatever their order; empty if there are none."""
    if not values:
        return ""
    text = json.dumps(dict(values), sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:_DIGITS]


def _in_json(value: object) -> str:
    return json.dumps(value, separators=(",", ":"), allow_nan=False)


def _short(numbers: Sequence[float]) -> str:
    """Numbers of a list, ``1631e4`` for 16310000."""
    return ",".join(_ZEROS.sub(lambda zeros: f"e{len(zeros[0])}", repr(number)) for number in numbers)


def _plain_commit(at: CommitPosition) -> list[str | int]:
    return [at.commit, at.position]


def _plain(launches: Sequence[LaunchValue | PairedRatio]) -> list[float | int]:
    """Value and error of each launch, or its ratio and error, one after the other."""
    numbers: list[float | int] = []
    for launch in launches:
        value, error = structs.astuple(launch)
        if math.isfinite(value) and math.isfinite(error):
            error = rounded(min(abs(error) * _PER_UNIT, _MOST_ERROR), 2)
            is_ratio = isinstance(launch, PairedRatio)
            shown = rounded(value * _PER_UNIT, 4) if is_ratio else rounded(value, 5 if error < _STEADY else 4)
            numbers += (shown, error)
    return numbers


class _Launches(Mapping[str, tuple[_Launch, ...]]):
    """The launches of each metric, made when a reader asks for them: of 50,000 lines, most are of other tests."""

    __slots__ = ("_make", "_numbers")

    def __init__(self, make: Callable[[float, float], _Launch], numbers: Mapping[str, list[float]]) -> None:
        self._make = make
        self._numbers = numbers

    def __getitem__(self, name: str) -> tuple[_Launch, ...]:
        numbers = self._numbers[name]
        return tuple(map(self._make, numbers[::2], numbers[1::2]))

    def __iter__(self) -> Iterator[str]:
        return iter(self._numbers)

    def __len__(self) -> int:
        return len(self._numbers)

    def __repr__(self) -> str:
        return repr(dict(self))


def _figures(plain: object) -> dict[str, tuple[Unit, Literal["lower", "higher"]]]:
    found: dict[str, Any] = plain if isinstance(plain, dict) else {"figures": plain}
    for name, of in found.items():
        if not (
            isinstance(of, list)
            and len(of) == 2
            and isinstance(of[0], str)
            and of[0] in _UNITS
            and of[1] in ("lower", "higher")
        ):
            raise ValueError(f"has {shown(of)} as the figure {shown(name)}, expected its unit, and lower or higher")
    return {name: (_UNITS[unit], better) for name, (unit, better) in found.items()}


def _read_value(value: float, error: float) -> LaunchValue:
    return LaunchValue(float(value), error / _PER_UNIT)


def _read_ratio(ratio: float, error: float) -> PairedRatio:
    return PairedRatio(ratio / _PER_UNIT, error / _PER_UNIT)


def _checked(plain: Mapping[str, Any], member: str) -> dict[str, list[float]]:
    """The numbers of each metric: pairs of finite numbers, the second of each from 0 to the largest that is written."""
    metrics = plain.get(member)
    if metrics.__class__ is not dict:
        raise ValueError(f"has {shown(metrics)} as {member}, expected an object of numbers by metric")
    if len(metrics) > _MOST_METRICS:
        raise ValueError(f"has {len(metrics):,} metrics in {member}, expected at most {_MOST_METRICS}")
    if not _are_pairs(metrics.values()):
        name, numbers = next(pair for pair in metrics.items() if not _are_pairs(pair[1:]))
        raise ValueError(f"has {shown(numbers)} as {shown(name)} in {member}, expected value and error of each launch")
    return metrics


def _are_pairs(lists: Collection[Any]) -> bool:
    """Whether these are lists of pairs of numbers; all at once, as 50,000 lines have a million of them."""
    if not {list}.issuperset(map(type, lists)):
        return False
    lengths = set(map(len, lists))
    if 0 in lengths or any(length % 2 for length in lengths):
        return False
    numbers: list[Any] = list(chain.from_iterable(lists))
    if not _NUMBERS.issuperset(map(type, numbers)):
        return False
    return not numbers or (
        min(numbers) > -_MOST and max(numbers) < _MOST and 0 <= min(numbers[1::2]) <= max(numbers[1::2]) <= _MOST_ERROR
    )


def _commit(plain: Mapping[str, Any], member: str) -> CommitPosition:
    at = plain.get(member)
    if at.__class__ is list and [*map(type, at)] == [str, int] and 0 <= at[1] <= _MOST_AT and _COMMIT.fullmatch(at[0]):
        return CommitPosition(*at)
    raise ValueError(f"has {shown(at)} as {member}, expected the hash of a commit and its position")


def _text(plain: Mapping[str, Any], member: str, default: str | None = None) -> str:
    text = plain.get(member, default)
    if text.__class__ is not str:
        raise ValueError(f"has {shown(text)} as {member}, expected text" if member in plain else f"lacks {member}")
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            raise ValueError(f"has half a surrogate pair in {member}, expected Unicode") from None
    return text


def _whole(plain: Mapping[str, Any], member: str, *, least: int, default: int | None = None) -> int:
    number = plain.get(member, default)
    if number.__class__ is not int or number < least:
        raise ValueError(f"has {shown(number)} as {member}, expected a whole number from {least}")
    return number
