"""Settings of one test, merged: marker > command line > ini > default; and the load that they give together.

Takes plain mappings. One table lists every setting with its converter and default; an unknown or invalid setting raises
a :class:`SettingError` that names it and lists what is allowed. So does a load that cannot be combined with another
setting.
"""

import platform
import sys
from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from typing import Any, Literal, TypeVar

from msgspec import Struct

from pytest_mlpatterns.analysis.verdicts.tolerances import Tolerances
from pytest_mlpatterns.config.acceptances import read_accept
from pytest_mlpatterns.config.arguments import LOAD_ARGUMENTS, WINDOW_ARGUMENTS
from pytest_mlpatterns.config.converters import (
    as_given,
    function_like,
    read_choice,
    read_compared,
    read_cpus,
    read_duration,
    read_positive,
    read_price,
    read_requests,
    read_tolerances,
    read_truth,
    read_warmup,
    warmup_requests,
    whole_number,
)
from pytest_mlpatterns.config.lists import patterns_of, read_pattern, read_wire, wires_of
from pytest_mlpatterns.errors import SettingError
from pytest_mlpatterns.patterns import Pattern, Single
from pytest_mlpatterns.records.price import Price
from pytest_mlpatterns.records.verdict import Acceptance, Gate
from pytest_mlpatterns.units import SECOND_NS
from pytest_mlpatterns.wire import REST_JSON, Wire
from pytest_mlpatterns.wording import shown
from pytest_mlpatterns.workload.schedule import ClosedLoop, ConstantRate, Schedule

DEFAULT_BUDGET = "60s"  # Most time of a test from its first start to its verdict, where nothing gives another one
_PLANNED_NS = 30 * SECOND_NS
"""Time that the loads of such a test are planned for. An idle machine decides most tests in it; beyond it a test only
goes on while a verdict is open, as on a busy one."""
_Member = TypeVar("_Member", Pattern, Wire)


class InconclusivePolicy(StrEnum):
    """What happens to a test that is undecided when its budget is spent."""

    WARN = "warn"
    FAIL = "fail"
    PASS = "pass"


class NoisePolicy(StrEnum):
    """What a failure against a stored baseline, or a missed factor between two patterns, is worth if neighbours took
    cores that the test needed."""

    DOUBT = "doubt"
    TRUST = "trust"


class ProfileMode(StrEnum):
    """When the serving processes are profiled: after a comparison with a revision has failed, always, or never."""

    AUTO = "auto"
    ON = "on"
    OFF = "off"


class CountMode(StrEnum):
    """When instructions are counted: when a busy machine leaves a comparison open, always, or never."""

    AUTO = "auto"
    INSTRUCTIONS = "instructions"
    OFF = "off"


class Settings(Struct, frozen=True):
    """Settings of one perf test.

    ``requests`` end a window that does not last ``duration_ns``; None for one that does. ``warmup_ns`` is
    None if the warm-up ends when the load is steady, or by its number of requests, which is 0 otherwise.
    ``compare`` names the metrics that are compared; None for the default ones. ``overload`` expects that the
    service cannot sustain the load. ``stretches`` lets a window of few requests be longer than ``duration_ns``.
    ``price`` is None if there is no cost. ``model`` and ``payload`` are None if they come from the fixtures.
    ``budget_ns`` is what a test may take, and ``planned_ns`` what its loads are planned for: all of a budget that
    was given. ``budget_in_marker`` means that no option changes it. ``engine`` is a name as given, and so is
    ``generators_on``, where the load generators run; the registry of engines checks both. ``cpus`` is None if the
    deployment may use all cores. ``accept`` are the worsenings that its marker accepts. ``gate`` is what a failing
    verdict does. ``tokens`` is None if each chunk counts as a token where the server reports no usage. ``during``
    runs beside the load; None if nothing does.
    """

    pattern: Pattern
    schedule: Schedule
    duration_ns: int
    requests: int | Literal["all"] | None
    warmup_ns: int | None
    warmup_requests: int
    timeout_ns: int
    startup_timeout_ns: int
    budget_ns: int
    planned_ns: int
    budget_in_marker: bool
    launches: int
    generators: int
    tolerance: Tolerances
    compare: tuple[str, ...] | None
    overload: bool
    noise: NoisePolicy
    profile: ProfileMode
    count: CountMode
    stretches: bool
    price: Price | None
    inconclusive: InconclusivePolicy
    gate: Gate
    payload: object
    model: object
    check: Callable[[Sequence[Any], Sequence[Any]], object] | None
    request: Callable[[Any], object] | None
    wire: Wire
    engine: str
    generators_on: str
    cpus: float | None
    tokens: Callable[[str], int] | None
    during: Callable[[Any], object] | None
    accept: tuple[Acceptance, ...]


