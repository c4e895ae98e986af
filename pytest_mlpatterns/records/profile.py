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

__all__ = [
    "ChangeKind",
    "Frame",
    "FunctionChange",
    "FunctionTime",
    "NativeChange",
    "Owner",
    "ProfileNode",
    "ProfileRecord",
    "ProfiledBlock",
    "ProfiledRun",
    "StackTime",
]

Owner = Literal["process", "layer", "model", "project", "library", "python", "native", "await"]
"""Whose code a frame is.

``process``: the root of a stack, the role of its process; ``layer``: this package, one frame per layer; ``model``: the
boundary of a model, below which its own code runs; ``project``: code in the tree of the tests; ``library``: other
packages; ``python``: the standard library; ``native``: compiled code; ``await``: below it coroutines wait.
"""
ChangeKind = Literal["slower", "faster", "new", "gone", "moved"]


_HALF = ": "
"""What stands between a layer and its half."""


class Frame(Struct, frozen=True, array_like=True):
    """A function, or what stands for one in a stack. Two frames are equal wherever the function moved in its file.

    Attributes:
        function: qualified name, such as ``Digits.predict``; the role, layer or model otherwise, such as ``gateway``.
        file: relative to pytest's root directory, to site-packages or to the standard library; empty without one.
        line: line of the definition, from 1; 0 if unknown.
        owner: whose code it is.
    """

    function: str
    file: str = ""
    line: Count = 0
    owner: Owner = "project"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Frame) and self._key == other._key

    def __hash__(self) -> int:
        return hash(self._key)

    @property
    def _key(self) -> tuple[str, str, str]:
        return self.function, self.file, self.owner

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
    """The time for which one stack was seen in one block.

    Attributes:
        frames: from the root, the role of the process, to the innermost one.
        lines: the line that each of them executed, from 1; 0 if unknown. As many as ``frames``.
        ns: over all threads and processes of that role.
        samples: times that the profiler saw it; for waiting coroutines, times that they waited.
    """

    frames: tuple[Frame, ...]
    lines: tuple[int, ...]
    ns: float
    samples: int


class ProfiledBlock(Struct, frozen=True):
    """What was seen in one block of one side; idle stacks are left out.

    Attributes:
        stacks: each at most once.
        requests: answered in the block, at least 1.
        calls: calls of each model in the block, by the ``function`` of its frame; a model that is not in it: unknown.
        samples: samples that the profiler took, idle ones too.
        lost: of those, samples that gave no whole stack.
        cpu_ns: CPU time of all threads; 0 if unknown.
        native_ns: of that, CPU time of threads without Python code; None if unknown.
        native_busy: how many of those threads work.
    """

    stacks: tuple[StackTime, ...]
    requests: int
    calls: Mapping[str, float] = {}
    samples: int = 0
    lost: int = 0
    cpu_ns: int = 0
    native_ns: int | None = None
    native_busy: int = 0


class ProfiledRun(Struct, frozen=True):
    """Blocks of both sides, neighbour by neighbour, or of the present alone.

    Attributes:
        now: blocks of the present, at least one.
        before: of the reference, ``before[i]`` being the neighbour of ``now[i]``; empty if there is none.
        profiler: its name and version.
        rate_hz: samples a second and process.
        slowdown: latency with the profiler over latency without it, with its interval; None if unknown.
        notes: what a reader has to know, a sentence each.
        libraries: that started the busy threads without Python code, as far as that is known.
    """

    now: tuple[ProfiledBlock, ...]
    before: tuple[ProfiledBlock, ...] = ()
    profiler: str = ""
    rate_hz: float = 0.0
    slowdown: Estimate | None = None
    notes: tuple[str, ...] = ()
    libraries: tuple[str, ...] = ()


class NativeChange(Struct, frozen=True):
    """More CPU time in threads that a library started for itself, which no Python function shows.

    Attributes:
        busy_before: how many of these threads work at the reference.
        busy_now: the same at present.
        before_ns: their CPU time per request at the reference.
        now_ns: the same at present.
        libraries: that started them; empty if unknown.
    """

    busy_before: Count
    busy_now: Count
    before_ns: float
    now_ns: float
    libraries: tuple[str, ...] = ()


