"""What a marker can have: the names of its arguments, what each means, and several markers as one.

Loaded while tests are collected, so it imports nothing heavy; :mod:`.settings` reads the values.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from pytest_mlpatterns.errors import SettingError
from pytest_mlpatterns.fields import plain_number
from pytest_mlpatterns.removed import why_removed
from pytest_mlpatterns.wording import did_you_mean, named, shown

ARGUMENT_HELP: Mapping[str, str] = {
    "pattern": "the serving pattern, or a list that makes one test of each (default: Single())",
    "concurrency": "requests in flight at any time, a closed loop (default: 1)",
    "rate_rps": "requests per second at even intervals, an open loop",
    "load": "any other load: PoissonRate(200), Stages([('10s', 100)]), Trace('arrivals.csv')",
    "duration": "the measured window of one launch (default: 0.7s, 2s in an open loop)",
    "requests": 'requests of the window of one launch instead of duration=: a number, or "all" for each input once',
    "warmup": 'load before the window, a time or a number of requests (default: "auto", until it is steady)',
    "timeout": "a request that takes longer counts as failed (default: 10s)",
    "payload": "the inputs, instead of the fixture perf_payload",
    "model": "the model, instead of the fixture perf_model",
    "check": "a function check(inputs, outputs) that sees answers from under load",
    "tokens": "a function that counts the tokens of a text",
    "during": "a function that gets the deployment and runs beside an open loop (then duration: 4s by default)",
    "request": "a function that makes a request to an existing service from an input",
    "accept": 'worsenings that the team accepts: "rtm +60 %%: larger model, #123, until 2026-12-31"',
    "tolerance": "accepted worsening, for all metrics or by metric (default: 0.10)",
    "compare": "the metrics that are compared with the baseline or the revision",
    "overload": "True if the load is meant to exceed what the service sustains",
    "noise": 'what a failure is worth while others use the cores: "doubt" or "trust"',
    "price": "what cores and memory cost: 0.0425 USD per core-hour",
    "launches": "most launches until a verdict is decided (default: 8)",
    "budget": "time of the test from its first start to its verdict (default: 60s)",
    "inconclusive": 'outcome of a test that is still undecided: "warn", "fail" or "pass"',
    "gate": 'whether a failing verdict fails the test ("fail") or is only shown ("warn")',
    "startup_timeout": "time for a deployment to get ready (default: 60s)",
    "profile": 'whether both sides of a regression are profiled: "auto", "on" or "off"',
    "count": 'when the instructions of a request are counted: "auto", "instructions" or "off"',
    "generators": "load generator processes (default: 1)",
    "wire": 'the format of the requests, or a list that makes one test of each (default: "rest+json")',
    "cpus": 'cores that the deployment gets, such as 2 or 0.5 (default: "all")',
    "engine": 'what runs the deployment: "local" or "ray"',
    "generators_on": 'where the load generators run: "local" or "ray"',
}
"""Marker argument → what it means."""
LOAD_ARGUMENTS = ("concurrency", "rate_rps", "load")
"""Marker arguments that define the load; a marker gives at most one of them."""
WINDOW_ARGUMENTS = ("duration", "requests")  # The arguments of a launch's window


def merge_markers(
    markers: Sequence[tuple[tuple[Any, ...], Mapping[str, Any]]], *, caller: str = "perf"
) -> dict[str, Any]:
    """Merge the arguments of a test's markers, the closest first; for each argument the closest marker wins.

    ``concurrency``, ``rate_rps`` and ``load`` count as one argument: the closest marker with any of them sets the load.
    So do ``duration`` and ``requests``.
    """
    merged: dict[str, Any] = {}
    for args, given in markers:
        if args:
            write = "pattern=..." if plain_number(args[0]) is None else f"concurrency={shown(args[0])}"
            raise SettingError(
                f"{caller}({shown(args[0])}) has a positional argument, expected keywords only; write {write}"
            )
        for name in given:
            if why := why_removed(f"{name}="):
                raise SettingError(f"{caller}({named(name)}=...): {why}")
            if name not in ARGUMENT_HELP:
                hint = did_you_mean(name, ARGUMENT_HELP, "{}=")
                allowed = ", ".join(sorted(ARGUMENT_HELP))
                raise SettingError(
                    f"{caller}({named(name)}=...) is not an argument of the marker; {hint}allowed are: {allowed}"
                )
        chosen = [name for group in (LOAD_ARGUMENTS, WINDOW_ARGUMENTS) if set(group) & set(merged) for name in group]
        merged = {**{name: value for name, value in given.items() if name not in chosen}, **merged}
    return merged


def has_lists(marker: Mapping[str, Any], options: Mapping[str, object], ini: Mapping[str, object]) -> bool:
    """Whether :mod:`.lists` may make several tests of one: of a list in the marker, or of ``--perf-patterns``."""
    in_marker = any(isinstance(marker.get(name), list | tuple) for name in ("pattern", "wire"))
    return in_marker or options.get("patterns") is not None or bool(ini.get("patterns"))
