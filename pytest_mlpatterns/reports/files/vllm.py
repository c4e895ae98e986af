"""Results in the format of ``vllm bench serve --save-result``, and its files with ``--save-detailed`` read.

Several tests become one object a line, as ``--append-result`` writes several runs. What vLLM counts from the moment of
sending counts from the due time here. The result file holds no times of all requests, so that the lists of
``--save-detailed`` are not written. Text ↔ values.

Source of the fields: ``vllm/benchmarks/serve.py`` of vLLM 0.1x (2026).
"""

from __future__ import annotations

import json
import math
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from pytest_mlpatterns.errors import ResultFileError
from pytest_mlpatterns.records.json_text import Schema, parsed
from pytest_mlpatterns.records.latency import interpolated
from pytest_mlpatterns.records.outcomes import Failure
from pytest_mlpatterns.records.request_log import LoggedRequest, RequestLog, fault_of_times

if TYPE_CHECKING:
    from pytest_mlpatterns.records.latency import Latency
    from pytest_mlpatterns.records.result import TestResult
    from pytest_mlpatterns.reports.files.result_file import Results

__all__ = ["read_vllm", "vllm_json"]

_NS_PER_MS = 1e6
_NS_PER_S = 1e9
_PERCENT = 99
_TIME = {"type": "number", "minimum": 0, "maximum": 1e9}
_TIMES = {"type": "array", "items": _TIME}
_LENGTHS = {"type": "array", "items": {"type": "integer", "minimum": 0, "maximum": 2**31 - 1}}
_SCHEMA: dict[str, Any] = {
    "type": "object",
    "required": ["ttfts", "itls", "start_times", "output_lens", "input_lens", "errors"],
    "properties": {
        "model_id": {"type": ["string", "null"]},
        "max_concurrency": {"type": ["integer", "null"], "minimum": 1, "maximum": 10**9},
        "request_rate": {"type": ["number", "string"]},
        "ttfts": {**_TIMES, "minItems": 1},
        "itls": {"type": "array", "items": _TIMES},
        "latencies": _TIMES,
        "start_times": _TIMES,
        "output_lens": _LENGTHS,
        "input_lens": _LENGTHS,
        "errors": {"type": "array", "items": {"type": ["string", "null"]}},
    },
}


def vllm_json(results: Results) -> str:
    """The text of a file with the tests whose answers stream, one object a line.

    Raises:
        ResultFileError: there is no such test.
    """
    runs = [_run(result, results.date) for result in results.results if result.stream and result.latency]
    if not runs:
        raise ResultFileError("has no test whose answers stream, which vLLM's format is for; export another format")
    return "".join(f"{json.dumps(run)}\n" for run in runs)


def read_vllm(text: str) -> RequestLog:
    """Read the requests of one run.

    Raises:
        ResultFileError: it is damaged, has no times of its requests, or times that are days apart.
    """
    try:
        data = parsed(text)
    except ValueError as error:
        raise ResultFileError(
            f"is no result of vllm bench serve: {error}; name a file with one run, which --save-result wrote"
        ) from error
    if not isinstance(data, dict) or "request_throughput" not in data:
        raise ResultFileError("is no result of vllm bench serve; name a file that its --save-result wrote")
    if "ttfts" not in data or "start_times" not in data:
        raise ResultFileError("has no times of its requests; run vllm bench serve with --save-result --save-detailed")
    if fault := Schema(_SCHEMA).fault(data):
        raise ResultFileError(f"is damaged: {fault}; run vllm bench serve again")
    columns = ["ttfts", "itls", "start_times", "output_lens", "input_lens", "errors"]
    if len({len(data[name]) for name in columns}) > 1:
        raise ResultFileError(f"is damaged: {', '.join(columns)} have different lengths; run vllm bench serve again")
    concurrency = data.get("max_concurrency")
    rate = data.get("request_rate", "inf")
    paced = isinstance(rate, int | float) and math.isfinite(rate)
    load = f"poisson({rate:g}/s)" if paced else f"closed({concurrency or len(data['ttfts'])})"
    requests = tuple(_request(data, row) for row in range(len(data["ttfts"])))
    if fault := fault_of_times(requests, "start_times[{}]".format):
        raise ResultFileError(f"is damaged: {fault}; run vllm bench serve again")
    return RequestLog("vllm", requests, load, data.get("model_id") or "")


def _request(data: dict[str, Any], row: int) -> LoggedRequest:
    start_s, error = data["start_times"][row], data["errors"][row] or ""
    start_ns = round(start_s * _NS_PER_S)
    if error:
        return LoggedRequest(start_ns, start_ns, start_ns + 1, outcome=Failure.CLOSED, error=error)
    after_s = list(accumulate([data["ttfts"][row], *data["itls"][row]]))
    chunks_ns = tuple(round((start_s + after) * _NS_PER_S) for after in after_s)
    lasted_s = data["latencies"][row] if "latencies" in data and row < len(data["latencies"]) else after_s[-1]
    return LoggedRequest(
        due_ns=start_ns,
        sent_ns=start_ns,
        end_ns=max(round((start_s + lasted_s) * _NS_PER_S), chunks_ns[-1]),
        chunks_ns=chunks_ns,
        input_tokens=data["input_lens"][row],
        output_tokens=data["output_lens"][row],
    )


def _run(result: TestResult, date: str) -> dict[str, Any]:
    assert result.stream is not None
    assert result.latency is not None
    completed = sum(result.latency.histogram.counts)
    rate = result.metrics.get("throughput", (0.0, 0.0, 0.0))[0]
    seconds = completed / rate if rate else 0.0
    inputs, outputs = (
        round(completed * found[0]) if found else 0
        for found in (result.stream.input_tokens, result.stream.output_tokens)
    )
    load = result.setup.load
    times = {"ttft": result.stream.ttft, "tpot": result.stream.tpot, "itl": result.stream.itl, "e2el": result.latency}
    return {
        "date": date,
        "endpoint_type": "openai",
        "backend": "openai",
        "label": result.test,
        "model_id": result.setup.model or str(result.setup.pattern),
        "tokenizer_id": None,
        "num_prompts": result.requests,
        "request_rate": rate if load.paced and rate else "inf",
        "burstiness": 1.0,
        "max_concurrency": load.in_flight,
        "duration": seconds,
        "completed": completed,
        "failed": sum(result.failed_requests.values()),
        "total_input_tokens": inputs,
        "total_output_tokens": outputs,
        "request_throughput": rate,
        "request_goodput": None,
        "output_throughput": outputs / seconds if seconds else 0.0,
        "total_token_throughput": (inputs + outputs) / seconds if seconds else 0.0,
        **{key: value for name, found in times.items() if found for key, value in _statistics(name, found).items()},
    }


def _statistics(name: str, found: Latency) -> dict[str, float]:
    return {
        f"mean_{name}_ms": found.mean_ns / _NS_PER_MS,
        f"median_{name}_ms": interpolated(found.percentiles, 50) / _NS_PER_MS,
        f"std_{name}_ms": found.sd_ns / _NS_PER_MS,
        f"p{_PERCENT}_{name}_ms": interpolated(found.percentiles, _PERCENT) / _NS_PER_MS,
    }
