"""The terminal of a run: its characters, its width, its colours, and the line that shows the progress.

pytest decides on colours (``--color``, ``NO_COLOR``, ``FORCE_COLOR``); the encoding of the stream decides on characters
beyond ASCII. The workers of a distributed run get that decision from the controller, which has the terminal.

On a terminal the progress line stands at pytest's cursor, which is restored. Progress bar libraries cannot be used:
they need a line of their own, and pytest would have to write through them. On a pipe, in CI and with ``-q`` there is a
plain line instead for each minute that a test takes, also while it waits for a start, or counts instructions. A worker
of a distributed run writes it to standard error, which it shares with the controller: pytest-xdist takes no messages of
plugins. ``-qq`` is silent, and so is a pytest that this package runs.

The line has the name of the test, its progress and the time left. A test measures until it is decided. Until its first
launch is over its duration is an estimate: the mean of the tests before it, or one launch for the first test. Then it
is the most that its budget, or what is measured in any case, allows.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from msgspec import Struct
from msgspec.structs import replace

from pytest_mlpatterns.records.addressing import Progress
from pytest_mlpatterns.records.result import name_of
from pytest_mlpatterns.reports.text.terminal_text import Line, Style, cut, in_ascii, width_of
from pytest_mlpatterns.system.time_limit import Ticks, can_tick
from pytest_mlpatterns.units import format_duration
from pytest_mlpatterns.wording import spelled, visible

if TYPE_CHECKING:
    import pytest

    from pytest_mlpatterns.judging.budget import Forecast

_STARTS_NS = 2_000_000_000  # Typical time to start a deployment and to warm it up
_BAR = 16  # Width of the bar
_MOST = 0.97  # Highest progress of a test that is not done yet
_MIN_TEST = 12  # Letters of the name of a test that are always shown


class Standing(Struct, frozen=True):
    """The progress of a run."""

    test: str  # the id of the test that is measured
    number: int  # its number among the perf tests of the run, from 1
    of: int  # number of perf tests
    elapsed_ns: int  # time since it began
    finished_ns: int  # time that the tests before it took together
    launch_ns: int  # the measured window of one launch
    note: str = ""  # a sentence about the test; empty if there is none
    search: str = ""  # what is done once the load is over, and how long that may take; empty before
    forecast: Forecast | None = None  # what the test may take; None before its first launch is over
    since_ns: int = 0  # time since then

    @property
    def expected_ns(self) -> int:
        """Expected duration of a test."""
        before = self.number - 1
        return self.finished_ns // before if before else self.launch_ns + _STARTS_NS

    @property
    def share(self) -> float:
        """The share of the run that is done."""
        own = min(self.elapsed_ns / max(self.elapsed_ns + self._own_left_ns, 1), _MOST)
        return (self.number - 1 + own) / self.of

    @property
    def left_ns(self) -> int:
        """Expected time left of the run."""
        return self._own_left_ns + (self.of - self.number) * self.expected_ns

    @property
    def left(self) -> str:
        """The same in words, rounded: ``, about 3 min left``; the most that it may be if that is known."""
        seconds = -(-self.left_ns // 1_000_000_000)
        word = "about" if self.forecast is None or self.of > self.number else "up to"
        shown = f"{seconds} s" if seconds < 90 else f"{round(seconds / 60)} min"
        return f", {word} {shown} left" if seconds else ""

    @property
    def _own_left_ns(self) -> int:
        if self.forecast is None:
            return max(self.expected_ns - self.elapsed_ns, 0)
        return max(self.forecast.left_ns - self.since_ns, 0)


def live_text(standing: Standing, progress: Progress | None, width: int, *, spell: Callable[[str], str]) -> str:
    """The live line, at most ``width`` columns wide; if it is too long, the least important parts are left out.

    It stands at the cursor, so that a line that wraps would stay: what is measured and cut is the spelled text.

    ``progress``: progress of the load; None while the deployment starts. ``spell``: writes a text in characters that
    the terminal has, which may take more columns.
    """
    name, dots = spell(name_of(standing.test)), spell("…")
    count = f" {standing.number}/{standing.of}" if standing.of > 1 else ""
    if progress is None:
        parts = ["starting"]
    else:
        streams = progress.median_ttft_ns is not None
        what, median_ns = ("median TTFT", progress.median_ttft_ns) if streams else ("median", progress.median_ns)
        known = [] if median_ns is None else [f"{what} {format_duration(median_ns)}"]
        parts = [f"{standing.elapsed_ns / 1e9:.0f} s", *known, f"{progress.completed:,} requests"]
        parts += filter(None, [standing.forecast.text if standing.forecast else "", standing.note])
    left, full = standing.left, round(standing.share * _BAR)
    if standing.search:
        parts, left = [standing.search], ""
    while True:
        tail = spell(f"{count} {'█' * full}{'·' * (_BAR - full)} {', '.join(parts)}{left}")
        room = width - width_of(tail)
        if room >= min(width_of(name), _MIN_TEST) or len(parts) == 1:
            shown = cut(name, max(room, _MIN_TEST), left=True, dots=dots)
            return cut(f"{shown}{tail}", width, dots=dots)
        parts.pop()


def plain_text(standing: Standing) -> str:
    """The same as a line for a log: ``measuring test_perf.py::test_digits (3 of 10) for 60 s, about 2 min left``."""
    place = f" ({standing.number} of {standing.of})" if standing.of > 1 else ""
    test = f"measuring {standing.test}{place} for {standing.elapsed_ns / 1e9:.0f} s"
    plan = f": {standing.forecast.text}" if standing.forecast and standing.left else ""
    state = f": {standing.search}" if standing.search else f"{standing.left}{plan}"
    return f"{test}{state}{f'; {standing.note}' if standing.note else ''}"


_SIGNS = "→µ±–…×✓✗·█▁≥"  # The characters beyond ASCII that we print
_MARKUP: Mapping[Style, Mapping[str, bool]] = {
    Style.PLAIN: {},
    Style.STRONG: {"bold": True},
    Style.FAINT: {"light": True},
    Style.GOOD: {"green": True},
    Style.BAD: {"red": True, "bold": True},
    Style.OPEN: {"yellow": True},
}
_SAVE, _RESTORE, _ERASE = "\x1b7", "\x1b8", "\x1b[K"
_MIN_ROOM = 20  # Columns for the progress, below which the line is left out
_PLAIN_EVERY_NS = 60_000_000_000  # Time of a test before its first plain line, and between two of them
_QUIET = -1  # Verbosity with ``-q``


def shows_unicode(encoding: str | None) -> bool:
    """Whether an encoding has all characters of our output; an unknown one does not."""
    try:
        _SIGNS.encode(encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return False
    return True


class Terminal:
    """The terminal of a run.

    ``ascii_only``: the controller's decision, in a worker; None in the process that has the terminal.
    """

    def __init__(self, config: pytest.Config, *, ascii_only: bool | None = None) -> None:
        self._config = config
        stream = sys.__stdout__
        self.ascii_only: bool = (
            not shows_unicode(getattr(stream, "encoding", None)) if ascii_only is None else ascii_only
        )

    @property
    def width(self) -> int:
        """Width in columns."""
        return self._config.get_terminal_writer().fullwidth

    def spell(self, text: str) -> str:
        """The text as :func:`~pytest_mlpatterns.wording.visible` has it, in characters that the stream has."""
        return in_ascii(visible(text)) if self.ascii_only else visible(text)

    def spell_error(self, error: BaseException | None) -> None:
        """Spell the texts of an exception, and of those that it came from."""
        seen: set[int] = set()
        while error is not None and id(error) not in seen:
            seen.add(id(error))
            error.args = tuple(self.spell(part) if isinstance(part, str) else part for part in error.args)
            error = error.__cause__ or error.__context__

    def write(self, lines: Iterable[Line]) -> None:
        """Write lines, with colours if the terminal has them."""
        writer = self._config.get_terminal_writer()
        for spans in lines:
            for span in spans:
                writer.write(self.spell(span.text), **_MARKUP[span.style])
            writer.line()

    def write_commands(self, texts: Iterable[str]) -> None:
        """Write commands of GitHub's runner, a line each."""
        writer = self._config.get_terminal_writer()
        for text in texts:
            writer.line(in_ascii(spelled(text)) if self.ascii_only else spelled(text))


