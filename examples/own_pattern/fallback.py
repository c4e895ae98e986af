"""A pattern of your own in one file: another model is asked if the first one raises an error or is late."""

import asyncio
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from inspect import isawaitable

from pytest_mlpatterns import Figure, LayerKind, PartsChart, Pattern, SettingError, Unit


@dataclass(frozen=True)
class Fallback(Pattern):
    """``other`` answers if what is inside raises an error, or has no answer after ``seconds``."""

    other: Callable | None = None
    seconds: float = 0.05

    layer_kind = LayerKind(
        figures=(
            Figure(
                "fallback_share",
                "share answered by the other model",
                Unit.RATIO,
                of=("failed", "late"),
                over=("answered", "failed", "late"),
                note="{} from the other model",
            ),
        ),
        charts=(
            PartsChart(
                "Who answered",
                "answer",
                "requests",
                {"answered": "the model", "failed": "the other, after an error", "late": "the other, in time"},
                "were answered by the model",
            ),
        ),
    )

    def __post_init__(self):
        if not callable(self.other):
            raise SettingError(f"Fallback(other={self.other!r}), expected a function of a list of inputs")

    def layer(self, inside, tally, resources):
        async def fallback(inputs):
            try:
                async with asyncio.timeout(self.seconds):
                    outputs = inside[0](deepcopy(inputs))
                    outputs = await outputs if isawaitable(outputs) else outputs
            except Exception as error:
                tally.count("late" if isinstance(error, TimeoutError) else "failed")
                return self.other(inputs)
            tally.count("answered")
            return outputs

        return fallback
