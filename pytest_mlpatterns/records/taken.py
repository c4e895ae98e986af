"""What of the machine a deployment could not have while it was measured."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Taken"]


@dataclass(frozen=True, slots=True)
class Taken:
    """What a deployment could not have of the machine while it was measured, on average.

    Attributes:
        others_cores: cores that processes other than the deployment, the load generator and pytest used.
        steal_ratio: share of the machine's time that its host gave to other machines.
        throttled_ratio: share of the window in which a limit of the control group stopped a process.
    """

    others_cores: float = 0.0
    steal_ratio: float = 0.0
    throttled_ratio: float = 0.0
