"""Several callables for one answer: in series as a ``Pipeline``, side by side as an ``Ensemble``, and their layers.

It must not know which of them are in this process.
"""

from __future__ import annotations

import asyncio
import inspect
from dataclasses import dataclass, replace
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any

from pytest_mlpatterns.errors import SettingError
from pytest_mlpatterns.patterns.base import MAX_PROCESSES, MODEL, Apart, Call, Node, Pattern, Wrap, build, name_of
from pytest_mlpatterns.patterns.layer import counted, matched, needs_loop

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from pytest_mlpatterns.patterns.layer import Answer, Inner, Tally

__all__ = ["Ensemble", "Gathering", "Pipeline", "Staging"]


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

    def build(self, place: int, rest: Sequence[Pattern]) -> Node:
        """The stages, the rest around the model among them.

        Raises:
            SettingError: there is a rest, but no model among the stages.
        """
        return _around(self, self.stages, place, rest, apart=self.processes, role="stage")

    def without_members(self, names: Sequence[str]) -> Pattern:
        """The same with names in the place of the stages."""
        return replace(self, stages=names)


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

    def build(self, place: int, rest: Sequence[Pattern]) -> Node:
        """The models, the rest around the model among them.

        Raises:
            SettingError: there is a rest, but no ``"model"`` among the models.
        """
        node = _around(self, self.models, place, rest, apart=True, role="model")
        return node if self.combine is None else replace(node, inside=(*node.inside, Call(self.combine, "combine")))

    def without_members(self, names: Sequence[str]) -> Pattern:
        """The same with names in the place of the models; ``combine`` is the last of what is inside its node."""
        return replace(self, models=names, combine=None)


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
    pattern: Pattern, members: Sequence[Any], place: int, rest: Sequence[Pattern], *, apart: bool, role: str
) -> Wrap:
    if rest and MODEL not in members:
        raise SettingError(
            f'{pattern} | {" | ".join(map(str, rest))}: nothing can follow where no member is "{MODEL}"; '
            f'put "{MODEL}" where what follows belongs, or leave it out'
        )
    names = _distinct([name_of(member) for member in members])
    inside: list[Node] = []
    for member, name in zip(members, names, strict=True):
        node = build(place + 1, rest) if member == MODEL else Call(member, name)
        inside.append(Apart(node, f"{role} {name}", place) if apart else node)
    return Wrap(pattern, place, tuple(inside), tuple(names))


def _distinct(names: Sequence[str]) -> list[str]:
    """Number names that stand more than once."""
    return [
        f"{name}{names[: number + 1].count(name)}" if names.count(name) > 1 else name
        for number, name in enumerate(names)
    ]


class Staging:
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

    def __init__(self, pattern: Pipeline, stages: Sequence[Inner], names: Sequence[str], tally: Tally) -> None:
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


class Gathering:
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
        models: Sequence[Inner],
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

    async def _ask(self, model: Inner, name: str, instances: list[Any], answered: list[str]) -> Sequence[Any]:
        started_ns = perf_counter_ns()
        outputs = model(instances)
        if inspect.isawaitable(outputs):
            outputs = await outputs
        self._tally.time(f"model:{name}", perf_counter_ns() - started_ns)
        answered.append(name)
        return matched(outputs, len(instances), f"model {name} of {self._pattern}")
