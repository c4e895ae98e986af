"""What pipelines and ensembles share: a list of the user's models, checked, named and built."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pytest_mlpatterns.errors import SettingError
from pytest_mlpatterns.patterns.pattern import (
    MAX_PROCESSES,
    MODEL,
    ModelNode,
    Node,
    Pattern,
    ProcessGroup,
    build,
    name_of,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["checked_models", "distinct_names", "model_nodes"]


def checked_models(pattern: Pattern, field: str) -> tuple[Any, ...]:
    """The models in a field of a pattern.

    Raises:
        SettingError: fewer than 2 or too many, something that is not a model, or ``"model"`` twice.
    """
    given = getattr(pattern, field)
    found = f"{type(pattern).__name__}({field}={given!r})"
    if isinstance(given, str) or not hasattr(given, "__iter__"):
        raise SettingError(f"{found}, expected a list of callables, classes or import strings")
    models = tuple(given)
    if not 2 <= len(models) <= MAX_PROCESSES - 1:
        raise SettingError(f"{found} has {len(models)} members, expected from 2 to {MAX_PROCESSES - 1}")
    for model in models:
        if not callable(model) and not (isinstance(model, str) and (model == MODEL or ":" in model)):
            raise SettingError(
                f'{found} holds {model!r}, expected a callable, a class, an import string "package.module:attribute", '
                f'or "{MODEL}" for perf_model'
            )
    if models.count(MODEL) > 1:
        raise SettingError(f'{found} names "{MODEL}" {models.count(MODEL)} times, expected once at most')
    return models


def model_nodes(
    pattern: Pattern, models: Sequence[Any], position: int, *, rest: Sequence[Pattern], group_role: str | None
) -> tuple[Node, ...]:
    """A node for each model; the rest of the composition is built around ``"model"``.

    Args:
        pattern: the pattern, for messages.
        models: its models.
        position: its position in the composition.
        rest: the patterns that follow.
        group_role: the role of the process that each model gets for itself; None: all run in the same process.

    Raises:
        SettingError: there is a rest, but no ``"model"`` among the models.
    """
    if rest and MODEL not in models:
        raise SettingError(
            f'{pattern} | {" | ".join(map(str, rest))}: nothing can follow if no member is "{MODEL}"; '
            f'put "{MODEL}" in the place around which the rest belongs, or leave the rest out'
        )
    nodes: list[Node] = []
    for model, name in zip(models, distinct_names(models), strict=True):
        node = build(position + 1, rest) if model == MODEL else ModelNode(model, name)
        nodes.append(node if group_role is None else ProcessGroup(node, f"{group_role} {name}", position))
    return tuple(nodes)


def distinct_names(models: Sequence[Any]) -> list[str]:
    """The names of models; names that occur more than once get a number."""
    names = [name_of(model) for model in models]
    return [
        f"{name}{names[: number + 1].count(name)}" if names.count(name) > 1 else name
        for number, name in enumerate(names)
    ]
