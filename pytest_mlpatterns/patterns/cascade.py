"""The pattern ``Cascade``: a cheap model answers first, and a heavy one what the cheap one is unsure about."""

import inspect
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from time import perf_counter_ns
from typing import Any, ClassVar

from pytest_mlpatterns.errors import SettingError
from pytest_mlpatterns.fields import check_truth, unrun_answer, unrun_function
from pytest_mlpatterns.patterns.arguments import NO_VARIABLES, set_variables
from pytest_mlpatterns.patterns.layer import Answer, Handler, Resources, matched, needs_loop
from pytest_mlpatterns.patterns.pattern import MODEL, LayerNode, ModelNode, Node, Pattern
from pytest_mlpatterns.patterns.pipeline import checked_models, distinct_names, model_nodes
from pytest_mlpatterns.patterns.stream import refuse_stream
from pytest_mlpatterns.patterns.tally import Tally
from pytest_mlpatterns.wording import shown


@dataclass(frozen=True, slots=True)
class Cascade(Pattern):
    """Two models in series: every input goes to the first, and to the second only if the first is unsure.

    Args:
        first: the cheap model: a callable that takes a list of inputs and returns as many outputs, a class of such
            callables, or an import string.
        second: the heavy model; ``"model"`` stands for ``perf_model``, with the rest of the composition around it.
        when: takes one input and the first model's output for it, and returns whether the input goes on. The second
            model's output then is the answer, else the first model's.
        processes: each model gets a process of its own; else both run in one.
        env: environment variables of the process of each model, or of the one in which both run.

    Raises:
        SettingError: something that is not a model, no function as ``when``, or impossible variables.
    """

    needs_code: ClassVar[bool] = True

    first: Any = None
    second: Any = MODEL
    when: Callable[[Any, Any], object] | None = None
    processes: bool = False
    env: Mapping[str, str] = NO_VARIABLES

    def __post_init__(self) -> None:
        set_variables(self)
        checked_models(self, "models")
        if not callable(self.when):
            raise SettingError(
                f"Cascade(when={shown(self.when)}), expected a function of an input and the first model's output; "
                'write when=lambda given, output: output["score"] < 0.9'
            )
        if why := unrun_function(self.when):
            raise SettingError(f"Cascade(when=...) {why}")
        check_truth(self, "processes")

    @property
    def models(self) -> tuple[Any, Any]:
        """The first model and the second."""
        return self.first, self.second

    def build(self, position: int, rest: Sequence[Pattern]) -> Node:
        """Build both models, in processes of their own with ``processes=True``, and the decision."""
        models = model_nodes(self, self.models, position, rest=rest, group_role="model" if self.processes else None)
        decision = ModelNode(Decision(self.when), "when")
        return LayerNode(self, position, (*models, decision), env=NO_VARIABLES if self.processes else self.env)

    @property
    def inside_names(self) -> tuple[str, ...]:
        """The names of the models and of ``when``."""
        return (*distinct_names(self.models), "when")

    def without_callables(self) -> Pattern:
        """The pattern with names in place of the models and of ``when``, which are nodes inside."""
        first, second = (f":{name}" for name in distinct_names(self.models))
        return replace(self, first=first, second=second, when=_named)

    def layer(self, inside: Sequence[Handler], tally: Tally, resources: Resources) -> Handler:
        """Make the layer that asks the models inside; the last handler inside is the decision."""
        return CascadeLayer(self, inside, tally)


class Decision:
    """The user's function for several inputs: takes ``(input, output)`` pairs, returns a truth value for each."""

    def __init__(self, when: Callable[[Any, Any], object] | None) -> None:
        self._when = when

    def __call__(self, pairs: Sequence[tuple[Any, Any]]) -> list[bool]:
        """Whether each input goes on."""
        assert self._when is not None
        answers = [self._when(given, output) for given, output in pairs]
        for answer in answers:
            if not isinstance(answer, bool) and (why := unrun_answer(answer)):
                raise SettingError(f"Cascade(when=...) {why}")
        return [*map(bool, answers)]


def _named(_given: Any, _output: Any) -> bool:
    """Stands for a decision that is a node inside."""
    return False


class CascadeLayer:
    """The layer of a cascade. It returns its outputs directly if neither model returns an awaitable."""

    def __init__(self, pattern: Cascade, inside: Sequence[Handler], tally: Tally) -> None:
        self._pattern = pattern
        self._first, self._second, self._decide = inside
        self._names = distinct_names(pattern.models)
        self._tally = tally
        self.needs_loop: bool = any(map(needs_loop, inside[:2]))

    def __call__(self, instances: list[Any]) -> Answer:
        """One output for each input, or an awaitable of them."""
        began_ns = perf_counter_ns()
        outputs = self._first(instances)
        if inspect.isawaitable(outputs):
            return self._await_first(instances, outputs, began_ns)
        return self._after_first(instances, outputs, began_ns)

    async def _await_first(self, instances: list[Any], pending: Awaitable[Any], began_ns: int) -> Sequence[Any]:
        answer = self._after_first(instances, await pending, began_ns)
        return await answer if inspect.isawaitable(answer) else answer

    def _after_first(self, instances: list[Any], outputs: Any, began_ns: int) -> Answer:
        """Ask the second model for what the first is unsure about."""
        found = list(self._whole(0, outputs, len(instances)))
        self._tally.time("first_ns", perf_counter_ns() - began_ns)
        goes_on: Any = self._decide(list(zip(instances, found, strict=True)))
        places = [place for place, one in enumerate(goes_on) if one]
        self._tally.count("kept", len(found) - len(places))
        self._tally.count("escalated", len(places))
        if not places:
            return found
        began_ns = perf_counter_ns()
        answers = self._second([instances[place] for place in places])
        if inspect.isawaitable(answers):
            return self._await_second(found, places, answers, began_ns=began_ns)
        return self._after_second(found, places, answers, began_ns=began_ns)

    async def _await_second(
        self, found: list[Any], places: Sequence[int], pending: Awaitable[Any], *, began_ns: int
    ) -> Sequence[Any]:
        return self._after_second(found, places, await pending, began_ns=began_ns)

    def _after_second(self, found: list[Any], places: Sequence[int], answers: Any, *, began_ns: int) -> Sequence[Any]:
        """Put the second model's outputs in their places."""
        for place, answer in zip(places, self._whole(1, answers, len(places)), strict=True):
            found[place] = answer
        self._tally.time("second_ns", perf_counter_ns() - began_ns)
        return found

    def _whole(self, number: int, outputs: Any, count: int) -> Sequence[Any]:
        """The outputs of a model, if they are whole and as many as its inputs."""
        name = f"model {self._names[number]} of {self._pattern}"
        refuse_stream(outputs, f"{name} streams its answer, and Cascade needs whole ones")
        return matched(outputs, count, name)
