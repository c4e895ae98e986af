"""Scraper of a server's Prometheus metrics over HTTP.

Counters are read on request. A queue depth is a gauge: if the server has one, a thread reads it twice a second.
:mod:`pytest_mlpatterns.serving.prometheus` reads the text.
"""

import importlib.util
import threading
import time
from collections.abc import Mapping, Sequence
from types import MappingProxyType

from pytest_mlpatterns.credentials import address_without_credentials
from pytest_mlpatterns.errors import DeploymentError, missing_extra
from pytest_mlpatterns.patterns.tally import Tally
from pytest_mlpatterns.records.telemetry import LayerStats, merged_layers
from pytest_mlpatterns.serving.prometheus import Prometheus, Reading, merge_readings, read_prometheus
from pytest_mlpatterns.workload.request_builder import text_of

_INTERVAL_S = 0.5  # Interval at which a gauge is read, in seconds
_TIMEOUT_S = 5.0  # Time limit for the metrics of a server, in seconds
_PLAIN = "text/plain;version=0.0.4"
_MAX_NAMED = 12  # Most metrics that a message names
_MAX_REASON = 200  # Letters of the parser's reason in a message


class Scraper:
    """Reads the metrics of one server, which may have several processes."""

    def __init__(self, urls: Sequence[str], names: Prometheus) -> None:
        import httpx

        from pytest_mlpatterns.serving.bounded_client import BoundedTransport

        if importlib.util.find_spec("prometheus_client") is None:
            raise DeploymentError(missing_extra(f"metrics={names.path!r}", "prometheus-client", "prometheus"))
        self._urls = tuple(urls)
        self._names = names
        self._client = httpx.Client(trust_env=False, headers={"accept": _PLAIN}, transport=BoundedTransport())
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None
        self._queue = Tally(0, "queued")

    def start(self, *, require_known: bool = True) -> None:
        """Read the metrics once, and begin to watch the queue depth if the server has one.

        ``require_known``: at least one known metric must be there; a server may have none before its first request.
        """
        reading = self._read()
        if require_known and not reading.layers and reading.depth is None:
            raise DeploymentError(
                f"{self._urls[0]} has none of the known metrics; it has {self._metric_names()}; name your own: "
                f'metrics=Prometheus({self._names.path!r}, batch_size="…", queue_depth="…")'
            )
        if reading.depth is not None:
            self._queue.level("depth", reading.depth)
            self._thread = threading.Thread(target=self._watch, name="queue depth", daemon=True)
            self._thread.start()

    def layers(self) -> tuple[LayerStats, ...]:
        """Statistics since the start of the server."""
        reading = self._read()
        if reading.depth is None:
            return reading.layers
        self._queue.level("depth", reading.depth)
        return merged_layers([*reading.layers, self._queue.snapshot()])

    def close(self) -> None:
        """Stop the thread and close the connections."""
        self._closing.set()
        if self._thread is not None:
            self._thread.join()
        self._client.close()

    def _watch(self) -> None:
        while not self._closing.wait(_INTERVAL_S):
            try:
                depth = self._read().depth
            except DeploymentError:  # layers() raises it; one missing depth does no harm
                continue
            if depth is not None:
                self._queue.level("depth", depth)

    def _read(self) -> Reading:
        deadline = time.monotonic() + _TIMEOUT_S
        return merge_readings([self._read_one(url, deadline) for url in self._urls])

    def _read_one(self, url: str, deadline: float) -> Reading:
        text = self._text(url, deadline)
        try:
            return read_prometheus(text, self._names)
        except ValueError as error:
            reason = str(error)[:_MAX_REASON] or "a line is malformed"
            found = address_without_credentials(url)
            raise DeploymentError(f"metrics: {found} is not in the text format of Prometheus: {reason}") from error

    def _metric_names(self) -> str:
        text = self._text(self._urls[0], time.monotonic() + _TIMEOUT_S)
        found = [line.split()[2] for line in text.splitlines() if line.startswith("# TYPE ")]
        return ", ".join(found[:_MAX_NAMED]) + (", …" if found[_MAX_NAMED:] else "") if found else "none"

    def _text(self, url: str, deadline: float) -> str:
        import httpx

        from pytest_mlpatterns.serving.bounded_client import describe_error, get_page

        found = address_without_credentials(url)
        try:
            response = get_page(self._client, url, max(deadline - time.monotonic(), 0.0))
        except httpx.HTTPError as error:
            raise DeploymentError(f"metrics: {found}: {describe_error(error)}") from error
        if not response.is_success:
            raise DeploymentError(
                f"metrics: {found} answered {response.status_code}, expected 200 and the text format of Prometheus"
            )
        return text_of(response)


def scraper_of(names: Prometheus, origins: Sequence[str], ports: Mapping[str, int] = MappingProxyType({})) -> Scraper:
    """Create the scraper of a server.

    ``origins``: ``http://host:port`` of each process; ignored if ``names`` has an address. ``ports``: values of
    ``{NAME_port}`` in that address.
    """
    if names.path.startswith("/"):
        return Scraper([origin + names.path for origin in origins], names)
    address = names.path
    for name, port in ports.items():
        address = address.replace(f"{{{name}}}", str(port))
    return Scraper([address], names)
