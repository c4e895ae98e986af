"""From samples to the time of stacks: who serves, who is idle, what a look stands for, and which layer a frame is."""

import asyncio.runners
import queue
import threading
from pathlib import Path

import pytest
from msgspec.structs import replace
from support.each_row import each_row

import pytest_mlpatterns
from pytest_mlpatterns.patterns import model_thread
from pytest_mlpatterns.profiling.frame_names import SourceNames, is_ours
from pytest_mlpatterns.profiling.py_spy import RawFrame, RawStack, RawStacks
from pytest_mlpatterns.profiling.stack_times import NativeThreads, SampledStacks, awaited_stacks, sampled_stacks
from pytest_mlpatterns.records.telemetry import AwaitedTime, Awaiting
from pytest_mlpatterns.system.thread_times import ThreadTimes

PID = 100
MS = 1_000_000
NAMES = SourceNames(Path("/srv/project"))


def ours(path: str, name: str = "f") -> RawFrame:
    return RawFrame(name, str(Path(pytest_mlpatterns.__file__).parent / path), 1)


def standard(path: str, name: str) -> RawFrame:
    return RawFrame(name, str(Path(threading.__file__).parent / path), 1)


def library(path: str, name: str) -> RawFrame:
    return RawFrame(name, f"/env/lib/python3.11/site-packages/{path}", 1)


def model(name: str, line: int = 5) -> RawFrame:
    return RawFrame(name, "/srv/project/model.py", line)


ROOT = RawFrame("<module>", "<string>", 1)
LOOP = (ROOT, ours("engines/local/worker.py", "main"), RawFrame("run", asyncio.runners.__file__, 118))
THREAD = (standard("threading.py", "_bootstrap"), standard("threading.py", "run"))
CALL = (*LOOP, library("uvicorn/protocols/http/httptools_impl.py", "run_asgi"), ours("serving/http/app.py"))
MODEL = (*CALL, ours("serving/http/model_caller.py"), ours("serving/timed_model.py"))


def main(*frames: RawFrame) -> RawStack:
    return RawStack(PID, "MainThread", frames)


def sampled(counts: dict[RawStack, int], **members: object) -> SampledStacks:
    raw = RawStacks(PID, 100 * MS, counts, **members)  # type: ignore[arg-type]
    return sampled_stacks([raw], {PID: "worker"}, NAMES)


def shown(found: SampledStacks) -> dict[str, float]:
    """Milliseconds of each stack, by the names of its functions."""
    return {"; ".join(frame.function for frame in one.frames): one.ns / MS for one in found.stacks}


def test_a_look_stands_for_its_share_of_the_time_and_idle_ones_for_nothing() -> None:
    found = sampled({main(*MODEL, model("predict")): 30, main(*LOOP): 70})
    assert shown(found) == {"worker; HTTP server; model; predict": 30}
    assert (found.samples, found.lost) == (100, 0)
    (stack,) = found.stacks
    assert (stack.lines, stack.samples) == ((0, 0, 0, 5), 30)
    assert [frame.owner for frame in stack.frames] == ["process", "layer", "model", "project"]


def test_threads_that_never_run_python_are_native_and_busy_ones_are_named() -> None:
    times = {PID: 80, PID + 1: 60, PID + 2: 50, PID + 3: 1, PID + 4: 70}
    threads = {thread: ThreadTimes(ms * MS) for thread, ms in times.items()}
    idle = RawStack(PID + 4, "worker", THREAD)
    found = sampled({main(*MODEL, model("predict")): 30, main(*LOOP): 70, idle: 100}, threads=threads)
    assert found.native == NativeThreads(111 * MS, ((PID, PID + 1), (PID, PID + 2)))


@pytest.mark.parametrize("thread", [0, PID])
def test_native_threads_are_unknown_without_the_ids_of_threads(thread: int) -> None:
    stack = RawStack(thread, "MainThread", (*MODEL, model("predict")))
    threads = {PID: ThreadTimes(80 * MS), PID + 1: ThreadTimes(60 * MS)} if not thread else {}
    assert sampled({stack: 30}, threads=threads).native is None


def test_looks_that_failed_or_gave_a_broken_stack_are_lost() -> None:
    found = sampled({main(*MODEL, model("predict")): 40, main(model("unknown")): 10, main(*LOOP): 40}, lost=10)
    assert (found.samples, found.lost) == (100, 20)
    assert shown(found) == {"worker; HTTP server; model; predict": 50}


def test_a_stack_without_its_callers_gets_those_that_its_function_has() -> None:
    leaf = model("normalize")
    broken = {main(model("predict"), leaf): 10, main(MODEL[-1], model("predict")): 5}
    found = sampled({main(*MODEL, model("predict")): 40, **broken, main(*LOOP): 45})
    assert (found.samples, found.lost) == (100, 0)
    assert shown(found) == {
        "worker; HTTP server; model; predict": pytest.approx(45),
        "worker; HTTP server; model; predict; normalize": pytest.approx(10),
    }


