"""The nearest known name for one that a user misspelled: an option of ours, or a fixture."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pytest_mlpatterns.wording import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from types import ModuleType

__all__ = [
    "ARGUMENT_HELP",
    "FIXTURES",
    "fixture_hint",
    "misspelled_fixture",
    "require_known_keys",
    "require_known_options",
]

FIXTURES = ("perf", "perf_deploy", "perf_deploy_session", "perf_model", "perf_payload", "perf_target")
"""The fixtures of this plugin."""
_PREFIX = "--perf-"
_REMOVED = {"calibrate": "since each launch shows how fast the machine is"}
"""Options of earlier versions, by name, and why they were removed."""
_PLURAL = 0.9
"""Likeness from which an argument of the marker is rather an option: ``pattern`` of ``patterns`` has 0.93."""
ARGUMENT_HELP: Mapping[str, str] = {
    "pattern": "the serving pattern, or a list that makes one test of each (default: Single())",
    "concurrency": "requests in flight at any time, a closed loop (default: 1)",
    "rate_rps": "requests per second at even intervals, an open loop",
    "load": "any other load: PoissonRate(200), Bursts(100, 1000), Stages([('10s', 100)]), Bulk(1000), Mix({...})",
    "duration": "the measured window of one launch (default: 0.7s, 2s in an open loop)",
    "warmup": 'load before the window (default: "auto", until it is steady)',
    "timeout": "a request that takes longer counts as failed (default: 10s)",
    "cancel": 'requests that the generator cancels: "5% after 200ms"',
    "retries": 'how often a failed request is sent again: 2, or Retries(2, backoff="100ms", budget=0.1)',
    "payload": "the inputs, instead of the fixture perf_payload",
    "model": "the model, instead of the fixture perf_model",
    "check": "a function check(inputs, outputs) that sees answers from under load",
    "tokens": "a function that counts the tokens of a text",
    "during": "a function that gets the deployment and runs beside the load (then duration: 4s by default)",
    "request": "a function that makes a request to an existing service from an input",
    "accept": 'worsenings that the team accepts: "rtm +60 %%: larger model, #123, until 2026-12-31"',
    "tolerance": "accepted worsening, for all metrics or by metric (default: 0.10)",
    "compare": "the metrics that are compared with the baseline or the revision",
    "overload": "True if the load is meant to exceed what the service sustains",
    "noise": 'what a failure is worth while others use the cores: "doubt" or "trust"',
    "price": "what cores and memory cost: 0.0425 USD per core-hour",
    "launches": "most launches until a verdict is decided (default: 8)",
    "budget": "measuring time until a verdict is decided (default: 30s)",
    "inconclusive": 'outcome of a test that is still undecided: "warn", "fail" or "pass"',
    "gate": 'whether a failing verdict fails the test ("fail") or is only shown ("warn")',
    "startup_timeout": "time for a deployment to get ready (default: 60s)",
    "profile": 'whether both sides of a regression are profiled: "auto", "on" or "off"',
    "generators": "load generator processes (default: 1)",
    "wire": 'the format of the requests, or a list that makes one test of each (default: "rest+json")',
    "cpus": 'cores that the deployment gets, such as 2 or 0.5 (default: "all")',
    "engine": 'what runs the deployment: "local" or "ray"',
    "generators_on": 'where the load generators run: "local" or "ray"',
}
"""Marker argument → what it means."""


def require_known_options(unknown: Iterable[str], known: Sequence[str]) -> None:
    """Refuse an option that looks like one of ours, or was one.

    Args:
        unknown: arguments of the command line that pytest and its plugins do not know.

    Raises:
        pytest.UsageError: the message names whether the key was removed, is almost one of ours, is an argument of the
            marker, or resembles none.
    """
    for argument in unknown:
        option = argument.partition("=")[0]
        name = option.removeprefix(_PREFIX)
        if name != option and name in _REMOVED:
            raise pytest.UsageError(f"{option} was removed, {_REMOVED[name]}; leave it out")
        if name != option and (hint := _hint(name, known, f"{_PREFIX}{{}}")):
            raise pytest.UsageError(f"{option} is not an option; {hint}pytest --help lists all")


def require_known_keys(unknown: Iterable[str], known: Sequence[str]) -> None:
    """Refuse keys of the ini file that begin like ours and that no loaded plugin has.

    Args:
        known: our keys, without ``perf_``.

    Raises:
        pytest.UsageError: one of them was removed, is almost one of ours, or is an argument of the marker; the message
            names it.
    """
    for key in unknown:
        name = key.removeprefix("perf_")
        if name in _REMOVED:
            raise pytest.UsageError(f"{key} was removed, {_REMOVED[name]}; delete the line")
        hint = _hint(name, known, "perf_{}") or "no loaded plugin has it; delete the line, or load that plugin; "
        raise pytest.UsageError(f"{key} is not an ini key; {hint}pytest --help lists all")


def _hint(name: str, known: Sequence[str], form: str) -> str:
    """What was meant by a name that is no option; empty if it is none of ours, so that another plugin may have it."""
    argument = name.replace("-", "_")
    marker = f"{argument} is set in the marker: pytest.mark.perf({argument}=...); " if argument in ARGUMENT_HELP else ""
    return did_you_mean(name, known, form, likeness=_PLURAL) or marker or did_you_mean(name, known, form)


def fixture_hint(name: str) -> str:
    """The question whether a fixture of ours was meant; empty if none is similar."""
    return did_you_mean(name, FIXTURES).rstrip()


def misspelled_fixture(wanted: str, modules: Iterable[ModuleType]) -> str:
    """A name in the test file or a conftest file that is probably a misspelled fixture; empty if none."""
    import difflib

    names = [name for module in modules for name in vars(module) if name not in FIXTURES and "perf" in name]
    return next(iter(difflib.get_close_matches(wanted, names, n=1, cutoff=0.8)), "")
