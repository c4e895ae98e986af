"""One line about each argument of the marker ``perf``, for ``--perf-help``."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["ARGUMENT_HELP"]

ARGUMENT_HELP: Mapping[str, str] = {
    "pattern": "the serving pattern, or a list that makes one test of each (default: Single())",
    "concurrency": "requests in flight at any time, a closed loop (default: 1)",
    "rate_rps": "requests per second at even intervals, an open loop",
    "load": "any other load: PoissonRate(200), Stages([('10s', 100)]), Trace('arrivals.csv')",
    "duration": "the measured window of one launch (default: 0.7s, 2s in an open loop)",
    "warmup": 'load before the window (default: "auto", until it is steady)',
    "timeout": "a request that takes longer counts as failed (default: 10s)",
    "cancel": 'requests that the generator cancels: "5% after 200ms"',
    "payload": "the inputs, instead of the fixture perf_payload",
    "model": "the model, instead of the fixture perf_model",
    "check": "a function check(inputs, outputs) that sees answers from under load",
    "tokens": "a function that counts the tokens of a text",
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
