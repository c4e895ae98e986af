"""A history in a file: one line of JSON for each test and run, which is only ever added to.

Each append locks the file and writes once, so parallel runs lose no line. A line that a killed process cut off is left
out by readers, and the next append begins on a new line. Git merges such a file line by line if its attributes say so;
lines that a merge leaves twice count once.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NoReturn

from pytest_mlpatterns.errors import DeploymentError, HistoryError, SettingError
from pytest_mlpatterns.history.compaction import compacted, month
from pytest_mlpatterns.history.line_texts import MOST_BYTES, LineReader, content_of, is_history, numbered
from pytest_mlpatterns.records.history import Compaction, HistoryRead
from pytest_mlpatterns.records.json_text import shown
from pytest_mlpatterns.system.files import LOCK_TIMEOUT_S, ForeignLockError, replace_file
from pytest_mlpatterns.system.git import Git
from pytest_mlpatterns.system.shared_file import read_shared, shared_file

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from pytest_mlpatterns.records.history import HistoryLine, Transfer

__all__ = ["FileHistory", "union_attribute"]

_HEAD_BYTES = 64 << 10
"""Beginning of a file by which an append sees whether it is a history."""
_UNQUOTED = frozenset('!"#*?[\\] \t')
"""Characters that mean something in a pattern of ``.gitattributes``."""


@dataclass(frozen=True, slots=True)
class FileHistory:
    """A history in a file.

    Attributes:
        path: the file; it may be absent.
        name: the path as the user wrote it.
        option: that names another history, for messages.
    """

    path: Path
    name: str
    option: str = field(default="--perf-history", compare=False)

    def read(self) -> HistoryRead:
        """Every line, as :meth:`pytest_mlpatterns.history.place.History.read` describes."""
        try:
            content = read_shared(self.path, MOST_BYTES)
        except FileNotFoundError:
            return HistoryRead(())
        except OSError as error:
            raise HistoryError(f"{self.name} cannot be read: {error.strerror or error}; {self._other_file}") from error
        self._require_history(content)
        reader = LineReader(self.name)
        reader.add(content)
        return reader.result()

    def append(self, lines: Sequence[HistoryLine]) -> tuple[str, ...]:
        """Add lines, as :meth:`pytest_mlpatterns.history.place.History.append` describes."""
        if not lines:
            return ()
        content = content_of(lines, self.name)
        try:
            with shared_file(self.path, make=True) as file:
                is_new = file.size_bytes == 0
                self._require_history(file.read(_HEAD_BYTES))
                if file.size_bytes + len(content) > MOST_BYTES:
                    raise HistoryError(
                        f"{self.name} has {file.size_bytes >> 20} MiB, expected at most {MOST_BYTES >> 20}; "
                        f"compact it, or begin another file"
                    )
                file.append(content)
        except OSError as error:
            self._refuse(error)
        return self._offer() if is_new else ()

    def compact(self, before: str) -> Compaction:
        """Merge lines of older months, as :meth:`pytest_mlpatterns.history.place.History.compact` describes.

        Other processes that append wait, and find the new file. It is replaced as a whole or not at all.
        """
        first = month(before)
        try:
            with shared_file(self.path) as file:
                if file.size_bytes > MOST_BYTES:
                    raise HistoryError(f"{self.name} is larger than {MOST_BYTES >> 20} MiB; {self._other_file}")
                old = file.read(MOST_BYTES)
                self._require_history(old)
                new = compacted(old, first)
                if new != old:
                    replace_file(file.path, lambda: new)
        except FileNotFoundError:
            return Compaction((0, 0), (0, 0))
        except OSError as error:
            self._refuse(error)
        lines = tuple(sum(1 for _ in numbered(content)) for content in (old, new))
        return Compaction((lines[0], lines[1]), (len(old), len(new)))

    def push(self, remote: str) -> Transfer:
        """Refused: a file is committed and pushed as other files are."""
        self._refuse_transfer(f"git push {remote}")

    def pull(self, remote: str) -> Transfer:
        """Refused: a file comes with the commits that hold it."""
        self._refuse_transfer(f"git pull {remote}")

    def _require_history(self, content: bytes) -> None:
        if not is_history(content):
            begin = shown(next(text for _, text in numbered(content))[:40].decode(errors="replace"))
            raise HistoryError(
                f"{self.name} is no history of pytest-mlpatterns, its first line is {begin}; "
                f"expected lines of JSON that begin with the member at; {self._other_file}, or move this one away"
            )

    def _refuse(self, error: OSError) -> NoReturn:
        if isinstance(error, TimeoutError):
            raise HistoryError(
                f"{self.name} is unchanged: another process has held its lock for {LOCK_TIMEOUT_S:.0f} s; "
                "wait until no other run adds to it, then run again"
            ) from error
        if isinstance(error, ForeignLockError):
            raise HistoryError(f"{self.name} is unchanged: {error.strerror}, then compact again") from error
        raise HistoryError(
            f"{self.name} cannot be written: {error.strerror or error}; it is unchanged, make its directory, "
            f"make both writable, or {self._other_file}"
        ) from error

    def _refuse_transfer(self, command: str) -> NoReturn:
        raise SettingError(
            f"{self.name} is a file, expected git notes such as git:perf; commit the file and use `{command}`"
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

    Returns:
        The line; empty if the file is in no repository, is ignored there, or has the attribute already.
    """
    if not any((directory / ".git").exists() for directory in path.absolute().parents):
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
