"""What holds for the whole suite: its order, what starts processes, and which processes measure coverage."""

import contextlib
import functools
import inspect
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from support.scenarios import run
from support.scheduling import OneByOne, shares_a_run
from support.services.processes import our_children
from xdist.workermanage import NodeManager

import pytest_mlpatterns.plugin.session  # noqa: F401 - numpy loads once a process, and runs in this process forget modules
from pytest_mlpatterns.loadgen.generator import Generator

_STARTS = ((subprocess.Popen, "__init__"), *((os, name) for name in ("fork", "forkpty", "posix_spawn", "system")))
"""Functions that start a process."""
_COVERAGE = "COVERAGE_PROCESS_CONFIG"
"""Set where this process measures coverage; a Python that inherits it measures too, which costs it 0.1 s and more."""
_running: list[pytest.Item] = []
"""The test that runs, if one does."""

NodeManager.EXIT_TIMEOUT = 300  # seconds; 10 are too few on a busy machine, and the coverage of a killed worker is lost
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as a shell leaves it to what it runs in its background
    signal.signal(signal.SIGINT, signal.default_int_handler)


def _refused_in_unmarked_tests(start: Callable[..., Any]) -> Callable[..., Any]:
    """Keep the marker true, by which ``make test FAST=1`` leaves tests out.

    An audit hook of Python would see all starts, too. But it runs while coverage installs its trace function in a new
    thread, and if another thread does the same meanwhile, Python 3.11 refuses it.
    """

    @functools.wraps(start)
    def starting(*arguments: Any, **named: Any) -> Any:
        if _running and not _starts_processes(_running[0]):
            raise AssertionError(f"{_running[0].nodeid} starts a process, expected the marker processes")
        return start(*arguments, **named)

    return starting


for _owner, _name in _STARTS:
    setattr(_owner, _name, _refused_in_unmarked_tests(getattr(_owner, _name)))


def _starts_processes(item: pytest.Item) -> bool:
    return item.get_closest_marker("processes") is not None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what is marked ``nightly``, unless the environment says ``ALL=1``, and order the rest.

    What takes longest comes first, so that no worker waits long for the last: files with most tests that start
    processes. Where tests are handed out one by one (``--dist loadgroup``), these are the tests that share a run, which
    stay together, and those of small files, each of which is a whole story. A property runs its lines for many
    examples, so it is a simulation.
    """
    if os.environ.get("ALL") != "1" and (rare := [item for item in items if item.get_closest_marker("nightly")]):
        items[:] = [item for item in items if item.get_closest_marker("nightly") is None]
        config.hook.pytest_deselected(items=rare)
    for item in items:
        if getattr(getattr(item, "obj", None), "is_hypothesis_test", False):
            item.add_marker("simulation")
    slow = Counter(map(_file_of, filter(_starts_processes, items)))
    if not config.getoption("loadgroup", False):  # the name of it in a worker
        items.sort(key=lambda item: -slow[_file_of(item)])
        return
    items.sort(key=lambda item: (not shares_a_run(item.nodeid), slow[_file_of(item)]))


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> OneByOne | None:
    return OneByOne(config, log) if config.getoption("dist") == "loadgroup" else None


@pytest.hookimpl(wrapper=True)
def pytest_collection(session: pytest.Session) -> Iterator[object]:
    """Measure coverage of what imports run in the first worker only: all workers import the same.

    A measured collection takes three times as long, which six workers would do at the same time.
    """
    with _coverage_paused(os.environ.get("PYTEST_XDIST_WORKER", "gw0") != "gw0"):
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtestloop(session: pytest.Session) -> Iterator[object]:
    """Measure none in a process that only hands tests to workers."""
    with _coverage_paused(bool(session.config.getoption("numprocesses", None))):
        return (yield)


def _file_of(item: pytest.Item) -> str:
    return item.nodeid.partition("::")[0]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """Note which test runs, and measure coverage in its processes, or pause it, where its marker asks for that."""
    _running.append(item)
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.delenv("CI", raising=False)  # the suite says the same where it is set
            if item.get_closest_marker("covered_processes") is None:
                patch.delenv(_COVERAGE, raising=False)
            with _coverage_paused(item.get_closest_marker("simulation") is not None):
                return (yield)
    finally:
        _running.remove(item)


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """A test that is a coroutine function runs on an event loop of its own."""
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    run(pyfuncitem.obj(**{name: pyfuncitem.funcargs[name] for name in inspect.signature(pyfuncitem.obj).parameters}))
    return True


@contextlib.contextmanager
def _coverage_paused(is_asked: bool) -> Iterator[None]:
    """Measure no coverage meanwhile, if it is measured and that is asked."""
    module = sys.modules.get("coverage")
    measuring = module.Coverage.current() if module is not None and is_asked else None
    if measuring is None:
        yield
        return
    measuring.stop()
    try:
        yield
    finally:
        measuring.start()


@pytest.fixture
def no_process_is_left() -> Iterator[None]:
    """Every process that the test starts ends with it."""
    before = our_children()
    yield
    assert our_children() <= before


@pytest.fixture(scope="module")
def generator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Generator]:
    """A load generator for all tests of a file."""
    generator = Generator(tmp_path_factory.mktemp("generator") / "generator.log")
    yield generator
    generator.close()


@pytest.fixture(scope="session", params=[(), ("-n", "1")], ids=["serial", "xdist"])
def distribution(request: pytest.FixtureRequest) -> tuple[str, ...]:
    """Arguments that run a project in one process, and apart from the process that writes (pytest-xdist).

    What two workers did is put together in the tests of baselines and of the distribution itself.
    """
    return tuple(request.param)
