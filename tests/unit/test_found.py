"""Inputs that once ended in an exception of another package, in a hang or in a message of 100,000 letters.

Each says now what was found, what is expected and what to do, in a message that fits a screen.
"""

import itertools
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.each_row import each_row
from support.fuzz.assertions import Reading
from support.fuzz.hostile import Unhelpful, deep_list

from pytest_mlpatterns import (
    App,
    Batched,
    Cached,
    ClosedLoop,
    Command,
    ConstantRate,
    Ensemble,
    Microservice,
    Pipeline,
    PoissonRate,
    Queued,
    Replicated,
    Stages,
    Trace,
    Uniform,
    Url,
    Wire,
    Zipf,
)
from pytest_mlpatterns.analysis.choice.criteria import parse_criteria
from pytest_mlpatterns.config.arguments import merge_markers
from pytest_mlpatterns.config.lists import parse_pattern
from pytest_mlpatterns.config.run_settings import read_run_settings
from pytest_mlpatterns.config.settings import read_settings
from pytest_mlpatterns.errors import SettingError
from pytest_mlpatterns.patterns.arguments import without_password
from pytest_mlpatterns.records.objective import parse_objective
from pytest_mlpatterns.revision.dependencies import locked_versions
from pytest_mlpatterns.serving.prometheus import Prometheus, read_prometheus
from pytest_mlpatterns.units import parse_duration, parse_ratio
from pytest_mlpatterns.wire import GRPC, WireError, codec_of
from pytest_mlpatterns.wire.kserve_v1 import decode_error, encode_error
from pytest_mlpatterns.workload.payload import read_payload
from pytest_mlpatterns.workload.request_builder import RequestBuilder

SEVERAL = np.zeros(3)
DEEP = "[" * 9000
SPACES = " " * 100_000
HUGE = 10**5000


def marker(**arguments: Any) -> Callable[[], object]:
    return lambda: read_settings(merge_markers([((), arguments)]), {}, {})


