"""What vLLM's benchmark and AIPerf write, made by hand after their real files."""

from __future__ import annotations

import json
from typing import Any

from support.synthetic import MS

__all__ = ["aiperf_line", "lines", "vllm_run"]

BEGUN_NS = 1_795_676_810_000_000_000


def vllm_run(**changes: object) -> dict[str, Any]:
    """A run of four requests, one of which failed, as ``--save-result --save-detailed`` writes it."""
    return {
        "date": "20261126-070000",
        "backend": "openai-chat",
        "model_id": "smollm2",
        "num_prompts": 4,
        "request_rate": "inf",
        "max_concurrency": 2,
        "duration": 0.5,
        "completed": 3,
        "request_throughput": 6.0,
        "input_lens": [5, 5, 5, 5],
        "output_lens": [3, 3, 0, 3],
        "ttfts": [0.1, 0.12, 0.0, 0.11],
        "itls": [[0.02, 0.02], [0.03, 0.01], [], [0.02, 0.02]],
        "start_times": [100.0, 100.0, 100.1, 100.2],
        "generated_texts": ["a b c", "a b c", "", "a b c"],
        "errors": ["", "", "Bad Request", ""],
        **changes,
    }


def aiperf_line(number: int = 0, **changes: Any) -> dict[str, Any]:
    """A line of profile_export.jsonl: sent 3 ms after it was due, first token 50 ms later, two more every 5 ms."""
    due_ns = BEGUN_NS + number * 100 * MS
    metadata = {
        "session_num": number,
        "credit_issued_ns": due_ns,
        "request_start_ns": due_ns + 3 * MS,
        "request_ack_ns": due_ns + 50 * MS,
        "request_end_ns": due_ns + 64 * MS,
        "worker_id": "worker_1",
        "record_processor_id": "record_processor_1",
        "benchmark_phase": "profiling",
        "was_cancelled": False,
    }
    metrics = {
        "time_to_first_token": {"value": 50.0, "unit": "ms"},
        "inter_chunk_latency": {"value": [5.0, 5.0], "unit": "ms"},
        "request_latency": {"value": 60.0, "unit": "ms"},
        "output_sequence_length": {"value": 3, "unit": "tokens"},
        "input_sequence_length": {"value": 7, "unit": "tokens"},
    }
    line = {"metadata": metadata | changes.pop("metadata", {}), "metrics": changes.pop("metrics", metrics)}
    return {**line, **changes}


def lines(*rows: dict[str, Any]) -> str:
    return "".join(f"{json.dumps(row)}\n" for row in rows)
