"""AIPerf and GuideLLM as clients: installed into environments of their own, run unmodified, and what they report.

Their prompts are files of ours and their tokenizer is a folder that is made here, so that they need no network.
"""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, median
from typing import TYPE_CHECKING, Any

from bench import on_client_core, run_child
from environments import python_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

__all__ = ["CLIENTS", "Client", "ClientReport", "ClientRun", "Prompt", "prompts"]

FILES = Path(__file__).resolve().parent / "clients"
RUN_S = 240.0


@dataclass(frozen=True)
class Prompt:
    """A chat of one message, whose words are tokens, and how many tokens its answer has."""

    words: tuple[str, ...]
    output_tokens: int

    @property
    def text(self) -> str:
        return " ".join(self.words)


@dataclass(frozen=True)
class ClientRun:
    """One run of a client: the server's address, the folder of its files, streams at the same time, and requests."""

    url: str
    folder: Path
    streams: int
    requests: int


@dataclass(frozen=True)
class ClientReport:
    """What a client says of one run; tokens in no order, times over all requests.

    ``answers`` are the texts of the answers; empty if the client does not keep them.
    """

    requests: int
    failed: int
    input_tokens: tuple[int, ...]
    output_tokens: tuple[int, ...]
    ttft_ms: float
    itl_ms: float
    answers: tuple[str, ...] = ()


@dataclass(frozen=True)
class Client:
    """A public load generator.

    Attributes:
        name: of its package and its command.
        command: its arguments.
        report: reads what it wrote to that folder.
    """

    name: str
    command: Callable[[ClientRun], Sequence[str]]
    report: Callable[[Path], ClientReport]

    def install(self) -> str:
        """The Python of its environment.

        Raises:
            RuntimeError: it cannot be installed.
        """
        return python_of(self.name, FILES / f"{self.name}.txt")

    def run(self, python: str, url: str, asked: Sequence[Prompt], *, streams: int) -> ClientReport:
        """Run it with so many streams at the same time, until each prompt was answered once.

        Raises:
            RuntimeError: it failed; with what it printed.
        """
        with tempfile.TemporaryDirectory() as name, on_client_core():
            folder = Path(name)
            run_child([python, str(FILES / "make_tokenizer.py"), str(folder / "tokenizer")], directory=folder)
            _write_prompts(folder, asked)
            command = [
                str(Path(python).with_name(self.name)),
                *self.command(ClientRun(url, folder, streams, len(asked))),
            ]
            run_child(command, directory=folder, timeout_s=RUN_S, environment={"HOME": name})
            return self.report(folder)


def prompts(count: int, output_tokens: int) -> list[Prompt]:
    """Prompts of 3 to 9 words."""
    return [Prompt(tuple(f"word{word}" for word in range(3 + number % 7)), output_tokens) for number in range(count)]


def _write_prompts(folder: Path, asked: Sequence[Prompt]) -> None:
    rows: dict[str, list[dict[str, Any]]] = {
        "aiperf.jsonl": [{"text": one.text, "output_length": one.output_tokens} for one in asked],
        "guidellm.jsonl": [
            {"prompt": one.text, "prompt_tokens_count": len(one.words), "output_tokens_count": one.output_tokens}
            for one in asked
        ],
    }
    for name, lines in rows.items():
        (folder / name).write_text("".join(f"{json.dumps(line)}\n" for line in lines), encoding="utf-8")


# --- AIPerf ---------------------------------------------------------------------------------------------------------


def _aiperf(run: ClientRun) -> Sequence[str]:
    folder = run.folder
    files = ("--tokenizer", str(folder / "tokenizer"), "--input-file", str(folder / "aiperf.jsonl"))
    load = ("--concurrency", str(run.streams), "--request-count", str(run.requests))
    return (
        *("profile", "--model", "model", "--url", run.url, "--endpoint-type", "chat", "--streaming"),
        *files,
        *("--custom-dataset-type", "single_turn"),
        *load,
        *("--ui", "none", "--artifact-dir", str(folder / "out")),
    )


def _aiperf_report(folder: Path) -> ClientReport:
    text = (folder / "out" / "profile_export.jsonl").read_text(encoding="utf-8")
    rows = [json.loads(line) for line in text.splitlines()]
    good = [row["metrics"] for row in rows if not row.get("error")]

    def values(name: str) -> Iterator[Any]:
        return (one[name]["value"] for one in good if name in one)

    return ClientReport(
        requests=len(rows),
        failed=len(rows) - len(good),
        input_tokens=tuple(values("input_sequence_length")),
        output_tokens=tuple(values("output_sequence_length")),
        ttft_ms=median(values("time_to_first_token")),
        itl_ms=fmean(gap for gaps in values("inter_chunk_latency") for gap in gaps),
    )


# --- GuideLLM -------------------------------------------------------------------------------------------------------


def _guidellm(run: ClientRun) -> Sequence[str]:
    folder = run.folder
    return (
        *("run", "--backend", f"kind=openai_http,target={run.url},model=model"),
        *(
            "--profile",
            f"kind=concurrent,streams={run.streams}",
            "--constraint",
            f"kind=max_requests,count={run.requests}",
        ),
        *("--data", f"kind=json_file,path={folder / 'guidellm.jsonl'}"),
        *("--tokenizer", f"kind=huggingface_auto,model={folder / 'tokenizer'}"),
        *("--output", f"kind=json,path={folder / 'out.json'}", "--disable-console"),
    )


def _guidellm_report(folder: Path) -> ClientReport:
    (run,) = json.loads((folder / "out.json").read_text(encoding="utf-8"))["benchmarks"]
    good, bad = run["requests"]["successful"], run["requests"]["errored"]
    timings = [one["info"]["timings"] for one in good]
    first = [one["first_token_iteration"] - one["request_start"] for one in timings]
    gaps = [one["last_token_iteration"] - one["first_token_iteration"] for one in timings]
    return ClientReport(
        requests=len(good) + len(bad),
        failed=len(bad),
        input_tokens=tuple(one["input_metrics"]["text_tokens"] for one in good),
        output_tokens=tuple(one["output_metrics"]["text_tokens"] for one in good),
        ttft_ms=1e3 * median(first),
        itl_ms=1e3 * sum(gaps) / sum(one["token_iterations"] - 1 for one in timings),
        answers=tuple(one["output"] for one in good),
    )


CLIENTS = (Client("aiperf", _aiperf, _aiperf_report), Client("guidellm", _guidellm, _guidellm_report))
"""vLLM's bench is absent: its package, which needs PyTorch and CUDA, has 5 GB."""
