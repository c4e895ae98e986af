"""What helps to understand a failing test: the model's tracebacks, and the end of its processes' log."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pytest_mlpatterns.analysis.metrics import Metrics

__all__ = ["diagnosis_of"]


def diagnosis_of(measured: Metrics | None, log: str) -> str:
    """The diagnosis as text; empty if there is nothing.

    Args:
        measured: what was measured so far; None if nothing was.
        log: the end of the log of the deployment's processes.
    """
    launches = () if measured is None else measured.launches
    tracebacks = [text for launch in launches if launch.stats for text in launch.stats.tracebacks]
    parts = [f"The model raised:\n{text}" for text in dict.fromkeys(tracebacks)]
    return "\n\n".join([*parts, f"The deployment printed last:\n{log}"] if log else parts)
