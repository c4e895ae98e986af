"""What pipelines, ensembles and others share: a list of the user's models, checked, named and built."""

from __future__ import annotations

from itertools import islice
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
from pytest_mlpatterns.wording import shown

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["checked_models", "distinct_names", "model_nodes"]


def checked_models(pattern: Pattern, field: str) -> tuple[Any, ...]:
    """The models in a field of a pattern.

    Raises:
        SettingError: fewer than 2 or too many, something that is not a model, or ``"model"`` twice.
    """
    given = getattr(pattern, field)
    found = f"{type(pattern).__name__}({field}={shown(given)})"
    if isinstance(given, str) or not hasattr(given, "__iter__"):
        raise SettingError(f"{found}, expected a list of callables, classes or import strings")
    try:
        models = tuple(islice(given, MAX_PROCESSES))  # it may never end
    except TypeError:  # an array without a dimension
        models = ()
    if not 2 <= len(models) < MAX_PROCESSES:
        many = f"{len(models)} members" if len(models) < MAX_PROCESSES else "too many members"
        raise SettingError(f"{found} has {many}, expected from 2 to {MAX_PROCESSES - 1}")
    for model in models:
        if not callable(model) and not (isinstance(model, str) and (model == MODEL or ":" in model)):
            raise SettingError(
                f"{found} holds {shown(model)}, expected a callable, a class, an import string "
                f'"package.module:attribute", or "{MODEL}" for perf_model'
            )
    if (times := sum(map(_is_placeholder, models))) > 1:
        raise SettingError(f'{found} names "{MODEL}" {times} times, expected once at most')
    return models


def model_nodes(
    pattern: Pattern, models: Sequence[Any], position: int, *, rest: Sequence[Pattern], group_role: str | None
) -> tuple[Node, ...]:
    """A node for each model; the rest of the composition is built around ``"model"``.

    Args:
        group_role: the role of the process that each model gets for itself; None: all run in the same process.

    Raises:
        SettingError: there is a rest, but no ``"model"`` among the models.
    """
    if rest and not any(map(_is_placeholder, models)):
        raise SettingError(
            f'{pattern} | {" | ".join(map(str, rest))}: nothing can follow if no member is "{MODEL}"; '
            f'put "{MODEL}" in the place around which the rest belongs, or leave the rest out'
        )
    nodes: list[Node] = []
    for model, name in zip(models, distinct_names(models), strict=True):
        node = build(position + 1, rest) if _is_placeholder(model) else ModelNode(model, name)
        own = None if group_role is None else ProcessGroup(node, f"{group_role} {name}", position, env=pattern.env)
        nodes.append(own or node)
    return tuple(nodes)


def _is_placeholder(model: object) -> bool:
    """Whether a member stands for ``perf_model``; a callable of the user's may compare in any way."""
    return isinstance(model, str) and model == MODEL


def distinct_names(models: Sequence[Any]) -> list[str]:
    """The names of models; names that occur more than once get a number."""
    names = [name_of(model) for model in models]
    return [
        f"{name}{names[: number + 1].count(name)}" if names.count(name) > 1 else name
        for number, name in enumerate(names)
    ]
