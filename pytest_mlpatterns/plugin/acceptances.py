"""What a team accepts of each test: from its marker and from the file, without what has ended."""

from __future__ import annotations

import datetime
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_mlpatterns.config.acceptances import read_acceptances
from pytest_mlpatterns.errors import SettingError
from pytest_mlpatterns.records.verdict import Acceptance, Accepted, held_by
from pytest_mlpatterns.system.files import read_text
from pytest_mlpatterns.wording import named

if TYPE_CHECKING:
    import pytest

    from pytest_mlpatterns.baseline.lookup import BaselineMatch
    from pytest_mlpatterns.config.run_settings import RunSettings
    from pytest_mlpatterns.config.settings import Settings
    from pytest_mlpatterns.revision.worktree import Worktree


class Acceptances:
    """The acceptances of one session.

    What the marker has at the revision is not known here: its process answers that later, see
    :attr:`pytest_mlpatterns.judging.experiment.Experiment.agreed`.

    ``worktree``: of the revision that is compared with; None without one.
    """

    def __init__(self, root: Path, run: RunSettings, worktree: Worktree | None) -> None:
        file = run.accepted_file
        self._worktree = worktree
        self._of_the_file = _read(file)
        self._of_the_revision = self._there(root, file)

    def of(self, item: pytest.Item, settings: Settings, match: BaselineMatch) -> Accepted:
        """What is accepted of one test, as far as that is known before the revision answers."""
        known = Accepted((*settings.accept, *(one for one in self._of_the_file if one.is_of(item.nodeid))))
        today = datetime.datetime.now().astimezone().date()
        over = {one.identity for one in known.in_force if one.until is not None and today > one.until}
        known = known.without(over, "that day is over")
        if self._worktree is None:
            return known.without(match.accepted, "the baseline was recorded with it")
        theirs = {one.identity for one in self._of_the_revision if one.is_of(item.nodeid)}
        return known.without(theirs, held_by(self._worktree.revision.name))

    def _there(self, root: Path, file: Path) -> Sequence[Acceptance]:
        """The acceptances of the revision's file; none if it has a mistake, as the present's count then."""
        if self._worktree is None:
            return ()
        place = Path(os.path.normpath(self._worktree.directory / os.path.relpath(file, root)))
        if not place.is_relative_to(self._worktree.root):  # outside the repository, so it has one state only
            return ()
        try:
            return _read(place)
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
