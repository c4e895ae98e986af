"""The environment that a service ran in: kernel, Python, packages, BLAS and the variables that set threads, as texts.

It does not decide whether two results are comparable; it lists what else changed between them. Pure.

The name of a fact is that of an environment variable, ``package NAME``, or words such as ``BLAS threads``. What is not
known is absent; so is a variable that is not set, and a package that is not loaded.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["PACKAGE", "EnvironmentFacts", "FactChange", "differing_facts", "merged_facts"]

EnvironmentFacts = Mapping[str, str]
"""What is known of an environment, by its name."""
PACKAGE = "package "
"""Begins the name of a fact that is the version of a package."""
_VARIABLE = re.compile(r"[A-Z][A-Z0-9_]*_[A-Z0-9_]+|PYTHON[A-Z]+")
_ORDER = (
    _VARIABLE,
    re.compile(".* threads"),
    re.compile("CPU quota|allowed cores|memory limit"),
    re.compile("BLAS.*|OpenMP.*"),
    re.compile("Python.*|GIL|program"),
    re.compile(f"{PACKAGE}.*"),
)
"""What most probably explains a change of speed comes first; the rest, the system, comes last."""


@dataclass(frozen=True, slots=True)
class FactChange:
    """A fact that differs between two environments.

    Attributes:
        name: of the fact.
        before: its value in the earlier environment; None if the variable was not set, or the package not loaded.
        now: its value now, likewise.
    """

    name: str
    before: str | None
    now: str | None

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> FactChange:
        """The inverse of ``dataclasses.asdict``."""
        return cls(data["name"], data["before"], data["now"])

    @property
    def label(self) -> str:
        """The name in reports."""
        return self.name.removeprefix(PACKAGE)

    @property
    def may_be_intended(self) -> bool:
        """Whether a person sets it: packages, the interpreter, variables and limits; not the system."""
        return _place(self.name) < len(_ORDER)

    @property
    def values(self) -> tuple[str, str]:
        """Before and now, in words if one of them is absent."""
        absent = "not loaded" if self.name.startswith(PACKAGE) else "unset"
        return self.before or absent, self.now or absent

    def __str__(self) -> str:
        return f"{self.label} {' → '.join(self.values)}"


def differing_facts(
    before: EnvironmentFacts, now: EnvironmentFacts, *, same_program: bool = True
) -> tuple[FactChange, ...] | None:
    """What differs between two environments, what most probably explains a change of speed first.

    A variable that one side lacks differs; of anything else but packages, a side that lacks it does not know it.

    Args:
        before: the earlier environment.
        now: the present one.
        same_program: whether both processes load the same packages, so that one that a side lacks differs.

    Returns:
        The changes; None if one of the environments is not known.
    """
    if not before or not now:
        return None
    both_list = same_program and _has_packages(before) and _has_packages(now)
    changes = [
        FactChange(name, before.get(name), now.get(name))
        for name in {**before, **now}
        if before.get(name) != now.get(name)
        and ((name in before and name in now) or _VARIABLE.fullmatch(name) or (both_list and name.startswith(PACKAGE)))
    ]
    return tuple(sorted(changes, key=lambda change: (_place(change.name), change.name)))


def merged_facts(parts: Iterable[EnvironmentFacts]) -> EnvironmentFacts:
    """The environment of several processes; values that differ between them stand side by side."""
    found: dict[str, dict[str, None]] = {}
    for part in parts:
        for name, value in part.items():
            found.setdefault(name, {})[value] = None
    return {name: ", ".join(values) for name, values in found.items()}


def _has_packages(facts: EnvironmentFacts) -> bool:
    return any(name.startswith(PACKAGE) for name in facts)


def _place(name: str) -> int:
    """Where a fact stands in the list of changes."""
    return next((place for place, names in enumerate(_ORDER) if names.fullmatch(name)), len(_ORDER))
