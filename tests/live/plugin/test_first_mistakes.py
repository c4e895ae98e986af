"""The mistakes of a first hour, each with its message: what was found, what was expected, what to do."""

import asyncio
import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from support.each_row import each_row
from support.fuzz.hostile import deep_list
from support.project import Project, Run

from pytest_mlpatterns import App, Batched, Command, Url
from pytest_mlpatterns.analysis.metrics.metrics import Metrics
from pytest_mlpatterns.config.arguments import merge_markers
from pytest_mlpatterns.config.run_settings import read_run_settings
from pytest_mlpatterns.config.settings import read_settings
from pytest_mlpatterns.engines.engine import engine_named
from pytest_mlpatterns.judging.perf import Perf
from pytest_mlpatterns.measurement.system_under_test import checked_target
from pytest_mlpatterns.plugin.name_hints import require_known_keys, require_known_options
from pytest_mlpatterns.plugin.options import OPTIONS
from pytest_mlpatterns.records.launch import Estimate
from pytest_mlpatterns.serving.http.inference_call import WireTally, stored_inference_call
from pytest_mlpatterns.serving.http.model_caller import ModelCaller
from pytest_mlpatterns.serving.model import pack
from pytest_mlpatterns.serving.model_version import model_version
from pytest_mlpatterns.wire import REST_JSON
from pytest_mlpatterns.workload.payload import read_payload

KEYS = [name.replace("-", "_") for name in OPTIONS]


def marker(*unnamed: object, **named: object) -> None:
    """A test with this marker."""
    read_settings(merge_markers([(unnamed, named)]), {}, {})


def ini(**keys: str) -> None:
    """A run with these keys, and a test without a marker."""
    read_settings({}, {}, keys)


def perf() -> Any:
    """The fixture of a test of which nothing is measured yet."""
    found: Any = object.__new__(Perf)
    found._experiment = SimpleNamespace(settings=SimpleNamespace(price=None))
    found._measurement = SimpleNamespace(so_far=None)
    found._verdicts = SimpleNamespace(raised=[])
    return found


def reads_p95(perf: Any) -> None:
    assert perf.metrics.p95 < 5_000_000


def reads_rtm(perf: Any) -> None:
    str(perf.metrics.rtm)


def version(value: object) -> Any:
    """A model with a version."""
    return SimpleNamespace(perf_version=value)


def answer(model: Callable[[list[Any]], Any], *inputs: object) -> Any:
    """What a model answers to inputs."""
    return asyncio.run(ModelCaller(model)(list(inputs)))


def is_as_in(pattern: str, message: str) -> bool:
    """Whether a message is as a table has it, which leaves out parts, each as ``…``."""
    return re.fullmatch(".*".join(map(re.escape, pattern.split("…"))), message, re.DOTALL) is not None


def sent(outputs: list[Any]) -> object:
    """The outputs of a model as the body of a response."""
    return stored_inference_call("json", None, WireTally(0)).answer(outputs)


class Classifier:
    def predict(self, batch: list[Any]) -> list[Any]:
        return batch


