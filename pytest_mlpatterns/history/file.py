"""A history in a file: one line of JSON for each test and run, which is only ever added to.

Each append locks the file and writes once, so parallel runs lose no line. A line that a killed process cut off is left
out by readers, and the next append begins on a new line. Git merges such a file line by line if its attributes say so;
lines that a merge leaves twice count once.
"""

import contextlib
import gc
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from msgspec import Struct

from pytest_mlpatterns.errors import DeploymentError, HistoryError, SettingError
from pytest_mlpatterns.records.history import HistoryLine, HistoryRead
from pytest_mlpatterns.records.json_text import shown
from pytest_mlpatterns.records.package_layers import recall_figures
from pytest_mlpatterns.system.files import ForeignLockError
from pytest_mlpatterns.system.git import Git, repository_above
from pytest_mlpatterns.system.shared_file import read_shared, shared_file
from pytest_mlpatterns.wording import count

MOST_BYTES = 256 << 20  # Largest history that is read; 50,000 lines have a tenth of it
_MOST_LINE_BYTES = 64 << 10  # Longest line; a usual one has a hundredth of it
_SHOWN_FAULTS = 5  # Damaged lines that a warning names; it counts the others
_BEGIN = re.compile(rb'\s*\{\s*"at"\s*:\s*\[')  # Beginning of a line: its members are sorted
_BEGINNING = b'{"at":['  # The same as this package writes it
_HEAD_BYTES = 64 << 10  # Beginning of a file by which an append sees whether it is a history
_UNQUOTED = frozenset('!"#*?[\\] \t')  # Characters that mean something in a pattern of ``.gitattributes``


class History(Struct, frozen=True):
    """What runs measured, line by line, in a file that other runs may read and append to at the same time."""

    path: Path  # the file; it may be absent, which is a history without lines
    name: str  # the path as the user wrote it
    option: str = "--perf-history"  # that names another history, for messages

    def read(self) -> HistoryRead:
        """Every line, in the order of the file; exact duplicates count once.

        Damaged lines are left out, and a warning names them.
        """
        try:
            content = read_shared(self.path, MOST_BYTES)
        except FileNotFoundError:
            return HistoryRead(())
        except OSError as error:
            raise HistoryError(f"{self.name} cannot be read: {error.strerror or error}; {self._other_file}") from error
        self._require_history(content)
        return _read_lines(content, self.name)

    def append(self, lines: Sequence[HistoryLine]) -> tuple[str, ...]:
        """Add lines at the end; all of them or none."""
        if not lines:
            return ()
        content = _content_of(lines, self.name)
        try:
            with shared_file(self.path, make=True) as file:
                is_new = file.size_bytes == 0
                self._require_history(file.read(_HEAD_BYTES))
                if file.size_bytes + len(content) > MOST_BYTES:
                    raise HistoryError(
                        f"{self.name} has {file.size_bytes >> 20} MiB, expected at most {MOST_BYTES >> 20}; "
                        f"begin another file"
                    )
                file.append(content)
        except (TimeoutError, ForeignLockError) as error:
            raise HistoryError(
                f"{self.name} is unchanged: {error.strerror}; wait until no other run adds to it, then run again"
            ) from error
        except OSError as error:
            raise HistoryError(
                f"{self.name} cannot be written: {error.strerror or error}; it is unchanged, make its directory, "
                f"make both writable, or {self._other_file}"
            ) from error
        return self._offer() if is_new else ()

    def _require_history(self, content: bytes) -> None:
        if not _is_history(content):
            begin = shown(next(text for _, text in _numbered(content))[:40].decode(errors="replace"))
            raise HistoryError(
                f"{self.name} is no history of pytest-mlpatterns, its first line is {begin}; "
                f"expected lines of JSON that begin with the member at; {self._other_file}, or move this one away"
            )

    @property
    def _other_file(self) -> str:
        """What to do instead."""
        return f"name another file with {self.option}"

    def _offer(self) -> tuple[str, ...]:
        attribute = union_attribute(self.path)
        if not attribute:
            return ()
        return (
            f"{self.name} is new. If you commit it, add this line to .gitattributes, so that git keeps the lines of "
            f"both sides of a merge: {attribute}",
        )


