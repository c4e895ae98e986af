"""Launches of real services that were measured once, as columns of a few kilobytes, and how they are drawn again.

``record.py`` beside this module measures them. A world replays one launch, or both sides of one paired launch, by runs
of neighbouring requests, so that what requests and launches differ by is the service's and the machine's own.
"""

from __future__ import annotations

import functools
import itertools
import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from msgspec import Struct

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

HERE = Path(__file__).parent / "recorded"
_STEP = 0.0005  # Step of the natural logarithm of a time in a file
RUN = 8  # Neighbouring requests that are drawn together


class Replayed(Struct, frozen=True):
    """Requests that were drawn from a launch, arrays of one shape."""

    times_ns: NDArray[np.float64]
    ttft: NDArray[np.float64]  # shares of these times until the first token; zeros if answers are whole


class Side(Struct, frozen=True):
    """One launch, or one side of a paired launch."""

    blocks: tuple[NDArray[np.float64], ...]  # times of whole answers in nanoseconds, in the order in which they began
    ttft: tuple[
        NDArray[np.float64], ...
    ] = ()  # shares of these times until the first token; empty if answers are whole
    cpu: float = 0.0  # CPU time of a request, of its own time
    others: float = 0.0
    steal: float = 0.0
    throttled: float = 0.0
    fixed_ns: tuple[float, ...] = ()
    start_ns: float = 0.6e9

    @property
    def mean_ns(self) -> float:
        """Mean time of an answer."""
        return float(np.concatenate(self.blocks).mean())

    def drawn(self, rng: np.random.Generator, shape: tuple[int, ...]) -> Replayed:
        """Draw requests of this shape; the first of three axes has the blocks."""
        blocks = shape[0] if len(shape) == 3 else 1
        each = int(np.prod(shape)) // blocks
        times, shares = [], []
        for number in range(blocks):
            index = number % len(self.blocks)
            known = self.blocks[index]
            first = rng.integers(0, known.size, -(-each // RUN))
            rows = ((first[:, None] + np.arange(RUN)) % known.size).ravel()[:each]
            times.append(known[rows])
            shares.append(self.ttft[index][rows] if self.ttft else np.zeros(each))
        return Replayed(np.concatenate(times).reshape(shape), np.concatenate(shares).reshape(shape))


class Recording(Struct, frozen=True):
    """The launches of one service under one condition of the machine."""

    service: str
    condition: str  # ``quiet``, ``busy`` or ``slowed``
    callers: int
    tokens: int  # of an answer that streams; 0 if answers come whole
    launches: tuple[Side, ...]
    pairs: tuple[tuple[Side, Side], ...]
    measured: str  # when and where

    @property
    def median_ns(self) -> float:
        """Time of an answer."""
        return float(np.median(np.concatenate([block for side in self.launches for block in side.blocks])))

    @property
    def ttft_share(self) -> float:
        """The part of it until the first token."""
        return float(np.median(np.concatenate([block for side in self.launches for block in side.ttft])))


def pack(values: Sequence[NDArray[np.float64]]) -> NDArray[np.uint16]:
    """Times as logarithms in sixteen bits."""
    found: NDArray[np.uint16] = np.round(np.log(np.concatenate(values).clip(1.0)) / _STEP).astype(np.uint16)
    return found


def write(recording: Recording) -> Path:
    """Write a recording, and return its file."""
    sides = [*recording.launches, *(side for pair in recording.pairs for side in pair)]
    told = [
        {
            "sizes": [block.size for block in side.blocks],
            **{name: getattr(side, name) for name in ("cpu", "others", "steal", "throttled", "start_ns")},
            "fixed_ns": [round(one) for one in side.fixed_ns],
        }
        for side in sides
    ]
    head = {
        **{name: getattr(recording, name) for name in ("service", "condition", "callers", "tokens", "measured")},
        "launches": len(recording.launches),
        "sides": told,
    }
    times = pack([block for side in sides for block in side.blocks])
    shares = np.concatenate([np.zeros(0), *(block for side in sides for block in side.ttft)])
    path = HERE / f"{recording.service}-{recording.condition}.npz"
    text = np.frombuffer(json.dumps(head).encode(), dtype=np.uint8)
    np.savez_compressed(path, head=text, times=times, ttft=np.round(shares * 65535).astype(np.uint16))
    return path


@functools.cache
def read(name: str) -> Recording:
    """The recording of this name, ``fastapi-quiet``."""
    with np.load(HERE / f"{name}.npz") as file:
        head = json.loads(file["head"].tobytes())
        times = np.exp(file["times"].astype(np.float64) * _STEP)
        shares = file["ttft"] / 65535 if head["tokens"] else None
    sides, at = [], 0
    for told in head.pop("sides"):
        cuts = np.cumsum([at, *told.pop("sizes")])
        at = int(cuts[-1])
        pieces = list(itertools.pairwise(cuts.tolist()))
        blocks = tuple(times[start:end] for start, end in pieces)
        ttft = () if shares is None else tuple(shares[start:end] for start, end in pieces)
        sides.append(Side(blocks, ttft, **{**told, "fixed_ns": tuple(told["fixed_ns"])}))
    alone = head.pop("launches")
    pairs = tuple(zip(sides[alone::2], sides[alone + 1 :: 2], strict=True))
    return Recording(**head, launches=tuple(sides[:alone]), pairs=pairs)


def names() -> list[str]:
    """All recordings."""
    return sorted(path.stem for path in HERE.glob("*.npz"))
