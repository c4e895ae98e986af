"""Which functions hold more memory than before, or leak it. Pure."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from pytest_mlpatterns.records.held_memory import HeldMemory, HeldRecord, MemorySite

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_mlpatterns.records.profile import Frame

    Name = Callable[[str, int], Frame]
    SourceLine = Callable[[Frame, int], str]

__all__ = ["growth_between", "held_record"]

_LEAST_SHARE = 0.1
_LEAST_BYTES = 256 * 1024
"""What a function has to hold more to be named, unless it is a growth."""
_MOST_SITES = 5


def growth_between(first: HeldMemory, last: HeldMemory, requests: int) -> HeldMemory:
    """What was held in addition at the last of two readings, with this many requests between them."""
    sites = {site: held - first.sites.get(site, 0) for site, held in last.sites.items()}
    return HeldMemory(sites, last.total_bytes - first.total_bytes, requests)


def held_record(before: HeldMemory, now: HeldMemory, *, names: tuple[Name, Name], source_now: SourceLine) -> HeldRecord:
    """Compare what functions hold on both sides.

    Named is a function with at least 10 % of what all lines hold in addition, and, unless it is about a growth, at
    least 256 KiB.

    Args:
        before: of the reference; both sides since the start, or both the growth over some requests.
        now: of the present.
        names: name the function around a line of a file, of the reference and of the present.
        source_now: the text of a line of a function at present.
    """
    per_request = now.requests > 0
    functions: dict[Frame, list[float]] = defaultdict(lambda: [0.0, 0.0])
    lines: dict[Frame, tuple[float, int]] = {}
    for side, (held, name) in enumerate(zip((before, now), names, strict=True)):
        for (file, line), size in held.sites.items():
            frame = name(file, line)
            functions[frame][side] += size / max(held.requests, 1)
            if side == 1:
                lines[frame] = max(lines.get(frame, (0.0, 0)), (size, line))
    then, total = before.total_bytes / max(before.requests, 1), now.total_bytes / max(now.requests, 1)
    least = max(_LEAST_SHARE * (total - then), 1.0 if per_request else _LEAST_BYTES)
    sites = [
        MemorySite(
            frame.function,
            frame.file,
            line := lines.get(frame, (0.0, 0))[1],
            source_now(frame, line),
            *functions[frame],
        )
        for frame in functions
    ]
    grown = sorted((site for site in sites if site.change >= least), key=lambda site: -site.change)
    return HeldRecord("", per_request, then, total, tuple(grown[:_MOST_SITES]))
