"""A pattern of your own in one file: a limit of requests in flight, such as for a model that needs much memory."""

import asyncio
from dataclasses import dataclass
from inspect import isawaitable
from time import perf_counter_ns

from pytest_mlpatterns import Figure, LayerKind, PartsChart, Pattern, SettingError, Unit


@dataclass(frozen=True)
class Throttled(Pattern):
    """At most ``limit`` requests are in flight inside; later ones wait."""

    limit: int = 4

    layer_kind = LayerKind(
        figures=(
            Figure("throttled_wait", "wait at the throttle", Unit.DURATION, median="wait_ns", note="wait {}"),
            Figure(
                "", "waited", Unit.RATIO, of=("waited",), over=("waited", "passed"), note="{} of the requests waited"
            ),
        ),
        charts=(
            PartsChart(
                "Requests at the throttle", "request", "requests", {"waited": "waited", "passed": "passed"}, "waited"
            ),
        ),
    )

    def __post_init__(self):
        if self.limit < 1:
            raise SettingError(f"Throttled(limit={self.limit}), expected at least 1")

    def layer(self, inside, tally, resources):
        free = asyncio.Semaphore(self.limit)

        async def throttled(inputs):
            tally.count("waited" if free.locked() else "passed")
            arrived_ns = perf_counter_ns()
            async with free:
                tally.time("wait_ns", perf_counter_ns() - arrived_ns)
                outputs = inside[0](inputs)
                return await outputs if isawaitable(outputs) else outputs

        return throttled
