"""What our generator, AIPerf and GuideLLM report of streams, beside the record of the server that sent them: the truth.

The server sends the first token after 100 ms and 49 more every 10 ms. It and the client have a core each, so the
figures mean something on an idle machine with two cores or more. The inter-token latency is the mean of all gaps
between chunks. Other clients count the time to the first token from when they send, we from when the request is due.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench import Claim, Table, our_generator
from stream_clients import CLIENTS, prompts
from streams import Wanted, drive_streams, recording_server, sent_figures

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stream_clients import Client

CLAIM = (
    "every token is counted; against the server's record, the median TTFT is within 0.3, 0.5 and 1.0 ms at 1, 16 and "
    "64 streams, and the mean inter-token latency within 0.5 %"
)
PATH = "/v1/chat/completions"
WANTED = Wanted(max_tokens=50, first_ms=100, gap_ms=10)
WITHIN_MS = {1: 0.3, 16: 0.5, 64: 1.0, 256: None}
"""How near the median TTFT must be, in milliseconds, by streams."""
ITL_WITHIN = 0.005
SECONDS = 6
OTHERS_REQUESTS = {1: 10, 16: 160, 64: 640}
"""Requests of the other clients, by streams: some six seconds of them."""


def measure() -> Iterator[Table]:
    rows, claims = [], []
    with our_generator() as generator:
        for streams, within_ms in WITHIN_MS.items():
            with recording_server(WANTED) as server:
                load = drive_streams(generator, server, PATH, streams=streams, seconds=SECONDS)
                sent = sent_figures(server.stop())
            ours = load.figures
            apart_ms = (ours.ttft_ns - sent.ttft_ns) / 1e6
            rows.append(
                (
                    str(streams),
                    f"{ours.requests:,}",
                    f"{ours.ttft_ns / 1e6:.2f}",
                    f"{sent.ttft_ns / 1e6:.2f}",
                    f"{ours.itl_ns / 1e6:.3f}",
                    f"{sent.itl_ns / 1e6:.3f}",
                    f"{100 * load.report.core_share:.0f} %",
                )
            )
            claims.append(
                Claim(f"{streams} streams: requests, against the server", ours.requests / sent.requests, 1, 1)
            )
            if within_ms is not None:
                ratio = ours.itl_ns / sent.itl_ns
                claims.append(Claim(f"{streams} streams: median TTFT, ms beyond the server's", apart_ms, within_ms, 0))
                claims.append(
                    Claim(f"{streams} streams: mean ITL, against the server's", ratio, 1 + ITL_WITHIN, 1 - ITL_WITHIN)
                )
    headings = ("streams", "requests", "TTFT ms", "the server's", "ITL ms", "the server's", "generator's core")
    yield Table("median time to first token and mean inter-token latency", headings, rows, claims)
    yield other_clients()


def other_clients() -> Table:
    """What other clients report of the same server."""
    rows, notes = [], []
    for client in CLIENTS:
        try:
            python = client.install()
        except RuntimeError as error:
            notes.append(f"{client.name} could not be installed: {str(error).splitlines()[-1]}")
            continue
        rows += [other_client(client, python, streams) for streams in OTHERS_REQUESTS]
    headings = ("client", "streams", "requests", "TTFT ms", "the server's", "ITL ms", "the server's")
    return Table("the same of other clients", headings, rows, notes=notes)


def other_client(client: Client, python: str, streams: int) -> tuple[str, ...]:
    """One row: a client at so many streams."""
    asked = prompts(OTHERS_REQUESTS[streams], WANTED.max_tokens)
    with recording_server(WANTED) as server:
        found = client.run(python, f"http://127.0.0.1:{server.port}", asked, streams=streams)
        record = [one for one in server.stop() if len(one.chunk_ns) == WANTED.max_tokens]
    sent = sent_figures(record)
    return (
        client.name,
        str(streams),
        f"{found.requests - found.failed:,}",
        f"{found.ttft_ms:.2f}",
        f"{sent.ttft_ns / 1e6:.2f}",
        f"{found.itl_ms:.3f}",
        f"{sent.itl_ns / 1e6:.3f}",
    )
