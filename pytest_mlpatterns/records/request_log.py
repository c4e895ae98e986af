"""The requests of a run as another client logged them, from which the same metrics follow as from our own loads."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["LoggedRequest", "RequestLog"]


@dataclass(frozen=True, slots=True)
class LoggedRequest:
    """One request; times are on one clock for all requests of a run, which need not be that of this machine.

    Attributes:
        due_ns: when it was due, or sent if the client does not say when it was due.
        sent_ns: when it was sent.
        end_ns: when its answer ended, or when it failed.
        chunks_ns: arrivals of the chunks with content, ascending; empty if the answer was no stream.
        input_tokens: tokens of the request, -1 if not known.
        output_tokens: tokens of the answer, -1 if not known.
        outcome: HTTP status, or a negative code of :class:`pytest_mlpatterns.records.outcomes.Failure`.
        error: what the client says of a failed request; empty if it succeeded.
    """

    due_ns: int
    sent_ns: int
    end_ns: int
    chunks_ns: tuple[int, ...] = ()
    input_tokens: int = -1
    output_tokens: int = -1
    outcome: int = 200
    error: str = ""


@dataclass(frozen=True, slots=True)
class RequestLog:
    """One run of another client.

    Attributes:
        client: its name.
        requests: at least one.
        load: as set-ups write it, such as ``closed(8)``.
        model: name of the model; empty if the log does not name it.
    """

    client: str
    requests: tuple[LoggedRequest, ...]
    load: str
    model: str = ""
