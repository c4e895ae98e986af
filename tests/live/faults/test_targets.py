"""Existing services that misbehave: what the test says of it, within its limit, and that nothing is left.

The server is :mod:`support.services.faulty`, a process of plain sockets with one fault.
"""

import shutil
from pathlib import Path
from typing import Any

import pytest
from support import SERVICES
from support.fault_run import FaultRun, run_fault_here
from support.nightly import rarer
from support.project import Project

pytestmark = pytest.mark.processes

TEST = """
import pytest

from pytest_mlpatterns import App, Command, Url

@pytest.fixture
def perf_target():
    return {target}

@pytest.mark.perf(payload=[1, 2, 3], duration="200ms", warmup="0s", launches=1, concurrency=4, {settings})
def test_it(perf):
    perf.assert_rtm_below("60s")
"""
PASSED, FAILED = {"passed": 1}, {"failed": 1}
SHORT = 'startup_timeout="5s"'
"""A server that starts well is ready within it on a busy machine too."""


def run(directory: Path, target: str, settings: str = "") -> FaultRun:
    """A perf test of a target; ``faulty.py`` lies beside it."""
    project = Project().with_file("test_it.py", TEST.format(target=target, settings=settings))
    (directory / "project").mkdir()
    shutil.copy(SERVICES / "faulty.py", directory / "project")
    return run_fault_here(project, directory)


def run_faulty(directory: Path, fault: str, first: int = 2, settings: str = "") -> FaultRun:
    """A server with a fault from the post with this number on; 2 is the first of the load."""
    command = f"{{python}} -S faulty.py {fault} {{port}} {first}"
    return run(directory, f'Command("{command}", path="/p", ready="/health")', settings)


def cases(names: str, rare: str = "", *more: str) -> list[Any]:
    """A case of each of these names, with more arguments; the rare ones run with ``ALL=1`` only."""
    return [pytest.param(name, *more) for name in names.split()] + rarer(*((name, *more) for name in rare.split()))


@pytest.mark.parametrize(
    "name",
    cases(
        "bytewise until-close port-taken prints-100-mb",
        rare="chunks continue length-too-short good http10 no-content closes-outputs slow-accept hints "
        "http10-no-length http10-keep connection-close "
        "created no-reason upper-case many-headers latin-1-header empty-body long-body not-json other-json nan "
        "not-utf8 bad-gzip prints-much reads-stdin no-directory slow-start",
    ),
)
def test_an_odd_answer_that_is_right_passes(tmp_path: Path, name: str) -> None:
    run_faulty(tmp_path, name).assert_ended(PASSED)


@pytest.mark.parametrize(
    ("name", "label"),
    [
        *cases(
            "close",
            "close-in-body close-in-chunk reset close-in-head close-in-chunk-size reset-in-body",
            "connection closed: ",
        ),
        *cases(
            "two-lengths",
            "garbage http09 ssh bad-chunk length-negative length-enormous upgrade length-text length-and-chunks "
            "zeros tls smtp negative-chunk "
            "http3 status-text header-without-colon http2-preface",
            "malformed answer: ",
        ),
        *cases("500", "301 304 429 999 302 307 308 400 401 403 404 405 413 422 451 501 502 503 599", ""),
    ],
)
def test_an_answer_that_is_none_fails_by_what_it_is(tmp_path: Path, name: str, label: str) -> None:
    run_faulty(tmp_path, name).assert_ended(FAILED, "none of ", f" requests succeeded ({label or f'{name}: '}")


@pytest.mark.parametrize(
    ("name", "label"),
    [
        *cases("sometimes-503", "", "503"),
        *cases("twice", "", "answer without a request"),
        *cases("", "sometimes-garbage", "malformed answer"),
    ],
)
def test_a_share_of_failed_requests_above_the_limit_fails(tmp_path: Path, name: str, label: str) -> None:
    run_faulty(tmp_path, name).assert_ended(FAILED, f" requests failed ({label}", "expected at most 5.0 %")


@pytest.mark.parametrize("name", cases("keep-alive-closed", rare="sometimes-close"))
def test_requests_that_meet_a_closed_idle_connection_are_sent_again(tmp_path: Path, name: str) -> None:
    run_faulty(tmp_path, name).assert_ended(PASSED, "sent again on a fresh connection")


