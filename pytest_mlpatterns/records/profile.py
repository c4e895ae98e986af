"""Where the time of requests went, by function, on both sides of a comparison: what was sampled, and what was found.

:class:`ProfiledRun` is what a profiler saw, block by block; it stays in the process that measured. From it
:mod:`pytest_mlpatterns.analysis.causes.attribution` makes a :class:`ProfileRecord`, which travels as JSON with the
result.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, Self

from msgspec import Struct
from msgspec.structs import replace

from pytest_mlpatterns.records.codec import Amount, Count, Record
from pytest_mlpatterns.records.launch import Estimate

Owner = Literal["process", "layer", "model", "project", "library", "python", "native", "await"]
"""Whose code a frame is.

``process``: the root of a stack, the role of its process; ``layer``: this package, one frame per layer; ``model``: the
boundary of a model, below which its own code runs; ``project``: code in the tree of the tests; ``library``: other
packages; ``python``: the standard library; ``native``: compiled code; ``await``: below it coroutines wait.
"""
ChangeKind = Literal["slower", "faster", "new", "gone", "moved"]


_HALF = ": "  # What stands between a layer and its half


class Frame(Struct, frozen=True, array_like=True):
    """A function, or what stands for one in a stack. Two frames are equal wherever the function moved in its file."""

    function: str  # qualified name, such as ``Digits.predict``; the role, layer or model otherwise, such as ``gateway``
    # relative to pytest's root directory, to site-packages or to the standard library; empty without one
    file: str = ""
    line: Count = 0  # line of the definition, from 1; 0 if unknown
    owner: Owner = "project"  # whose code it is

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Frame) and self._key == other._key

    def __hash__(self) -> int:
        return hash(self._key)

    @property
    def _key(self) -> tuple[str, str, str]:
        return self.function, self.file, self.owner

    @property
    def place(self) -> str:
        """The file with the line of the definition: ``model.py:41``; empty without a file."""
        return f"{self.file}:{self.line}" if self.file and self.line else self.file

    @property
    def placed(self) -> str:
        """The function with its place: ``normalize (model.py:41)``."""
        return f"{self.function} ({self.place})" if self.place else self.function

    @classmethod
    def of_layer(cls, name: str, half: str = "") -> Frame:
        """A layer, or a half of one, such as ``encode`` of ``wire``."""
        return cls(f"{name}{_HALF}{half}" if half else name, owner="layer")

    @property
    def whole(self) -> Frame:
        """The whole layer of a half; the same for others."""
        layer, half, _ = self.function.partition(_HALF) if self.owner == "layer" else (self.function, "", "")
        return replace(self, function=layer) if half else self


class StackTime(Struct, frozen=True):
    """The time for which one stack was seen in one block."""

    frames: tuple[Frame, ...]  # from the root, the role of the process, to the innermost one
    lines: tuple[int, ...]  # the line that each of them executed, from 1; 0 if unknown. As many as ``frames``
    ns: float  # over all threads and processes of that role
    samples: int  # times that the profiler saw it; for waiting coroutines, times that they waited


class ProfiledBlock(Struct, frozen=True):
    """What was seen in one block of one side; idle stacks are left out."""

    stacks: tuple[StackTime, ...]  # each at most once
    requests: int  # answered in the block, at least 1
    # calls of each model in the block, by the ``function`` of its frame; a model that is not in it: unknown
    calls: Mapping[str, float] = {}
    samples: int = 0  # samples that the profiler took, idle ones too
    lost: int = 0  # of those, samples that gave no whole stack
    cpu_ns: int = 0  # CPU time of all threads; 0 if unknown
    native_ns: int | None = None  # of that, CPU time of threads without Python code; None if unknown
    native_busy: int = 0  # how many of those threads work


class ProfiledRun(Struct, frozen=True):
    """Blocks of both sides, neighbour by neighbour, or of the present alone."""

    now: tuple[ProfiledBlock, ...]  # blocks of the present, at least one
    # of the reference, ``before[i]`` being the neighbour of ``now[i]``; empty if there is none
    before: tuple[ProfiledBlock, ...] = ()
    profiler: str = ""  # its name and version
    rate_hz: float = 0.0  # samples a second and process
    # latency with the profiler over latency without it, with its interval; None if unknown
    slowdown: Estimate | None = None
    notes: tuple[str, ...] = ()  # what a reader has to know, a sentence each
    libraries: tuple[str, ...] = ()  # that started the busy threads without Python code, as far as that is known


class NativeChange(Struct, frozen=True):
    """More CPU time in threads that a library started for itself, which no Python function shows."""

    busy_before: Count  # how many of these threads work at the reference
    busy_now: Count  # the same at present
    before_ns: float  # their CPU time per request at the reference
    now_ns: float  # the same at present
    libraries: tuple[str, ...] = ()  # that started them; empty if unknown


class ProfileNode(Struct, frozen=True, array_like=True):
    """A stack in the tree of all stacks; its time is spent in its innermost function itself, without callees."""

    parent: int  # index of the caller's node, below this node's own; -1 for a root
    frame: Count  # index of the function in the record's ``frames``
    before_ns: Amount  # per request at the reference
    now_ns: Amount  # per request at present


class FunctionTime(Struct, frozen=True):
    """The time of one function per request, callees included, over all its callers."""

    frame: Count  # index of the function
    before_ns: float  # per request at the reference; 0 if it was not seen there, or without a reference
    now_ns: float  # per request at present
    self_before_ns: float  # of ``before_ns``, without callees
    self_now_ns: float  # of ``now_ns``, without callees
    # of the time per request, in nanoseconds, with its 95 % interval; None without a reference
    change: Estimate | None = None


class FunctionChange(Struct, frozen=True):
    """A function that a failure names."""

    # indices of the frames that lead to it, from the first function of a model (or a layer) on; the last one is
    # the function itself
    chain: tuple[Count, ...]
    before_ns: float  # time per request at the reference, callees included, called so
    now_ns: float  # the same at present
    change: Estimate  # in nanoseconds per request, with its 95 % interval
    of_ns: float  # change of the time of all functions per request, of which this is a part
    kind: ChangeKind  # how it changed
    line: Count = 0  # line of the function in which most of the change is; 0 if unknown
    source: str = ""  # text of that line; empty if unknown
    inside: str = ""  # the function of a library, called by it, that has most of the change; empty if there is none
    was: str = ""  # the earlier name of what moved, or the function in whose place a new one is called; empty otherwise


class ProfileRecord(Record, frozen=True):
    """What the profiled blocks of a test showed."""

    note: str = ""  # why there is no profile; empty if there is one
    profiler: str = ""  # name and version of the profiler
    rate_hz: float = 0.0  # samples a second and process
    blocks: Count = 0  # profiled blocks of each side
    samples: Count = 0  # samples of both sides
    lost: Count = 0  # of those, samples that gave no whole stack
    compared: bool = False  # whether there are two sides; if not, ``changes`` is empty and every time before is 0
    notes: tuple[str, ...] = ()  # what a reader of the profile has to know, a sentence each
    # ``(value, low, high)`` of the latency with the profiler over that without it; None if unknown
    slowdown: tuple[float, float, float] | None = None
    frames: tuple[Frame, ...] = ()  # functions; other members give their index
    nodes: tuple[ProfileNode, ...] = ()  # all stacks as a tree, callers before their callees
    # functions whose time changed beyond noise, the largest change first; at most three
    changes: tuple[FunctionChange, ...] = ()
    largest: FunctionChange | None = None  # if none is named, the function that comes nearest; None otherwise
    # at most 30, the largest changes first; without a reference the largest times
    functions: tuple[FunctionTime, ...] = ()
    native: NativeChange | None = None  # growth of the CPU time of threads without Python code; None without one

    def to_json(self) -> dict[str, Any]:
        """Plain values: frames as ``[function, file, line, owner]``, nodes as ``[parent, frame, before, now]``.

        Times of nodes are rounded to whole nanoseconds.
        """
        nodes = [[one.parent, one.frame, round(one.before_ns), round(one.now_ns)] for one in self.nodes]
        return {**super().to_json(), "nodes": nodes}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """The inverse of :meth:`to_json`, also after a trip through JSON.

        Raises ValueError: a member names a frame or a node that is not there.
        """
        record = super().from_json(data)
        record._check_indices()
        return record

    def _check_indices(self) -> None:
        frames = [node.frame for node in self.nodes] + [one.frame for one in self.functions]
        frames += [frame for change in (*self.changes, *filter(None, [self.largest])) for frame in change.chain]
        if frames and not 0 <= min(frames) <= max(frames) < len(self.frames):
            raise ValueError(f"a profile names frame {max(frames)} of {len(self.frames)}")
        for index, node in enumerate(self.nodes):
            if not -1 <= node.parent < index:
                raise ValueError(f"a profile names node {node.parent} as the caller of node {index}")
