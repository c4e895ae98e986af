"""Deployments that start side by side and are closed together."""

from __future__ import annotations

import contextlib
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from pytest_mlpatterns.errors import MlpatternsError
from pytest_mlpatterns.measurement.variant import Variant, named_errors

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_mlpatterns.serving.deployment import Deployment

__all__ = ["StartedDeployments"]


class _Start(threading.Thread):
    """Starts a deployment in a thread of its own; a deployment that is abandoned before it is ready closes itself."""

    def __init__(self, variant: Variant) -> None:
        super().__init__(name=f"start of {variant.name}", daemon=True)
        self._variant = variant
        self._lock = threading.Lock()
        self._abandoned = False
        self._deployment: Deployment | None = None
        self._error: BaseException | None = None
        self.start()

    def run(self) -> None:
        """Start the deployment."""
        try:
            with named_errors(self._variant):
                deployment = self._variant.start()
        except BaseException as error:  # the thread that waits raises it
            self._error = error
            return
        with self._lock:
            self._deployment = deployment
        if self._abandoned:
            with contextlib.suppress(MlpatternsError):  # no one waits: what holds it may have ended, and ended it
                deployment.close()

    def deployment(self) -> Deployment:
        """The deployment, once it is ready; raises what its start raised."""
        self.join()
        if self._error is not None:
            raise self._error
        assert self._deployment is not None
        return self._deployment

    def close(self) -> None:
        """Close the deployment, or leave that to the thread if it still starts."""
        with self._lock:
            self._abandoned = self._deployment is None
        if self._deployment is not None:
            self._deployment.close()


class StartedDeployments:
    """Starts all deployments side by side, and closes them so on exit; each takes a moment, mostly to wait."""

    def __init__(self, variants: Sequence[Variant]) -> None:
        self._variants = variants
        self._starts: list[_Start] = []

    def __enter__(self) -> list[Deployment]:
        self._starts = [_Start(variant) for variant in self._variants]
        try:
            return [start.deployment() for start in self._starts]
        except BaseException:
            self._close()
            raise

    def __exit__(self, *_exception: object) -> None:
        self._close()

    def _close(self) -> None:
        with ThreadPoolExecutor(max_workers=len(self._starts)) as closing:
            done = [closing.submit(start.close) for start in self._starts]
        for one in done:
            one.result()
