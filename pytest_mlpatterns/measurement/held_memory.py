"""What the lines of one side hold: a deployment whose processes follow their allocations, under a short load.

It runs slower than others, so nothing here enters a verdict or a figure of another kind.
"""

from __future__ import annotations

from msgspec.structs import replace

from pytest_mlpatterns.analysis.causes.growth import growth_between
from pytest_mlpatterns.loadgen.generator import Generator
from pytest_mlpatterns.measurement.variant import Variant, VariantRun
from pytest_mlpatterns.records.addressing import Progress
from pytest_mlpatterns.records.samples import HELD_LAYER, HeldMemory
from pytest_mlpatterns.serving.deployment import Deployment

_WARMUP_NS, _LOAD_NS, _GROWTH_NS = 300_000_000, 400_000_000, 900_000_000
_MOST_READINGS = 1  # Readings under load: each stops the process for most of a second


def held_under_load(
    variant: Variant, deployment: Deployment, generator: Generator, *, of_growth: bool
) -> HeldMemory | None:
    """What the deployment of a variant holds under load, or for a growth what it holds in addition after further
    requests.

    Returns None if its processes do not report what they hold.
    """
    plan = replace(variant.plan, warmup_ns=0)
    reading = HeldReading(deployment, _MOST_READINGS if not of_growth else 0)
    run = VariantRun(replace(variant, plan=plan), deployment, generator, on_progress=reading.on_progress)
    if of_growth:
        reading.last()  # from now on they follow their allocations
    run.warm_up(_WARMUP_NS if of_growth else _LOAD_NS)
    first = reading.read()
    if first is None or not of_growth:
        return first
    before = reading.requests
    run.warm_up(_GROWTH_NS)
    last = reading.last()
    return None if last is None else growth_between(first, last, max(reading.requests - before, 1))


class HeldReading:
    """Reads what a deployment holds, also while it is loaded."""

    def __init__(self, deployment: Deployment, most: int) -> None:
        self.requests: int = 0
        self._deployment = deployment
        self._left = most
        self._highest: HeldMemory | None = None

    def on_progress(self, _: Progress) -> None:
        """Read once more, if some readings are left: what requests in flight hold is there only now."""
        if self._left > 0:
            self._left -= 1
            self.read()

    def read(self) -> HeldMemory | None:
        """The most that each line held in this reading or an earlier one; None if the processes do not report it."""
        if (now := self.last()) is None:
            return None
        if (earlier := self._highest) is not None:
            sites = {
                site: max(now.sites.get(site, 0), earlier.sites.get(site, 0)) for site in {**earlier.sites, **now.sites}
            }
            now = HeldMemory(sites, max(now.total_bytes, earlier.total_bytes))
        self._highest = now
        return now

    def last(self) -> HeldMemory | None:
        """What each line holds now; None if the processes do not report it."""
        stats = self._deployment.stats()
        self.requests = sum(stats.replica_requests)
        layers = stats.layers_named(HELD_LAYER)
        if not layers:
            return None
        counters = dict(layers[0].counters)
        total = counters.pop("total", 0)
        places = {
            (file, int(line)): held
            for (line, _, file), held in ((key.partition(":"), n) for key, n in counters.items())
        }
        return HeldMemory(places, total)
