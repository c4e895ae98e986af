"""The energy that the processor packages of this machine used, as Linux reads it from their own counters (RAPL).

A package is a whole processor: cores, caches and what else is on it, idle or not. Its sub-domains are parts of it, and
the domain of the platform contains it, so only packages are added up. Since Linux 5.10 the counters are readable for
root only, and most virtual machines have none.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["EnergyCounter"]

_POWERCAP = Path("/sys/class/powercap")
_TOP_DOMAIN = re.compile(r"intel-rapl:\d+")
"""Name of a domain that is no part of another one; those of AMD have the same."""


@dataclass(slots=True)
class _Package:
    """A package's counter: its file, its last value and the value from which it begins again at 0, in microjoules."""

    file: Path
    last_uj: int
    range_uj: int

    def used_uj(self) -> int:
        """Energy since the last reading.

        Raises:
            OSError: it can no longer be read.
            ValueError: it is no number, or it fell and its range is not known.
        """
        now_uj = _number(self.file)
        used_uj = now_uj - self.last_uj
        if used_uj < 0:
            if self.range_uj < self.last_uj:
                raise ValueError(f"{self.file} fell from {self.last_uj} to {now_uj}, beyond its range {self.range_uj}")
            used_uj += self.range_uj
        self.last_uj = now_uj
        return used_uj


class EnergyCounter:
    """Adds up the energy of all packages since it was made. It is silent if one of them cannot be read.

    Args:
        powercap: the folder of the domains.
    """

    def __init__(self, powercap: Path = _POWERCAP) -> None:
        self._total_uj = 0
        self._packages: Sequence[_Package] = ()
        try:
            self._packages = _packages(powercap)
        except (OSError, ValueError):  # no such system, or not for this user
            return

    def read_uj(self) -> int | None:
        """Microjoules so far; None if they are not known, from then on."""
        try:
            self._total_uj += sum(package.used_uj() for package in self._packages)
        except (OSError, ValueError):  # a sum without one package would be wrong
            self._packages = ()
        return self._total_uj if self._packages else None


def _packages(powercap: Path) -> list[_Package]:
    """The packages of the machine.

    Raises:
        OSError: a file cannot be read.
        ValueError: one that has to be a number is none.
    """
    found = []
    for folder in sorted(powercap.iterdir()):
        if _TOP_DOMAIN.fullmatch(folder.name) and (folder / "name").read_text(encoding="ascii").startswith("package"):
            counter = folder / "energy_uj"
            found.append(_Package(counter, _number(counter), _number(folder / "max_energy_range_uj")))
    return found


def _number(file: Path) -> int:
    return int(file.read_text(encoding="ascii"))
