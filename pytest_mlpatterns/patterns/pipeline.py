"""The pattern ``Pipeline``: stages in series, in one process or in a process each."""

from __future__ import annotations

import inspect
from dataclasses import dataclass, replace
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any

from pytest_mlpatterns.errors import SettingError
from pytest_mlpatterns.patterns.layer import counted, matched, needs_loop
from pytest_mlpatterns.patterns.members import _around, _members
from pytest_mlpatterns.patterns.pattern import Node, Pattern

if TYPE_CHECKING:
    from collections.abc import Awaitable, Sequence

    from pytest_mlpatterns.patterns.layer import Answer, Handler
    from pytest_mlpatterns.patterns.tally import Tally

__all__ = ["Pipeline", "PipelineLayer"]


@dataclass(frozen=True, slots=True)
class Pipeline(Pattern):
    """Stages in series, such as preprocessing, model and postprocessing: what one returns, the next takes.

    Args:
        stages: at least two, each like a model: a callable that takes a list and returns as many, a class of such, or
            an import string. ``"model"`` stands for ``perf_model``, with what follows in the composition around it.
        processes: every stage in a process of its own.

    Raises:
        SettingError: too few or many stages, or something that is none.
    """

    stages: Sequence[Any] = ()
    processes: bool = False

    __str__ = Pattern.__str__

    def __post_init__(self) -> None:
        object.__setattr__(self, "stages", _members(self, "stages"))
        if not isinstance(self.processes, bool):
            raise SettingError(f"Pipeline(processes={self.processes!r}), expected True or False")

    def build(self, position: int, rest: Sequence[Pattern]) -> Node:
        """The stages, the rest around the model among them.

        Raises:
            SettingError: there is a rest, but no model among the stages.
        """
        return _around(self, self.stages, position, rest, apart=self.processes, role="stage")

    def without_members(self, names: Sequence[str]) -> Pattern:
        """The same with names in the place of the stages."""
        return replace(self, stages=names)


class PipelineLayer:
    """The layer of a pipeline: what one stage returns, the next takes; each must return as many as it takes.

    It needs no coroutine where no stage returns an awaitable.

    Args:
        pattern: the pipeline.
        stages: in their order.
        names: one for each stage.
        tally: takes the time of each stage, ``stage:NAME``.

    Attributes:
        needs_loop: whether a stage has to be called on the event loop.
    """

    def __init__(self, pattern: Pipeline, stages: Sequence[Handler], names: Sequence[str], tally: Tally) -> None:
        self._pattern = pattern
        self._stages = tuple(zip(stages, names, strict=True))
        self._tally = tally
        self.needs_loop = any(map(needs_loop, stages))

    def __call__(self, instances: list[Any]) -> Answer:
        """What the last stage returns for these inputs, or an awaitable of it.

        Raises:
            RequestError: a stage returned another number of outputs than it was given inputs.
            Exception: whatever a stage raised.
        """
        return self._from(0, instances, len(instances))

    def _from(self, number: int, values: Any, count: int) -> Answer:
        for at in range(number, len(self._stages)):
            stage, _ = self._stages[at]
            started_ns = perf_counter_ns()
            outputs = stage(values)
            if inspect.isawaitable(outputs):
                return self._await(at, outputs, started_ns, count)
            values = self._after(at, outputs, started_ns, count)
        return values  # type: ignore[no-any-return]

    async def _await(self, at: int, pending: Awaitable[Any], started_ns: int, count: int) -> Sequence[Any]:
        answer = self._from(at + 1, self._after(at, await pending, started_ns, count), count)
        return await answer if inspect.isawaitable(answer) else answer

    def _after(self, at: int, outputs: Any, started_ns: int, count: int) -> Any:
        _, name = self._stages[at]
        self._tally.time(f"stage:{name}", perf_counter_ns() - started_ns)
        check = matched if at == len(self._stages) - 1 else counted
        return check(outputs, count, f"stage {name} of {self._pattern}")
