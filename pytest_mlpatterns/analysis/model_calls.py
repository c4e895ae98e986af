"""How often each model was called in the blocks of a profile, per request. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from pytest_mlpatterns.analysis.call_tree import BEFORE, NOW

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from pytest_mlpatterns.records.profile import ProfiledBlock, ProfiledRun

__all__ = ["calls_notes", "model_calls"]

_CALLS_CHANGED = 0.1


def model_calls(run: ProfiledRun) -> dict[str, NDArray[np.float64]]:
    """Calls of each model per request, ``(sides, blocks)``; without models whose calls are not known in every block.

    A model that no block of the reference called, as behind a cache that always hit, has 0 there. The present alone
    stands on both sides.
    """
    sides = (run.before or run.now, run.now)
    names = {name for block in run.now for name in block.calls}
    known = [name for name in names if _are_known(name, *sides)]
    return {
        name: np.array([[block.calls[name] / block.requests for block in side] for side in sides]) for name in known
    }


def _are_known(name: str, before: Sequence[ProfiledBlock], now: Sequence[ProfiledBlock]) -> bool:
    """Whether each block called a model, or none of the reference did."""
    then, called = ([block.calls.get(name, -1.0) for block in side] for side in (before, now))
    return all(count > 0 for count in called) and (all(count > 0 for count in then) or not any(then))


def calls_notes(calls: Mapping[str, NDArray[np.float64]]) -> list[str]:
    """A sentence for each model that is called more or less often."""
    means = {name: (float(times[BEFORE].mean()), float(times[NOW].mean())) for name, times in sorted(calls.items())}
    return [
        f"{name} is called {before:.3g} → {now:.3g} times a request"
        for name, (before, now) in means.items()
        if abs(now - before) >= _CALLS_CHANGED * before
    ]
