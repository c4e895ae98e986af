"""Files of vLLM's benchmark and of AIPerf: read into results, and written from them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from support.other_clients import aiperf_line, lines, vllm_run
from support.streams import stream_result
from support.synthetic import ENVIRONMENT, MS, result

from pytest_mlpatterns.analysis.metrics.blocks import MOST_BLOCKS
from pytest_mlpatterns.cli import main
from pytest_mlpatterns.errors import ResultFileError
from pytest_mlpatterns.judging.imported_result import imported_result
from pytest_mlpatterns.reports.files.aiperf import aiperf_jsonl, read_aiperf
from pytest_mlpatterns.reports.files.result_file import Results, read_results, results_json
from pytest_mlpatterns.reports.files.vllm import read_vllm, vllm_json

if TYPE_CHECKING:
    from pathlib import Path

STREAMS = Results((stream_result(), result()), ENVIRONMENT, "2026-11-26T07:00:00+00:00", {})
"""A test whose answers stream, and one whose answers do not."""


# --- read -----------------------------------------------------------------------------------------------------------


def test_a_run_of_vllm_gives_the_metrics_that_it_measured() -> None:
    log = read_vllm(json.dumps(vllm_run()))
    assert (log.load, log.model) == ("closed(2)", "smollm2")
    found = imported_result(log, "run")
    assert found.metrics["output_tokens"][0] > 0
    assert found.stream is not None
    assert found.stream.ttft is not None
    assert dict(found.stream.ttft.percentiles)[50.0] == pytest.approx(110 * MS)
    assert found.stream.tpot is not None
    assert found.stream.tpot.mean_ns == pytest.approx(20 * MS)
    assert found.stream.output_tokens is not None
    assert found.stream.output_tokens[0] == 3
    assert found.stream.input_tokens is not None
    assert found.stream.input_tokens[0] == 5
    assert (found.requests, dict(found.failed_requests), found.first_failure) == (4, {"-3": 1}, "Bad Request")


def test_a_paced_run_of_vllm_is_a_load_with_that_rate_and_ends_when_vllm_says() -> None:
    log = read_vllm(json.dumps(vllm_run(request_rate=2.5, latencies=[0.15, 0.16, 0.0, 0.15])))
    assert log.load == "poisson(2.5/s)"
    assert log.requests[0].end_ns == 100_150_000_000
    assert log.requests[0].chunks_ns == (100_100_000_000, 100_120_000_000, 100_140_000_000)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{}", "is no result of vllm bench serve; name a file"),
        ("{}\n{}", "is no result of vllm bench serve: Extra data"),
        (json.dumps({"request_throughput": 1.0}), "has no times of its requests; run .* --save-detailed"),
        (json.dumps(vllm_run(ttfts=["soon"])), "is damaged: ttfts"),
        (json.dumps(vllm_run(ttfts=[0.1])), "have different lengths"),
    ],
)
def test_a_file_that_is_no_run_of_vllm_is_told(text: str, words: str) -> None:
    with pytest.raises(ResultFileError, match=words):
        read_vllm(text)


def test_requests_of_aiperf_count_from_when_they_were_due_and_its_warmup_is_left_out() -> None:
    warmup = aiperf_line(0, metadata={"benchmark_phase": "warmup"})
    log = read_aiperf(lines(warmup, aiperf_line(1), aiperf_line(2)) + "\n")
    assert log.load == "closed(1)"
    found = imported_result(log, "run")
    assert found.requests == 2
    assert found.stream is not None
    assert found.stream.ttft is not None
    assert found.stream.ttft.mean_ns == pytest.approx(53 * MS)
    assert found.stream.tpot is not None
    assert found.stream.tpot.mean_ns == pytest.approx(5 * MS)
    assert found.latency is not None
    assert found.latency.mean_ns == pytest.approx(64 * MS)
    assert "request_bytes" not in found.metrics


def test_failed_and_cancelled_requests_of_aiperf_are_told_apart() -> None:
    failed = aiperf_line(1, metrics={}, error={"code": 503, "type": "HTTPError", "message": "overloaded"})
    lost = aiperf_line(2, metrics={}, error={"code": None, "type": None, "message": ""})
    cancelled = aiperf_line(3, metrics={}, metadata={"was_cancelled": True})
    found = imported_result(read_aiperf(lines(aiperf_line(), failed, lost, cancelled)), "run")
    assert dict(found.failed_requests) == {"503": 1, "-3": 1}
    assert found.first_failure == "HTTPError: overloaded"
    assert (found.requests, found.cancelled_requests) == (3, 1)


def test_answers_of_aiperf_that_do_not_stream_have_latencies_only() -> None:
    whole = {"request_latency": {"value": 60.0, "unit": "ms"}}
    many = [aiperf_line(number, metrics=whole) for number in range(20)]
    found = imported_result(read_aiperf(lines(*many)), "run")
    assert found.stream is None
    assert found.metrics["rtm"][0] == pytest.approx(64 * MS)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "has no request; run aiperf profile again"),
        ("session,latency\n1,2\n", "line 1: Expecting value"),
        ('{"metadata": {}, "metrics": {}}', "line 1: metadata"),
        ('{"request_throughput": {"avg": 1}}', "name the file with one request a line"),
    ],
)
def test_a_file_that_has_no_requests_of_aiperf_is_told(text: str, words: str) -> None:
    with pytest.raises(ResultFileError, match=words):
        read_aiperf(text)


DAY_S = 86_400


@pytest.mark.parametrize(
    ("changes", "row", "seconds"),
    [
        ({"start_times": [100.0, 100.0, 1e6, 100.2]}, 2, "999,900"),
        ({"start_times": [1e9, 100.0, 100.1, 100.2]}, 0, "999,999,900"),
        ({"ttfts": [0.1, 0.12, 0.0, 1e9]}, 3, "1,000,000,000"),
        ({"itls": [[0.02, 0.02], [1e9] * 20, [], [0.02]]}, 1, "20,000,000,000"),
        ({"latencies": [0.2, 1e8, 0.0, 0.2]}, 1, "100,000,000"),
    ],
)
def test_times_of_vllm_that_are_days_apart_are_refused_with_their_place(
    changes: dict[str, Any], row: int, seconds: str
) -> None:
    words = rf"is damaged: start_times\[{row}\]: with this request the run takes {seconds} s, expected 86,400 s"
    with pytest.raises(ResultFileError, match=words):
        read_vllm(json.dumps(vllm_run(**changes)))


@pytest.mark.parametrize(
    ("name", "moved_ns"),
    [
        ("credit_issued_ns", -(10**15)),
        ("request_start_ns", -(10**15)),
        ("request_start_ns", 10**15),
        ("request_end_ns", 10**15),
        ("request_end_ns", 10**18),
    ],
)
def test_times_of_aiperf_that_are_days_apart_are_refused_with_their_line(name: str, moved_ns: int) -> None:
    rows = [aiperf_line(0, metadata={"benchmark_phase": "warmup"}), *map(aiperf_line, range(1, 9))]
    rows[5]["metadata"][name] += moved_ns
    with pytest.raises(ResultFileError, match=r"is damaged: line 6: with this request the run takes .* at most; run"):
        read_aiperf(lines(*rows))


def test_a_run_of_a_day_is_read_in_blocks_that_fit_memory() -> None:
    names = ("input_lens", "output_lens", "ttfts", "itls", "generated_texts", "errors")
    run = vllm_run()
    columns = {name: run[name][:1] * (MOST_BLOCKS + 1) for name in names}
    starts = [number * (DAY_S - 1.0) / MOST_BLOCKS for number in range(MOST_BLOCKS + 1)]
    found = imported_result(read_vllm(json.dumps({**run, **columns, "start_times": starts})), "run")
    assert found.requests == MOST_BLOCKS + 1
    assert found.blocks == MOST_BLOCKS


# --- written --------------------------------------------------------------------------------------------------------


def test_statistics_of_streams_are_written_as_vllm_names_them() -> None:
    (line,) = vllm_json(STREAMS).splitlines()
    data = json.loads(line)
    (streamed, _) = STREAMS.results
    assert streamed.stream is not None
    assert streamed.stream.ttft is not None
    assert data["mean_ttft_ms"] == pytest.approx(streamed.stream.ttft.mean_ns / MS)
    assert data["median_ttft_ms"] == pytest.approx(dict(streamed.stream.ttft.percentiles)[50.0] / MS)
    names = ("ttft", "tpot", "itl", "e2el")
    statistics = {f"{what}_{name}_ms" for name in names for what in ("mean", "median", "std", "p99")}
    assert statistics <= data.keys()
    assert (data["label"], data["failed"], data["request_rate"]) == (streamed.test, 4, data["request_throughput"])
    assert data["output_throughput"] * data["duration"] == pytest.approx(data["total_output_tokens"])


def test_requests_that_are_written_as_aiperf_does_are_read_back() -> None:
    text = aiperf_jsonl(STREAMS)
    assert STREAMS.results[0].stream is not None
    kept = STREAMS.results[0].stream.requests
    log = read_aiperf(text)
    assert [one.end_ns - one.due_ns for one in log.requests] == [one.end_ns for one in kept]
    whole = [(read, one) for read, one in zip(log.requests, kept, strict=True) if one.chunks == len(one.chunks_ns)]
    assert all(len(read.chunks_ns) == one.chunks for read, one in whole if 200 <= one.outcome < 300)
    assert [read.outcome for read in log.requests] == [one.outcome for one in kept]
    first = json.loads(text.splitlines()[0])["metrics"]
    assert first["inter_token_latency"]["unit"] == "ms"


@pytest.mark.parametrize("write", [vllm_json, aiperf_jsonl])
def test_results_without_streams_are_not_written_in_formats_of_streams(write: Any) -> None:
    with pytest.raises(ResultFileError, match="has no test whose answers stream"):
        write(Results((result(),), ENVIRONMENT, "today", {}))


# --- the command line -----------------------------------------------------------------------------------------------


def test_runs_of_several_files_are_ranked_beside_each_other(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for folder, ttft_s in (("small", 0.1), ("large", 0.4)):
        (tmp_path / folder).mkdir()
        run = vllm_run(
            ttfts=[ttft_s] * 20,
            itls=[[0.02, 0.02]] * 20,
            start_times=[100 + 0.2 * number for number in range(20)],
            input_lens=[5] * 20,
            output_lens=[3] * 20,
            errors=[""] * 20,
        )
        (tmp_path / folder / "run.json").write_text(json.dumps(run), encoding="utf-8")
    files = [str(tmp_path / folder / "run.json") for folder in ("small", "large")]
    out = tmp_path / "results.json"
    assert main(["import", "--format", "vllm", *files, "-o", str(out)]) == 0
    stored = read_results(out.read_text(encoding="utf-8"))
    assert [str(one.setup.pattern) for one in stored.results] == ["small/run", "large/run"]
    assert main(["rank", str(out), "ttft=1"]) == 0
    assert "small/run first" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    ("format_", "words"), [("vllm", "is no result of vllm bench serve"), ("aiperf", "has no request")]
)
def test_a_wrong_file_is_told_in_one_line_with_its_name(
    format_: str, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "other.json"
    file.write_text("", encoding="utf-8")
    assert main(["import", "--format", format_, str(file)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"ERROR: {file} {words}")


def test_an_export_says_which_file_it_does_not_fit(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "results.json"
    file.write_text(results_json([result()], ENVIRONMENT, "2026-11-24", baseline={}), encoding="utf-8")
    assert main(["export", "--format", "vllm", str(file)]) == 2
    assert capsys.readouterr().err.startswith(f"ERROR: {file} has no test whose answers stream")