def read_settings(
    marker: Mapping[str, Any],
    options: Mapping[str, object],
    ini: Mapping[str, object],
    *,
    pattern: Pattern | None = None,
    wire: Wire | None = None,
    caller: str = "perf",
) -> Settings:
    """Merge one test's settings.

    ``options``: command-line values by option name, None if not given. ``ini``: ini values by option name, None or
    empty if not given.
    """
    patterns_of(marker, options, ini), wires_of(marker)  # raise errors of the lists
    values: dict[str, Any] = {"warmup_requests": 0}
    left_out = _outdone_window(marker, options, ini, caller=caller)
    for name, (read, default) in _READERS.items():
        value, source = given_value(name, marker=marker, options=options, ini=ini, caller=caller)
        values[name] = read(default if value is None or name == left_out else value, source)
        if name == "warmup":
            values["warmup_requests"] = warmup_requests(value, source)
    members = {name: member for name, member in (("pattern", pattern), ("wire", wire)) if member is not None}
    load = read_load(marker)
    if values["during"] is not None:
        require_open_beside(load, caller)
    place = values["engine"] if values["generators_on"] is None else values["generators_on"]
    settings = {**values, **members, "schedule": load, "generators_on": place}
    window = window_of(load, values["duration"], marker, is_beside=values["during"] is not None)
    settings["duration"], settings["stretches"] = window
    settings["requests"] = _requests_of(load, values)
    for name in ("duration", "warmup", "timeout", "startup_timeout", "budget"):
        settings[f"{name}_ns"] = settings.pop(name)
    given = given_value("budget", marker=marker, options=options, ini=ini)[0]
    settings["planned_ns"] = _PLANNED_NS if given is None else settings["budget_ns"]
    return Settings(**settings, budget_in_marker=marker.get("budget") is not None)


def given_value(
    name: str,
    *,
    marker: Mapping[str, Any],
    options: Mapping[str, object],
    ini: Mapping[str, object],
    caller: str = "perf",
) -> tuple[Any, str]:
    """The value of one setting, None if nothing gives it, and what gives it, for messages."""
    option = name.replace("_", "-")
    if marker.get(name) is not None:
        return marker[name], f"{caller}({name}=...)"
    if options.get(option) is not None:
        return options[option], f"--perf-{option}"
    if ini.get(option) not in (None, ""):
        return ini[option], f"ini key perf_{name}"
    return None, f"perf({name}=...)"


def _is_given(value: object) -> bool:
    return value is not None and not (isinstance(value, str) and not value)


def _outdone_window(*levels: Mapping[str, Any], caller: str) -> str:
    """The argument for the window that does not count, since a closer one gives another; empty if there is none."""
    for given, form in zip(levels, (f"{caller}({{}}=...)", "--perf-{}", "ini key perf_{}"), strict=True):
        names = [name for name in WINDOW_ARGUMENTS if _is_given(given.get(name))]
        if len(names) > 1:
            both = " and ".join(map(form.format, names))
            raise SettingError(f"{both} each end the window of a launch, expected one of them; leave the other one out")
        if names:
            return next(name for name in WINDOW_ARGUMENTS if name not in names)
    return ""


def _requests_of(load: Schedule, values: Mapping[str, Any]) -> int | Literal["all"] | None:
    """The requests of a window; none of a load with a length of its own, for all tests of which an option may stand."""
    requests: int | Literal["all"] | None = None if load.length_ns is not None else values["requests"]
    why = ""
    if values["during"] is not None:
        why = 'during=, expected a window of known length, in which the function runs; write duration="4s"'
    elif values["generators"] > 1:
        found = f"generators={values['generators']}"
        why = f"{found}, expected one, which counts them; leave generators= out, or write duration= for requests="
    if requests is not None and why:
        raise SettingError(f"requests={shown(requests)} beside {why}")
    return requests


def read_count(value: object, source: str) -> CountMode:
    """When instructions are counted; where no system counts them, nothing can ask for it."""
    mode: CountMode = read_choice(CountMode, value, source)
    if mode is CountMode.INSTRUCTIONS and sys.platform != "linux":
        raise SettingError(
            f"{source} is {mode}, which {platform.system()} cannot count, expected Linux; write auto or off"
        )
    return mode


