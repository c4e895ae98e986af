"""Profiles of a result file for other tools: speedscope's format, and collapsed stacks. Pure.

``speedscope``: the JSON that https://www.speedscope.app opens and its ``file-format-schema.json`` describes. Functions
are shared, and each profile is a list of stacks with their weights. ``collapsed``: a stack on each line, its frames
joined by semicolons, and its time, as Brendan Gregg's FlameGraph, inferno and speedscope read it; with both sides two
times, as ``difffolded.pl`` writes them.
"""

import json
from collections.abc import Iterator, Sequence
from typing import Any, Literal

from pytest_mlpatterns.errors import ResultFileError
from pytest_mlpatterns.records.profile import ProfileRecord
from pytest_mlpatterns.reports.files.result_file import Results
from pytest_mlpatterns.wording import count, did_you_mean, visible

Side = Literal["before", "now", "both"]  # Which side of a comparison; without a reference there is only ``now``
_SCHEMA = "https://www.speedscope.app/file-format-schema.json"


def speedscope_json(results: Results, *, test: str | None = None, side: Side = "both") -> str:
    """The text of a speedscope file with one profile for each test and side, in nanoseconds per request.

    ``test``: id of the only test; None for all that have a profile.
    """
    found = _profiled(results, test, side)
    index: dict[tuple[str, str, int], int] = {}
    profiles = []
    for name, profile in found:
        known = [index.setdefault((one.function, one.file, one.line), len(index)) for one in profile.frames]
        for shown in _sides(profile, side):
            stacks = [
                ([known[frame] for frame in chain], times[shown])
                for chain, times in _stacks(profile)
                if round(times[shown]) > 0
            ]
            profiles.append(_speedscope_profile(f"{name}, {shown}" if profile.compared else name, stacks))
    frames: list[dict[str, Any]] = [
        {"name": function, **({"file": file} if file else {}), **({"line": line} if line else {})}
        for function, file, line in index
    ]
    document = {
        "$schema": _SCHEMA,
        "shared": {"frames": frames},
        "profiles": profiles,
        "name": "pytest-mlpatterns",
        "exporter": "pytest-mlpatterns",
        "activeProfileIndex": 0,
    }
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")) + "\n"


def collapsed_stacks(results: Results, *, test: str | None = None, side: Side = "now") -> str:
    """Lines ``worker;predict (model.py:30);normalize (model.py:41) 2700000``, in nanoseconds per request.

    ``test``: id of the only test; None for all that have a profile. The stacks of several begin with their test's id.
    ``side``: which side; ``both`` gives the times before and now.
    """
    found = _profiled(results, test, side)
    lines = []
    for name, profile in found:
        labels = [_plain(frame.placed) for frame in profile.frames]
        prefix = [_plain(name)] if len(found) > 1 else []
        for chain, times in _stacks(profile):
            shown = [round(times[one]) for one in _sides(profile, side)]
            if any(shown):
                lines.append(
                    f"{';'.join([*prefix, *(labels[frame] for frame in chain)])} {' '.join(map(str, shown))}\n"
                )
    return "".join(lines)


def _profiled(results: Results, test: str | None, side: Side) -> list[tuple[str, ProfileRecord]]:
    """The tests with a profile that has this side."""
    found = {
        result.test: result.causes.profile
        for result in results.results
        if result.causes.profile and result.causes.profile.nodes
    }
    if test is not None and test not in found:
        raise ResultFileError(_missing(results, test, list(found)))
    if not found:
        raise ResultFileError("has no profile; measure with --perf-profile on")
    chosen = [(name, profile) for name, profile in found.items() if test in (None, name)]
    sided = [(name, profile) for name, profile in chosen if profile.compared or side != "before"]
    if not sided:
        raise ResultFileError(
            f"has {count(len(chosen), 'profile')} of one side alone; measure with --perf-against for both"
        )
    return sided


def _missing(results: Results, test: str, profiled: Sequence[str]) -> str:
    for result in results.results:
        if result.test == test:
            why = result.causes.profile.note if result.causes.profile is not None and result.causes.profile.note else ""
            return f"has no profile of {test}{f': {why}' if why else ''}; measure it with --perf-profile on"
    known = [result.test for result in results.results]
    return f"has no test {visible(test)}; {did_you_mean(test, profiled or known)}name one of those that it has"


def _sides(profile: ProfileRecord, side: Side) -> tuple[Literal["before", "now"], ...]:
    if not profile.compared:
        return ("now",)
    return ("before", "now") if side == "both" else (side,)


def _stacks(profile: ProfileRecord) -> Iterator[tuple[list[int], dict[str, float]]]:
    """The frames of each stack, from its root, and its own time on each side."""
    chains: list[list[int]] = []
    for node in profile.nodes:
        chains.append([*(chains[node.parent] if node.parent >= 0 else []), node.frame])
        yield chains[-1], {"before": node.before_ns, "now": node.now_ns}


def _speedscope_profile(name: str, stacks: Sequence[tuple[list[int], float]]) -> dict[str, Any]:
    weights = [round(time) for _, time in stacks]
    return {
        "type": "sampled",
        "name": name,
        "unit": "nanoseconds",
        "startValue": 0,
        "endValue": sum(weights),
        "samples": [chain for chain, _ in stacks],
        "weights": weights,
    }


def _plain(text: str) -> str:
    """On one line and without the sign between frames."""
    return " ".join(text.replace(";", ",").split())
