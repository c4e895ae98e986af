"""Events of a running load, passed to what observes it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pytest_mlpatterns.loadgen.messages import WindowOpened
from pytest_mlpatterns.records.addressing import Progress

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_mlpatterns.loadgen.messages import Event

__all__ = ["LoadEvents"]


@dataclass(frozen=True, slots=True)
class LoadEvents:
    """Observers of one load.

    Attributes:
        on_progress: takes the progress, several times a second.
        on_window: called when the measured window opens.
        on_poll: called at every event and poll, before the others.
    """

    on_progress: Callable[[Progress], None]
    on_window: Callable[[], None] = lambda: None
    on_poll: Callable[[], None] = lambda: None

    def handle(self, event: Event | None) -> None:
        """Pass on one event; None is a poll without one. :meth:`Generator.run` takes this method as ``on_poll``."""
        self.on_poll()
        if isinstance(event, WindowOpened):
            self.on_window()
        elif isinstance(event, Progress):
            self.on_progress(event)