@pytest.mark.nightly
def test_a_server_that_stops_listening_fails(tmp_path: Path) -> None:
    run_faulty(tmp_path, "stops-listening").assert_ended(FAILED, "InvalidResultError", "(connection failed: ")


@pytest.mark.parametrize(
    ("name", "end", "words"),
    [
        ("exits-3", "exit code 3", "going down: licence expired"),
        ("raises-early", "exit code 1", "RuntimeError: the weights do not fit"),
        *cases("", "segfaults segfaults-early", "signal SIGSEGV", ""),
        *cases("", "killed killed-early", "signal SIGKILL", ""),
        *cases("", "exits-silently exits-early-silently", "exit code 7", ""),
        *rarer(("exits-0", "exit code 0", ""), ("terminated", "signal SIGTERM", ""), ("hung-up", "signal SIGHUP", "")),
        *rarer(("out-of-files", "exit code 24", "Too many open files"), ("bus-error", "signal SIGBUS", "")),
        *rarer(("aborts", "signal SIGABRT", "terminate called after throwing")),
        *rarer(("exits-early", "exit code 0", "nothing to do"), ("one-endless-line", "exit code 1", "xxxx")),
        *rarer(("binary-words", "exit code 1", " broken ")),
    ],
)
def test_a_server_that_ends_is_named_with_its_end_and_its_last_words(
    tmp_path: Path, name: str, end: str, words: str
) -> None:
    run_faulty(tmp_path, name).assert_ended(FAILED, f"python ended with {end}", words)


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("health-503", "503"),
        ("never-listens", "reading weights"),
        *cases("", "health-hangs health-garbage health-closes health-ssh health-resets", "GET /health"),
        *cases("", "never-accepts health-two-lengths", "GET /health"),
        *rarer(("health-redirects", "302"), ("health-404", "404"), ("health-500", "500")),
        *rarer(("health-bad-gzip", "DecodingError")),
    ],
)
def test_a_server_that_does_not_become_ready_fails_in_its_start_up_time(tmp_path: Path, name: str, found: str) -> None:
    run = run_faulty(tmp_path, name, settings=SHORT)
    run.assert_ended(FAILED, "is not ready after 5.00 s", found)


@pytest.mark.parametrize("code", cases("404", rare="301 500 302 303 307 308 400 401 403 405 409 413 415 422 429"))
def test_a_first_request_that_is_refused_fails_at_once(tmp_path: Path, code: str) -> None:
    run = run_faulty(tmp_path, code, first=1)
    run.assert_ended(FAILED, f"answered {code} to its first request, POST /p")


@pytest.mark.parametrize(
    "name", cases("garbage", rare="close 503 bad-gzip reset ssh two-lengths bad-chunk http2-preface")
)
def test_a_first_request_without_an_answer_fails_in_the_start_up_time(tmp_path: Path, name: str) -> None:
    run = run_faulty(tmp_path, name, first=1, settings=SHORT)
    run.assert_ended(FAILED, "is not ready after 5.00 s", "POST /p")


@pytest.mark.parametrize(
    "name",
    cases(
        "h2-closes",
        "h2-goaway h2-internal-error h2-garbage h2-http1 h2-ssh h2-refused h2-enormous-frame h2-no-window "
        "h2-bad-headers h2-wrong-stream h2-hangs",
    ),
)
def test_a_server_of_grpc_that_does_not_answer_fails_in_the_start_up_time(tmp_path: Path, name: str) -> None:
    command = f"{{python}} -S faulty.py {name} {{port}} 2 {{grpc_port}}"
    target = f'Command("{command}", path="/v2/models/m/infer", ready="/health")'
    run(tmp_path, target, f'{SHORT}, wire="grpc"').assert_ended(FAILED, "is not ready after 5.00 s")


def test_a_port_that_is_taken_twice_is_named(tmp_path: Path) -> None:
    run = run_faulty(tmp_path, "port-taken-always")
    run.assert_ended(
        FAILED,
        "pytest_mlpatterns.DeploymentError: Command(",
        "Address already in use",
        "it was tried twice",
    )


@pytest.mark.nightly
def test_a_server_on_all_interfaces_gets_a_warning(tmp_path: Path) -> None:
    run_faulty(tmp_path, "everywhere").assert_ended(PASSED, "OpenPortWarning", "listens on all interfaces")