@each_row(
    ("use", "message"),
    (marker(warmup=SEVERAL), "perf(warmup=...) is array([0., 0., 0.]), expected a time with its unit"),
    (marker(duration=SEVERAL), "perf(duration=...) is array([0., 0., 0.]), expected a time"),
    (marker(noise=deep_list(5000)), "perf(noise=...) is a value of type list, expected one of doubt, trust"),
    (marker(compare=(["rtm"],)), "perf(compare=...) names the metric ['rtm'], expected some of rtm"),
    (marker(tolerance={5: 0.1}), "perf(tolerance=...) names 5, expected the name of a metric such as 'rtm'"),
    (marker(launches=HUGE), "perf(launches=...) is a value of type int, expected a whole number of deployments"),
    (marker(concurrency=SEVERAL), "concurrency is array([0., 0., 0.]), expected a whole number"),
    (marker(noise=Unhelpful()), "perf(noise=...) is a value of type Unhelpful, expected one of doubt, trust"),
    (marker(check=5), "perf(check=...) is 5, expected a function; write def check"),
    (marker(check=Unhelpful()), "perf(check=...) is a value of type Unhelpful, expected a func"),
    (marker(wire=SEVERAL), "perf(wire=...) is array([0., 0., 0.]), expected a wire"),
    (marker(wire=Unhelpful()), "perf(wire=...) is a value of type Unhelpful, expected a wire"),
    (marker(load=Unhelpful()), "perf(load=...) is a value of type Unhelpful, expected a schedule"),
    (marker(**{"x" * 9000: 1}), "(9,002 characters)=...) is not an argument of the marker; allowed are: "),
    (lambda: Replicated(SEVERAL), "Replicated(replicas=array([0., 0., 0.])), expected a whole number from 2 to"),  # type: ignore[arg-type]
    (lambda: Replicated(balance=SEVERAL), "Replicated(balance=array([0., 0., 0.])), expected one of"),  # type: ignore[arg-type]
    (lambda: Batched(max_wait=SEVERAL), "Batched(max_wait=...) is array([0., 0., 0.]), expected a time"),  # type: ignore[arg-type]
    (lambda: Cached(store=SEVERAL), "Cached(store=array([0., 0., 0.])), expected 'memory://'"),  # type: ignore[arg-type]
    (lambda: Queued(broker="redis://host/" + "x" * 9000), "has 9,013 letters, expected at most 1,000"),
    (lambda: Queued(wait=SEVERAL), "Queued(wait=array([0., 0., 0.])), expected True or False"),  # type: ignore[arg-type]
    (lambda: Microservice(wire=Unhelpful()), "Microservice(wire=a value of type Unhelpful), expected a wire"),  # type: ignore[arg-type]
    (lambda: Pipeline(np.array(5)), "Pipeline(stages=array(5)) has 0 members, expected from 2 to 63"),
    (lambda: Ensemble(itertools.repeat("a:b")), "Ensemble(models=repeat('a:b')) has too many members"),  # type: ignore[arg-type]
    (lambda: Zipf([1], 10**400), "(401 characters)), expected a number that is not negative; write 1.1"),
    (lambda: Zipf([1], Fraction(10**400)), "expected a number that is not negative; write 1.1"),  # type: ignore[arg-type]
    (lambda: Uniform([1], seed=HUGE), "Uniform(seed=a value of type int), expected a whole number from 0 to"),
    (lambda: ClosedLoop(1, "9999999h"), "expected at most 1,000,000h; write 1h"),
    (lambda: PoissonRate(5e-324), "rate_rps is 5e-324, expected requests per second"),
    (lambda: PoissonRate(1, seed=HUGE), "PoissonRate(seed=a value of type int), expected a whole number"),
    (lambda: ConstantRate(Fraction(10**400)), "expected requests per second"),  # type: ignore[arg-type]
    (lambda: Stages([("1s", 1)], of=SEVERAL), "Stages(of=array([0., 0., 0.])), expected 'rate_rps'"),  # type: ignore[arg-type]
    (lambda: Stages([("9" * 200 + "h", 1)]), "expected at most 1,000,000h; write 1h"),  # type: ignore[arg-type]
    (lambda: Wire([], "json"), "Wire(protocol=[], codec='json', compression=None), expected 'rest+json'"),  # type: ignore[arg-type]
    (lambda: Url("http://x/", ca=object()), "expected a certificate file that exists, for an https address"),  # type: ignore[arg-type]
    (lambda: Url("https://x/", ca="y" * 5000), "expected a certificate file that exists, for an https address"),
    (lambda: Url("http://bücher.example/"), "expected a host of printable ASCII; write host.encode('idna')"),
    (lambda: Url("http://x/", http2=SEVERAL), "Url(http2=array([0., 0., 0.])), expected True or False"),  # type: ignore[arg-type]
    (lambda: App("a:b", server=SEVERAL), "App(server=array([0., 0., 0.])), expected one of 'uvicorn'"),  # type: ignore[arg-type]
    (lambda: App("a:b", cwd="a\0b"), r"App(cwd='a\x00b'), expected the path of a directory"),
    (lambda: App("a:b", env={"A\0": "x"}), "App(env=...), expected a mapping of text to text"),
    (lambda: App("a:b", env={"A=B": "x"}), "App(env=...) names the variable 'A=B', expected a name without"),
    (lambda: Command("serve\0 {port}"), r"Command('serve\x00 {port}') has NUL or characters that UTF-8 lacks"),
    (lambda: Command(itertools.repeat("x")), "Command(repeat('x')), expected a command line or its words"),  # type: ignore[arg-type]
    (lambda: Command(b"serve"), "Command(b'serve'), expected a command line or its words"),  # type: ignore[arg-type]
    (lambda: Command(["serve", object()]), "expected words of text"),  # type: ignore[list-item]
    (lambda: Command(["serve", HUGE]), "expected words of text"),  # type: ignore[list-item]
    (lambda: Trace("a\0b"), r"Trace('a\x00b') cannot be read: embedded null byte"),
    (lambda: Trace("/dev/zero"), "Trace('/dev/zero') cannot be read: it is a pipe, a socket or a device; name a"),
    (lambda: Trace("x", column=5), "Trace(column=5), expected the name of the timestamps as text"),  # type: ignore[arg-type]
    (lambda: Trace("x", speed=5e-324), "Trace(speed=5e-324), expected a factor above 0"),
    (lambda: parse_pattern(f"queued(capacity={DEEP})", "x"), "expected a whole number from 1 to 1,000,000"),
    (lambda: parse_pattern(f"queued(capacity={'-' * 9000}1)", "x"), "expected a whole number from 1 to"),
    (lambda: parse_pattern("cached|" * 999 + "cached", "x"), "1,000 patterns, expected at most 64"),
    (lambda: parse_pattern(f"cached{SPACES}x", "x"), "expected one of batched, cached, continuous"),
    (lambda: parse_pattern(f"cached({'9' * 9000})", "x"), "(9,002 characters))"),
    (lambda: parse_criteria(f"rtm{SPACES}x", "x"), "expected a weight such as rtm=0.5"),
    (lambda: parse_criteria(f"rtm=1{SPACES}2", "x"), "expected a number above 0, such as rtm=0.5"),
    (lambda: parse_objective(Unhelpful()), "slo is a value of type Unhelpful, expected a percentile"),
    (lambda: parse_duration(HUGE), "duration is a value of type int, expected a time with its unit"),
    (lambda: parse_duration("9999999h"), "duration is '9999999h', expected at most 1,000,000h; write 1h"),
    (lambda: parse_ratio("x" * 100_000), "… (100,002 characters), expected a share that is not negative"),
    (
        lambda: read_run_settings({"html": "x" * 9000}, {}, invoked_in=Path("/"), root=Path("/")),
        "(9,002 characters) cannot be used: File name too long; name a file",
    ),
)
def test_a_setting_that_no_value_fits_is_refused_in_a_sentence(use: Callable[[], object], message: str) -> None:
    with pytest.raises(SettingError) as caught:
        use()
    assert message in str(caught.value)
    assert len(str(caught.value)) < 1500
    assert "\n" not in str(caught.value)


