"""The baseline file: earlier results, one entry per test and machine, laid out for git diffs, read, written and merged.

Format, version 1 (2026): ``{"format": "pytest-mlpatterns-baseline", "version": 1, "tests": {test id: {machine:
{"setup": …, "metrics": {name: [[value, relative error], …]}, "versions": …, "commit": …, "date": …}}}}``; keys sorted,
one launch per pair, numbers of five digits. An entry may have an ``anchor`` (``metrics``, ``commit`` and ``date`` of an
earlier one), its ``latency`` distribution (``[[percent, ns], …]``, for charts only), the ``counts`` of requests
(``{launch: [due, failed, [[ns, count], …]]}``, one line each, latencies up to the median as one), the ``facts`` of the
service's environment (texts by name), the ``split`` of its latency, the ``sorting_ns`` of each launch, the digest of
the ``tree`` that was measured, what others had ``taken`` of the machine, what was ``disturbed`` when it was recorded,
and its counted ``work``. A set-up has a ``model`` if the model names a version; ``headers``, ``duration``, ``warmup``,
``timeout`` and ``generators`` are absent from older entries and are then not compared. Entries of 0.2 have a
``calibration``, which is not read and is left out when the file is written. A file of another format or a later version
is refused and stays as it is.

A ``split`` is ``{latency: {"mean": ns, "median": ns, "requests": n, "calls": {model: calls per request}, "parts":
{"STAGE/PART": [mean ns, median ns, standard error ns]}}}``. A part that this version does not know is left out when it
is read.

Merged files keep whole entries: each test and machine gets the entry of one of the files. This module must not know
verdicts.
"""

from __future__ import annotations

import posixpath
import re
import shlex
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias, cast, get_args

from msgspec import Meta, Struct
from msgspec.structs import asdict

from pytest_mlpatterns.errors import BaselineFileError
from pytest_mlpatterns.records.baseline_entry import Anchor, Baselines, Entry
from pytest_mlpatterns.records.codec import Amount, as_written, checked, plain
from pytest_mlpatterns.records.codec import Count as Number
from pytest_mlpatterns.records.count import PLACES, Count
from pytest_mlpatterns.records.faults import fault
from pytest_mlpatterns.records.json_text import laid_out, parsed, rounded, shown
from pytest_mlpatterns.records.latency import PARTS, LatencySplit, LatencySplits, RequestCounts, SplitMetric, SplitPart
from pytest_mlpatterns.records.launch import LaunchValue
from pytest_mlpatterns.records.setup import Setup, folded, unfolded
from pytest_mlpatterns.system.files import LOCK_TIMEOUT_S, ForeignLockError, read_text, replace_file

FORMAT = "pytest-mlpatterns-baseline"  # Names the format in the file
VERSION = 1  # Version of the format; a file of a later one is refused
_MOST_PLACES = 12  # Libraries, functions and calls of a count that are written, of each
_LEAST_VALUE = 1e-9  # Smaller values are written as zero
_MOST_ERROR = 10  # Relative error of a value that decides nothing; a larger one means no less
_ALWAYS = ("pattern", "load", "wire", "payload")  # Members of a set-up that are written although empty
_CONFLICT = re.compile(r"^<{7} ", re.MULTILINE)  # Beginning of the first side of a conflict, as git writes it
_POINTER = "version https://git-lfs.github.com/spec/"  # Beginning of what Git LFS has in place of a file
_ADVICE = "restore it from version control, or delete it and record anew with pytest --perf-baseline update"


_Metrics = Mapping[
    str, Annotated[tuple[tuple[Amount, Annotated[float, Meta(ge=0, le=_MOST_ERROR)]], ...], Meta(min_length=1)]
]
"""By name, the value of each launch and its relative standard error."""


class _SplitInFile(Struct, frozen=True):
    """The parts that a latency is the sum of, in nanoseconds."""

    mean: float
    median: float
    requests: Number
    # by part, or by stage or model and part, as ``features/model_cpu``: mean, median, standard error
    parts: Mapping[str, tuple[float, float, float]]
    calls: Mapping[str, float] = {}  # of each model per request


_StreamCounts = Annotated[
    Mapping[str, Mapping[str, tuple[tuple[Number, Number], ...]]],
    Meta(description="TTFT and TPOT of each launch, those below p90 as one; empty in entries of older versions"),
]


