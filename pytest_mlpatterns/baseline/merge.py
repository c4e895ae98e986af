"""One baseline of several: of runners that each recorded entries, or of two branches in git.

Entries are whole: each comes from one of the files. Which one is decided for a test and a machine at a time.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_mlpatterns.records.baseline_entry import Baselines

__all__ = ["Choice", "merged"]


@dataclass(frozen=True, slots=True)
class Choice:
    """An entry that several files have, and differently.

    Attributes:
        test: its test.
        machine: its machine.
        file: number of the file that it was taken from, the first is 0.
        date: of the chosen entry.
    """

    test: str
    machine: str
    file: int
    date: str


def merged(sides: Sequence[Baselines], base: Baselines | None = None) -> tuple[Baselines, list[Choice]]:
    """All entries of the files.

    An entry that only some files changed since the base is taken from those, also if they removed it. Of entries that
    differ otherwise, the one with the latest date is taken, and of equal dates that of the last file.

    Args:
        sides: what the files hold.
        base: what they held before they went apart; None if that is not known: then nothing counts as removed.
    """
    result: Baselines = {}
    choices = []
    for test, machine in sorted(
        {(test, machine) for side in sides for test, found in side.items() for machine in found}
    ):
        before = (base or {}).get(test, {}).get(machine)
        entries = [side.get(test, {}).get(machine) for side in sides]
        changed = [(index, entry) for index, entry in enumerate(entries) if entry != before] or [(0, before)]
        present = [(entry.date, index, entry) for index, entry in changed if entry is not None]
        if not present:
            continue  # removed, and changed by no file
        date, file, entry = max(present, key=lambda one: one[:2])
        result.setdefault(test, {})[machine] = entry
        if any(other != entry for _, _, other in present):
            choices.append(Choice(test, machine, file, date))
    return result, choices
