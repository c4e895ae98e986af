"""The cluster of one test: what it is, and whether it stayed so."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_mlpatterns.errors import ChildError
from pytest_mlpatterns.system.ray.cluster import describe
from pytest_mlpatterns.wording import count

if TYPE_CHECKING:
    from pytest_mlpatterns.system.ray.session import RaySession

__all__ = ["ClusterUse"]

_NODES = "pytest_mlpatterns.system.ray.remote.alive_nodes:alive_nodes"


class ClusterUse:
    """A cluster that takes part in a test, from now on.

    Args:
        session: the cluster.

    Attributes:
        description: its node types and counts, by which baselines know it.

    Raises:
        MlpatternsError: the cluster cannot be reached.
    """

    def __init__(self, session: RaySession) -> None:
        self._session = session
        self.description: str = describe(session.cluster.nodes)
        self._before = self._nodes()

    def change(self) -> str:
        """What has changed since, as a sentence with advice; empty if nothing has, or if that is not known."""
        before, now = self._before, self._nodes()
        if before == now or not before or not now:
            return ""
        lost, added = len(before - now), len(now - before)
        what = " and ".join(
            f"{verb} {count(number, 'node')}" for number, verb in ((lost, "lost"), (added, "gained")) if number
        )
        return f"the Ray cluster {what} while this was measured: run it again when its nodes stay"

    def _nodes(self) -> frozenset[str]:
        """The nodes that are alive; empty if they are unknown, which a measurement reports."""
        if self._session.cluster.is_own:
            return frozenset()
        try:
            found: frozenset[str] = self._session.call(_NODES)
        except (ChildError, TimeoutError):
            return frozenset()
        return found