_EntryAsWritten = as_written(
    Entry,
    may_have_more=True,
    setup=as_written(Setup, pattern=str, load=str, order=(Literal["shuffled"], "")),
    metrics=_Metrics,
    anchor=(as_written(Anchor, may_have_more=True, metrics=_Metrics, updates=(Number, 1)) | None, None),
    latency=(tuple[tuple[Annotated[float, Meta(ge=0, le=100)], Amount], ...], ()),
    counts=(Mapping[str, tuple[Number, Number, tuple[tuple[Number, Number], ...]]], {}),
    stream_counts=(_StreamCounts, {}),
    split=(Mapping[str, _SplitInFile], {}),
    sorting_ns=(tuple[Annotated[float, Meta(ge=1e-3)], ...], ()),
)


if TYPE_CHECKING:  # a type that is made when this runs
    _EntryInFile: TypeAlias = Any
else:
    _EntryInFile = _EntryAsWritten


class BaselineFile(Struct, frozen=True):
    """Earlier results, one entry per test and machine, in ns, requests per second, bytes and shares of 1."""

    format: Literal["pytest-mlpatterns-baseline"]
    version: Literal[1]
    tests: Mapping[str, Mapping[str, _EntryInFile]]


def read_baselines(path: Path, *, name: str = "", option: str = "--perf-baseline-file") -> Baselines:
    """Read a baseline file; an absent one is empty.

    ``name``: of the file in messages; empty for its path. ``option``: that names another file, for messages; empty if
    none does.
    """
    name = name or str(path)
    try:
        content = read_text(path)
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or error
        is_file = isinstance(error, PermissionError | UnicodeDecodeError) or path.is_file()
        mend = _ADVICE if is_file else f"name a file{option and f' with {option}'}"
        raise BaselineFileError(f"{name} cannot be read: {why}; {mend}") from error
    try:
        data = parsed(content, is_merged=True)
    except ValueError as error:
        if content.startswith(_POINTER):
            said = "is a pointer of Git LFS, expected the file itself; fetch it: git lfs pull"
            raise BaselineFileError(f"{name} {said} (with actions/checkout, lfs: true)") from None
        if (conflict := _CONFLICT.search(content)) is not None:
            raise BaselineFileError(_conflict(name, content.count("\n", 0, conflict.start()) + 1)) from None
        raise BaselineFileError(f"{name} is damaged: {error}; {_ADVICE}") from error
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        raise BaselineFileError(
            f"{name} is not a baseline file of pytest-mlpatterns; "
            f"name another one{option and f' with {option}'}, or move this one away"
        )
    version = data.get("version")
    if not isinstance(version, int) or version < 1:
        raise BaselineFileError(f"{name} is damaged: its format version is {shown(version)}; {_ADVICE}")
    if version > VERSION:
        raise BaselineFileError(
            f"{name} has format version {shown(version)}, this pytest-mlpatterns reads up to {VERSION}; "
            "upgrade the package"
        )
    try:
        return _baselines(checked(data, BaselineFile, content))
    except ValueError as error:
        raise BaselineFileError(f"{name} is damaged: {error}; {_ADVICE}") from None


def _conflict(name: str, line: int) -> str:
    """What to do with a file that git could not merge; ``line``: of the first conflict."""
    file = shlex.quote(posixpath.basename(name))
    return (
        f"{name} has the marks of a git conflict from line {line:,} on, expected JSON; merge both sides: "
        f"python -m pytest_mlpatterns baseline merge <(git show :2:./{file}) <(git show :3:./{file}) -o {file}; "
        "with the merge driver of docs/how-to/ci.md git does so by itself"
    )


