"""A service that dies, deadlocks or is stopped under load fails; so does a load whose generator is; nothing hangs.

Most faults begin a quarter of a second after the first request of the load. That is in the window also if a busy
machine sends this request half a second late.
"""

import re
from pathlib import Path

import pytest
from support import SERVICES
from support.fault_run import run_fault_here
from support.nightly import rarer
from support.project import Project

pytestmark = pytest.mark.processes

CLOSED = "concurrency=4"
TIMED_OUT = "all 4 callers timed out after 1.00 s"
WINDOW = 'duration="600ms", warmup="200ms"'
STOPPED = "is stopped (SIGSTOP)"
PATIENT = "30s"
"""A time-out that no answer reaches which comes at all, however busy the machine is."""
TEST = """
import pytest
from pytest_mlpatterns import Command

pytestmark = pytest.mark.perf(payload=[1, 2, 3], timeout="{timeout}", launches=1, {load})

@pytest.fixture
def perf_target():
    return Command("{{python}} {server} {fault} {{port}} {after}", path="/p", ready="/h", stop="1s")

def test_it(perf):
    {body}
"""


def command(
    fault: str,
    after: str = "0.25",
    *,
    load: str = CLOSED,
    window: str = WINDOW,
    body: str = "pass",
    timeout: str = "1s",
) -> Project:
    """A test of a dying server, which Command starts."""
    server = SERVICES / "dying.py"
    load = f"{load}, {window}"
    text = TEST.format(load=load, server=server, fault=fault, after=after, body=body, timeout=timeout)
    return Project().with_file("test_it.py", text)


ATTACHED = """
import pathlib, socket, subprocess, sys, time
import pytest
from pytest_mlpatterns import Url
from pytest_mlpatterns.system.sockets import free_port

pytestmark = pytest.mark.perf(payload=[1, 2, 3], timeout="1s", launches=1, {load})

def url():
    port = free_port()
    server = subprocess.Popen([sys.executable, "{server}", "{fault}", str(port), "0.25"])
    while True:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            return server, port
        except OSError:
            assert server.poll() is None
            time.sleep(0.02)

@pytest.fixture
def perf_target():
    server, port = url()
    yield Url(f"http://127.0.0.1:{{port}}/p", pid=server.pid if {named} else None)
    server.kill()
    server.wait()

def test_it(perf):
    pass
"""


def attached(fault: str, *, named: bool = False) -> Project:
    """A test of a server that runs already; ``named``: its process is known."""
    text = ATTACHED.format(fault=fault, server=SERVICES / "dying.py", load=f"{CLOSED}, {WINDOW}", named=named)
    return Project().with_file("test_it.py", text)


class TestClosedLoop:
    @pytest.mark.parametrize(
        ("fault", "callers", "body"),
        [
            ("hangs", 4, "perf.assert_throughput_at_least(1)"),
            *rarer(("hangs", 4, 'perf.assert_error_rate_below("90%")'), ("hangs", 4, "perf.assert_no_regression()")),
            *rarer(("blocks", 2, "pass"), ("hangs", 64, "pass")),
        ],
    )
    def test_a_deadlock_in_the_window_fails_whatever_the_test_asserts(
        self, tmp_path: Path, fault: str, callers: int, body: str
    ) -> None:
        run = run_fault_here(command(fault, load=f"concurrency={callers}", body=body), tmp_path)
        run.assert_ended({"failed": 1}, f"all {callers} callers timed out after 1.00 s")
        assert re.search(r"InvalidResultError: no answer (since [\d.]+ m?s of|in) the w", run.text)

    @pytest.mark.parametrize(
        "fault", ["trickles", *rarer("hangs", "too-long", "continues", "chunks", "headers", "blocks")]
    )
    def test_a_service_that_answers_nothing_in_the_window_is_said_to(self, tmp_path: Path, fault: str) -> None:
        run = run_fault_here(command(fault, "0"), tmp_path)
        run.assert_ended({"failed": 1}, f"no answer in the whole window: {TIMED_OUT}")
        assert "measure longer" not in run.text

    @pytest.mark.parametrize("fault", ["blocks", *rarer("trickles", "too-long")])
    def test_the_only_caller_waits_for_the_dead_or_an_endless_answer(self, tmp_path: Path, fault: str) -> None:
        """One more request says so; of a machine so slow that it sent fewer than twenty, the share of failures."""
        project = command(fault, "0.7", load="concurrency=1", window='duration="1s", warmup="200ms"')
        run = run_fault_here(project, tmp_path)
        run.assert_ended({"failed": 1}, "time-out: 1")
        assert re.search(r"one more request got no answer within 2\.00 s|: 1 of 1?\d requests failed", run.text)


