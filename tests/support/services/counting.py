"""A child process that knows of itself what its parent tells it, and answers as a worker does."""

import os
import threading
from pathlib import Path
from typing import Any

from pytest_mlpatterns.records.telemetry import LayerStats
from pytest_mlpatterns.serving.processes import (
    FactsQuestion,
    LoadFailed,
    Ready,
    StatsQuestion,
    WorkerFacts,
    WorkerStats,
)
from pytest_mlpatterns.system.child import Channel


def main() -> None:
    """Load, which may take until a file is there, then count ``(requests, traceback)`` until the parent is gone."""
    channel = Channel()
    gate: str | None = channel.receive()
    known: list[tuple[int, str]] = []
    ended, loaded = threading.Event(), threading.Event()

    def on_message(message: Any) -> None:
        if isinstance(message, StatsQuestion) and loaded.is_set():
            requests = sum(count for count, _ in known)
            layer = LayerStats(1, "hop", {"calls": requests}, {"hop_ns": {5: requests}})
            channel.send(WorkerStats(message.number, requests, tuple(text for _, text in known), (layer,)))
        elif isinstance(message, FactsQuestion):
            channel.send(WorkerFacts(message.number - 1, {"kernel": "an answer to a question before"}, []))
            channel.send(WorkerFacts(message.number, {"kernel": "Linux 6.1"}, []))
        elif isinstance(message, tuple):
            known.append(message)

    channel.listen(on_message, ended.set)
    if gate == "fails":
        channel.send(LoadFailed("a traceback"))
        os._exit(1)
    while gate and not Path(gate).exists() and not ended.wait(0.005):
        pass
    loaded.set()
    channel.send(Ready())
    ended.wait()
