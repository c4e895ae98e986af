"""From what a profiler saw of the processes of a deployment to the time of each stack. Pure.

Of N looks at a process in a time T, one stands for T/N. Looks at threads that serve count so, awake or not; the looks
at another thread share its CPU time. The time for which a thread was ready and did not run is taken out: it is the
machine's. Processes of one role are added.

A profiler that waits for a core itself looks late, and then often in a row: in some blocks it sees too little of the
work, in others too much. Let s be the sampled time of a block and c its CPU time. If a service computes, s/c is
nearly the same in all blocks of a side, so each is scaled to the median of s/c (the ratio estimator of survey sampling;
Cochran, Sampling Techniques, chapter 6). If the service waited for cores, too, both sides are scaled to one median.
If a service mostly waits, its CPU time shows nothing, and nothing is changed.

A profiler that does not pause the process reads a stack from the innermost function outwards. If a function returns
meanwhile, the reading ends there, and the callers are missing. The more often a thread calls and returns, the more
stacks lack them; without those, code that does little else would seem faster, and all other code slower.

Which threads serve requests, where in a stack the serving begins, and when a thread is idle.

A thread that serves counts awake or not: a lock, a sleep or a file is named by the function that waits for it. But a
thread waits for the next request, too, and that is no part of any. So the loops around the serving are cut off, and a
stack that ends in the wait of such a loop is idle. Another thread, such as one that refreshes a table, sleeps between
its turns; its waits belong to no request, so it counts by its CPU time alone.

On a busy machine a thread waits for a core, too. Most of that is seen in the server around the serving, which reads a
request when it gets a core, and loses it when its write wakes the client: :func:`is_of_server` knows these places.
Pure.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from statistics import median

from msgspec import Struct
from msgspec.structs import replace

from pytest_mlpatterns.patterns import model_thread
from pytest_mlpatterns.patterns.batched import WAKES
from pytest_mlpatterns.profiling.frame_names import (
    MODEL,
    SERVER_LAYER,
    SourceNames,
    is_of_model,
    is_ours,
    layer_of,
    place_of,
    role_frame,
)
from pytest_mlpatterns.profiling.py_spy import RawFrame, RawStack, RawStacks
from pytest_mlpatterns.records.profile import Frame, StackTime
from pytest_mlpatterns.records.telemetry import AwaitedTime
from pytest_mlpatterns.system import child
from pytest_mlpatterns.system.process_tree import BUSY_SHARE
from pytest_mlpatterns.system.thread_times import ThreadTimes

_LOOPS = (
    "asyncio/base_events.py",
    "asyncio/events.py",
    "asyncio/runners.py",
    "concurrent/futures/thread.py",
    "multiprocessing/process.py",
    "multiprocessing/popen_fork.py",
    "multiprocessing/popen_spawn_posix.py",
    "multiprocessing/spawn.py",
    "anyio/_backends/_asyncio.py",
    "selectors.py",
    "queue.py",
    "threading.py",
    "runpy.py",
    "click/core.py",
    "uvicorn/__main__.py",
    "uvicorn/_compat.py",
    "uvicorn/_subprocess.py",
    "uvicorn/config.py",
    "uvicorn/main.py",
    "uvicorn/server.py",
    "uvicorn/workers.py",
    "granian/_loops.py",
    "granian/cli.py",
    "granian/server/",
    "hypercorn/__main__.py",
    "hypercorn/asyncio/run.py",
    "hypercorn/run.py",
    "gunicorn/app/",
    "gunicorn/arbiter.py",
    "socketserver.py",
    "grpc/_server.py",
)
"""Files whose functions run the loops around the serving: at the root of a stack they show nothing."""
_OUR_LOOPS = (
    "serving/external/asgi_server.py",
    "engines/local/worker.py",
    "serving/redis/queue_worker.py",
    place_of(model_thread),
    place_of(child),
)
"""Loops of this package; tests compare the places in ``serving``, which is no layer below, with the modules."""
_SERVERS = (
    *_LOOPS,
    "http/server.py",
    "wsgiref/",
    "werkzeug/serving.py",
    "waitress/",
    "cheroot/",
    "gunicorn/",
    "hypercorn/",
    "tornado/",
    "sanic/",
    "aiohttp/",
)
"""Files that wait for the next request."""
_POOLS = (
    "concurrent/futures/thread.py",
    "anyio/_backends/_asyncio.py",
    "socketserver.py",
    "grpc/_server.py",
    "waitress/task.py",
    "cheroot/workers/threadpool.py",
    "gunicorn/workers/gthread.py",
    "starlette/concurrency.py",
)
"""Files at the root of threads that serve requests, beside the main thread."""
_ASIDE = 0.01  # Share of the time up to which a thread that uses the processor only waits
_DEPTH_OF_POOL = 6  # Frames from the root within which a thread shows what it is for
_WAITS = ("select", "poll", "accept", "wait", "get", "readinto", "recv", "readline", "peek", "serve_forever", "run")
"""Functions in which a server waits."""
_WAITS_IN = (("sigwait", "signal.py"), ("accept", "socket.py"))
"""Functions, with their files, that wait for a signal or a client."""


_PROTOCOLS = "/uvicorn/protocols/"
_ENTRY = "run_asgi"  # The function by which uvicorn calls an application
_OF_SERVERS = ("asyncio/", "uvicorn/", "starlette/routing.py", "h11/", *_SERVERS)
_OUR_SERVERS = ("serving/http/", "serving/grpc/", "engines/local/", place_of(model_thread))


def serves(stack: RawStack, pid: int) -> bool:
    """Whether the thread of a stack serves requests."""
    if stack.thread == pid or stack.name == "MainThread":
        return True
    return any(_is_in(frame.file, _POOLS) or _calls_models(frame) for frame in stack.frames[:_DEPTH_OF_POOL])


def is_own(stack: RawStack) -> bool:
    """Whether a thread belongs to this package and serves no request: the one that listens to the parent."""
    return stack.name == "lifeline"


def without_loops(frames: tuple[RawFrame, ...]) -> tuple[RawFrame, ...]:
    """The frames from the first function on that is not one of the loops around the serving."""
    for number, frame in enumerate(frames):
        if not _is_loop(frame):
            return frames[number:]
    return ()


def is_idle(frames: tuple[RawFrame, ...]) -> bool:
    """Whether a thread waits for the next request, or for a signal."""
    if not frames:
        return True
    leaf = frames[-1]
    if any(leaf.name == name and _is_in(leaf.file, (file,)) for name, file in _WAITS_IN):
        return True
    if leaf.name not in _WAITS:
        return False
    for frame in reversed(frames):
        if _is_in(frame.file, _SERVERS) and not _is_wait_of_any(frame):
            return True
        if not _is_standard(frame.file):
            return False
    return False


def _waits_aside(stacks: Sequence[tuple[RawStack, int]], times: ThreadTimes, duration_ns: int) -> bool:
    """Whether a thread only waited, in one place and outside of any server, as a main thread does beside those."""
    frames = stacks[0][0].frames
    is_served = any(is_ours(it.file) or (_is_in(it.file, _SERVERS) and not _is_wait_of_any(it)) for it in frames)
    return len(stacks) == 1 and not is_served and times.cpu_ns < _ASIDE * duration_ns


def is_of_server(frames: tuple[RawFrame, ...]) -> bool:
    """Whether a stack ends in the server that reads requests and writes answers, ours or another, not in a model."""
    leaf = frames[-1]
    if _PROTOCOLS in leaf.file or (leaf.name == WAKES and is_ours(leaf.file)):
        return True
    if any(is_of_model(frame) for frame in frames):
        return False
    return _is_in(leaf.file, _OUR_SERVERS if is_ours(leaf.file) else _OF_SERVERS)


def is_torn(frames: tuple[RawFrame, ...]) -> bool:
    """Whether a stack has a call that cannot be: it was read while the thread went from one function to another.

    uvicorn calls an application by one function; its others call only what belongs to a server.
    """
    for caller, callee in pairwise(frames):
        if _PROTOCOLS in caller.file and caller.name != _ENTRY and not is_ours(callee.file):
            named = callee.file.startswith("<") or not callee.file
            if not (named or _is_standard(callee.file) or _is_in(callee.file, _OF_SERVERS)):
                return True
    return False


def _calls_models(frame: RawFrame) -> bool:
    return frame.name == model_thread.ROOT and is_ours(frame.file)


def _is_loop(frame: RawFrame) -> bool:
    if frame.file.startswith("<") or frame.name == "<module>" or _calls_models(frame):
        return True
    return _is_in(frame.file, _OUR_LOOPS if is_ours(frame.file) else _LOOPS)


def _is_in(file: str, endings: tuple[str, ...]) -> bool:
    """Whether a path ends in one of these files, or is in one of these folders."""
    return any(f"/{one}" in file if one.endswith("/") else file.endswith(f"/{one}") for one in endings)


def _is_wait_of_any(frame: RawFrame) -> bool:
    """Whether it is a file whose waits any program uses, so that the waiting program stays unknown."""
    return frame.file.endswith(("/selectors.py", "/queue.py", "/threading.py"))


def _is_standard(file: str) -> bool:
    return "/lib/python3" in file and "-packages/" not in file


SERVER = "server"  # Role of a process that has no other
_UNKNOWN = ThreadTimes()
_Key = tuple[tuple[Frame, ...], tuple[int, ...]]
_COMPUTES = (0.3, 1.5)
"""Least and largest s/c of a service that computes: the server's native code is in c only, short waits in s only."""
_COMPUTES_ALONE = (
    0.6,
    1.25,
)  # Least and largest s/c of one whose waits are so short that both sides can share a median
_BUSY = 0.2  # Wait for cores per CPU time from which a machine is busy
_FEWEST = 3  # Fewest blocks whose median ratio is known well enough to scale by it


