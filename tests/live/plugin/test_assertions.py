"""Assertions as users meet them: what passes, what a failure says, what counts for nothing, what stays undecided."""

import re
import textwrap
from pathlib import Path

import pytest
from support.project import Project, Run

from pytest_mlpatterns.analysis.health import sustained

pytestmark = pytest.mark.processes

FAST = 'pytest.mark.perf(duration="300ms", warmup="100ms", launches=1, concurrency=2)'

JUDGED = """
def test_all_pass(perf):
    perf.assert_rtm_below("60s")
    perf.assert_latency_below("60s", percentile=75)
    perf.assert_throughput_at_least(rps=0.001)
    perf.assert_asl_below("100%")
    perf.assert_error_rate_below(0.99)
    perf.assert_peak_memory_below("1TiB")
    perf.assert_cpu_per_request_below("60s")
    perf.assert_cold_start_below("60s")

def test_cold_start_fails(perf):
    perf.assert_cold_start_below("1ms")

def test_rtm_fails(perf):
    perf.assert_rtm_below("1ns")

def test_throughput_fails(perf):
    perf.assert_throughput_at_least(rps=1e9)

def test_asl_fails(perf):
    perf.assert_asl_below(0)

def test_the_first_limit_that_fails_ends_the_test(perf):
    perf.assert_peak_memory_below("1TiB")
    perf.assert_latency_below("1ns", percentile=75)
    perf.assert_peak_memory_below("1 B")

@pytest.mark.parametrize("size", [pytest.param(1, id="small-1")])
def test_a_file(perf, size):
    perf.assert_no_failures()
    perf.assert_that("throughput>=0.001", limits="limits.csv", tolerance="10%")
"""
LIMITS = "test,latency:p75,mean_ms\nsmall-1,1 ns,60000\n"

FAILURES = {
    "test_rtm_fails": r"median latency .+ \(.+ to .+\) is not below 1\.00 ns",
    "test_throughput_fails": r"throughput .+ req/s \(.+ to .+\) is not at least 1,000,000,000 req/s",
    "test_cold_start_fails": r"start to first answer .+ \(.+ to .+\) is not below 1\.00 ms",
    "test_asl_fails": r"CPU share \(ASL\) .+ % \(.+ to .+\) is not below 0\.0 %",
    "test_the_first_limit_that_fails_ends_the_test": r"p75 latency .+ \(.+ to .+\) is not below 1\.00 ns",
    "test_a_file[small-1]": r"p75 latency .+ is not below 1\.10 ns; limit of limits\.csv, line 2, widened by 10%",
}

REFUSED = {  # and those of test_first_mistakes, tests/unit/test_found.py and test_other_side.py
    "assert_latency_below('20ms', percentile='p99')": ["percentile is 'p99', expected a number", "write percentile=99"],
    "assert_latency_below('2s')": ["percentile is None, expected a number", "write percentile=95"],
    "assert_throughput_at_least('many')": ["rps=...) is 'many'", "a number"],
    "assert_throughput_at_least(-1)": ["rps=...) is -1", "not negative"],
    "assert_asl_below('most')": ["assert_asl_below(...) is 'most'", "expected a"],
    "assert_error_rate_below('few')": ["assert_error_rate_below(...) is 'few'", "expected a"],
    "assert_cpu_per_request_below(2)": ["assert_cpu_per_request_below(...) is 2", "a time with its unit"],
    "assert_cold_start_below(3)": ["assert_cold_start_below(...) is 3", "a time with its unit"],
    "assert_cost_below(0.4)": ["assert_cost_below(...) is 0.4", "an amount with its currency", "0.40 USD"],
    "assert_cost_below('0.40 USD')": ["without a price", "0.0425 USD per core-hour, 0.0057 USD per GiB-hour"],
    "assert_no_regression(metrics=('cost',))": ["metrics=('cost',)", "expected a tuple of rtm"],
    "assert_no_regression(metrics=('rmt',))": ["metrics=('rmt',)", "did you mean rtm?"],
    "assert_no_regression(tolerance='a bit')": ["assert_no_regression(tolerance=...) is 'a bit'", "expected a"],
    "assert_no_leak(100, duration='10s')": ["assert_no_leak(...) is 100, expected a size with its unit"],
    "assert_no_leak('0 B', duration='10s')": ["('0 B'), expected more than 0, which no run can show; write \"100 B\""],
    "assert_no_leak('1KiB', duration='0.5s')": ["assert_no_leak(duration='0.5s'), expected at least 1s; write \"10s\""],
    "assert_no_leak('1KiB', duration=10)": ["assert_no_leak(duration=...) is 10, expected a time with its unit"],
    "assert_faster_than('cach')": ["did you mean cached?"],
    "assert_faster_than('cached', by='much')": ["assert_faster_than(by=...)"],
    "assert_ttft_below(300)": ['is 300, expected a time with its unit; write for example "300ms" or "300s"'],
    "assert_goodput_at_least(rps=2)": ['expected what each request keeps; add slo="ttft<300ms"'],
    "assert_goodput_at_least(rps=2, slo='ttft:p95<300ms')": ["expected what each single request keeps, without a pe"],
}

