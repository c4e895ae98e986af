"""What pipelines and ensembles share: their members, checked and named."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pytest_mlpatterns.errors import SettingError
from pytest_mlpatterns.patterns.pattern import (
    MAX_PROCESSES,
    MODEL,
    LayerNode,
    ModelNode,
    Node,
    Pattern,
    ProcessGroup,
    build,
    name_of,
)

if TYPE_CHECKING:
    from collections.abc import Sequence


def _members(pattern: Pattern, field: str) -> tuple[Any, ...]:
    given = getattr(pattern, field)
    found = f"{type(pattern).__name__}({field}={given!r})"
    if isinstance(given, str) or not hasattr(given, "__iter__"):
        raise SettingError(f"{found}, expected a list of callables, classes or import strings")
    members = tuple(given)
    if not 2 <= len(members) <= MAX_PROCESSES - 1:
        raise SettingError(f"{found} has {len(members)} members, expected from 2 to {MAX_PROCESSES - 1}")
    for member in members:
        if not callable(member) and not (isinstance(member, str) and (member == MODEL or ":" in member)):
            raise SettingError(
                f'{found} holds {member!r}, expected a callable, a class, an import string "package.module:attribute", '
                f'or "{MODEL}" for perf_model'
            )
    if members.count(MODEL) > 1:
        raise SettingError(f'{found} names "{MODEL}" {members.count(MODEL)} times, expected once at most')
    return members


def _around(  # noqa: PLR0913 - the pieces of one node
    pattern: Pattern, members: Sequence[Any], position: int, rest: Sequence[Pattern], *, apart: bool, role: str
) -> LayerNode:
    if rest and MODEL not in members:
        raise SettingError(
            f'{pattern} | {" | ".join(map(str, rest))}: nothing can follow where no member is "{MODEL}"; '
            f'put "{MODEL}" where what follows belongs, or leave it out'
        )
    names = _distinct([name_of(member) for member in members])
    inside: list[Node] = []
    for member, name in zip(members, names, strict=True):
        node = build(position + 1, rest) if member == MODEL else ModelNode(member, name)
        inside.append(ProcessGroup(node, f"{role} {name}", position) if apart else node)
    return LayerNode(pattern, position, tuple(inside), tuple(names))


def _distinct(names: Sequence[str]) -> list[str]:
    """Number names that stand more than once."""
    return [
        f"{name}{names[: number + 1].count(name)}" if names.count(name) > 1 else name
        for number, name in enumerate(names)
    ]