class NativeThreads(Struct, frozen=True):
    """Threads in which the profiler never saw Python code: those that a library started for itself."""

    cpu_ns: int
    # process and thread of each that works, compared with the busiest thread of its process
    busy: tuple[tuple[int, int], ...]


class SampledStacks(Struct, frozen=True):
    """The stacks of a deployment in one block."""

    stacks: tuple[StackTime, ...]  # each once; idle ones are left out
    samples: int
    lost: int  # samples that failed or gave no whole stack
    cpu_ns: int = 0  # CPU time of all threads of the processes; 0 if the system does not show it
    ready_ns: int = 0  # how long they were ready and did not run; 0 if the system does not show it
    native: NativeThreads | None = None  # the threads without Python code; None if they are not known


def sampled_stacks(recorded: Sequence[RawStacks], roles: Mapping[int, str], names: SourceNames) -> SampledStacks:
    """The time of each stack."""
    ns: defaultdict[_Key, float] = defaultdict(float)
    seen: Counter[_Key] = Counter()
    samples = lost = 0
    for raw in recorded:
        whole = whole_stacks(raw.counts)
        looks = _looks(raw.counts, raw.pid)
        samples += looks + raw.lost
        lost += raw.lost + _looks(raw.counts, raw.pid) - _looks(whole, raw.pid)
        role = role_frame(roles.get(raw.pid, SERVER))
        for stack, count, each_ns in _weighed(raw, whole, raw.duration_ns / max(_looks(whole, raw.pid), 1)):
            key = _named(role, stack, names, is_worker=raw.pid in roles)
            ns[key] += count * each_ns
            seen[key] += count
    times = (StackTime(frames, lines, ns[frames, lines], count) for (frames, lines), count in seen.items())
    threads = [found for raw in recorded for found in raw.threads.values()]
    cpu_ns, ready_ns = sum(one.cpu_ns for one in threads), sum(one.ready_ns for one in threads)
    return SampledStacks(tuple(times), samples, lost, cpu_ns, ready_ns, _native(recorded))


