"""Which launches of a test do not count: dropped and measured again, or left out of what is recorded or judged.

A launch in which the load generator was the limit shows nothing of the service, so it is dropped if there are others.
A disturbed launch is left out of an entry of the baseline, if enough others are left. A failure that neighbours may
explain rests on the launches without them. Pure; :mod:`pytest_mlpatterns.judging.sequential` measures again.

Also: ``Pairs.quiet`` in ``judging/look.py`` leaves out disturbed pairs of launches, ``VariantRun`` in
``measurement/variant.py`` repeats blocks, and ``analysis/statistics/log_ratio.py`` leaves out pairs of blocks.
"""

from __future__ import annotations

from pytest_mlpatterns.analysis.health.machine import why_busy
from pytest_mlpatterns.analysis.health.sustained import why_limited
from pytest_mlpatterns.analysis.metrics.blocks import LaunchBlocks
from pytest_mlpatterns.analysis.metrics.metrics import Metrics
from pytest_mlpatterns.records.launch import Launch


def why_dropped(launch: Launch, judged_ns: float) -> str | None:
    """Why the load generator was the limit of a launch; None if it counts.

    A launch that fell silent is a failure of the service, and a client of the user's own that is busy will be so again.

    ``judged_ns``: latency that is judged, beside which a lag of the generator matters; 0 for that measured.
    """
    is_client_busy = launch.generator.client and why_limited(launch.generator)
    return None if launch.silence or is_client_busy else Metrics((launch,)).why_limited(judged_ns)


def is_disturbed(launch: Launch, *, steady: bool = False) -> bool:
    """Whether neighbours took time that a launch needed, or its latency had no steady state if that matters.

    A warm-up that ended by its limit is no such sign: a service of two modes has no steady windows at all. What goes on
    after it shows as a trend.
    """
    return why_busy([launch]) is not None or (steady and LaunchBlocks(launch).trend() is not None)
