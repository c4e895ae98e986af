"""What the lines of a service process hold, by tracemalloc, which starts before the model is loaded.

tracemalloc sees what Python and numpy allocate. It does not see memory that native libraries take for themselves, such
as the arenas of torch or onnxruntime. memray does, but it has to start the process, or to attach a debugger to it.
"""

from __future__ import annotations

import os
import sysconfig
import time
import tracemalloc
from collections import defaultdict
from collections.abc import Callable
from itertools import groupby
from operator import itemgetter
from pathlib import Path

from pytest_mlpatterns.records.samples import HELD_LAYER
from pytest_mlpatterns.records.telemetry import LayerStats

_Line = tuple[str, int]  # A file and a line of it
_DEPTH, _DEPTH_UNDER_LOAD = 8, 24  # Callers that are kept for each allocation; a start makes most of them
_MOST_SITES = 50  # Lines with the most memory that a process reports
_FRESH_S = 0.2  # Age up to which what was found is still good: to find it takes most of a second
_SIZE, _FRAMES = 1, 2  # Places in a trace of tracemalloc
_PACKAGE = str(Path(__file__).parents[1]) + os.sep


def trace_memory(depth: int = _DEPTH) -> None:
    """Follow every allocation of this process from now on; it gets slower by that."""
    tracemalloc.start(depth)


class HeldMemoryTally:
    """Reports what each line holds as a layer of the telemetry.

    Without :func:`trace_memory` the first report begins to follow allocations: a growth needs none of the start, which
    takes 11 to 28 times as long while they are followed.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._last: tuple[float, LayerStats] | None = None

    def snapshot(self) -> LayerStats:
        """The lines that hold most now, and the total; what was found a moment ago if it was asked for then."""
        if self._last is None or self._clock() - self._last[0] > _FRESH_S:
            layer = self._layer()
            self._last = self._clock(), layer
        return self._last[1]

    def _layer(self) -> LayerStats:
        if not tracemalloc.is_tracing():
            trace_memory(_DEPTH_UNDER_LOAD)
        held: dict[_Line, int] = defaultdict(int)
        owners = _Owners()
        for lines, size in _sizes(tracemalloc.take_snapshot()).items():
            if (line := _line(lines, owners)) is not None:
                held[line] += size
        largest = sorted(held.items(), key=lambda item: -item[1])[:_MOST_SITES]
        sites = {f"{number}:{file}": size for (file, number), size in largest}
        return LayerStats(0, HELD_LAYER, {"total": sum(held.values()), **sites})


def _sizes(snapshot: tracemalloc.Snapshot) -> dict[tuple[_Line, ...], int]:
    """Bytes by stack, the innermost line first.

    The tuples behind the public objects are read, since ``Snapshot.statistics`` makes an object of each frame, and it
    takes long to make objects while memory is traced. Neighbours that one line allocated, as in a table of numbers, are
    added at once. Of 500,000 such allocations the sum takes 0.02 s, and 3 s if each is added by itself.
    """
    sizes: dict[tuple[_Line, ...], int] = defaultdict(int)
    traces = snapshot.traces._traces  # type: ignore[attr-defined]
    for frames, neighbours in groupby(traces, key=itemgetter(_FRAMES)):
        sizes[frames] += sum(map(itemgetter(_SIZE), neighbours))
    return sizes


def _line(lines: tuple[_Line, ...], owners: _Owners) -> _Line | None:
    """The innermost line of the user's code, else the innermost one; None if this package allocated it for itself."""
    innermost = None
    for line in lines:
        owner = owners[line[0]]
        if owner == "user":
            return line
        if innermost is None and owner == "library":
            innermost = line
    return innermost


class _Owners(dict[str, str]):
    """Whose code a file is: ``user``, ``library``, or ``ours``; each is looked at once."""

    def __init__(self) -> None:
        super().__init__({tracemalloc.__file__: "ours"})
        paths = sysconfig.get_paths()
        self._libraries = tuple({paths[name] for name in ("stdlib", "platstdlib", "purelib", "platlib")})

    def __missing__(self, file: str) -> str:
        is_library = file.startswith(("<", *self._libraries))
        self[file] = owner = "ours" if file.startswith(_PACKAGE) else "library" if is_library else "user"
        return owner
