"""The pattern ``Pipeline``: stages in series, in one process or in one process each."""

import inspect
from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from time import perf_counter_ns
from typing import Any, ClassVar

from pytest_mlpatterns.errors import SettingError
from pytest_mlpatterns.fields import check_truth
from pytest_mlpatterns.patterns.arguments import NO_VARIABLES, set_variables
from pytest_mlpatterns.patterns.layer import Answer, Handler, Resources, counted, matched, needs_loop, retries
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
from pytest_mlpatterns.patterns.stream import StreamSource, refuse_stream, streams
from pytest_mlpatterns.patterns.tally import Tally
from pytest_mlpatterns.wording import shown


def checked_models(pattern: Pattern, field: str) -> tuple[Any, ...]:
    """The models in a field of a pattern."""
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

    ``group_role``: the role of the process that each model gets for itself; None if all run in the same process.
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


@dataclass(frozen=True, slots=True)
class Pipeline(Pattern):
    """Stages in series, such as preprocessing, model and postprocessing: the outputs of one are the inputs of the next.

    Args:
        stages: at least two. Each is a callable that takes a list and returns as many values, a class of such
            callables, or an import string. ``"model"`` stands for ``perf_model``, with the rest of the composition
            around it.
        processes: True: every stage has its own process.
        env: environment variables of the process of each stage, or of the one in which all run, such as
            ``{"OMP_NUM_THREADS": "1"}``.

    Raises:
        SettingError: fewer than two or too many stages, something that is not a stage, or impossible variables.
    """

    needs_code: ClassVar[bool] = True

    stages: Sequence[Any] = ()
    processes: bool = False
    env: Mapping[str, str] = NO_VARIABLES

    def __post_init__(self) -> None:
        set_variables(self)
        object.__setattr__(self, "stages", checked_models(self, "stages"))
        check_truth(self, "processes")

    def build(self, position: int, rest: Sequence[Pattern]) -> Node:
        """Build the stages, with the rest of the composition around ``"model"``."""
        stages = model_nodes(self, self.stages, position, rest=rest, group_role="stage" if self.processes else None)
        return LayerNode(self, position, stages, env=NO_VARIABLES if self.processes else self.env)

    @property
    def inside_names(self) -> tuple[str, ...]:
        """The names of the stages."""
        return tuple(distinct_names(self.stages))

    def without_callables(self) -> Pattern:
        """The pattern with names in place of the stages, which are nodes inside."""
        return replace(self, stages=[f":{name}" for name in distinct_names(self.stages)])

    def layer(self, inside: Sequence[Handler], tally: Tally, resources: Resources) -> Handler:
        """Make the layer that calls the stages inside one after the other."""
        return PipelineLayer(self, inside, distinct_names(self.stages), tally=tally)


class PipelineLayer:
    """The layer of a pipeline: the outputs of one stage are the inputs of the next, and as many.

    It returns its outputs directly if no stage returns an awaitable. The last stage may stream; its time is then
    that of the whole stream.

    ``tally``: takes the time of each stage, ``stage:NAME``.
    """

    def __init__(self, pattern: Pipeline, stages: Sequence[Handler], names: Sequence[str], *, tally: Tally) -> None:
        self._pattern = pattern
        self._stages = tuple(zip(stages, names, strict=True))
        self._tally = tally
        self.needs_loop: bool = any(map(needs_loop, stages))
        self.retries: bool = retries(stages[0])
        self._reader = StreamSource()

    def __call__(self, instances: list[Any]) -> Answer:
        """The outputs of the last stage, or an awaitable of them."""
        return self._from(0, instances, len(instances))

    def _from(self, number: int, values: Any, count: int) -> Answer:
        for at in range(number, len(self._stages)):
            stage, _ = self._stages[at]
            started_ns = perf_counter_ns()
            outputs = stage(values)
            if inspect.isawaitable(outputs):
                return self._await(at, outputs, started_ns, count=count)
            values = self._after(at, outputs, started_ns, count=count)
        return values  # type: ignore[no-any-return]

    async def _await(self, at: int, pending: Awaitable[Any], started_ns: int, *, count: int) -> Sequence[Any]:
        answer = self._from(at + 1, self._after(at, await pending, started_ns, count=count), count)
        return await answer if inspect.isawaitable(answer) else answer

    def _after(self, at: int, outputs: Any, started_ns: int, *, count: int) -> Any:
        _, name = self._stages[at]
        is_last = at == len(self._stages) - 1
        if streams(outputs):
            if not is_last:
                refuse_stream(
                    outputs, f"stage {name} of {self._pattern} streams its answer, which only the last may do"
                )
            return self._reader.read(
                outputs, count, f"stage {name} of {self._pattern}", on_end=partial(self._time, name, started_ns)
            )
        self._time(name, started_ns)
        check = matched if is_last else counted
        return check(outputs, count, f"stage {name} of {self._pattern}")

    def _time(self, name: str, started_ns: int) -> None:
        self._tally.time(f"stage:{name}", perf_counter_ns() - started_ns)
