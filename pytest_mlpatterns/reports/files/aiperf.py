"""Requests in the format of AIPerf's ``profile_export.jsonl``, one object a line, written and read. Text ↔ values.

A result file holds some neighbouring requests of each test, not all: these are written. AIPerf counts from the moment
of sending, we from the due time, which AIPerf calls ``credit_issued_ns``; so a request that was sent late is as late in
what is read here as it is in our own loads.

Source of the fields: ``MetricRecordInfo`` of AIPerf 0.13.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, Any

from pytest_mlpatterns.errors import ResultFileError
from pytest_mlpatterns.records.json_text import Schema, parsed
from pytest_mlpatterns.records.outcomes import Failure, describe_outcome
from pytest_mlpatterns.records.request_log import LoggedRequest, RequestLog, fault_of_times

if TYPE_CHECKING:
    from pytest_mlpatterns.records.stream_record import StreamedRequest
    from pytest_mlpatterns.reports.files.result_file import Results

__all__ = ["aiperf_jsonl", "read_aiperf"]

_NS_PER_MS = 1e6
_MOMENT = {"type": "integer", "minimum": 0, "maximum": 2**62}
_MS = {"type": "number", "minimum": 0, "maximum": 1e12}
_TOKENS = {"type": "number", "minimum": 0, "maximum": 2**31 - 1}


def _metric(value: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "required": ["value"], "properties": {"value": value}}


_SCHEMA: dict[str, Any] = {
    "type": "object",
    "required": ["metadata", "metrics"],
    "properties": {
        "metadata": {
            "type": "object",
            "required": ["request_start_ns", "request_end_ns"],
            "properties": {
                "credit_issued_ns": {**_MOMENT, "type": ["integer", "null"]},
                "request_start_ns": _MOMENT,
                "request_end_ns": _MOMENT,
                "benchmark_phase": {"type": "string"},
                "was_cancelled": {"type": "boolean"},
            },
        },
        "metrics": {
            "type": "object",
            "properties": {
                "time_to_first_token": _metric(_MS),
                "request_latency": _metric(_MS),
                "inter_chunk_latency": _metric({"type": "array", "items": _MS}),
                "input_sequence_length": _metric(_TOKENS),
                "output_sequence_length": _metric(_TOKENS),
            },
        },
        "error": {
            "type": ["object", "null"],
            "properties": {
                "code": {"type": ["integer", "null"]},
                "type": {"type": ["string", "null"]},
                "message": {"type": ["string", "null"]},
            },
        },
    },
}


def aiperf_jsonl(results: Results) -> str:
    """The text of a file with the requests that the result file holds of every test whose answers stream.

    Raises:
        ResultFileError: there is no such test.
    """
    begun_ns = _unix_ns(results.date)
    lines = [
        json.dumps(_record(request, {"session_num": number, "conversation_id": result.test}, begun_ns))
        for result in results.results
        if result.stream is not None
        for number, request in enumerate(result.stream.requests)
    ]
    if not lines:
        raise ResultFileError("has no test whose answers stream, which AIPerf's format is for; export another format")
    return "".join(f"{line}\n" for line in lines)


def read_aiperf(text: str) -> RequestLog:
    """Read the requests of one run, without those of its warm-up.

    Raises:
        ResultFileError: it is damaged, another file of AIPerf, or has times that are days apart.
    """
    schema, found, rows = Schema(_SCHEMA), [], []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        try:
            data = parsed(line)
        except ValueError as error:
            raise ResultFileError(
                f"is no profile_export.jsonl of AIPerf: line {number}: {error}; name the file with one request a line"
            ) from error
        if fault := schema.fault(data):
            raise ResultFileError(
                f"is no profile_export.jsonl of AIPerf: line {number}: {fault}; name the file with one request a line"
            )
        if data["metadata"].get("benchmark_phase") != "warmup":
            found.append(_request(data))
            rows.append(number)
    if not found:
        raise ResultFileError("has no request; run aiperf profile again")
    if fault := fault_of_times(found, lambda request: f"line {rows[request]}"):
        raise ResultFileError(f"is damaged: {fault}; run aiperf profile again")
    begun = sorted([(one.sent_ns, 1) for one in found] + [(one.end_ns, -1) for one in found])
    most = max(accumulate(step for _, step in begun))
    return RequestLog("aiperf", tuple(found), f"closed({max(most, 1)})")


def _request(data: dict[str, Any]) -> LoggedRequest:
    metadata, metrics, error = data["metadata"], data["metrics"], data.get("error")
    sent_ns, end_ns = metadata["request_start_ns"], metadata["request_end_ns"]
    due_ns = min(metadata.get("credit_issued_ns") or sent_ns, sent_ns)
    if metadata.get("was_cancelled"):
        return LoggedRequest(due_ns, sent_ns, max(end_ns, sent_ns), outcome=Failure.CANCELLED)
    if error is not None:
        words = ": ".join(str(error[name]) for name in ("type", "message") if error.get(name))
        code = error.get("code")
        outcome = code if isinstance(code, int) and 300 <= code < 600 else Failure.CLOSED
        return LoggedRequest(due_ns, sent_ns, max(end_ns, sent_ns), outcome=outcome, error=words or "failed")
    first_ms = _value(metrics, "time_to_first_token")
    gaps_ms = _value(metrics, "inter_chunk_latency") or []
    after_ms = [] if first_ms is None else list(accumulate([first_ms, *gaps_ms]))
    chunks_ns = tuple(sent_ns + round(after * _NS_PER_MS) for after in after_ms)
    return LoggedRequest(
        due_ns=due_ns,
        sent_ns=sent_ns,
        end_ns=max(end_ns, sent_ns, *chunks_ns),
        chunks_ns=chunks_ns,
        input_tokens=round(_value(metrics, "input_sequence_length", -1)),
        output_tokens=round(_value(metrics, "output_sequence_length", -1)),
    )


def _value(metrics: dict[str, Any], name: str, absent: Any = None) -> Any:
    return metrics[name]["value"] if name in metrics else absent


def _record(request: StreamedRequest, named: dict[str, object], begun_ns: int) -> dict[str, Any]:
    due_ns = begun_ns + request.due_ns
    cancelled = request.outcome == Failure.CANCELLED
    succeeded = 200 <= request.outcome < 300
    metadata = {
        **named,
        "turn_index": 0,
        "credit_issued_ns": due_ns,
        "request_start_ns": due_ns,
        "request_ack_ns": None if request.first_byte_ns is None else due_ns + request.first_byte_ns,
        "request_end_ns": due_ns + request.end_ns,
        "worker_id": "pytest-mlpatterns",
        "record_processor_id": "pytest-mlpatterns",
        "benchmark_phase": "profiling",
        "was_cancelled": cancelled,
        "cancellation_time_ns": due_ns + request.end_ns if cancelled else None,
    }
    error = None
    if not succeeded:
        code = request.outcome if request.outcome > 0 else None
        kind = "RequestCancellationError" if cancelled else "RequestError"
        error = {"code": code, "type": kind, "message": describe_outcome(request.outcome)}
    return {"metadata": metadata, "metrics": _metrics(request) if succeeded else {}, "error": error}


def _metrics(request: StreamedRequest) -> dict[str, Any]:
    arrivals, tokens = request.chunks_ns, request.output_tokens
    found: dict[str, tuple[Any, str]] = {
        "request_latency": (request.end_ns / _NS_PER_MS, "ms"),
        "output_sequence_length": (tokens, "tokens"),
        "output_token_count": (tokens, "tokens"),
    }
    if arrivals:
        found["time_to_first_token"] = (arrivals[0] / _NS_PER_MS, "ms")
    if len(arrivals) >= 2 and tokens >= 2 and arrivals[-1] > arrivals[0]:
        per_token_ms = (arrivals[-1] - arrivals[0]) / (tokens - 1) / _NS_PER_MS
        found["inter_token_latency"] = (per_token_ms, "ms")
        found["output_token_throughput_per_user"] = (1e3 / per_token_ms, "tokens/sec/user")
    if len(arrivals) >= 2 and len(arrivals) == request.chunks:  # else only some arrivals are in the file
        found["inter_chunk_latency"] = ([(after - before) / _NS_PER_MS for before, after in pairwise(arrivals)], "ms")
    return {name: {"value": value, "unit": unit} for name, (value, unit) in found.items()}


def _unix_ns(date: str) -> int:
    """Nanoseconds of a date of a result file since 1970; those of a date that cannot be read are 0."""
    try:
        found = datetime.fromisoformat(date)
    except ValueError:
        return 0
    return round((found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()) * 1_000_000_000