def write_baselines(
    path: Path, updates: Baselines, remove: Collection[str] = (), *, timeout_s: float = LOCK_TIMEOUT_S
) -> None:
    """Replace the entries of these tests and machines, keep all others; the file is replaced as a whole, or stays.

    It is locked from reading to writing, so that two runs that update it at once both keep their entries.
    """

    if why := fault(_plain_file(updates), BaselineFile):
        raise BaselineFileError(f"{path} is unchanged: the new {why}; report this with the result file of the run")

    def merged_text() -> str:
        merged = {test: machines for test, machines in read_baselines(path).items() if test not in remove}
        for test, machines in updates.items():
            merged.setdefault(test, {}).update(machines)
        return baselines_text(merged)

    try:
        replace_file(path, merged_text, timeout_s=timeout_s)
    except TimeoutError as error:
        raise BaselineFileError(
            f"{path} is unchanged: {error.strerror}; wait until no other run updates it, remove that file if it is "
            "still there, then update again"
        ) from error
    except ForeignLockError as error:
        raise BaselineFileError(f"{path} is unchanged: {error.strerror}, then update again") from error
    except OSError as error:
        raise BaselineFileError(
            f"{path} cannot be written: {error.strerror or error}; it is unchanged, "
            "make its directory writable or name another file with --perf-baseline-file"
        ) from error


def baselines_text(baselines: Baselines) -> str:
    """The text of a file with these entries."""
    return laid_out(_plain_file(baselines), sort_keys=True) + "\n"


def _plain_file(baselines: Baselines) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "version": VERSION,
        "tests": {
            test: {machine: _plain(entry) for machine, entry in found.items()} for test, found in baselines.items()
        },
    }


def _baselines(file: BaselineFile) -> Baselines:
    found: Baselines = {}
    for test, machines in file.tests.items():
        try:
            found[test] = {machine: _entry(entry) for machine, entry in machines.items()}
        except ValueError as error:
            raise ValueError(f"the entry of {shown(test)} {error}") from None
    return found


def _entry(data: Any) -> Entry:
    anchor = data.anchor
    if any(list(column) != sorted(column) for column in zip(*data.latency, strict=True)):
        raise ValueError("has latency percentiles that do not ascend")
    return Entry(
        setup=Setup.from_json(asdict(data.setup)),
        metrics=_metrics(data.metrics),
        versions=data.versions,
        commit=data.commit,
        date=data.date,
        anchor=anchor and Anchor(_metrics(anchor.metrics), anchor.commit, anchor.date, anchor.updates),
        latency=data.latency,
        counts=tuple(
            RequestCounts(
                requests,
                failed,
                dict(latencies),
                {quantity: dict(times) for quantity, times in data.stream_counts.get(number, {}).items()},
            )
            for number, (requests, failed, latencies) in sorted(data.counts.items())
        ),
        disturbed=data.disturbed,
        facts=unfolded(data.facts),
        split=_splits(data.split),
        tree=data.tree,
        taken=data.taken,
        accepted=data.accepted,
        sorting_ns=data.sorting_ns,
        work=data.work,
    )


def _metrics(data: _Metrics) -> dict[str, tuple[LaunchValue, ...]]:
    for name, launches in data.items():
        for index, (value, _) in enumerate(launches):
            if 0 < value < _LEAST_VALUE:
                raise ValueError(
                    f"has {value} as metrics[{shown(name)}][{index}][0], expected 0 or at least {_LEAST_VALUE}"
                )
    return {name: tuple(LaunchValue(*pair) for pair in launches) for name, launches in data.items()}


def _plain(entry: Entry) -> dict[str, Any]:
    setup, anchor = entry.setup.to_json(), entry.anchor
    plain: dict[str, Any] = {
        "setup": {name: value for name, value in setup.items() if value or name in _ALWAYS},
        "metrics": _pairs(entry.metrics),
        "versions": dict(entry.versions),
        "commit": entry.commit,
        "date": entry.date,
    }
    if entry.latency:
        plain["latency"] = [[rounded(percent), rounded(ns)] for percent, ns in entry.latency]
    launches = {f"{number:03}": one for number, one in enumerate(entry.counts, start=1)}
    if launches:
        plain["counts"] = {
            number: [one.requests, one.failed, _sorted_counts(one.latencies)] for number, one in launches.items()
        }
    if any(one.streams for one in entry.counts):
        plain["stream_counts"] = {
            number: {quantity: _sorted_counts(times) for quantity, times in one.streams.items()}
            for number, one in launches.items()
        }
    plain |= _plain_circumstances(entry)
    if anchor is not None:
        plain["anchor"] = {
            "metrics": _pairs(anchor.metrics),
            "commit": anchor.commit,
            "date": anchor.date,
            "updates": anchor.updates,
        }
    return plain


def _sorted_counts(counts: Mapping[int, int]) -> list[list[int]]:
    return [list(pair) for pair in sorted(counts.items())]