@pytest.mark.parametrize(
    ("project", "messages"),
    [
        (command("exits"), ("exit code 3",)),
        (command("stops"), (STOPPED,)),
        *rarer((command("killed"), ("signal SIGKILL",))),
        *rarer(*((command("stops", load=load), (STOPPED,)) for load in ("concurrency=1", "rate_rps=100"))),
        *rarer(
            (
                command("crowded", load="concurrency=1", body="perf.measure_nmrt()"),
                ("in the search for the capacity no answer", "one more request got no answer within 2.00 s"),
            )
        ),
        (command("hangs", body="perf.assert_nmrt_at_least(10)"), (TIMED_OUT,)),
        (attached("stops", named=True), (STOPPED,)),
    ],
)
def test_what_became_of_the_service_is_said(tmp_path: Path, project: Project, messages: tuple[str, ...]) -> None:
    run_fault_here(project, tmp_path).assert_ended({"failed": 1}, *messages)


class TestElsewhere:
    def test_an_update_records_nothing_and_the_results_say_why(self, tmp_path: Path) -> None:
        run = run_fault_here(command("hangs"), tmp_path, "--perf-baseline", "update", "--perf-json", "results.json")
        run.assert_ended({"failed": 1}, TIMED_OUT)
        assert not (run.run.directory / "perf-baseline.json").exists()
        (result,) = run.run.json("results.json")["results"]
        assert result["outcome"] == "failed"
        assert result["notes"][0].endswith(TIMED_OUT)

    @pytest.mark.parametrize(
        ("fault", "why"), [("hangs", "timed out"), ("killed", "failed"), *rarer(("stops", "timed out"))]
    )
    def test_a_service_that_runs_already_fails(self, tmp_path: Path, fault: str, why: str) -> None:
        """Of one that is gone the share of refused requests may be over 5 %, on a slow machine."""
        run = run_fault_here(attached(fault), tmp_path)
        run.assert_ended({"failed": 1}, why)
        assert re.search(r"InvalidResultError: no answer|[\d,]+ of [\d,]+ requests failed", run.text)


class TestOpenLoop:
    @pytest.mark.parametrize("fault", ["hangs", *rarer("blocks")])
    def test_a_deadlock_fails_by_its_failed_requests(self, tmp_path: Path, fault: str) -> None:
        run = run_fault_here(command(fault, load="rate_rps=100"), tmp_path)
        run.assert_ended({"failed": 1})
        assert re.search(r"\d+ of \d+ requests failed \(time-out: \d+;|none of \d+ requests succeeded", run.text)

    def test_a_deadlock_at_the_very_end_is_seen_by_one_more_request(self, tmp_path: Path) -> None:
        """At the third request before the last; of a machine that is late with them, many more fail."""
        window = 'duration="2s", warmup="100ms"'
        run = run_fault_here(command("blocks", "#208", load="rate_rps=100", window=window), tmp_path)
        run.assert_ended({"failed": 1})
        assert re.search(r"the service no longer answers: .* one more request got no answer|requests failed", run.text)


def window(duration: str) -> str:
    return f'duration="{duration}", warmup="200ms"'


@pytest.mark.parametrize(
    ("project", "message"),
    [
        (command("late", "0.25 once", timeout=PATIENT), ""),
        (command("rests", "0.25 once", timeout=PATIENT), ""),
        *rarer(
            *(
                (command(fault, "0.25 once", load=load, timeout=PATIENT), "")
                for fault in ("late", "rests")
                for load in ("rate_rps=100", "concurrency=1")
            )
        ),
        # One of at least twenty hangs or is closed, even if each takes a twentieth of a second.
        (command("hangs", "2 once", load="rate_rps=100", window=window("3s"), timeout="5s"), "time-out: 1"),
        *rarer(
            *(
                (command("hangs", "2 once", load=load, window=window("3s"), timeout="5s"), "time-out: 1")
                for load in ("concurrency=1", CLOSED)
            )
        ),
        (
            command("closes", "1 once", window=window("2s"), timeout=PATIENT),
            "1 request was sent again on a fresh connection",
        ),
        # Every caller waits for one answer longer than the window.
        (
            command("late", "0", window=window("400ms"), timeout=PATIENT),
            "longer than the window of 400 ms; the window was lengthened to ",
        ),
    ],
)
def test_a_service_that_is_slow_or_fails_one_request_passes(tmp_path: Path, project: Project, message: str) -> None:
    run_fault_here(project, tmp_path).assert_ended({"passed": 1}, message)