@each_row(
    ("method", "arguments", "message"),
    ("assert_latency_below", ("1s", HUGE), "percentile is a value of type int, expected at least 1"),
    ("assert_latency_below", ("1s", Unhelpful()), "percentile is a value of type Unhelpful, expected a number"),
    ("assert_no_regression", (SEVERAL,), "array([0., 0., 0.])), expected a tuple of rtm"),
    ("assert_no_regression", (5,), "assert_no_regression(metrics=5), expected a tuple of rtm"),
    ("assert_no_regression", ([["rtm"]],), "assert_no_regression(metrics=[['rtm']]), expected a tuple of rtm"),
)
def test_an_argument_of_an_assertion_is_refused(method: str, arguments: tuple[Any, ...], message: str) -> None:
    with pytest.raises(SettingError) as caught:
        getattr(Reading(), method)(*arguments)
    assert message in str(caught.value)


@pytest.mark.parametrize("on", [SEVERAL, ["rtm"]])
def test_a_pattern_is_compared_by_the_name_of_a_metric(on: object) -> None:
    with pytest.raises(SettingError, match="expected one of 'rtm', 'throughput', 'ttft', 'nmrt'"):
        Reading().assert_faster_than("cached", on=on)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("ending", "content", "message"),
    [
        (".jsonl", "1\n" + "[" * 100_000, "row 2 is '[[["),
        (".jsonl", "1\n1" + "0" * 400, "row 2 is '1000"),
        (".csv", 'timestamp\n"' + "x" * 200_000, "row 1 is not CSV: field larger than field limit (131072)"),
        (".txt", "-1e308\n1e308", "lasts inf s, expected at most 3,600,000,000 s; give timestamps in seconds"),
    ],
    ids=["deep", "huge", "long", "wide"],
)
def test_a_trace_of_nonsense_is_refused_with_its_row(tmp_path: Path, ending: str, content: str, message: str) -> None:
    (tmp_path / f"trace{ending}").write_text(content)
    with pytest.raises(SettingError) as caught:
        Trace(tmp_path / f"trace{ending}")
    assert message in str(caught.value)
    assert len(str(caught.value)) < 1500


@each_row(
    ("made", "message"),
    ({"content": [False]}, "has content that cannot be read: sequence item 0: expected a bytes-like object"),
    ({"method": "PÖST"}, "has the method 'PÖST', expected one such as POST"),
    ({"headers": {"x-a": "b\r\nx-c: d"}}, "has a header with a line break, expected one line"),
)
def test_a_request_that_cannot_be_sent_is_refused(made: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingError) as caught:
        read_payload([1], builder=RequestBuilder(lambda _: made, "/"))
    assert message in str(caught.value)


def test_a_malformed_lock_file_names_no_versions(tmp_path: Path) -> None:
    (tmp_path / "poetry.lock").write_text('[[package]]\nname = 5\nversion = "1"\n[[package]]\nversion = []\n')
    assert locked_versions(tmp_path) == ("poetry.lock", [])
    (tmp_path / "poetry.lock").write_text("package = " + "[" * 9000)
    assert locked_versions(tmp_path) == ("poetry.lock", [])


def test_a_range_longer_than_memory_is_no_payload() -> None:
    with pytest.raises(SettingError, match="perf_payload is range of more than 4,000,000 inputs, expected at most"):
        read_payload(range(10**9))


@each_row(
    "text",
    'misses_total{a="b",\x0b="d"} 1',
    "hits_total 7" + "9" * 400,
    '# TYPE size histogram\nsize_bucket{lee="1.0"} 3',
    '# TYPE size histogram\nsize_bucket{le="+Inf"} 1e308\nsize_sum 1e308',
)
def test_metrics_of_nonsense_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"metric|bucket|size"):
        read_prometheus(text, Prometheus(batch_size="size", cache_hits="hits_total", cache_misses="misses_total"))


def test_the_name_of_a_tensor_is_text_that_utf8_can_encode() -> None:
    with pytest.raises(WireError, match="dictionaries need names that are text"):
        codec_of(GRPC).encode_inputs([{"\ud800": [1]}])


@pytest.mark.parametrize("values", [[b"x", np.zeros(2)], [b"x", np.array(["a", "b"])], [b"x", np.array(1j)]])
def test_text_or_bytes_beside_arrays_are_refused(values: list[object]) -> None:
    with pytest.raises(WireError, match="text or bytes beside something else, which no tensor can hold"):
        codec_of(Wire("rest", "binary")).encode_outputs(values)


@pytest.mark.parametrize("wire", [Wire(), Wire("rest", "binary"), Wire("rest", "msgpack"), GRPC])
def test_a_range_longer_than_a_request_is_not_sent(wire: Wire) -> None:
    for values in ([range(10**9)], [range(10**400)]):
        with pytest.raises(WireError):
            codec_of(wire).encode_inputs(values)
    codec_of(wire).encode_inputs([range(3)])


def test_an_error_with_surrogates_reaches_the_client() -> None:
    assert decode_error(encode_error("no \ud800 such")) == "no ? such"


def test_an_address_that_cannot_be_split_is_printed_without_its_password() -> None:
    assert without_password("redis://user:secret@[::1/0") == "redis://[::1/0"
