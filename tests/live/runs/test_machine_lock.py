"""Who has the machine: the locks between real processes, and what a distributed run makes of them."""

import fcntl
import json
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.project import Project

from pytest_mlpatterns.plugin.xdist import MachineLock

pytestmark = pytest.mark.processes

HOLDER = """
import sys
from pathlib import Path
from pytest_mlpatterns.plugin.xdist import MachineLock

lock = MachineLock(Path(sys.argv[1]))
print("asks", flush=True)
with lock.held(exclusive=sys.argv[2] == "alone"):
    print("holds", flush=True)
    if sys.argv[2] == "alone later":
        sys.stdin.readline()
        lock.make_exclusive()
        print("alone", flush=True)
    sys.stdin.readline()
print("gave back", flush=True)
lock.close()
"""


class Holder:
    """A process that asks for the machine, and holds it until it is told to give it back."""

    def __init__(self, directory: Path, how: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", HOLDER, str(directory), how],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            encoding="utf-8",
        )
        self.expect("asks")

    def expect(self, line: str) -> None:
        """Wait until it says so."""
        assert self.process.stdout.readline().strip() == line

    def says_more(self) -> bool:
        """Whether it gets on within a moment; asked where it must not."""
        return bool(select.select([self.process.stdout], [], [], 0.15)[0])

    def go_on(self) -> None:
        """Let it go on."""
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def give_back(self) -> None:
        """Let it go on, and wait until it has given the machine back."""
        self.go_on()
        self.expect("gave back")

    def close(self) -> None:
        """End the process."""
        self.process.kill()
        self.process.communicate()


def await_closed_gate(directory: Path) -> None:
    """Wait until a process keeps the gate closed while it waits for the room to empty."""
    until = time.monotonic() + 30
    with (directory / "gate").open("r+") as gate:
        while True:
            try:
                fcntl.lockf(gate, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return
            fcntl.lockf(gate, fcntl.LOCK_UN)
            assert time.monotonic() < until, "nobody closes the gate"
            time.sleep(0.005)  # the kernel tells nobody that a lock was taken


Asking = Callable[..., Holder]


@pytest.fixture
def asking(tmp_path: Path) -> Iterator[Asking]:
    """Starts a process that asks for the machine, and may wait until it holds it; all end with the test."""
    found: list[Holder] = []

    def start(how: str, *, holds: bool = False) -> Holder:
        found.append(Holder(tmp_path, how))
        if holds:
            found[-1].expect("holds")
        return found[-1]

    yield start
    for holder in found:
        holder.close()


def test_ordinary_tests_share_the_machine(asking: Asking) -> None:
    for holder in [asking("shared", holds=True) for _ in "ab"]:
        holder.give_back()


def test_two_holders_that_want_it_alone_later_get_it_one_after_the_other(asking: Asking) -> None:
    holders = [asking("alone later", holds=True) for _ in "ab"]
    for holder in holders:
        holder.go_on()
    ready, _, _ = select.select([holder.process.stdout for holder in holders], [], [], 30)
    first, second = sorted(holders, key=lambda holder: holder.process.stdout not in ready)
    first.expect("alone")
    assert not second.says_more()
    first.give_back()
    second.expect("alone")
    second.give_back()


@pytest.mark.parametrize(("first", "second"), [("shared", "alone"), ("alone", "shared"), ("alone", "alone")])
def test_a_perf_test_waits_for_holders_of_the_machine_and_they_for_it(asking: Asking, first: str, second: str) -> None:
    holding, later = asking(first, holds=True), asking(second)
    assert not later.says_more()
    holding.give_back()
    later.expect("holds")
    later.give_back()


def test_a_perf_test_that_waits_is_not_overtaken(tmp_path: Path, asking: Asking) -> None:
    first, alone = asking("shared", holds=True), asking("alone")
    await_closed_gate(tmp_path)
    overtaker = asking("shared")
    assert not overtaker.says_more()
    first.give_back()
    alone.expect("holds")
    assert not overtaker.says_more()
    alone.give_back()
    overtaker.expect("holds")


@pytest.mark.parametrize("how", ["shared", "alone"])
def test_a_process_that_is_killed_blocks_nobody(asking: Asking, how: str) -> None:
    dies, waits = asking(how, holds=True), asking("alone")
    dies.process.send_signal(signal.SIGKILL)
    waits.expect("holds")


def test_the_machine_is_given_back_where_the_test_raises(tmp_path: Path, asking: Asking) -> None:
    lock = MachineLock(tmp_path)
    try:
        with pytest.raises(KeyError), lock.held(exclusive=True):
            raise KeyError
        asking("alone", holds=True)
    finally:
        lock.close()


BESIDE = """
import json
import os
import time
from pathlib import Path

import pytest

SPANS = Path(__file__).parent / "spans"

@pytest.hookimpl(wrapper=True, trylast=True)
def pytest_runtest_call(item):
    started = time.perf_counter_ns()
    try:
        return (yield)
    finally:
        span = {"test": item.name, "worker": os.environ["PYTEST_XDIST_WORKER"], "from": started}
        (SPANS / f"{item.name}.json").write_text(json.dumps({**span, "to": time.perf_counter_ns()}))
"""


def test_no_other_test_runs_while_a_perf_test_measures(tmp_path: Path) -> None:
    project = (
        Project()
        .with_file("conftest.py", BESIDE)
        .with_file("spans/empty.txt", "")
        .with_tests(
            """
            @pytest.mark.parametrize("number", range(9))
            def test_plain_before(number): time.sleep(0.05)

            def test_perf_one(perf): pass

            @pytest.mark.parametrize("number", range(9))
            def test_plain_between(number): time.sleep(0.05)

            def test_perf_two(perf): pass

            @pytest.mark.parametrize("number", range(9))
            def test_plain_after(number): time.sleep(0.05)
            """
        )
    )
    run = project.run(tmp_path, "-n", "2", "--dist=load", "--maxschedchunk=1", "-W", "ignore")
    assert run.outcomes["passed"] == 29
    spans = [json.loads(file.read_text(encoding="utf-8")) for file in (tmp_path / "spans").glob("*.json")]
    assert len(spans) == 29
    assert len({span["worker"] for span in spans}) > 1
    measured = [span for span in spans if span["test"].startswith("test_perf")]
    assert len(measured) == 2
    for perf in measured:
        beside = [s["test"] for s in spans if s is not perf and s["from"] < perf["to"] and s["to"] > perf["from"]]
        assert beside == []


def test_a_worker_that_dies_does_not_hold_up_the_others(tmp_path: Path) -> None:
    body = """
    import os

    def test_dies(perf):
        os._exit(1)

    def test_dies_too():
        os._exit(1)

    def test_perf(perf):
        perf.assert_rtm_below("60s")

    @pytest.mark.parametrize("number", range(4))
    def test_plain(number): pass
    """
    run = Project().with_tests(body).run(tmp_path, "-n", "2", "-W", "ignore", "--perf-json", "out.json")
    assert run.outcomes == {"failed": 2, "passed": 5}
    assert "worker 'gw" in run.out
    assert [result["test"] for result in run.json("out.json")["results"]] == ["test_perf.py::test_perf"]
