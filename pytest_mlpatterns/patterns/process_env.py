"""Which environment variables each process of a tree gets from the patterns, and how a set-up names them."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from pytest_mlpatterns.patterns.pattern import LayerNode, ProcessGroup
from pytest_mlpatterns.patterns.variables import NO_VARIABLES, Variables

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pytest_mlpatterns.patterns.pattern import Node, Pattern

__all__ = ["describe_env", "with_env"]


def with_env(group: ProcessGroup, outer: Mapping[str, str] = NO_VARIABLES) -> ProcessGroup:
    """The same tree, in which each process group has all variables of its processes.

    They are those of the patterns outside, then of the pattern that starts the processes, then of the patterns that run
    in them; of two values the inner one holds.

    Args:
        group: of a plan.
        outer: variables of the process that starts the group's.
    """
    env = {**outer, **group.env, **_in_process(group.inside)}
    return replace(group, inside=_inside(group.inside, env), env=Variables(tuple(sorted(env.items()))))


def describe_env(pattern: Pattern) -> str:
    """The variables that a pattern sets, without credentials: ``OMP_NUM_THREADS=1``; empty without any.

    In a composition the name of each pattern stands before its own: ``cached: A=1; microservice: B=2``.
    """
    parts = pattern.parts
    if len(parts) == 1:
        return str(Variables(tuple(sorted(pattern.env.items()))))
    texts = ((part.name, str(Variables(tuple(sorted(part.env.items()))))) for part in parts)
    return "; ".join(f"{name}: {text}" for name, text in texts if text)


def _in_process(node: Node) -> dict[str, str]:
    """The variables of the patterns that run in the process of a node."""
    if not isinstance(node, LayerNode):
        return {}
    found = dict(node.env)
    for inside in node.inside:
        found |= _in_process(inside)
    return found


def _inside(node: Node, env: Mapping[str, str]) -> Node:
    """The same node, whose process groups inherit the variables of its process."""
    if isinstance(node, ProcessGroup):
        return with_env(node, env)
    if isinstance(node, LayerNode):
        return replace(node, inside=tuple(_inside(inside, env) for inside in node.inside))
    return node