def test_each_line_is_a_stack_of_its_own() -> None:
    found = sampled({main(*MODEL, model("predict", 5)): 10, main(*MODEL, model("predict", 6)): 10})
    assert [stack.lines[-1] for stack in found.stacks] == [5, 6]


def test_a_comprehension_belongs_to_its_function(tmp_path: Path) -> None:
    (tmp_path / "model.py").write_text("def predict(batch):\n    return [\n        one for one in batch\n    ]\n")
    frames = (RawFrame("predict", str(tmp_path / "model.py"), 2), RawFrame("<listcomp>", str(tmp_path / "model.py"), 3))
    raw = RawStacks(PID, 100 * MS, {main(*MODEL, *frames): 1})
    (stack,) = sampled_stacks([raw], {PID: "worker"}, SourceNames(tmp_path)).stacks
    assert ([frame.function for frame in stack.frames][-2:], stack.lines[-1]) == (["model", "predict"], 3)


def test_sleeps_and_locks_of_a_model_count() -> None:
    wait = (standard("threading.py", "wait"),)
    get = (standard("queue.py", "get"), *wait)
    found = sampled({main(*MODEL, model("predict"), *wait): 20, main(*MODEL, model("predict"), *get): 80})
    assert sum(shown(found).values()) == pytest.approx(100)


def test_threads_that_serve_count_and_wait_for_their_next_call_for_free() -> None:
    calls = (*THREAD, ours("patterns/model_thread.py", model_thread.ROOT))
    pool = (*THREAD, standard("concurrent/futures/thread.py", "_worker"))
    found = sampled(
        {
            main(*LOOP): 100,
            RawStack(101, "model", (*calls, ours("serving/timed_model.py"), model("predict"))): 40,
            RawStack(101, "model", (*calls, RawFrame("get", queue.__file__, 3))): 60,
            RawStack(102, "pool", (*pool, model("endpoint"))): 10,
            RawStack(102, "pool", pool): 90,
        }
    )
    assert shown(found) == {"worker; model; predict": 40, "worker; endpoint": 10}


def test_another_thread_counts_by_its_cpu_time() -> None:
    refresher = RawStack(103, "refresher", (*THREAD, model("refresh")))
    ours_alone = RawStack(104, "lifeline", (*THREAD, ours("system/child.py")))
    counts = {main(*LOOP): 100, refresher: 100, ours_alone: 100}
    assert shown(sampled(counts, threads={103: ThreadTimes(2 * MS), 104: ThreadTimes(MS)})) == {
        "worker; refresh": pytest.approx(2)
    }
    assert shown(sampled(counts)) == {}


@each_row(
    "waiting",
    (library("gunicorn/workers/sync.py", "run"), library("gunicorn/workers/sync.py", "wait")),
    (standard("socketserver.py", "serve_forever"), standard("selectors.py", "select")),
    (standard("http/server.py", "handle_one_request"), standard("socket.py", "readinto")),
    (library("waitress/task.py", "handler_thread"), standard("threading.py", "wait")),
)
def test_a_server_of_another_kind_waits_for_the_next_request(waiting: tuple[RawFrame, ...]) -> None:
    script = (ROOT, model("serve"))
    assert shown(sampled({main(*script, *waiting): 100})) == {}


def test_a_handler_that_reads_the_body_of_its_request_counts() -> None:
    handler = (standard("http/server.py", "handle_one_request"), model("do_POST"), standard("socket.py", "readinto"))
    assert len(sampled({main(ROOT, *handler): 1}).stacks) == 1


WRITE = (*CALL, library("uvicorn/protocols/http/httptools_impl.py", "send"))


def test_the_wait_for_a_core_is_first_that_of_the_server() -> None:
    counts = {main(*MODEL, model("send")): 30, main(*WRITE): 20, main(*LOOP): 50}
    assert shown(sampled(counts)) == {"worker; HTTP server; model; send": 30, "worker; HTTP server; send": 20}
    times = shown(sampled(counts, threads={PID: ThreadTimes(35 * MS, 15 * MS)}))
    assert times == {"worker; HTTP server; model; send": 30, "worker; HTTP server; send": pytest.approx(5)}


@each_row(("cpu_ms", "ready_ms", "left_ms"), [(35, 25, 30), (20, 25, 25), (20, 200, 20), (0, 25, 30)])
def test_what_is_left_of_the_wait_for_a_core_is_taken_from_all(cpu_ms: int, ready_ms: int, left_ms: float) -> None:
    counts = {main(*MODEL, model("predict")): 30, main(*WRITE): 20, main(*LOOP): 50}
    times = shown(sampled(counts, threads={PID: ThreadTimes(cpu_ms * MS, ready_ms * MS)}))
    assert times == {"worker; HTTP server; model; predict": pytest.approx(left_ms)}