_READERS: dict[str, tuple[Callable[[Any, str], Any], Any]] = {
    "pattern": (
        lambda value, source: Single() if isinstance(value, list | tuple) else read_pattern(value, source),
        Single(),
    ),
    "duration": (read_duration, "auto"),
    "requests": (read_requests, None),
    "warmup": (read_warmup, "auto"),
    "timeout": (read_positive, "10s"),
    "startup_timeout": (read_positive, "60s"),
    "budget": (read_positive, DEFAULT_BUDGET),
    "launches": (whole_number(100, "deployments"), 8),
    "generators": (whole_number(64, "generator processes"), 1),
    "tolerance": (read_tolerances, None),
    "compare": (read_compared, None),
    "overload": (read_truth, False),
    "noise": (lambda value, source: read_choice(NoisePolicy, value, source), NoisePolicy.DOUBT),
    "profile": (lambda value, source: read_choice(ProfileMode, value, source), ProfileMode.AUTO),
    "count": (read_count, CountMode.AUTO),
    "inconclusive": (lambda value, source: read_choice(InconclusivePolicy, value, source), InconclusivePolicy.WARN),
    "gate": (lambda value, source: read_choice(Gate, value, source), Gate.FAIL),
    "price": (read_price, None),
    "payload": (as_given, None),
    "model": (as_given, None),
    "check": (function_like("def check(inputs, outputs): assert ...", "the inputs", "the outputs"), None),
    "request": (function_like('lambda text: {"json": {"text": text}}', "the input"), None),
    "wire": (
        lambda value, source: REST_JSON if isinstance(value, list | tuple) else read_wire(value, source),
        REST_JSON,
    ),
    "tokens": (function_like("lambda text: len(tokenizer.encode(text))", "the text"), None),
    "during": (function_like('def reload(during): during.client.post("/reload")', "the deployment"), None),
    "accept": (read_accept, None),
    "engine": (as_given, "local"),
    "generators_on": (as_given, None),
    "cpus": (read_cpus, "all"),
}
"""Marker argument → its converter and its default."""


CLOSED_WINDOW_NS = 700_000_000
"""Measured window of one launch: many short launches show more than few long ones, since launches differ."""
OPEN_WINDOW_NS = 2_000_000_000  # The same for an open loop, whose backlog takes time to show
DURING_WINDOW_NS = 4_000_000_000
"""The same beside a function: time before its steps, for what they do, and until the service is well again."""


def read_load(marker: Mapping[str, Any]) -> Schedule:
    """The load of a marker; without one, a closed loop with one request in flight."""
    given = [name for name in LOAD_ARGUMENTS if marker.get(name) is not None]
    if len(given) > 1:
        raise SettingError(f"perf({'=..., '.join(given)}=...) gives several loads, expected one; leave the others out")
    if given == ["load"]:
        return require_schedule(marker["load"], "perf(load=...)")
    if given == ["rate_rps"]:
        return ConstantRate(marker["rate_rps"])
    return ClosedLoop(1 if marker.get("concurrency") is None else marker["concurrency"])


def require_schedule(load: object, name: str) -> Schedule:
    """The load that an argument of this name gives."""
    if not isinstance(load, Schedule):
        raise SettingError(
            f"{name} is {shown(load)}, expected a schedule; write ClosedLoop(16), ConstantRate(200), "
            "PoissonRate(200), GammaRate(200), Stages([('10s', 100)]), Trace('arrivals.csv')"
        )
    return load


def require_open_beside(load: Schedule, caller: str) -> None:
    """Refuse a function beside a closed loop: its callers send nothing while the service stands still."""
    if load.closed:
        raise SettingError(
            f"{caller}(during=...) under {load}, expected an open loop: callers who wait for a service that stands "
            "still send nothing meanwhile, so the requests that it would hurt are missing from every percentile "
            "(coordinated omission); write rate_rps=200, or load=PoissonRate(200)"
        )


def window_of(
    load: Schedule, given_ns: int | None, marker: Mapping[str, Any], *, is_beside: bool = False
) -> tuple[int, bool]:
    """The length of the measured window, and whether it may get longer: nothing gave it, and the load has none.

    ``given_ns``: what marker, command line or ini file give; None if nothing does.
    """
    if load.length_ns is None:
        if given_ns is not None:
            return given_ns, False
        if is_beside:
            return DURING_WINDOW_NS, False
        return CLOSED_WINDOW_NS if load.closed else OPEN_WINDOW_NS, True
    for name in (*WINDOW_ARGUMENTS, "warmup"):
        if marker.get(name) is not None:
            raise SettingError(
                f"perf({name}=...) and {load}, expected one of them; the load has its own length, so leave {name}= out"
            )
    return load.length_ns, False