def _native(recorded: Sequence[RawStacks]) -> NativeThreads | None:
    """The threads without Python code; None if the system shows no threads, or the profiler not which one it saw."""
    cpu_ns, busy = 0, []
    for raw in recorded:
        seen = {stack.thread for stack in raw.counts}
        if not raw.threads or raw.pid not in seen:
            return None
        used = {thread: times.cpu_ns for thread, times in raw.threads.items()}
        least = max(BUSY_SHARE * max(used.values()), 1)
        native = used.keys() - seen
        cpu_ns += sum(used[thread] for thread in native)
        busy += [(raw.pid, thread) for thread in native if used[thread] >= least]
    return NativeThreads(cpu_ns, tuple(sorted(busy)))


def awaited_stacks(awaits: Iterable[AwaitedTime], role: str, names: SourceNames) -> Iterator[StackTime]:
    """The waits of coroutines of models as stacks."""
    above = (role_frame(role), Frame(MODEL, owner="model"), Frame("waiting", owner="await"))
    times: defaultdict[_Key, float] = defaultdict(float)
    seen: Counter[_Key] = Counter()
    for one in awaits:
        raw = [RawFrame(it.qualified.rpartition(".")[2], it.file, it.line, it.qualified) for it in one.chain]
        key = (*above, *map(names.frame, raw)), (*(0 for _ in above), *(it.line for it in one.chain))
        times[key] += one.ns
        seen[key] += one.times
    return (StackTime(*key, ns, seen[key]) for key, ns in times.items())


