"""Leases of runs: an actor that lives as long as its driver, and what a run without one has left on the cluster."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import ray
from ray import serve

from pytest_mlpatterns.engines.ray.remote.nodes import NAMESPACE
from pytest_mlpatterns.engines.ray.run import age_of, applications_by_run, belongs_to, removed_note

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["remove_applications", "remove_dead", "take_lease"]

_START_S = 30.0
"""Time limit for the start of the actor of a lease, in seconds."""
_YOUNG_S = 60.0
"""Age of a run below which a missing lease is looked for again: its driver may be about to take it."""
_AGAIN_S = 2.0
"""Time until a missing lease of a young run is looked for again, in seconds."""
_GONE_S = 5.0
"""Longest wait for the end of deleted applications, in seconds; what ends later disturbs nothing."""
_LOOK_S = 0.05
"""Interval of looks at the applications that end, in seconds."""


class _Lease:
    """Does nothing but live."""

    def is_held(self) -> bool:
        """Answer that the actor has started."""
        return True


def take_lease(run: str) -> object:
    """Start the actor that shows other runs that this one lives; it ends with what is returned, or this process."""
    actor = ray.remote(_Lease).options(name=run, namespace=NAMESPACE, num_cpus=0).remote()
    ray.get(actor.is_held.remote(), timeout=_START_S)
    held: object = actor
    return held


def remove_dead() -> tuple[str, ...]:
    """Remove the applications of runs whose driver is gone.

    Returns:
        A note for each such run.
    """
    now_s = time.time()
    runs = applications_by_run(_applications())
    dead = [run for run in runs if not _is_held(run)]
    if any(age_of(run, now_s) < _YOUNG_S for run in dead):
        time.sleep(_AGAIN_S)  # a name without an actor is no event
        dead = [run for run in dead if not _is_held(run)]
    _delete([name for run in dead for name in runs[run]])
    return tuple(removed_note(run, len(runs[run]), now_s) for run in dead)


def remove_applications(run: str) -> None:
    """Remove the applications of a run, or of one part of it."""
    _delete([name for name in _applications() if belongs_to(name, run)])


def _applications() -> list[str]:
    return [*serve.status().applications]


def _delete(names: Iterable[str]) -> None:
    """Delete applications and wait a little until they are gone."""
    left = set(names)
    for name in left:
        serve.delete(name, _blocking=False)
    deadline = time.monotonic() + _GONE_S
    while left and time.monotonic() < deadline:
        time.sleep(_LOOK_S)  # Serve offers no event for the end of an application
        left &= {*_applications()}


def _is_held(run: str) -> bool:
    actors = ray.util.list_named_actors(all_namespaces=True)
    return {"name": run, "namespace": NAMESPACE} in actors
