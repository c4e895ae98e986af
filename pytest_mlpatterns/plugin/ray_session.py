"""The Ray cluster of a session: read, started and ended only if a test of it uses Ray."""

from __future__ import annotations

import os
from functools import cached_property
from typing import TYPE_CHECKING

from pytest_mlpatterns.engines.ray.session import ClusterUse, RaySession
from pytest_mlpatterns.engines.ray.settings import read_ray_job
from pytest_mlpatterns.errors import MlpatternsError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from pytest_mlpatterns.config.settings import Settings

__all__ = ["SessionRay"]


class SessionRay:
    """The cluster that the tests of one session share."""

    def __init__(
        self, options: Mapping[str, object], ini: Mapping[str, object], *, root: Path, directory: Path
    ) -> None:
        self._options = options
        self._ini = ini
        self._root = root
        self._directory = directory

    @cached_property
    def session(self) -> RaySession:
        """The connection, which starts on first use.

        Raises:
            SettingError: the settings of Ray cannot be read.
        """
        job = read_ray_job(self._options, self._ini, os.environ, root=self._root)
        return RaySession(job, self._directory / "ray-driver.log")

    @property
    def lines(self) -> list[str]:
        """Its lines in the summary of the run."""
        return [f"note: {note}" for note in self.session.notes] if self._is_made else []

    def begin_for(self, settings: Iterable[Settings]) -> None:
        """Begin to connect if one of these tests needs it, while other tests are prepared.

        Raises:
            SettingError: the settings of Ray cannot be read.
        """
        if any(map(_uses_ray, settings)):
            self.session.begin()

    def await_ready(self, settings: Settings) -> None:
        """Wait until a connection that has begun is there, so that it does not begin beside a measurement.

        Args:
            settings: of the test that is about to run; if it needs the cluster, the connection begins now.

        Raises:
            SettingError: the test needs the cluster, which cannot be reached or does not fit.
            DeploymentError: the test needs the cluster, which did not start.
        """
        is_needed = _uses_ray(settings)
        if not is_needed and not (self._is_made and self.session.has_begun):
            return
        try:
            _ = self.session.cluster
        except MlpatternsError:  # another test that needs it will fail with the reason
            if is_needed:
                raise

    def serving(self, settings: Settings, target: object) -> RaySession | None:
        """The cluster that serves a test; None if another engine does, or its service is the user's own.

        Args:
            target: the service of the user's own; None without one.
        """
        return self.session if settings.engine == "ray" and target is None else None

    def use_in(self, settings: Settings, target: object) -> ClusterUse | None:
        """The cluster that takes part in a test; None if none does.

        Args:
            target: the service of the user's own; None without one.

        Raises:
            MlpatternsError: the cluster cannot be reached.
        """
        takes_part = settings.generators_on == "ray" or self.serving(settings, target) is not None
        return ClusterUse(self.session) if takes_part else None

    def close(self) -> None:
        """End the connection. Safe to call twice."""
        if self._is_made:
            self.session.close()

    @property
    def _is_made(self) -> bool:
        return "session" in vars(self)


def _uses_ray(settings: Settings) -> bool:
    return "ray" in (settings.engine, settings.generators_on)
