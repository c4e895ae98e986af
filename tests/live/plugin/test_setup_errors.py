"""What is missing or broken at the set-up of a perf test fails the test and is named."""

import os
import tempfile
from pathlib import Path

import pytest
from support.project import Project, Run

pytestmark = pytest.mark.processes


BROKEN = """
import os

import pytest

def echo(batch):
    return batch

class CannotLoad:
    def __init__(self):
        raise FileNotFoundError("digits.joblib")

    def __call__(self, batch):
        return batch

class Exits:
    def __init__(self):
        print("weights are missing", flush=True)
        os._exit(7)

    def __call__(self, batch):
        return batch

def cannot_answer(batch):
    raise ZeroDivisionError("mean of nothing")

class Sleeps:
    def __init__(self):
        import time

        time.sleep(60)

    def __call__(self, batch):
        return batch

class Fragile:
    # serves a little, and then kills its process under load

    def __init__(self):
        self.left = 3

    def __call__(self, batch):
        self.left -= 1
        if not self.left:
            import signal

            os.kill(os.getpid(), signal.SIGKILL)
        return batch

@pytest.mark.perf(payload=[1])
def test_no_model(perf):
    raise AssertionError("the body ran")

@pytest.mark.perf(model=echo)
def test_no_payload(perf):
    raise AssertionError("the body ran")

def test_no_model_to_deploy(perf_deploy):
    with perf_deploy():
        raise AssertionError("the body ran")

@pytest.mark.perf(model="nowhere:predict", payload=[1])
def test_model_cannot_be_imported(perf): pass

@pytest.mark.perf(model=CannotLoad, payload=[1])
def test_model_cannot_load(perf): pass

@pytest.mark.perf(model=Exits, payload=[1])
def test_model_exits(perf): pass

@pytest.mark.perf(model=cannot_answer, payload=[1])
def test_model_cannot_answer(perf): pass

@pytest.mark.perf(model=Sleeps, payload=[1], startup_timeout="1s")
def test_model_takes_too_long(perf): pass

@pytest.mark.perf(model=Fragile, payload=[1], pattern="microservice", duration="5s", warmup="0s")
def test_service_is_killed_under_load(perf): pass

@pytest.mark.perf(model=Fragile, payload=[1], pattern="microservice")
def test_service_is_killed_under_predict(perf):
    for value in range(100):
        assert perf.predict(value) == value

@pytest.mark.perf(model=CannotLoad, payload=[1], pattern="microservice")
def test_service_cannot_load(perf): pass

LOCK = __import__("threading").Lock()

@pytest.mark.perf(model=lambda batch: LOCK and batch, payload=[1])
def test_model_holds_what_cannot_leave(perf): pass

class TestNoService:
    @pytest.fixture
    def perf_target(self):
        from pytest_mlpatterns import Url

        return Url("http://127.0.0.1:1/predict")

    @pytest.mark.perf(payload=[1])
    def test_no_service_answers(self, perf): pass
"""

EXPECTED_WORDS = {  # what is told before anything starts is in test_first_mistakes, word by word
    "test_no_model": ["there is no model", "define a fixture perf_model"],
    "test_no_payload": ["asks for perf, but there are no inputs", "define a fixture perf_payload"],
    "test_no_model_to_deploy": ["there is no model", "define a fixture perf_model"],
    "test_model_cannot_be_imported": [
        'perf_model "nowhere:predict": no module nowhere on sys.path (rootdir ',
        "correct the name, or add the directory",
    ],
    "test_model_cannot_load": [
        "CannotLoad failed to load",
        'raise FileNotFoundError("digits.joblib")',
        "FileNotFoundError: digits.joblib",
    ],
    "test_model_exits": ["Exits ended its process while loading", "exit code 7", "weights are missing"],
    "test_model_cannot_answer": [
        "cannot_answer failed on its first inference, of perf_payload item 0: 500",
        'raise ZeroDivisionError("mean of nothing")',
    ],
    "test_model_takes_too_long": ["Sleeps is still loading after 1.00 s", "startup_timeout=", "--perf-startup-timeout"],
    "test_service_is_killed_under_load": ["service: process ", " ended with signal SIGKILL"],
    "test_service_is_killed_under_predict": [
        "/v1/models/Fragile:predict answered 502: ",
        "the service behind closed the connection under a request; its process may have died",
    ],
    "test_service_cannot_load": ["CannotLoad failed to load", "FileNotFoundError: digits.joblib"],
    "test_model_holds_what_cannot_leave": ["cannot be sent to another process", "lock", "a class that builds it there"],
    "TestNoService.test_no_service_answers": ["http://127.0.0.1:1/predict: ConnectError", "is the service running?"],
}


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return Project().with_file("test_broken.py", BROKEN).run(tmp_path_factory.mktemp("broken"))


@pytest.mark.parametrize(("test", "words"), EXPECTED_WORDS.items(), ids=EXPECTED_WORDS.keys())
def test_what_is_missing_or_broken_fails_the_test_and_is_named(broken: Run, test: str, words: list[str]) -> None:
    text = broken.failure(test)
    assert [word for word in words if word not in text] == []
    assert "the body ran" not in text.replace('raise AssertionError("the body ran")', "")
    assert "pytest_mlpatterns/" not in text or "perf_deploy" in text


def test_a_broken_set_up_is_a_failed_test_and_never_an_error(broken: Run) -> None:
    assert broken.outcomes == {"failed": len(EXPECTED_WORDS)}


def test_temporary_files_of_another_user_are_an_error_of_usage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    user = os.geteuid()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(os, "geteuid", lambda: user + 1)
    run = Project().with_tests("def test_it(perf): pass").run(tmp_path)
    assert run.exit_code == pytest.ExitCode.USAGE_ERROR
    assert run.err.rstrip().endswith("set TMPDIR to a directory on a local disk")
    assert len(run.err.strip().splitlines()) == 1