UNCOUNTABLE = '''
import pytest

class Fails:
    """Answers the first request, which shows that it is ready, and then every n-th."""

    def __init__(self, every):
        self.every, self.calls = every, 0

    def __call__(self, batch):
        self.calls += 1
        if self.calls > 1 and self.calls % self.every:
            raise RuntimeError(f"no weights for {batch}")
        return batch

def echo(batch):
    return batch

def slow(batch):
    import time

    time.sleep(0.05)
    return batch

@pytest.fixture
def perf_payload():
    return ["a"]

pytestmark = pytest.mark.perf(duration="300ms", warmup="0s", launches=1)

@pytest.mark.perf(model=Fails(10**9))
def test_nothing_succeeds(perf):
    perf.assert_rtm_below("60s")

@pytest.mark.perf(model=Fails(10**9))
def test_nothing_succeeds_and_the_body_asks_for_nothing(perf):
    pass

@pytest.mark.perf(model=Fails(2))
def test_too_many_fail(perf):
    perf.assert_throughput_at_least(1)

@pytest.mark.perf(model=Fails(2))
def test_an_error_rate_may_be_judged_all_the_same(perf):
    perf.assert_error_rate_below(0.001)

@pytest.mark.perf(model=slow)
def test_too_few_samples(perf):
    perf.assert_latency_below("60s", percentile=99)

@pytest.mark.perf(model=slow, rate_rps=0.5, duration="100ms", warmup="100ms")
def test_nothing_is_due(perf):
    perf.assert_rtm_below("60s")
'''

UNDECIDED = """
def slow(batch):
    time.sleep(0.02)
    return batch

@pytest.mark.perf(model=slow, duration="200ms", launches=1)
def test_ten_requests(perf):
    perf.assert_error_rate_below(0.05)
"""
"""At most ten requests and none that failed say that the rate is below 28 % (Wilson, 95 %), on any machine."""

GIVEN = """
import pytest

pytestmark = pytest.mark.perf(duration="5s", launches=1)

def generate(batch):
    yield "one"
    yield " two"

def figures(perf):
    perf.assert_total_time_below("60s")
    (launch,) = perf.metrics.launches
    seconds = perf.metrics.total_time_ns.value / 1e9
    sent = launch.samples.request[launch.samples.due_in(launch.window)]
    return seconds, sorted(sent.tolist()), launch

@pytest.mark.perf(model=lambda batch: batch, payload=[*range(37)], requests="all", concurrency=2)
def test_each_input_once(perf):
    seconds, sent, _ = figures(perf)
    assert sent == [*range(37)]
    assert perf.metrics.throughput_rps.value == pytest.approx(37 / seconds)

@pytest.mark.perf(model=generate, wire="openai", payload=["a", "b"], requests=21, rate_rps=100, warmup=3)
def test_streams(perf):
    seconds, sent, launch = figures(perf)
    assert sent == [0] * 11 + [1] * 10
    assert launch.warmup.requests >= 3
    assert perf.metrics.output_tokens_rps.value == pytest.approx(42 / seconds, rel=0.2)
"""