def _weighed(
    raw: RawStacks, whole: Mapping[RawStack, int], look_ns: float
) -> list[tuple[tuple[RawFrame, ...], int, float]]:
    """The stacks that count: frames without the loops at the root, how often they were seen, and the time of a look."""
    found = []
    threads: defaultdict[int, list[tuple[RawStack, int]]] = defaultdict(list)
    for stack, count in whole.items():
        if not is_own(stack):
            threads[stack.thread].append((stack, count))
    serving = sum(serves(stacks[0][0], raw.pid) for stacks in threads.values())
    for thread, stacks in threads.items():
        times = raw.threads.get(thread, _UNKNOWN)
        seen = [(frames, count) for stack, count in stacks if (frames := without_loops(stack.frames))]
        if serves(stacks[0][0], raw.pid):
            if serving < 2 or not _waits_aside(stacks, times, raw.duration_ns):
                found += _of_serving([one for one in seen if not is_idle(one[0])], times, look_ns)
        else:
            each_ns = times.cpu_ns / sum(count for _, count in stacks)
            found += [(frames, count, each_ns) for frames, count in seen]
    return [one for one in found if one[2] > 0]


def _of_serving(
    seen: Sequence[tuple[tuple[RawFrame, ...], int]], times: ThreadTimes, look_ns: float
) -> list[tuple[tuple[RawFrame, ...], int, float]]:
    """The stacks of a thread that serves, without the time for which it was ready and did not run.

    That time is first the server's; what is left of it is taken from all stacks alike, as far as they are longer than
    the CPU time.
    """
    server_ns = look_ns * sum(count for frames, count in seen if is_of_server(frames))
    all_ns = look_ns * sum(count for _, count in seen)
    of_server_ns = min(times.ready_ns, server_ns)
    left_ns = all_ns - of_server_ns
    of_all_ns = min(times.ready_ns - of_server_ns, max(left_ns - times.cpu_ns, 0)) if times.cpu_ns else 0
    shared = 1 - of_all_ns / left_ns if left_ns else 1
    server = 1 - of_server_ns / server_ns if server_ns else 1
    return [(frames, count, look_ns * shared * (server if is_of_server(frames) else 1)) for frames, count in seen]


def _looks(counts: Mapping[RawStack, int], pid: int) -> int:
    """Successful looks at a process: samples of its main thread, else of the thread that was seen most often."""
    totals: Counter[tuple[bool, int, str]] = Counter()
    for stack, count in counts.items():
        is_main = stack.thread == pid or stack.name == "MainThread"
        totals[is_main, 0 if is_main else stack.thread, "" if is_main else stack.name] += count
    mains = [count for (is_main, _, _), count in totals.items() if is_main]
    return max(mains or totals.values(), default=0)


def _named(role: Frame, stack: tuple[RawFrame, ...], names: SourceNames, *, is_worker: bool) -> _Key:
    """The frames as reports show them, below the role of their process, and the line that each runs."""
    frames, lines = [role], [0]
    first = next((number for number, raw in enumerate(stack) if is_ours(raw.file)), None)
    if first is None and is_worker and is_of_server(stack[:1]):
        frames, lines = [role, SERVER_LAYER], [0, 0]
    for raw in stack[first or 0 :]:
        if is_ours(raw.file):
            layer = layer_of(raw)
            if layer is not None and layer not in (frames[-1], _layer_above(frames)):
                frames.append(layer)
                lines.append(0)
            continue
        frame = names.frame(raw)
        if raw.name.startswith("<") and frame == frames[-1]:  # a comprehension is part of its function
            lines[-1] = raw.line
            continue
        frames.append(frame)
        lines.append(raw.line)
    return tuple(frames), tuple(lines)