MISTAKES = r"""
marker(concurrency="4")
  concurrency is '4', expected a whole number of requests in flight from 1 to 10,000; write 4, without quotes
marker(concurrency=-4)
  concurrency is -4, expected a whole number of requests in flight from 1 to 10,000; write 1
marker(launches="3")
  perf(launches=...) is '3', expected a whole number of deployments from 1 to 100; write 3, without quotes
marker(4)
  perf(4) has a positional argument, expected keywords only; write concurrency=4
marker("batched")
  perf('batched') has a positional argument, expected keywords only; write pattern=...
marker(concurency=4)
  perf(concurency=...) is not an argument of the marker; did you mean concurrency=? allowed are: accept, …
marker(users=4)
  perf(users=...) is not an argument of the marker; allowed are: accept, …
marker(concurrency=4, rate_rps=100)
  perf(concurrency=..., rate_rps=...) gives several loads, expected one; leave the others out
marker(load=200)
  perf(load=...) is 200, expected a schedule; write ClosedLoop(16), ConstantRate(200), …
marker(rate_rps="200")
  rate_rps is '200', expected requests per second, from 0.000001 to 1,000,000; write 200
marker(pattern="cachd")
  perf(pattern=...) names the pattern 'cachd', did you mean cached? expected one of batched, …
marker(pattern=Batched)
  perf(pattern=...) is the class Batched, expected a value; write Batched()
Batched(max_batch_size=0)
  Batched(max_batch_size=0), expected a whole number from 2 to 100,000
marker(duration=3)
  perf(duration=...) is 3, expected a time with its unit; write for example "3ms" or "3s" (units: …
marker(duration="3 secs")
  perf(duration=...) is '3 secs', expected a time with its unit; write for example "20ms" or "20s" (units: …
marker(duration="10ms")
  perf(duration=...) is '10ms', expected at least 100ms to contain enough requests
marker(budget=30)
  perf(budget=...) is 30, expected a time with its unit; write for example "30ms" or "30s" (units: …
marker(tolerance=5)
  perf(tolerance=...) is 5, expected at most 1 (100 %); write 0.05 or "5%"
marker(tolerance={"rmt": 0.05})
  perf(tolerance=...) names the metric 'rmt', did you mean rtm? expected some of rtm, …
marker(compare="rmt")
  perf(compare=...) names the metric 'rmt', did you mean rtm? expected some of rtm, …
marker(accept="rtm: larger model")
  perf(accept=...) is 'rtm: larger model', expected a metric, a ceiling and a reason; write accept=…
marker(wire="rest+jsn")
  perf(wire=...) is 'rest+jsn', did you mean 'rest+json'? expected …
marker(cpus=0)
  perf(cpus=...) is 0, expected a number of cores of at least 0.01, or "all"; write 2 or 0.5
marker(check=True)
  perf(check=...) is True, expected a function; write def check(inputs, outputs): assert ...
marker(check=lambda outputs: True)
  perf(check=...) is <lambda>(outputs), expected a function of 2 arguments, the inputs and the outputs: too many
  positional arguments; write def check(inputs, outputs): assert ...
marker(pattern="batched(max_batch=3)")
  perf(pattern=...) gives 'max_batch=3' to batched, did you mean max_batch_size=? allowed are: …
marker(inconclusive="error")
  perf(inconclusive=...) is 'error', expected one of warn, fail, pass
engine_named("kubernetes")
  perf(engine=...) is 'kubernetes', expected one of 'local', 'ray'
engine_named("rya", source="--perf-engine")
  --perf-engine is 'rya', expected one of 'local', 'ray'; did you mean ray?
require_known_keys(["perf_tolerence"], KEYS)
  perf_tolerence is not an ini key; did you mean perf_tolerance? pytest --help lists all
require_known_keys(["perf_pattern"], KEYS)
  perf_pattern is not an ini key; did you mean perf_patterns? pytest --help lists all
require_known_keys(["perf_concurrency"], KEYS)
  perf_concurrency is not an ini key; concurrency is set in the marker: pytest.mark.perf(concurrency=...); pytest
  --help lists all
require_known_keys(["perf_calibrate"], KEYS)
  perf_calibrate was removed, since each launch shows how fast the machine is; delete the line
require_known_options(["--perf-calibrate"], [*OPTIONS])
  --perf-calibrate was removed, since each launch shows how fast the machine is; leave it out
require_known_options(["--perf-basline=update"], [*OPTIONS])
  --perf-basline is not an option; did you mean --perf-baseline? pytest --help lists all
require_known_options(["--perf-rate-rps=3"], [*OPTIONS])
  --perf-rate-rps is not an option; rate_rps is set in the marker: pytest.mark.perf(rate_rps=...); pytest --help lists
  all
ini(budget="30")
  ini key perf_budget is '30', expected a time with its unit; write for example "30ms" or "30s" (units: …
ini(tolerance="5%%")
  ini key perf_tolerance is '5%%', expected a share that is not negative; write 0.05 or "5%"
read_run_settings({}, {"baseline": "record"}, invoked_in=Path(), root=Path())
  ini key perf_baseline is 'record', expected one of check, update, require, prune, off
pack("shop.model.predict")
  perf_model is 'shop.model.predict', expected an import string; did you mean "shop.model:predict"?
pack("shop/model.py:predict")
  perf_model is 'shop/model.py:predict', expected an import string; did you mean "shop.model:predict"?
pack(Path("digits.joblib"))
  perf_model is the file 'digits.joblib', expected a callable that takes a list of inputs, or a class that loads one;
  python -m pytest_mlpatterns new digits.joblib writes a test that loads it
pack("predict")
  perf_model is 'predict', expected an import string; write it as package.module:attribute
pack("suport.project:Project").load()
  "suport.project:Project": no module suport on sys.path, did you mean support?
pack("support.project:Projct").load()
  "support.project:Projct": support.project has no attribute Projct, did you mean Project?
pack(3)
  perf_model is int, expected a callable that takes a list of inputs, a class of such, or an import string
  "package.module:attribute"
pack(Classifier())
  perf_model is Classifier, expected a callable that takes a list of inputs, a class of such, or an import string
  "package.module:attribute"; return model.predict
pack(Classifier).load()
  Classifier: class Classifier has no __call__(batch); give it a __call__ that returns self.predict(batch)
model_version(version(2))
  perf_model has perf_version 2, expected text; write perf_version = '2'
read_payload([], REST_JSON)
  perf_payload is empty, expected at least one input; return …
read_payload("text", REST_JSON)
  perf_payload is str, expected a list of inputs, one for each request; wrap …
read_payload((one for one in [1]), REST_JSON)
  perf_payload is generator, which can be read only once; return a list, or the generator function itself
read_payload([1, object()], REST_JSON)
  perf_payload item 1 is object, which cannot be sent over rest+json: Type is not JSON serializable: object; give
  numbers, text, lists, dictionaries or numpy arrays
checked_target("http://127.0.0.1:8000/predict", "perf_target")
  perf_target is 'http://127.0.0.1:8000/predict', expected App('package.module:app'), Command(…
Command("python serve.py")
  Command('python serve.py') has no {port}, expected it in the command or in env; write "serve --port {port}",
  port=8000 if it can open no other one, or Url(...) for a running server
Command("cd app && serve --port {port}")
  Command('cd app && serve --port {port}') has &&, expected one command without a shell; write …
App("shop.main.app")
  App('shop.main.app'), expected an import string of an application, or with factory=True of a function that returns
  one; did you mean "shop.main:app"?
Url("127.0.0.1:8000/predict")
  Url('127.0.0.1:8000/predict') has no scheme, expected http or https; write http://127.0.0.1:8000/predict
answer(lambda batch: [batch + 1], 1, 2)
  the model raised TypeError: can only concatenate list (not "int") to list; the model gets a list of inputs, here 2
  inputs
answer(lambda batch: [batch["text"]], {"text": "a"})
  the model raised TypeError: list indices must be integers or slices, not str; the model gets a list of inputs, here 1
  input
answer(lambda batch: [one.mean() for one in batch], [1.0, 2.0])
  the model raised AttributeError: 'list' object has no attribute 'mean'; over JSON an array arrives as a list:
  numpy.asarray(batch)
answer(lambda batch: [batch * 0.5], [1.0, 2.0])
  the model raised TypeError: can't multiply sequence by non-int of type 'float'; the model gets a list of inputs, here
  1 input, and over JSON an array arrives as a list: numpy.asarray(batch)
answer(lambda batch: [batch[5]], 1)
  the model raised IndexError: list index out of range
answer(lambda _batch: [len(3)], 1)
  the model raised TypeError: object of type 'int' has no len()
answer(lambda _batch: asyncio.run(None), 1)
  the model raised RuntimeError: asyncio.run() cannot be called from a running event loop; the model is called on the
  event loop of its server: make it an async function, and await in it
answer(lambda _batch: None, 1)
  the model returned None for 1 input, expected a list with one output for each; is its return missing?
answer(lambda batch: [int("x")], 1)
  the model raised ValueError: invalid literal for int() with base 10: 'x'
answer(lambda batch: [1, 2], 1)
  the model returned 2 outputs for 1 input; it must return one for each
answer(lambda batch: batch[:1], 1, 2)
  the model returned 1 output for 2 inputs; it must return one for each
answer(lambda _batch: {"label": 1}, 1)
  the model returned dict for 1 input, expected a list with one output for each; return [{...}, ...]
sent([1, object()])
  the model returned outputs that cannot be sent: output 1 of 2: Type is not JSON serializable: object; JSON takes
  numbers, text, lists, dicts and arrays: convert it; wire='rest+msgpack' takes bytes too
sent([10**5000])
  the model returned outputs that cannot be sent: …Integer exceeds 64-bit range…
sent([deep_list(5000)])
  the model returned outputs that cannot be sent: …Recursion limit reached…
sent([(lambda x: (x.append(x), x)[1])([])])
  the model returned outputs that cannot be sent: …Recursion limit…
sent(["\ud800"])
  the model returned outputs that cannot be sent: …str is not valid UTF-8…
sent([b"x"])
  the model returned outputs that cannot be sent: …Type is not JSON serializable: bytes…
sent([1.0, float("nan")])
  the model returned outputs that cannot be sent: output 1 has NaN, which JSON cannot carry; use wire=…
perf()(concurrency=8)
  perf(...) in the body of a test, expected its settings in the marker above it; write
  @pytest.mark.perf(concurrency=8), or of one case of several pytest.param(..., marks=pytest.mark.perf(concurrency=8))
perf()(8)
  perf(...) in the body of a test, expected its settings in the marker above it; write
  @pytest.mark.perf(concurrency=8), …
perf().assert_error_rate_below(1)
  assert_error_rate_below(1), expected less than 1, which is 100 %; write 0.01 or "1%"
perf().assert_error_rate_below(0)
  assert_error_rate_below(0), expected more than 0, which no run can show; write 0.01 or "1%";
  perf.assert_no_failures() asserts that no request of this run failed
perf().assert_rtm_below(20)
  assert_rtm_below(...) is 20, expected a time with its unit; write for example "20ms" or "20s" (units: …
perf().assert_peak_memory_below(512)
  assert_peak_memory_below(...) is 512, expected a size with its unit; write for example "512MiB" (units: …
perf().assert_latency_below("20ms", percentile=0.99)
  assert_latency_below(percentile=0.99): percentile is 0.99, expected at least 1 and less than 100; write 99 for p99
perf().assert_rtm_under("20ms")
  'Perf' object has no attribute 'assert_rtm_under'; did you mean assert_rtm_below?
perf().assert_p95_below("20ms")
  'Perf' object has no attribute 'assert_p95_below'; use assert_latency_below(..., percentile=95)
reads_p95(perf())
  perf.metrics has no p95; use perf.metrics.latency_ns(95)
Metrics(())["rtm"]
  perf.metrics has no rtm; did you mean rtm_ns?
Metrics(())["rtm_ns"]
  perf.metrics['rtm_ns'], expected perf.metrics.rtm_ns
reads_rtm(perf())
  perf.metrics has no rtm; did you mean rtm_ns?
Estimate(4.0, 3.0, 5.0) < 3
  an Estimate is an interval and cannot be compared with 3; compare its .value or .high, or let the test judge it:
  perf.assert_rtm_below("20ms")
"""
"""What users write, and below it what they are told, in as many lines as it needs."""
USED = (
    *(
        App,
        Batched,
        Command,
        Estimate,
        Metrics,
        Path,
        Url,
        checked_target,
        deep_list,
        engine_named,
        model_version,
        pack,
    ),
    *(read_payload, read_run_settings, require_known_keys, require_known_options),
    *(Classifier, answer, ini, marker, perf, reads_p95, reads_rtm, sent, version),
)
NAMES = {
    "KEYS": KEYS,
    "OPTIONS": OPTIONS,
    "asyncio": asyncio,
    "REST_JSON": REST_JSON,
    **{one.__name__: one for one in USED},
}
ROWS = [
    (call, " ".join(message.split())) for call, message in re.findall(r"^(\S.*)\n((?:  .+\n)+)", MISTAKES, re.MULTILINE)
]


