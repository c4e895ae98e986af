"""The pattern ``Ensemble``: several models called in parallel, their outputs combined into one."""

import asyncio
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from time import perf_counter_ns
from typing import Any, ClassVar

from pytest_mlpatterns.errors import SettingError
from pytest_mlpatterns.patterns.arguments import NO_VARIABLES, set_variables
from pytest_mlpatterns.patterns.layer import Handler, Resources, matched
from pytest_mlpatterns.patterns.pattern import LayerNode, ModelNode, Node, Pattern
from pytest_mlpatterns.patterns.pipeline import checked_models, distinct_names, model_nodes
from pytest_mlpatterns.patterns.request_clock import RequestClock, current_clock, set_clock
from pytest_mlpatterns.patterns.stream import refuse_stream
from pytest_mlpatterns.patterns.tally import Tally
from pytest_mlpatterns.wording import shown


@dataclass(frozen=True, slots=True)
class Ensemble(Pattern):
    """Models in parallel, each in its own process, called at the same time, their outputs combined into one.

    Args:
        models: at least two. Each is a callable that takes a list of inputs and returns as many outputs, a class of
            such callables, or an import string. ``"model"`` stands for ``perf_model``, with the rest of the composition
            around it.
        combine: takes the list of the models' outputs for one input, in the order of ``models``, and returns the
            output; None: that list is the output.
        env: environment variables of the process of each model, such as ``{"OMP_NUM_THREADS": "1"}``.

    Raises:
        SettingError: fewer than two or too many models, something that is not a model, or impossible variables.
    """

    needs_code: ClassVar[bool] = True

    models: Sequence[Any] = ()
    combine: Callable[[list[Any]], Any] | None = None
    env: Mapping[str, str] = NO_VARIABLES

    def __post_init__(self) -> None:
        set_variables(self)
        object.__setattr__(self, "models", checked_models(self, "models"))
        if self.combine is not None and not callable(self.combine):
            raise SettingError(
                f"Ensemble(combine={shown(self.combine)}), expected a function of the list of outputs, or None"
            )

    def build(self, position: int, rest: Sequence[Pattern]) -> Node:
        """Build a process for each model, then ``combine``, with the rest of the composition around ``"model"``."""
        models = model_nodes(self, self.models, position, rest=rest, group_role="model")
        combine = () if self.combine is None else (ModelNode(self.combine, "combine"),)
        return LayerNode(self, position, (*models, *combine))

    @property
    def inside_names(self) -> tuple[str, ...]:
        """The names of the models and of ``combine``."""
        return (*distinct_names(self.models), "combine")

    def without_callables(self) -> Pattern:
        """The pattern with names in place of the models and of ``combine``, which are nodes inside."""
        return replace(self, models=[f":{name}" for name in distinct_names(self.models)], combine=None)

    def layer(self, inside: Sequence[Handler], tally: Tally, resources: Resources) -> Handler:
        """Make the layer that calls the models inside; a last handler inside is ``combine``."""
        names = distinct_names(self.models)
        models, combine = inside[: len(names)], inside[len(names) :]
        return EnsembleLayer(self, models, names, combine=combine[0] if combine else None, tally=tally)


class EnsembleLayer:
    """The layer of an ensemble: calls all models at the same time with the same inputs, and combines their outputs.

    ``combine``: takes the outputs of the models for one input and returns the output; None for the list of them.
    ``tally``: takes the time of each model, ``model:NAME``, and counts which was the last, ``last:NAME``.
    """

    def __init__(
        self,
        pattern: Ensemble,
        models: Sequence[Handler],
        names: Sequence[str],
        *,
        combine: Callable[[list[Any]], Any] | None,
        tally: Tally,
    ) -> None:
        self._pattern = pattern
        self._models = tuple(zip(models, names, strict=True))
        self._combine = combine or list
        self._tally = tally

    async def __call__(self, instances: list[Any]) -> Sequence[Any]:
        """One output for each input."""
        finished: list[tuple[str, RequestClock]] = []
        tasks = [
            asyncio.create_task(self._call(model, name, instances, finished=finished)) for model, name in self._models
        ]
        try:
            outputs = await asyncio.gather(*tasks)
        except BaseException:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            raise
        last, times = finished[-1]
        self._tally.count(f"last:{last}")
        if (clock := current_clock()) is not None:
            clock.take(times.parts)  # the request did not wait for the others
        return [self._combine(list(each)) for each in zip(*outputs, strict=True)]

    async def _call(
        self, model: Handler, name: str, instances: list[Any], *, finished: list[tuple[str, RequestClock]]
    ) -> Sequence[Any]:
        clock = RequestClock()
        set_clock(clock)
        started_ns = perf_counter_ns()
        outputs = model(instances)
        if inspect.isawaitable(outputs):
            outputs = await outputs
        refuse_stream(outputs, f"model {name} of {self._pattern} streams its answer, and Ensemble combines whole ones")
        self._tally.time(f"model:{name}", perf_counter_ns() - started_ns)
        finished.append((name, clock))
        return matched(outputs, len(instances), f"model {name} of {self._pattern}")
