"""What a team accepts of each test: from its marker and from the file, without what has ended."""

from __future__ import annotations

import datetime
from typing import TYPE_CHECKING

from pytest_mlpatterns.config.acceptances import read_acceptances
from pytest_mlpatterns.errors import SettingError
from pytest_mlpatterns.records.acceptance import ACCEPTED_FILE, Accepted
from pytest_mlpatterns.system.files import read_text
from pytest_mlpatterns.wording import named

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import pytest

    from pytest_mlpatterns.baseline.lookup import BaselineMatch
    from pytest_mlpatterns.config.run_settings import RunSettings
    from pytest_mlpatterns.config.settings import Settings
    from pytest_mlpatterns.records.acceptance import Acceptance
    from pytest_mlpatterns.revision.worktree import Worktree

__all__ = ["Acceptances"]


class Acceptances:
    """The acceptances of one session.

    Args:
        run: names the baseline file, beside which the file of acceptances is.
        worktree: of the revision that is compared with; None without one.

    Raises:
        SettingError: the file has a mistake.
    """

    def __init__(self, root: Path, run: RunSettings, worktree: Worktree | None) -> None:
        file = run.baseline_file.with_name(ACCEPTED_FILE)
        self._root, self._worktree = root, worktree
        self._of_the_file = _read(file)
        self._of_the_revision = self._there(file)

    def of(self, item: pytest.Item, settings: Settings, match: BaselineMatch) -> Accepted:
        """What is accepted of one test.

        Args:
            settings: its own; its marker may accept something.
        """
        known = [*settings.accept, *(one for one in self._of_the_file if one.is_of(item.nodeid))]
        ends = [(one, self._why_ended(one, item, match)) for one in known]
        return Accepted(tuple(one for one, why in ends if not why), tuple((one, why) for one, why in ends if why))

    def _why_ended(self, one: Acceptance, item: pytest.Item, match: BaselineMatch) -> str:
        """Why an acceptance no longer holds; empty while it does."""
        if one.until is not None and datetime.datetime.now().astimezone().date() > one.until:
            return "that day is over"
        if self._worktree is not None:
            name = self._worktree.revision.name
            return f"{name} has it already" if self._is_in_the_revision(one, item) else ""
        return "the baseline was recorded with it" if one.identity in match.accepted else ""

    def _is_in_the_revision(self, one: Acceptance, item: pytest.Item) -> bool:
        if not one.written:
            return one in self._of_the_revision
        assert self._worktree is not None
        try:
            file = self._worktree.root / item.path.relative_to(self._root)
            return one.written in file.read_text(encoding="utf-8", errors="replace")
        except (OSError, ValueError):  # the test was elsewhere then, or lies outside the root directory
            return False

    def _there(self, file: Path) -> Sequence[Acceptance]:
        """The acceptances of the revision; none if its file has a mistake, as those of the present count then."""
        if self._worktree is None or not file.is_relative_to(self._root):
            return ()
        try:
            return _read(self._worktree.root / file.relative_to(self._root))
        except SettingError:
            return ()


def _read(file: Path) -> tuple[Acceptance, ...]:
    """The acceptances of a file; none if it does not exist."""
    try:
        text = read_text(file)
    except FileNotFoundError:
        return ()
    except (OSError, UnicodeDecodeError) as error:
        raise SettingError(f"{named(file)} cannot be read: {error}; expected TOML with [[accepted]] tables") from None
    return read_acceptances(file, text)
