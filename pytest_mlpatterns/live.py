"""The live line on a terminal while a test measures: behind what pytest wrote, gone when the test ends.

Silent on pipes, with ``-q``, in CI, and in the workers of a distributed run.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
from typing import TYPE_CHECKING

from pytest_mlpatterns.reports.terminal import live_text

if TYPE_CHECKING:
    from collections.abc import Callable

    import pytest

    from pytest_mlpatterns.load.job import Progress

__all__ = ["LiveLine"]

_SAVE, _RESTORE, _ERASE = "\x1b7", "\x1b8", "\x1b[K"
_MIN_ROOM = 20


class LiveLine:
    """Writes at the cursor and puts the cursor back, so that pytest goes on where it was."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._shown = False
        self._silent = (
            hasattr(config, "workerinput")
            or config.get_verbosity() < 0
            or "CI" in os.environ
            or not config.pluginmanager.hasplugin("terminalreporter")
            or not sys.__stdout__
            or not sys.__stdout__.isatty()
        )

    def of(self, test: str) -> Callable[[Progress], None]:
        """A function that shows the progress of this test."""
        launches = 0
        last_elapsed = 0

        def show(progress: Progress) -> None:
            nonlocal launches, last_elapsed
            if progress.elapsed_ns < last_elapsed or not launches:
                launches += 1
            last_elapsed = progress.elapsed_ns
            if not self._silent:
                self._write(" " + live_text(test, launches, progress))

        return show

    def clear(self) -> None:
        """Remove the line, if one is shown."""
        if self._shown:
            self._write("")
            self._shown = False

    def _write(self, text: str) -> None:
        capture = self._config.pluginmanager.getplugin("capturemanager")
        with contextlib.nullcontext() if capture is None else capture.global_and_fixture_disabled():
            # asked here, where standard output is the terminal, the width is the terminal's
            room = shutil.get_terminal_size().columns - self._config.get_terminal_writer().width_of_current_line - 1
            if room >= _MIN_ROOM or not text:
                sys.stdout.write(f"{_SAVE}{text[: max(room, 0)]}{_ERASE}{_RESTORE}")
                sys.stdout.flush()
                self._shown = True