def _plain_circumstances(entry: Entry) -> dict[str, Any]:
    """What else was known when the entry was recorded, without what is empty."""
    taken = {name: share and rounded(share, 2) for name, share in plain(entry.taken).items()}
    found = {
        "facts": dict(folded(entry.facts)),
        "split": {metric: _plain_split(split) for metric, split in entry.split.items()},
        "tree": entry.tree,
        "taken": taken if any(taken.values()) else {},
        "accepted": list(entry.accepted),
        "sorting_ns": [rounded(ns) for ns in entry.sorting_ns],
        "disturbed": list(entry.disturbed),
        "work": {} if entry.work is None else _plain_work(entry.work),
    }
    return {name: value for name, value in found.items() if value}


def _plain_work(work: Count) -> dict[str, Any]:
    """Plain values of a count: of the places the largest, which name what grows later; the file is read in diffs."""
    whole = work.to_json()
    found = {name: rounded(value) if isinstance(value, float) else value for name, value in whole.items()}
    places = {name: {at: rounded(whole[name][at]) for at in [*whole[name]][:_MOST_PLACES]} for name in PLACES}
    found |= {"rounds": list(map(rounded, work.rounds)), **places}
    return {name: value for name, value in found.items() if value}


def _pairs(metrics: Mapping[str, tuple[LaunchValue, ...]]) -> dict[str, list[list[float | int]]]:
    return {
        name: [
            [
                rounded(launch.value) if launch.value >= _LEAST_VALUE else 0,
                min(rounded(launch.relative_error, 2), _MOST_ERROR),
            ]
            for launch in launches
        ]
        for name, launches in metrics.items()
    }


def _splits(data: Mapping[str, _SplitInFile]) -> LatencySplits:
    """The latencies that are known."""
    known = (cast("SplitMetric", metric) for metric in data if metric in get_args(SplitMetric))
    return {metric: _split(metric, data[metric]) for metric in known}


def _plain_split(split: LatencySplit) -> dict[str, Any]:
    plain: dict[str, Any] = {
        "mean": rounded(split.mean_ns),
        "median": rounded(split.median_ns),
        "requests": split.requests,
        "parts": {
            f"{part.of}/{part.name}" if part.of else part.name: [
                rounded(part.mean_ns),
                rounded(part.median_ns),
                rounded(part.error_ns, 2),
            ]
            for part in split.parts
        },
    }
    if split.calls:
        plain["calls"] = {of: rounded(calls) for of, calls in split.calls.items()}
    return plain


def _split(metric: SplitMetric, data: _SplitInFile) -> LatencySplit:
    order = {name: place for place, name in enumerate(PARTS)}
    parts = []
    for key, figures in data.parts.items():
        of, _, name = key.rpartition("/")
        if name in PARTS:
            parts.append(SplitPart(name, of, *figures))
    parts.sort(key=lambda part: order[part.name])
    return LatencySplit(metric, data.mean, data.median, data.requests, tuple(parts), data.calls)


class Choice(Struct, frozen=True):
    """An entry that several files have, and differently."""

    test: str
    machine: str
    file: int  # number of the file that it was taken from, the first is 0
    date: str


def merged(sides: Sequence[Baselines], base: Baselines | None = None) -> tuple[Baselines, list[Choice]]:
    """All entries of the files.

    An entry that only some files changed since the base is taken from those, also if they removed it. Of entries that
    differ otherwise, the one with the latest date is taken, and of equal dates the last file's.

    ``base``: what they held before they went apart; None if that is not known: then nothing counts as removed.
    """
    result: Baselines = {}
    choices = []
    for test, machine in sorted(
        {(test, machine) for side in sides for test, found in side.items() for machine in found}
    ):
        before = (base or {}).get(test, {}).get(machine)
        entries = [side.get(test, {}).get(machine) for side in sides]
        changed = [(index, entry) for index, entry in enumerate(entries) if entry != before] or [(0, before)]
        present = [(entry.date, index, entry) for index, entry in changed if entry is not None]
        if not present:
            continue  # removed, and changed by no file
        date, file, entry = max(present, key=lambda one: one[:2])
        result.setdefault(test, {})[machine] = entry
        if any(other != entry for _, _, other in present):
            choices.append(Choice(test, machine, file, date))
    return result, choices