MODEL = """
import os, signal, threading, time
import psutil
import pytest
import pytest_mlpatterns as mlp

pytestmark = pytest.mark.perf(timeout="1s", launches=1, duration="600ms", warmup="200ms", {settings})

def signal_generator(number):
    for process in psutil.Process(os.getppid()).children():
        if "loadgen.process" in " ".join(process.cmdline()):
            process.send_signal(number)

FAULTS = {{
    "hangs": lambda: threading.Event().wait(),
    "stops": lambda: os.kill(os.getpid(), signal.SIGSTOP),
    "killed": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "generator stops": lambda: signal_generator(signal.SIGSTOP),
    "generator killed": lambda: signal_generator(signal.SIGKILL),
}}

class Model:
    def __init__(self):
        self.calls, self.due = 0, float("inf")

    def __call__(self, batch):
        self.calls += 1
        if self.calls == 2:  # the first call is before the load
            self.due = time.monotonic() + {after}
        if time.monotonic() >= self.due:
            self.due = float("inf")
            FAULTS["{fault}"]()
            self.due = 0.0
        time.sleep(0.002)
        return list(batch)

@pytest.mark.perf(model=Model, payload={payload})
def test_it(perf):
    {body}
"""


def model(fault: str, settings: str = CLOSED, *, after: str = "0.25", **parts: str) -> Project:
    """A test of a model with a fault."""
    parts = {"payload": "list(range(100))", "body": "pass", **parts}
    text = MODEL.format(fault=fault, settings=settings, after=after, **parts)
    return Project().with_file("test_it.py", text)


class TestOwnModels:
    @pytest.mark.parametrize(
        "how",
        [
            "pattern=mlp.Single()",
            'wire="grpc"',
            *rarer("pattern=mlp.Batched()", "pattern=mlp.Queued(workers=1)", "pattern=mlp.Replicated(2)"),
        ],
    )
    def test_a_model_that_hangs_fails(self, tmp_path: Path, how: str) -> None:
        run_fault_here(model("hangs", f"{CLOSED}, {how}"), tmp_path).assert_ended({"failed": 1}, "no answer")

    @pytest.mark.parametrize(
        ("fault", "message"), [("stops", "is stopped (SIGSTOP)"), ("killed", "ended with signal SIGKILL")]
    )
    @pytest.mark.parametrize("pattern", ["Single()", *rarer("Replicated(2)")])
    def test_a_worker_that_is_stopped_or_killed_is_said_to_and_no_other_test_fails(
        self, tmp_path: Path, pattern: str, fault: str, message: str
    ) -> None:
        load = f"{CLOSED}, pattern=mlp.{pattern}"
        healthy = model(fault, load, after="600").files["test_it.py"]
        run = run_fault_here(model(fault, load).with_file("test_next.py", healthy), tmp_path)
        run.assert_ended({"failed": 1, "passed": 1}, message)
        assert "pytest_mlpatterns/" not in run.run.failure("test_it")


class TestGenerator:
    @pytest.mark.parametrize(
        ("fault", "message"),
        [
            ("generator stops", "the load generator is stopped: process"),
            ("generator killed", "ended with signal SIGKILL"),
        ],
    )
    @pytest.mark.parametrize("load", [CLOSED, *rarer("concurrency=4, generators=2")])
    def test_one_that_is_stopped_or_killed_under_load_fails_and_the_next_test_has_another(
        self, tmp_path: Path, fault: str, message: str, load: str
    ) -> None:
        healthy = model(fault, load, after="600").files["test_it.py"]
        run = run_fault_here(model(fault, load).with_file("test_next.py", healthy), tmp_path)
        run.assert_ended({"failed": 1, "passed": 1}, message)