@each_row(("call", "message"), ROWS)
def test_a_mistake_is_answered_with_what_to_do(call: str, message: str) -> None:
    with pytest.raises(Exception, match=r"\w") as caught:
        eval(call, NAMES)
    assert is_as_in(message, str(caught.value)), str(caught.value)


def test_every_mistake_has_its_row() -> None:
    assert len(ROWS) == sum(not line.startswith(" ") for line in MISTAKES.split("\n")[1:-1]) >= 80


LIVE = """
import pytest

from pytest_mlpatterns import App, Command

FAST = {"payload": [1], "duration": "200ms", "warmup": "0s", "launches": 1}

def model(batch):
    return batch

class TestModelWithoutReturn:
    @pytest.fixture
    def perf_model(self):
        model

    @pytest.mark.perf(payload=[1])
    def test_it(self, perf):
        perf.assert_rtm_below("1s")

class TestInputsWithoutReturn:
    @pytest.fixture
    def perf_payload(self):
        [1]

    @pytest.mark.perf(model=model)
    def test_it(self, perf):
        pass

class TestCommand:
    @pytest.fixture
    def perf_target(self):
        return Command("python serve.py")

    @pytest.mark.perf(**FAST)
    def test_it(self, perf):
        pass

class TestApplication:
    @pytest.fixture
    def perf_target(self):
        return App("shop_of_mistakes:aap")

    @pytest.mark.perf(**FAST)
    def test_it(self, perf):
        pass

@pytest.fixture
def perf_payloads():
    return [1]

@pytest.mark.perf(model=model)
def test_name(perf):
    pass

@pytest.mark.perf(model=model, payload=[1], concurrency="4")
def test_quotes(perf):
    pass

@pytest.mark.perf(model="shop_of_mistakes:predct", payload=[1])
def test_attribute(perf):
    pass

@pytest.mark.perf(model=lambda batch: [batch + 1], payload=[1])
def test_batch(perf):
    pass

@pytest.mark.perf(model=lambda batch: [object()], payload=[1])
def test_output(perf):
    pass

@pytest.mark.perf(model=model, **FAST)
def test_arguments(perf):
    perf(concurrency=8)

@pytest.mark.perf(model=model, **FAST)
def test_percentile(perf):
    assert perf.metrics.p95 < 5_000_000

@pytest.mark.perf(model=model, **FAST)
def test_assertion(perf):
    perf.assert_rtm_under("20ms")

@pytest.mark.perf(model=model, **FAST)
def test_limit(perf):
    perf.assert_error_rate_below("1%")
    perf.assert_rtm_below("1ns")

@pytest.mark.perf(model=model, **FAST)
def test_swallowed(perf):
    try:
        perf.assert_rtm_below("1ns")
    except Exception:
        pass

def test_fixture(pref):
    pass

@pytest.fixture(scope="module")
def shared(perf):
    return perf

def test_scope(shared):
    pass
"""
SHOP = """
app = predict = print
"""
FIRST_LINES = {
    "TestModelWithoutReturn.test_it": "perf_model returned None, expected a callable, …; is its return missing?",
    "TestInputsWithoutReturn.test_it": "perf_payload returned None, expected a list of inputs; is its return missing?",
    "ERROR at setup of TestCommand.test_it": "Command('python serve.py') has no {port}, expected it in the command …",
    "TestApplication.test_it": "App('shop_of_mistakes:aap'): python ended with exit code 1; it printed last:",
    "test_name": "there are no inputs; define a fixture …; there is perf_payloads, rename it to perf_payload",
    "test_quotes": "concurrency is '4', expected a whole number of requests in flight from 1 to 10,000; write 4, …",
    "test_attribute": '"shop_of_mistakes:predct": shop_of_mistakes has no attribute predct, did you mean predict?',
    "test_batch": 'can only concatenate list (not "int") to list; the model gets a list of inputs, here 1 input',
    "test_output": "the model returned outputs that cannot be sent: Type is not JSON serializable: object; …",
    "test_arguments": "perf(...) in the body of a test, expected its settings in the marker above it; write …",
    "test_percentile": "perf.metrics has no p95; use perf.metrics.latency_ns(95)",
    "test_assertion": "'Perf' object has no attribute 'assert_rtm_under'; did you mean assert_rtm_below?",
    "ERROR at setup of test_fixture": "fixture 'pref' not found",
}
"""The end of the first line that pytest prints of each error."""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """One run of a file in which each test has a mistake."""
    project = Project().with_file("test_it.py", LIVE).with_file("shop_of_mistakes.py", SHOP)
    return project.run(tmp_path_factory.mktemp("mistakes"))