def union_attribute(path: Path) -> str:
    """The line for ``.gitattributes`` by which git merges a file line by line.

    Returns the line; empty if the file is in no repository, is ignored there, or has the attribute already.
    """
    if repository_above(path.absolute().parent) is None:
        return ""
    git = Git(path.parent)
    try:
        position = git.position()
        if git.succeeds("check-ignore", "--quiet", "--", path.name):
            return ""
        _, _, merge, *_ = git.run("check-attr", "-z", "merge", "--", path.name).split("\0")
    except (SettingError, DeploymentError):
        return ""
    if merge == "union":
        return ""
    return f"{_pattern(f'/{(position.below / path.name).as_posix()}')} merge=union"


def _pattern(path: str) -> str:
    """A path in ``.gitattributes``, which has patterns there."""
    if _UNQUOTED.isdisjoint(path):
        return path
    escaped = "".join(f"\\{sign}" if sign in "*?[\\]" else sign for sign in path)
    return '"' + escaped.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _read_lines(content: bytes, name: str) -> HistoryRead:
    """The lines of a history; ``name`` stands for the history in messages."""
    lines: dict[bytes, HistoryLine] = {}
    faults: list[str] = []
    with _without_collector():
        for number, found in _numbered(content):
            if found in lines:
                continue
            try:
                lines[found] = _line_of(found)
            except ValueError as error:
                is_cut = content.endswith(found) and not found.endswith(b"}")
                faults.append(f"line {number:,} {'is cut off' if is_cut else error}")
    if not faults:
        return HistoryRead(tuple(lines.values()))
    further = f"; and {count(len(faults) - _SHOWN_FAULTS, 'other')}" if len(faults) > _SHOWN_FAULTS else ""
    left_out = "1 line is" if len(faults) == 1 else f"{len(faults):,} lines are"
    warning = f"{name}: {left_out} left out: {'; '.join(faults[:_SHOWN_FAULTS])}{further}"
    return HistoryRead(tuple(lines.values()), (warning,), len(faults))


@contextlib.contextmanager
def _without_collector() -> Iterator[None]:
    """Pause the collector of cycles, of which lines have none: it would look at all of them again and again."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _numbered(content: bytes) -> Iterator[tuple[int, bytes]]:
    """Each line that is not empty, with its number from 1, without white space around it."""
    for number, line in enumerate(content.split(b"\n"), 1):
        if text := line.strip():
            yield number, text


def _line_of(text: bytes) -> HistoryLine:
    """The line of these bytes."""
    if len(text) > _MOST_LINE_BYTES:
        raise ValueError(f"has {len(text) >> 10} KiB, expected at most {_MOST_LINE_BYTES >> 10}")
    try:
        line = HistoryLine.from_text(text.decode())
    except UnicodeDecodeError:
        raise ValueError("is not in UTF-8") from None
    recall_figures(line.figures)
    return line


def _content_of(lines: Sequence[HistoryLine], name: str) -> bytes:
    """Bytes of lines."""
    texts = []
    for line in lines:
        text = line.to_text().encode()
        if len(text) > _MOST_LINE_BYTES:
            raise HistoryError(
                f"the line of {line.test} for {name} has {len(text) >> 10} KiB, "
                f"expected at most {_MOST_LINE_BYTES >> 10}; measure fewer launches or metrics"
            )
        texts.append(text + b"\n")
    return b"".join(texts)


def _is_history(content: bytes) -> bool:
    """Whether these bytes are a history or the beginning of one: a line begins as its lines do, or there is none.

    Damaged lines before that one may be anything, such as the marks of a merge with conflicts.
    """
    others = []
    for _, found in _numbered(content):
        if _BEGIN.match(found):
            return True
        others.append(found)
    if len(others) == 1:
        return _BEGINNING.startswith(others[0])  # a writer was killed at its first letters
    return not others