def test_a_stack_with_a_call_that_cannot_be_is_lost() -> None:
    torn = main(*WRITE, model("predict"))
    found = sampled({torn: 10, main(*MODEL, model("predict")): 40, main(*LOOP): 50})
    assert found.lost == 10
    assert shown(found) == {"worker; HTTP server; model; predict": pytest.approx(100 * 40 / 90)}
    app = (*LOOP, library("uvicorn/protocols/http/httptools_impl.py", "run_asgi"), model("app"))
    assert sampled({main(*app): 1, main(*WRITE, standard("asyncio/locks.py", "set")): 1}).lost == 0


def test_waits_of_coroutines_are_stacks_below_the_model() -> None:
    predict, fetch = (Awaiting(f"Model.{name}", "/srv/project/model.py", 7) for name in ("predict", "fetch"))
    waits = [AwaitedTime((predict, fetch), 30, 2), AwaitedTime((predict,), 5, 1), AwaitedTime((predict, fetch), 10, 1)]
    one, other = awaited_stacks(waits, "service", NAMES)
    assert [frame.function for frame in one.frames] == ["service", "model", "waiting", "Model.predict", "Model.fetch"]
    assert (one.lines, one.ns, one.samples) == ((0, 0, 0, 7, 7), 40, 3)
    assert [frame.owner for frame in other.frames] == ["process", "model", "await", "project"]


def test_functions_of_this_package_become_layers() -> None:
    batched = (*CALL, ours("patterns/batched.py"), ours("patterns/batched.py", "g"), ours("patterns/layer.py"))
    encode = (*CALL, ours("wire/tensors.py", "encoded"), standard("json/encoder.py", "encode"))
    found = sampled(
        {
            main(*batched): 1,
            main(*encode): 1,
            main(*CALL, ours("wire/codec.py", "path")): 1,
            main(*CALL, ours("wire/compression.py", "encode")): 1,
            main(*CALL, ours("engines/local/upstream.py"), ours("wire/codec.py", "decode_answer")): 1,
        }
    )
    assert [*shown(found)] == [
        "worker; HTTP server; batched",
        "worker; HTTP server; wire: encode; encode",
        "worker; HTTP server; wire",
        "worker; HTTP server; wire: compression",
        "worker; HTTP server; hop; wire: decode",
    ]


def test_the_server_around_our_functions_is_a_layer_too_but_not_around_an_app() -> None:
    entry = (*LOOP, library("uvicorn/protocols/http/httptools_impl.py", "run_asgi"))
    middle = main(*entry, library("uvicorn/middleware/proxy_headers.py", "__call__"))
    assert [*shown(sampled({middle: 1}))] == ["worker; HTTP server; run_asgi; __call__"]
    app = RawStacks(PID, 100 * MS, {main(*entry, model("app")): 1})
    assert [*shown(sampled_stacks([app], {}, NAMES))] == ["server; run_asgi; app"]


def test_processes_of_one_role_are_added() -> None:
    stacks = {main(*MODEL, model("predict")): 1, main(*LOOP): 9}
    raw = [RawStacks(pid, 100 * MS, {RawStack(pid, *_rest(stack)): n for stack, n in stacks.items()}) for pid in (1, 2)]
    assert shown(sampled_stacks(raw, {1: "replica", 2: "replica"}, NAMES)) == {
        "replica; HTTP server; model; predict": pytest.approx(20)
    }


def _rest(stack: RawStack) -> tuple[str, tuple[RawFrame, ...]]:
    return stack.name, stack.frames


OWN = RawFrame("main", "/srv/project/serve.py", 23)
THREADS = {RawStack(PID + 1, "Thread-1", (*THREAD, standard("socketserver.py", "run"), model("answer"))): 60}


@each_row("leaf", [(standard("signal.py", "sigwait"),), (standard("socket.py", "accept"),), ()])
def test_a_main_thread_that_waits_beside_the_threads_that_serve_is_idle(leaf: tuple[RawFrame, ...]) -> None:
    waits = {main(OWN, *leaf): 100}
    assert shown(sampled({**waits, **THREADS})) == {"worker; answer": 60}


@pytest.mark.parametrize(("cpu_ms", "counts"), [(90, (100,)), (0, (60, 40))], ids=["computes", "goes on"])
def test_a_main_thread_that_does_something_is_not(cpu_ms: int, counts: tuple[int, ...]) -> None:
    stacks = {main(replace(OWN, line=number)): count for number, count in enumerate(counts)}
    assert shown(sampled(stacks, threads={PID: ThreadTimes(cpu_ms * MS)}))["worker; main"] > 0


def test_a_process_that_was_not_seen_has_no_stacks() -> None:
    assert sampled({}) == SampledStacks((), 0, 0)


def test_the_package_is_known_in_another_environment_too() -> None:
    assert is_ours("/elsewhere/lib/python3.12/site-packages/pytest_mlpatterns/wire/codec.py")
    assert not is_ours("/srv/pytest_mlpatterns/model.py")
