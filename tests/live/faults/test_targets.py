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


NONE, SOME = "none of ", (" requests failed (", "expected at most 5.0 %")
ENDED = "python ended with "


@pytest.mark.parametrize(
    ("name", "messages"),
    [
        *cases(
            "close",
            "close-in-body close-in-chunk reset close-in-head close-in-chunk-size reset-in-body",
            (NONE, " requests succeeded (connection closed: "),
        ),
        *cases(
            "two-lengths",
            "garbage http09 ssh bad-chunk length-negative length-enormous upgrade length-text length-and-chunks "
            "zeros tls smtp negative-chunk "
            "http3 status-text header-without-colon http2-preface",
            (NONE, " requests succeeded (malformed answer: "),
        ),
        *cases(
            "500",
            "301 304 429 999 302 307 308 400 401 403 404 405 413 422 451 501 502 503 599",
            (NONE, " requests succeeded ({name}: "),
        ),
        *cases("sometimes-503", "", (*SOME, "failed (503")),
        *cases("twice", "", (*SOME, "failed (answer without a request")),
        *cases("", "sometimes-garbage", (*SOME, "failed (malformed answer")),
        *cases("", "stops-listening", ("InvalidResultError", "(connection failed: ")),
        *cases("exits-3", "", (ENDED + "exit code 3", "going down: licence expired")),
        *cases("raises-early", "", (ENDED + "exit code 1", "RuntimeError: the weights do not fit")),
        *cases("", "segfaults segfaults-early", (ENDED + "signal SIGSEGV",)),
        *cases("", "killed killed-early", (ENDED + "signal SIGKILL",)),
        *cases("", "exits-silently exits-early-silently", (ENDED + "exit code 7",)),
        *cases("", "exits-0", (ENDED + "exit code 0",)),
        *cases("", "terminated", (ENDED + "signal SIGTERM",)),
        *cases("", "hung-up", (ENDED + "signal SIGHUP",)),
        *cases("", "out-of-files", (ENDED + "exit code 24", "Too many open files")),
        *cases("", "bus-error", (ENDED + "signal SIGBUS",)),
        *cases("", "aborts", (ENDED + "signal SIGABRT", "terminate called after throwing")),
        *cases("", "exits-early", (ENDED + "exit code 0", "nothing to do")),
        *cases("", "one-endless-line", (ENDED + "exit code 1", "xxxx")),
        *cases("", "binary-words", (ENDED + "exit code 1", " broken ")),
        *cases(
            "port-taken-always",
            "",
            ("pytest_mlpatterns.DeploymentError: Command(", "Address already in use", "it was tried twice"),
        ),
    ],
)
def test_a_server_with_a_fault_fails_by_what_it_is(tmp_path: Path, name: str, messages: tuple[str, ...]) -> None:
    run_faulty(tmp_path, name).assert_ended(FAILED, *(message.format(name=name) for message in messages))


@pytest.mark.parametrize("name", cases("keep-alive-closed", rare="sometimes-close"))
def test_requests_that_meet_a_closed_idle_connection_are_sent_again(tmp_path: Path, name: str) -> None:
    run_faulty(tmp_path, name).assert_ended(PASSED, "sent again on a fresh connection")


@pytest.mark.parametrize(
    ("name", "first", "found"),
    [
        *cases("health-503", "", 2, "503"),
        *cases("", "never-listens", 2, "reading weights"),
        *cases("", "health-hangs health-garbage health-closes health-ssh health-resets", 2, "GET /health"),
        *cases("", "never-accepts health-two-lengths", 2, "GET /health"),
        *rarer(("health-redirects", 2, "302"), ("health-404", 2, "404"), ("health-500", 2, "500")),
        *rarer(("health-bad-gzip", 2, "DecodingError")),
        *cases("", "garbage close 503 bad-gzip reset ssh two-lengths bad-chunk http2-preface", 1, "POST /p"),
    ],
)
def test_a_silent_server_fails_in_its_start_up_time(tmp_path: Path, name: str, first: int, found: str) -> None:
    run = run_faulty(tmp_path, name, first, SHORT)
    run.assert_ended(FAILED, "is not ready after 5.00 s", found)


@pytest.mark.parametrize("code", cases("404", rare="301 500 302 303 307 308 400 401 403 405 409 413 415 422 429"))
def test_a_first_request_that_is_refused_fails_at_once(tmp_path: Path, code: str) -> None:
    run_faulty(tmp_path, code, first=1).assert_ended(FAILED, f"answered {code} to its first request, POST /p")


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


@pytest.mark.nightly
def test_a_server_on_all_interfaces_gets_a_warning(tmp_path: Path) -> None:
    run_faulty(tmp_path, "everywhere").assert_ended(PASSED, "OpenPortWarning", "listens on all interfaces")
