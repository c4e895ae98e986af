"""The pattern ``Ensemble``: several models asked side by side, combined into one answer."""

from __future__ import annotations

import asyncio
import inspect
from dataclasses import dataclass, replace
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any

from pytest_mlpatterns.errors import SettingError
from pytest_mlpatterns.patterns.layer import matched
from pytest_mlpatterns.patterns.members import _around, _members
from pytest_mlpatterns.patterns.pattern import ModelNode, Node, Pattern

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pytest_mlpatterns.patterns.layer import Handler
    from pytest_mlpatterns.patterns.tally import Tally

__all__ = ["Ensemble", "EnsembleLayer"]


@dataclass(frozen=True, slots=True)
class Ensemble(Pattern):
    """Models side by side, each in a process of its own, all asked at once, and their answers made into one.

    Args:
        models: at least two, each a callable that takes a list and returns as many, a class of such, or an import
            string. ``"model"`` stands for ``perf_model``, with what follows in the composition around it.
        combine: takes the list of the models' answers to one input, in their order, and returns the one answer; None
            answers with that list.

    Raises:
        SettingError: too few or many models, or something that is none.
    """

    models: Sequence[Any] = ()
    combine: Callable[[list[Any]], Any] | None = None

    __str__ = Pattern.__str__

    def __post_init__(self) -> None:
        object.__setattr__(self, "models", _members(self, "models"))
        if self.combine is not None and not callable(self.combine):
            raise SettingError(
                f"Ensemble(combine={self.combine!r}), expected a function of the list of answers, or None"
            )

    def build(self, position: int, rest: Sequence[Pattern]) -> Node:
        """The models, the rest around the model among them.

        Raises:
            SettingError: there is a rest, but no ``"model"`` among the models.
        """
        node = _around(self, self.models, position, rest, apart=True, role="model")
        return (
            node if self.combine is None else replace(node, inside=(*node.inside, ModelNode(self.combine, "combine")))
        )

    def without_members(self, names: Sequence[str]) -> Pattern:
        """The same with names in the place of the models; ``combine`` is the last of what is inside its node."""
        return replace(self, models=names, combine=None)


class EnsembleLayer:
    """The layer of an ensemble: asks all models at once with the same inputs, and makes their answers into one.

    Args:
        pattern: the ensemble.
        models: in their order.
        names: one for each model.
        combine: takes the list of the models' answers to one input and returns the one answer; None: that list.
        tally: takes the time of each model, ``model:NAME``, and counts which answered last, ``last:NAME``.
    """

    def __init__(
        self,
        pattern: Ensemble,
        models: Sequence[Handler],
        names: Sequence[str],
        combine: Callable[[list[Any]], Any] | None,
        tally: Tally,
    ) -> None:
        self._pattern = pattern
        self._models = tuple(zip(models, names, strict=True))
        self._combine = combine or list
        self._tally = tally

    async def __call__(self, instances: list[Any]) -> Sequence[Any]:
        """One answer for each input.

        Raises:
            RequestError: a model returned another number of outputs than it was given inputs.
            Exception: whatever a model, or ``combine``, raised first; the other models are cancelled.
        """
        answered: list[str] = []
        tasks = [asyncio.create_task(self._ask(model, name, instances, answered)) for model, name in self._models]
        try:
            answers = await asyncio.gather(*tasks)
        except BaseException:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            raise
        self._tally.count(f"last:{answered[-1]}")
        return [self._combine(list(each)) for each in zip(*answers, strict=True)]

    async def _ask(self, model: Handler, name: str, instances: list[Any], answered: list[str]) -> Sequence[Any]:
        started_ns = perf_counter_ns()
        outputs = model(instances)
        if inspect.isawaitable(outputs):
            outputs = await outputs
        self._tally.time(f"model:{name}", perf_counter_ns() - started_ns)
        answered.append(name)
        return matched(outputs, len(instances), f"model {name} of {self._pattern}")
