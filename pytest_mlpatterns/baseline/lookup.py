"""The entry that a test is compared with on this machine, or why there is none."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_mlpatterns.config.run_settings import BaselineMode
    from pytest_mlpatterns.records.baseline_entry import Entry
    from pytest_mlpatterns.records.setup import Setup

__all__ = ["BaselineMatch"]

_BESIDE = ("p95", "p99", "cpu_per_request", "peak_memory")


@dataclass(frozen=True, slots=True)
class BaselineMatch:
    """What a test is compared with.

    Attributes:
        setup: what the test measures; an entry of another set-up is not given.
        mode: what the run asks of a test; a run that prunes asks what ``check`` asks.
        entry: what it is compared with, None where there is nothing comparable, or nothing is compared.
        missing: why there is nothing comparable; empty where there is, or nothing is compared.
        widening: factor on the tolerance.
        said: what a reader of the comparison has to know; empty where it is plain.
        name: of the entry, as people are told of it.
        slowdown: measures how many times as long a fixed piece of work takes now as when the entry was recorded; None
            where nobody can tell.
    """

    setup: Setup
    mode: BaselineMode
    entry: Entry | None = None
    missing: str = ""
    widening: float = 1.0
    said: str = ""
    name: str = ""
    slowdown: Callable[[], float | None] = field(default=lambda: None, compare=False)