class ProfileNode(Struct, frozen=True, array_like=True):
    """A stack in the tree of all stacks; its time is that of its innermost function itself, without callees.

    Attributes:
        parent: index of the caller's node, below this node's own; -1 for a root.
        frame: index of the function in the record's ``frames``.
        before_ns: per request at the reference.
        now_ns: per request at present.
    """

    parent: int
    frame: Count
    before_ns: Amount
    now_ns: Amount


class FunctionTime(Struct, frozen=True):
    """The time of one function per request, callees included, over all its callers.

    Attributes:
        frame: index of the function.
        before_ns: per request at the reference; 0 if it was not seen there, or without a reference.
        now_ns: per request at present.
        self_before_ns: of ``before_ns``, without callees.
        self_now_ns: of ``now_ns``, without callees.
        change: of the time per request, in nanoseconds, with its 95 % interval; None without a reference.
    """

    frame: Count
    before_ns: float
    now_ns: float
    self_before_ns: float
    self_now_ns: float
    change: Estimate | None = None


class FunctionChange(Struct, frozen=True):
    """A function that a failure names.

    Attributes:
        chain: indices of the frames that lead to it, from the first function of a model (or a layer) on; the last one
            is the function itself.
        before_ns: time per request at the reference, callees included, called so.
        now_ns: the same at present.
        change: in nanoseconds per request, with its 95 % interval.
        of_ns: change of the time of all functions per request, of which this is a part.
        kind: how it changed.
        line: line of the function in which most of the change is; 0 if unknown.
        source: text of that line; empty if unknown.
        inside: the function of a library, called by it, that has most of the change; empty if there is none.
        was: the earlier name of what moved, or the function in whose place a new one is called; empty otherwise.
    """

    chain: tuple[Count, ...]
    before_ns: float
    now_ns: float
    change: Estimate
    of_ns: float
    kind: ChangeKind
    line: Count = 0
    source: str = ""
    inside: str = ""
    was: str = ""


class ProfileRecord(Record, frozen=True):
    """What the profiled blocks of a test showed.

    Attributes:
        note: why there is no profile; empty if there is one.
        profiler: name and version of the profiler.
        rate_hz: samples a second and process.
        blocks: profiled blocks of each side.
        samples: samples of both sides.
        lost: of those, samples that gave no whole stack.
        compared: whether there are two sides; if not, ``changes`` is empty and every time before is 0.
        notes: what a reader of the profile has to know, a sentence each.
        slowdown: ``(value, low, high)`` of the latency with the profiler over that without it; None if unknown.
        frames: functions; other members give their index.
        nodes: all stacks as a tree, callers before their callees.
        changes: functions whose time changed beyond noise, the largest change first; at most three.
        largest: if none is named, the function that comes nearest; None otherwise.
        functions: at most 30, the largest changes first; without a reference the largest times.
        native: growth of the CPU time of threads without Python code; None without one.
    """

    note: str = ""
    profiler: str = ""
    rate_hz: float = 0.0
    blocks: Count = 0
    samples: Count = 0
    lost: Count = 0
    compared: bool = False
    notes: tuple[str, ...] = ()
    slowdown: tuple[float, float, float] | None = None
    frames: tuple[Frame, ...] = ()
    nodes: tuple[ProfileNode, ...] = ()
    changes: tuple[FunctionChange, ...] = ()
    largest: FunctionChange | None = None
    functions: tuple[FunctionTime, ...] = ()
    native: NativeChange | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain values: frames as ``[function, file, line, owner]``, nodes as ``[parent, frame, before_ns, now_ns]``.

        Times of nodes are rounded to whole nanoseconds.
        """
        nodes = [[one.parent, one.frame, round(one.before_ns), round(one.now_ns)] for one in self.nodes]
        return {**super().to_json(), "nodes": nodes}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """The inverse of :meth:`to_json`, also after a trip through JSON.

        Raises:
            ValueError: a member names a frame or a node that is not there.
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
