"""Which processes may be read by another, and their threads' CPU time."""

import os
import sys
import threading
from pathlib import Path

import pytest

from pytest_mlpatterns.system import process_limits
from pytest_mlpatterns.system.process_limits import permit_tracer, tracer_permission, why_not_traceable
from pytest_mlpatterns.system.thread_times import ThreadTimes, thread_times


@pytest.fixture
def _as_a_user(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)


def test_a_process_permits_it_for_itself() -> None:
    permit_tracer()  # without Yama nothing changes
    assert (tracer_permission() is not None) == (sys.platform == "linux")


def test_other_systems_have_no_such_call(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    assert tracer_permission() is None
    permit_tracer()


@pytest.mark.usefixtures("_as_a_user")
@pytest.mark.parametrize(("scope", "words"), [("0", ""), ("1", ""), ("2", "is 2"), ("3", "is 3"), ("?", "")])
def test_yama_forbids_it_from_2_on(tmp_path: Path, scope: str, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    (tmp_path / "scope").write_text(f"{scope}\n")
    why = why_not_traceable(tmp_path / "scope")
    assert bool(why) == bool(words)
    assert words in why
    assert why_not_traceable(tmp_path / "none") == ""


@pytest.mark.usefixtures("_as_a_user")
def test_macos_lets_only_root_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    assert "only root" in why_not_traceable()
    monkeypatch.setattr(process_limits.os, "geteuid", lambda: 0)
    assert why_not_traceable() == ""


@pytest.mark.skipif(not Path("/proc/thread-self/schedstat").exists(), reason="this system does not show it")
def test_threads_have_cpu_times() -> None:
    own = threading.get_native_id()
    before = thread_times(os.getpid())[own]
    while not (since := thread_times(os.getpid())[own].since(before)).cpu_ns:
        pass
    assert since.ready_ns >= 0
    assert ThreadTimes(5, 3).since(ThreadTimes(1, 1)) == ThreadTimes(4, 2)


def test_a_process_that_is_gone_has_none() -> None:
    assert thread_times(2**22 + 1) == {}