def _layer_above(frames: Sequence[Frame]) -> Frame | None:
    """The layer that the innermost frame belongs to, if code of others that it calls calls it back."""
    return next((frame for frame in reversed(frames) if frame.owner in ("layer", "model")), None)


def balanced(sides: Sequence[Sequence[SampledStacks]]) -> list[list[SampledStacks]]:
    """The blocks of each side, with the time of their stacks scaled."""
    ratios = [_ratios(blocks) for blocks in sides]
    usual = [median(found) if found else 0.0 for found in ratios]
    is_busy = any(block.ready_ns > _BUSY * block.cpu_ns for blocks in sides for block in blocks)
    if is_busy and all(_COMPUTES_ALONE[0] <= one <= _COMPUTES_ALONE[1] for one in usual):
        usual = [median([one for found in ratios for one in found])] * len(usual)
    return [
        [_scaled(block, goal / ratio) for block, ratio in zip(blocks, found, strict=True)]
        if _COMPUTES[0] <= goal <= _COMPUTES[1]
        else [*blocks]
        for blocks, found, goal in zip(sides, ratios, usual, strict=True)
    ]


def _ratios(blocks: Sequence[SampledStacks]) -> list[float]:
    """The s/c of each block; empty if they are not known."""
    sampled = [sum(stack.ns for stack in block.stacks) for block in blocks]
    if len(blocks) < _FEWEST or not all(block.cpu_ns for block in blocks) or not all(sampled):
        return []
    return [seen / block.cpu_ns for seen, block in zip(sampled, blocks, strict=True)]


def _scaled(block: SampledStacks, factor: float) -> SampledStacks:
    return replace(block, stacks=tuple(replace(stack, ns=stack.ns * factor) for stack in block.stacks))


_Thread = tuple[int, str]
_Function = tuple[str, str]


def whole_stacks(counts: Mapping[RawStack, int]) -> dict[RawStack, int]:
    """The stacks from the root of their thread on, and how often each was seen.

    A thread has one root. A stack that begins elsewhere gets the callers that its outermost function has most often in
    the others. It is left out if that is in none of them, and so is one with a call that cannot be.
    """
    roots: defaultdict[_Thread, Counter[_Function]] = defaultdict(Counter)
    for stack, count in counts.items():
        if stack.frames:
            roots[_thread(stack)][_function(stack.frames[0])] += count
    usual = {thread: found.most_common(1)[0][0] for thread, found in roots.items()}
    whole: Counter[RawStack] = Counter()
    broken: list[tuple[RawStack, int]] = []
    for stack, count in counts.items():
        if stack.frames and _function(stack.frames[0]) != usual[_thread(stack)]:
            broken.append((stack, count))
        elif not is_torn(stack.frames):
            whole[stack] += count
    callers = _callers(whole) if broken else {}
    for stack, count in broken:
        above = callers.get((_thread(stack), _function(stack.frames[0])))
        if above is None:
            continue
        mended = replace(stack, frames=(*above.most_common(1)[0][0], *stack.frames))
        if not is_torn(mended.frames):
            whole[mended] += count
    return dict(whole)


def _callers(whole: Mapping[RawStack, int]) -> Mapping[tuple[_Thread, _Function], Counter[tuple[RawFrame, ...]]]:
    """For each function of each thread how often it was seen below which callers."""
    found: defaultdict[tuple[_Thread, _Function], Counter[tuple[RawFrame, ...]]] = defaultdict(Counter)
    for stack, count in whole.items():
        for depth, frame in enumerate(stack.frames):
            found[_thread(stack), _function(frame)][stack.frames[:depth]] += count
    return found


def _thread(stack: RawStack) -> _Thread:
    return stack.thread, stack.name


def _function(frame: RawFrame) -> _Function:
    return frame.name, frame.file