@pytest.fixture(scope="module")
def judged(tmp_path_factory: pytest.TempPathFactory) -> Run:
    project = Project().with_tests(JUDGED, marker=FAST).with_file("limits.csv", LIMITS)
    return project.run(tmp_path_factory.mktemp("judged"))


@pytest.fixture(scope="module")
def uncountable(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return Project().with_file("test_perf.py", UNCOUNTABLE).run(tmp_path_factory.mktemp("uncountable"))


@pytest.fixture(scope="module")
def refused(tmp_path_factory: pytest.TempPathFactory) -> Run:
    calls = "".join(f"    {call!r}: lambda perf: perf.{call},\n" for call in REFUSED)
    body = f"""
import json

from pytest_mlpatterns import SettingError

CALLS = {{
{calls}}}

def test_each(perf):
    said = {{}}
    for call, run in CALLS.items():
        with pytest.raises(SettingError) as error:
            run(perf)
        said[call] = str(error.value)
    with open("said.json", "w") as file:
        json.dump(said, file)

def test_one(perf):
    perf.assert_rtm_below(20)
"""
    return Project().with_tests(body).run(tmp_path_factory.mktemp("refused"), "--perf-smoke")


FIRST_FAILURE = r"perf_payload item 0 -> RuntimeError: no weights for \['a'\]"


def test_limits_that_hold_pass_and_those_that_do_not_fail(judged: Run) -> None:
    assert judged.outcomes == {"passed": 1, "failed": len(FAILURES)}
    assert judged.exit_code == pytest.ExitCode.TESTS_FAILED
    assert judged.table == {"test_all_pass": "pass", **dict.fromkeys(FAILURES, "FAIL")}


@pytest.mark.parametrize(("test", "verdict"), FAILURES.items(), ids=FAILURES.keys())
def test_a_failure_says_what_was_found_what_it_stands_on_and_what_to_do(judged: Run, test: str, verdict: str) -> None:
    assert_says_all(judged, test, verdict)


def test_given_requests_are_sent_and_their_time_is_the_one_that_rates_are_of(tmp_path: Path) -> None:
    run = Project().with_file("test_perf.py", GIVEN).run(tmp_path, "-n", "1")
    assert run.outcomes["passed"] == 2, run.out  # a busy machine may leave the limit open


def assert_says_all(judged: Run, test: str, verdict: str) -> None:
    """A failure has its figures first, then the facts, and points at the call."""
    text = judged.failure(test)
    (called,) = [line for line in text.splitlines() if line.startswith(">")]
    assert re.search(r"perf\.assert_\w+\(", called)
    messages = [line[1:].strip() for line in text.splitlines() if line.startswith("E ")]
    assert re.fullmatch(f"LimitFailure: {verdict}", messages[0])
    facts = judged.facts(test)
    assert facts["set-up"] == "load closed(2)"
    assert re.fullmatch(r"1 launch, [\d,]+ requests, 0 failed, [\d.]+ s( of 60 s)?", facts["measured"])
    assert facts["metrics"]
    assert "test_perf.py" in facts["next"]
    assert "pytest_mlpatterns/" not in text  # nobody wants to read frames of ours


def test_a_failure_is_one_line_of_figures_where_space_is_short(judged: Run) -> None:
    (line,) = [line for line in judged.out.splitlines() if line.startswith("FAILED test_perf.py::test_rtm_fails")]
    assert re.match(r"FAILED \S+ - LimitFailure: median latency .+ is not below 1\.00 ns", line)


@pytest.mark.parametrize("call", REFUSED, ids=lambda call: re.sub(r"\W+", "-", call).strip("-"))
def test_an_impossible_limit_is_refused_by_name(refused: Run, call: str) -> None:
    message = refused.json("said.json")[call]
    assert [word for word in REFUSED[call] if word not in message] == []


def test_a_refusal_points_at_the_call(refused: Run) -> None:
    assert refused.outcomes == {"passed": 1, "failed": 1}
    text = refused.failure("test_one")
    assert ">       perf.assert_rtm_below(20)" in text
    assert "UnitError: assert_rtm_below(...) is 20, expected a time with its unit" in text
    assert "test_perf.py:" in text.splitlines()[-1]


@pytest.mark.parametrize(
    ("test", "words"),
    {
        "test_nothing_succeeds": [r"none of [\d,]+ requests succeeded \(500: [\d,]+; first: ", FIRST_FAILURE],
        "test_nothing_succeeds_and_the_body_asks_for_nothing": [r"none of [\d,]+ requests succeeded", FIRST_FAILURE],
        "test_too_many_fail": [
            r"[\d,]+ of [\d,]+ requests failed \(500: [\d,]+; .*\), expected at most 5.0 %",
            FIRST_FAILURE,
        ],
        "test_nothing_is_due": ["no request was due in the measured window", "duration="],
    }.items(),
)
def test_what_supports_no_verdict_fails_and_says_why(uncountable: Run, test: str, words: list[str]) -> None:
    (message,) = [line for line in uncountable.failure(test).splitlines() if line.startswith("E ")]
    assert message.startswith("E   ")
    assert re.search("(InvalidResult|GeneratorLimit)Error: ", message)
    assert "pytest_mlpatterns/" not in uncountable.failure(test)
    assert [word for word in words if not re.search(word, message)] == []


def test_too_few_samples_leave_a_test_undecided_with_the_number_that_is_missing(uncountable: Run) -> None:
    assert uncountable.table["test_too_few_samples"] == "undecided"
    said = r"p99 latency of \d+ samples?, expected at least 459 .*; \d+ more are needed"
    assert re.search(said, " ".join(uncountable.section("performance").split()))


def test_a_generator_that_is_the_limit_leaves_it_undecided(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sustained, "_LIMITED_SHARE", 0.0)  # whatever it uses is too much
    tests = """
    def test_rate(perf): perf.assert_throughput_at_least(0.001)
    def test_kept(perf): perf.assert_rtm_below("60s")
    def test_not_kept(perf): perf.assert_rtm_below("1ns")
    """
    run = Project().with_tests(textwrap.dedent(tests)).run(tmp_path)
    assert run.outcomes == {"passed": 3, "warnings": 2}
    assert run.table == {"test_rate": "undecided", "test_kept": "pass", "test_not_kept": "undecided"}
    said = r"no verdict: the load generator used .{3,9} of a core and may itself be the limit"
    assert len(re.findall(said, " ".join(run.section("performance").split()))) == 2


def test_errors_are_judged_even_where_they_are_many(uncountable: Run) -> None:
    text = uncountable.failure("test_an_error_rate_may_be_judged_all_the_same")
    assert re.search(r"LimitFailure: error rate .+ % \(.+ to .+\) is not below 0\.1", text)
    assert re.search(r"[\d,]+ failed \(500: [\d,]+; first: perf_payload item 0", text)


@pytest.mark.parametrize("test", ["test_nothing_succeeds", "test_too_many_fail"])
def test_the_traceback_of_a_failing_model_stands_in_the_report(uncountable: Run, test: str) -> None:
    text = uncountable.failure(test)
    assert "perf deployment" in text
    assert "The model raised:\nTraceback (most recent call last):" in text
    assert "RuntimeError: no weights for ['a']" in text
    assert 'raise RuntimeError(f"no weights for {batch}")' in text
    assert text.count("Traceback (most recent call last):") == 1


@pytest.mark.parametrize(
    ("arguments", "exit_code", "outcomes", "verdict"),
    [
        ((), pytest.ExitCode.OK, {"passed": 1, "warning": 1}, "undecided"),
        (("--perf-inconclusive", "pass"), pytest.ExitCode.OK, {"passed": 1}, "undecided"),
        (("--perf-inconclusive", "fail"), pytest.ExitCode.TESTS_FAILED, {"failed": 1}, "FAIL"),
    ],
    ids=["by default", "pass", "fail"],
)
def test_an_undecided_test_becomes_what_was_asked_for(
    tmp_path: Path, arguments: tuple[str, ...], exit_code: pytest.ExitCode, outcomes: dict[str, int], verdict: str
) -> None:
    run = Project().with_tests(UNDECIDED).run(tmp_path, *arguments)
    assert run.exit_code == exit_code
    assert run.outcomes == {name.replace("warning", "warnings"): count for name, count in outcomes.items()}
    assert run.table == {"test_ten_requests": verdict}
    reason = r"error rate 0\.0–\d\d\.\d % includes the limit of 5\.0 % after 1 launch;"
    if "warning" in outcomes:
        (line,) = [one for one in run.section("warnings summary").splitlines() if "InconclusiveWarning" in one]
        assert re.fullmatch(r" +\S*test_perf\.py:\d+: InconclusiveWarning: undecided: error rate, see below", line)
        assert "perf.assert_error_rate_below" not in run.section("warnings summary")  # the line above has its number
    if verdict == "undecided":
        assert re.search(rf"test_ten_requests: undecided\n  {reason}", run.section("performance"))
    else:
        assert re.search(rf"InconclusiveFailure: {reason}", run.failure("test_ten_requests"))
        next_step = run.facts("test_ten_requests")["next"]
        assert next_step.startswith("measure longer: write launches=4 in the marker of the test, and run")
        assert next_step.endswith("pytest test_perf.py::test_ten_requests")


def test_a_check_sees_answers_from_under_load(tmp_path: Path) -> None:
    body = """
    def right(inputs, outputs):
        assert len(inputs) == len(outputs) > 3
        assert set(inputs) == {1, 2, 3}
        assert outputs == [2 * value for value in inputs]

    def wrong(inputs, outputs):
        assert outputs == inputs, "answers went to the wrong callers"

    def says_false(inputs, outputs):
        return outputs == inputs

    @pytest.mark.perf(check=right)
    def test_right(perf): pass

    @pytest.mark.perf(check=wrong)
    def test_wrong(perf): pass

    @pytest.mark.perf(check=says_false)
    def test_false(perf): perf.assert_rtm_below("60s")
    """
    run = Project().with_tests(body).run(tmp_path)
    assert run.outcomes == {"passed": 1, "failed": 2}
    assert "AssertionError: answers went to the wrong callers" in run.failure("test_wrong")
    assert "check= returned False for" in run.failure("test_false")
    for name, line in (("test_wrong", "assert outputs == inputs"), ("test_false", "perf.assert_rtm_below")):
        assert line in run.failure(name)
        assert "answer_check.py" not in run.failure(name), "the source of the plugin is of no use"
        assert "measurement/" not in run.failure(name)


def test_a_smoke_run_sends_one_request_and_judges_nothing(tmp_path: Path, distribution: tuple[str, ...]) -> None:
    body = """
    from pathlib import Path

    def count(batch):
        with open("calls.txt", "a") as file:
            file.write(f"{batch}\\n")
        return batch

    def one(inputs, outputs):
        assert inputs == outputs == [1]

    @pytest.mark.perf(model=count, check=one)
    def test_impossible_limits(perf):
        perf.assert_rtm_below("1ns")
        perf.assert_throughput_at_least(1e9)
        perf.assert_no_regression()
        assert perf.predict(5) == 5
    """
    run = Project().with_tests(body).run(tmp_path, "--perf-smoke", "--perf-baseline", "update", *distribution)
    assert run.outcomes == {"passed": 1}
    assert "smoke run: 1 perf test sent one request, no verdicts" in run.section("performance")
    sent = (tmp_path / "calls.txt").read_text(encoding="utf-8").splitlines()
    assert sent == ["[1]", "[1]", "[5]"]  # readiness, the one request, and the prediction that the body asks for
    assert not (tmp_path / "perf-baseline.json").exists()
