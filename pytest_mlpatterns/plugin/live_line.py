"""The live line on a terminal while a test measures: behind what pytest wrote, gone when the test ends.

Silent on pipes, with ``-q``, in CI, and in the workers of a distributed run. It writes at pytest's cursor and puts the
cursor back, which the libraries for progress bars do not: they want a line of their own, and pytest to write through
them.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import time
from dataclasses import replace
from typing import TYPE_CHECKING

from pytest_mlpatterns.reports.text.live_line import Standing, live_text

if TYPE_CHECKING:
    from collections.abc import Callable

    import pytest

    from pytest_mlpatterns.records.addressing import Progress

__all__ = ["LiveLine"]

_SAVE, _RESTORE, _ERASE = "\x1b7", "\x1b8", "\x1b[K"
_MIN_ROOM = 20


class LiveLine:
    """Writes at the cursor and puts the cursor back, so that pytest goes on where it was.

    Args:
        config: of the run.
        spell: turns a text into what the terminal can show.
        clock: nanoseconds that only grow.

    Attributes:
        tests: how many perf tests the run has.
    """

    def __init__(
        self, config: pytest.Config, spell: Callable[[str], str], clock: Callable[[], int] = time.monotonic_ns
    ) -> None:
        self.tests = 0
        self._config = config
        self._spell = spell
        self._clock = clock
        self._shown = False
        self._test = ""
        self._launch_ns = 0
        self._begun = 0
        self._begun_ns = 0
        self._finished_ns = 0
        self._completed = 0
        self._before = 0
        self._silent = (
            hasattr(config, "workerinput")
            or config.get_verbosity() < 0
            or "CI" in os.environ
            or not config.pluginmanager.hasplugin("terminalreporter")
            or not sys.__stdout__
            or not sys.__stdout__.isatty()
        )

    def begin(self, test: str, launch_ns: int) -> None:
        """A test begins, whose launches are measured for so long each."""
        self._test, self._launch_ns = test, launch_ns
        self._begun += 1
        self._begun_ns = self._clock()
        self._completed = self._before = 0
        self._show(None)

    def show(self, progress: Progress) -> None:
        """Show a sign of life of the load, of which a test has several, one after the other."""
        if progress.completed < self._completed:
            self._before += self._completed
        self._completed = progress.completed
        self._show(progress, self._before + progress.completed)

    def end(self) -> None:
        """The test has ended: remove the line."""
        if self._test:
            self._finished_ns += self._clock() - self._begun_ns
            self._test = ""
        if self._shown:
            self._write(lambda _room: "")
            self._shown = False

    def _show(self, progress: Progress | None, completed: int = 0) -> None:
        if self._silent:
            return
        standing = Standing(
            test=self._test,
            number=self._begun,
            of=max(self.tests, self._begun),
            elapsed_ns=self._clock() - self._begun_ns,
            finished_ns=self._finished_ns,
            launch_ns=self._launch_ns,
        )
        told = None if progress is None else replace(progress, completed=completed)
        self._write(lambda room: " " + self._spell(live_text(standing, told, room - 1)))

    def _write(self, text_for: Callable[[int], str]) -> None:
        capture = self._config.pluginmanager.getplugin("capturemanager")
        with contextlib.nullcontext() if capture is None else capture.global_and_fixture_disabled():
            # asked here, where standard output is the terminal, the width is the terminal's
            room = shutil.get_terminal_size().columns - self._config.get_terminal_writer().width_of_current_line - 1
            text = text_for(room)
            if room >= _MIN_ROOM or not text:
                sys.stdout.write(f"{_SAVE}{text}{_ERASE}{_RESTORE}")
                sys.stdout.flush()
                self._shown = True