class LiveLine:
    """Writes at the cursor and restores it, so that pytest continues at the same place; or a plain line a minute.

    ``silent``: whether another pytest runs this one, and takes what it writes.
    """

    def __init__(
        self,
        config: pytest.Config,
        spell: Callable[[str], str],
        now_ns: Callable[[], int] = time.monotonic_ns,
        *,
        silent: bool = False,
    ) -> None:
        self.tests = 0
        self._config = config
        self._spell = spell
        self._now_ns = now_ns
        self._shown = False
        self._standing = Standing("", number=0, of=0, elapsed_ns=0, finished_ns=0, launch_ns=0)
        self._forecast_ns = 0
        self._started_ns = 0
        self._completed = 0
        self._before = 0
        self._plain_ns = 0  # when the last plain line was written, or the test began
        self._ticks: Ticks | None = None
        self._is_worker = hasattr(config, "workerinput")
        has_place = sys.__stderr__ if self._is_worker else sys.__stdout__
        is_shown = self._is_worker or config.pluginmanager.hasplugin("terminalreporter")
        self._silent = silent or config.get_verbosity() < _QUIET or not is_shown or not has_place
        is_terminal = not self._is_worker and sys.__stdout__ is not None and sys.__stdout__.isatty()
        is_watched = is_terminal and "CI" not in os.environ and config.get_verbosity() > _QUIET
        self._is_watched = is_watched and not self._silent

    def begin(self, test: str, launch_ns: int) -> None:
        """Show that a test begins."""
        number = self._standing.number + 1
        self._change(test=test, number=number, launch_ns=launch_ns, note="", forecast=None)
        self._started_ns = self._plain_ns = self._now_ns()
        self._completed = self._before = 0
        if self._is_watched:
            self._show(None)
        elif not self._silent and self._ticks is None and can_tick():
            self._ticks = Ticks(self._until_plain_s, lambda _frame: self._show(None))
            self._ticks.begin()

    def show(self, progress: Progress) -> None:
        """Show the progress of a load; a test has several loads, one after the other."""
        if progress.completed < self._completed:
            self._before += self._completed
        self._completed = progress.completed
        if not self._standing.search:  # which is shown by a signal, that may come while another line is written
            self._show(progress, self._before + progress.completed)

    def note(self, text: str) -> None:
        """Show a sentence about the test in each line from now on; of plain ones, in the next one alone."""
        self._change(note=text)

    def foresee(self, forecast: Forecast) -> None:
        """Count down what the test may take."""
        self._change(forecast=forecast)
        self._forecast_ns = self._now_ns()

    def search(self, text: str) -> None:
        """Show what is done once the load is over, in place of its progress, until the text is empty."""
        self._change(search=text)
        if text:
            self._show(None)

    def end(self) -> None:
        """Remove the line at the end of the test."""
        if self._ticks is not None:
            self._ticks.end()
            self._ticks = None
        if self._standing.test:
            self._change(test="", finished_ns=self._standing.finished_ns + self._now_ns() - self._started_ns)
        if self._shown:
            self._write(lambda _room: "")
            self._shown = False

    def _change(self, **known: Any) -> None:
        self._standing = replace(self._standing, **known)

    def _show(self, progress: Progress | None, completed: int = 0) -> None:
        if self._silent:
            return
        now_ns, known = self._now_ns(), self._standing
        number, of = known.number, max(self.tests, known.number)
        if self._is_worker:  # which tests the others have run is not known
            number, of = 1, 1
        since_ns, elapsed_ns = now_ns - self._forecast_ns, now_ns - self._started_ns
        standing = replace(known, number=number, of=of, elapsed_ns=elapsed_ns, since_ns=since_ns)
        if not self._is_watched:
            self._write_plain(standing)
            return
        shown = None if progress is None else replace(progress, completed=completed)
        self._write(lambda room: " " + live_text(standing, shown, room - 1, spell=self._spell))

    def _until_plain_s(self) -> float:
        """Seconds until the next plain line; at least one, in which the main thread writes it."""
        return max((self._plain_ns + _PLAIN_EVERY_NS - self._now_ns()) / 1e9, 1.0)

    def _write_plain(self, standing: Standing) -> None:
        """A line of its own, if it is time."""
        now = self._now_ns()
        if now - self._plain_ns < _PLAIN_EVERY_NS:
            return
        self._plain_ns = now
        text = self._spell(plain_text(standing))
        with self._uncaptured():
            if self._is_worker:
                sys.stderr.write(f"\n{text}\n")  # in one piece, below what the controller has written
                sys.stderr.flush()
            else:
                reporter = self._config.pluginmanager.getplugin("terminalreporter")
                reporter.ensure_newline()
                reporter.write_line(text)
        self._change(note="")

    def _uncaptured(self) -> contextlib.AbstractContextManager[None]:
        capture = self._config.pluginmanager.getplugin("capturemanager")
        return contextlib.nullcontext() if capture is None else capture.global_and_fixture_disabled()

    def _write(self, text_for: Callable[[int], str]) -> None:
        with self._uncaptured():
            # inside the context standard output is the terminal, so this is the terminal's width
            room = shutil.get_terminal_size().columns - self._config.get_terminal_writer().width_of_current_line - 1
            text = text_for(room)
            if room >= _MIN_ROOM or not text:
                sys.stdout.write(f"{_SAVE}{text}{_ERASE}{_RESTORE}")
                sys.stdout.flush()
                self._shown = True
