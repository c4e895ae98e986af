"""What one test is about: its set-up, how its deployment is started, what is sent to it. It must not know pytest."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_mlpatterns.measurement.interleaved import InterleavedRun
    from pytest_mlpatterns.measurement.variant import Variant
    from pytest_mlpatterns.patterns import Pattern
    from pytest_mlpatterns.records.setup import Setup
    from pytest_mlpatterns.serving.deployment import Deployment
    from pytest_mlpatterns.workload.plan import LoadPlan

__all__ = ["Experiment"]


@dataclass(frozen=True, slots=True)
class Experiment:
    """What a test measures, how it is started, and what is sent to it.

    ``command`` runs the test alone. ``pair`` measures two sides interleaved. ``under`` starts the same model under
    another pattern; None for a service of the user's own. ``searches`` are the searches for NMRT that a ranking of the
    patterns needs, by their objective, None for NMRT alone. ``runs_already`` says that the service is attached to, not
    started.
    """

    setup: Setup
    command: str
    start: Callable[[], Deployment]
    plan: LoadPlan
    pair: Callable[[Variant, Variant], InterleavedRun]
    under: Callable[[Pattern], Callable[[], Deployment]] | None = None
    searches: tuple[str | None, ...] = ()
    runs_already: bool = False