@pytest.mark.processes
@pytest.mark.parametrize(("test", "line"), FIRST_LINES.items(), ids=FIRST_LINES)
def test_a_failure_shows_the_users_line_and_the_message_alone(run: Run, test: str, line: str) -> None:
    text = run.failure(test)
    first = next(one for one in text.splitlines() if one.startswith("E "))
    assert is_as_in(f"…{line}", first)
    assert "__tracebackhide__" not in text
    assert "pytest_mlpatterns/" not in text
    assert "???" not in text


@pytest.mark.processes
def test_names_that_almost_exist_are_answered_at_the_end_of_a_failure(run: Run) -> None:
    assert "has no attribute 'aap'; did you mean app?" in run.failure("TestApplication.test_it")
    assert "did you mean perf?" in run.failure("ERROR at setup of test_fixture")
    assert "share a deployment with perf_deploy_session" in run.failure("ERROR at setup of test_scope")


@pytest.mark.processes
def test_a_missed_limit_names_the_line_of_its_assertion(run: Run) -> None:
    line = next(at for at, text in enumerate(LIVE.splitlines(), 1) if 'assert_rtm_below("1ns")' in text)
    assert run.facts("test_limit")["next"].endswith(f"if the limit is too tight, change it: test_it.py:{line}")


@pytest.mark.processes
def test_a_figure_that_does_not_exist_is_refused_before_the_load(run: Run) -> None:
    assert "perf measurement" not in run.failure("test_percentile")
    assert run.table.keys() == {"test_limit", "test_swallowed"}


@pytest.mark.processes
def test_a_limit_whose_failure_the_test_swallows_is_no_pass_in_the_table(run: Run) -> None:
    assert run.table["test_swallowed"] == "caught"
    assert "the test caught this failure and passed: median latency" in run.section("performance")
    assert "1 test caught a failure and passed" in run.out


@pytest.mark.processes
@pytest.mark.parametrize(
    ("mistake", "message"),
    [
        ('PATTERN = Batched(max_batch_size="x")', "Batched(max_batch_size='x'), expected a whole number from 2"),
        ('class Gate(Pattern):\n    layer_kind = "waits"', "layer_kind of gate is 'waits', expected a LayerKind"),
    ],
)
def test_a_mistake_in_the_module_ends_at_the_users_line(tmp_path: Path, mistake: str, message: str) -> None:
    text = f"from pytest_mlpatterns import Batched, Pattern\n\n{mistake}\n"
    out = Project().with_file("test_it.py", text).run(tmp_path).out
    assert "test_it.py:3: in <module>" in out
    assert f"E   pytest_mlpatterns.SettingError: {message}" in out
    assert "pytest_mlpatterns/" not in out
    assert "???" not in out
