"""Reads what a server tells of itself in Prometheus' text format, over HTTP, as long as the server runs.

Counters are read when they are asked for. A queue's depth is a moment's value, so where a server tells one it is read
twice a second, in a thread. What the text means is :mod:`pytest_mlpatterns.serving.prometheus`'s business.
"""

from __future__ import annotations

import importlib.util
import threading
import time
from types import MappingProxyType
from typing import TYPE_CHECKING

from pytest_mlpatterns.errors import DeploymentError, missing_extra
from pytest_mlpatterns.records.telemetry import LayerStats, merged_layers
from pytest_mlpatterns.serving.prometheus import merged_readings, read_exposition

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pytest_mlpatterns.serving.prometheus import Prometheus, Reading

__all__ = ["Scraper", "scraper_of"]

_INTERVAL_S = 0.5
_TIMEOUT_S = 5.0
_PLAIN = "text/plain;version=0.0.4"
_MAX_NAMED = 12


class Scraper:
    """The figures of one server, which may be several processes with an address each.

    Args:
        urls: where they are told.
        source: what they are called there.

    Raises:
        DeploymentError: ``prometheus_client`` is not installed.
    """

    def __init__(self, urls: Sequence[str], source: Prometheus) -> None:
        import httpx

        if importlib.util.find_spec("prometheus_client") is None:
            raise DeploymentError(missing_extra(f"metrics={source.path!r}", "prometheus-client", "prometheus"))
        self._urls = tuple(urls)
        self._source = source
        self._client = httpx.Client(timeout=_TIMEOUT_S, trust_env=False, headers={"accept": _PLAIN})
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None
        self._leveling = threading.Lock()
        self._level: tuple[int, int] | None = None
        self._depth_ns = self._observed_ns = 0
        self._course: list[tuple[int, int]] = []

    def start(self, *, told: bool = True) -> None:
        """Look whether the server tells anything that is known, and begin to watch its queue where it tells one.

        Args:
            told: it has answered a request by now, and so must know something to tell.

        Raises:
            DeploymentError: it tells nothing, or nothing known.
        """
        reading = self._read()
        if told and not reading.layers and reading.depth is None:
            raise DeploymentError(
                f"{self._urls[0]} tells no figure that is known or named; it tells {self._told()}; name them: "
                f'metrics=Prometheus({self._source.path!r}, batch_size="…", queue_depth="…")'
            )
        if reading.depth is not None:
            self._note(reading.depth)
            self._thread = threading.Thread(target=self._watch, name="queue depth", daemon=True)
            self._thread.start()

    def layers(self) -> tuple[LayerStats, ...]:
        """Everything counted so far.

        Raises:
            DeploymentError: the server does not tell it.
        """
        reading = self._read()
        if reading.depth is None:
            return reading.layers
        self._note(reading.depth)
        with self._leveling:
            counters = {"depth_ns": self._depth_ns, "observed_ns": self._observed_ns}
            queued = LayerStats(0, "queued", counters, {}, {"depth": tuple(self._course)})
        return merged_layers([*reading.layers, queued])

    def close(self) -> None:
        """Read no more."""
        self._closing.set()
        if self._thread is not None:
            self._thread.join()
        self._client.close()

    def _watch(self) -> None:
        while not self._closing.wait(_INTERVAL_S):
            try:
                depth = self._read().depth
            except DeploymentError:  # told when the figures are asked for; a moment's depth may be missing
                continue
            if depth is not None:
                self._note(depth)

    def _note(self, depth: int) -> None:
        with self._leveling:
            now = time.perf_counter_ns()
            if self._level is not None:
                since, old = self._level
                self._depth_ns += old * (now - since)
                self._observed_ns += now - since
            self._level = (now, depth)
            self._course.append((now, depth))

    def _read(self) -> Reading:
        return merged_readings([self._read_one(url) for url in self._urls])

    def _read_one(self, url: str) -> Reading:
        text = self._text(url)
        try:
            return read_exposition(text, self._source)
        except ValueError as error:
            raise DeploymentError(f"metrics: {url} is not in Prometheus' text format: {error}") from error

    def _told(self) -> str:
        names = [line.split()[2] for line in self._text(self._urls[0]).splitlines() if line.startswith("# TYPE ")]
        return ", ".join(names[:_MAX_NAMED]) + (", …" if names[_MAX_NAMED:] else "") if names else "nothing"

    def _text(self, url: str) -> str:
        import httpx

        try:
            response = self._client.get(url)
        except httpx.HTTPError as error:
            raise DeploymentError(f"metrics: {url}: {type(error).__name__}: {error}") from error
        if not response.is_success:
            raise DeploymentError(f"metrics: {url} answered {response.status_code}, expected Prometheus' text format")
        return response.text


def scraper_of(source: Prometheus, origins: Sequence[str], ports: Mapping[str, int] = MappingProxyType({})) -> Scraper:
    """What reads the figures of a server.

    Args:
        source: what they are called, and where they are told.
        origins: ``http://host:port`` of each of its processes; of no matter where ``source`` has an address.
        ports: numbers for ``{NAME_port}`` in that address.
    """
    if source.path.startswith("/"):
        return Scraper([origin + source.path for origin in origins], source)
    address = source.path
    for name, port in ports.items():
        address = address.replace(f"{{{name}}}", str(port))
    return Scraper([address], source)
