"""gRPC over one HTTP/2 connection: what is sent as the peer takes it, and how each answer ends.

The dialogue has no socket; the tests are the server, frame by frame. Whole loads against grpcio are in test_grpc_load.
"""

import random
from typing import Any

import hpack
import pytest
from support.each_row import each_row
from support.services import peer2
from support.services.peer2 import answer, block, frames_in, headers, message, refusal, settings, trailers

from pytest_mlpatterns.loadgen import http2 as http2_module
from pytest_mlpatterns.loadgen.http2 import OPENING, HeaderReader, Http2, RequestBlocks
from pytest_mlpatterns.loadgen.http2_frames import (
    ACK,
    END_HEADERS,
    END_STREAM,
    PADDED,
    PREFACE,
    PRIORITY,
    SETTING,
    BrokenProtocolError,
    Frame,
    Outgoing,
    Setting,
    frame,
    unpadded,
)
from pytest_mlpatterns.records.outcomes import Failure, describe_failures

SMALL, LARGE = message(b"x" * 100), message(bytes(range(256)) * 1000)
HTML = block((":status", "200"), ("content-type", "text/html"))
STATUSES = [[("grpc-status", text)] for text in ("0_0", " 0", "000", "-1", "OK", "")]
STATUSES.append([("grpc-status", "13"), ("grpc-status", "0")])
BLOCKS = RequestBlocks.of(("127.0.0.1", 80), "/inference.GRPCInferenceService/ModelInfer")


def protocol(*, keep: bool = True, greeted: bool = True) -> Http2:
    made = Http2((SMALL, LARGE), BLOCKS, HeaderReader(), keep=keep)
    if greeted:
        assert made.take_idle(peer2.SERVER_SETTINGS)
        made.outbox.clear()
    return made


def asked(made: Http2, request: int = 0) -> list[tuple[int, int, int, bytes]]:
    sent = made.ask(request)
    return frames_in(sent if isinstance(sent, bytes) else b"".join(sent))


def said(made: Http2) -> list[tuple[int, int, int, bytes]]:
    """What the dialogue wants sent."""
    found = frames_in(b"".join(made.outbox))
    made.outbox.clear()
    return found


class TestAsking:
    def test_the_opening_is_the_preface_settings_and_a_wide_window(self) -> None:
        assert OPENING.startswith(PREFACE)
        assert protocol().opening() == OPENING
        first, second = frames_in(OPENING)
        assert first[:3] == (Frame.SETTINGS, 0, 0)
        assert [*SETTING.iter_unpack(first[3])] == [(1, 0), (2, 0), (4, 2**31 - 1), (5, 2**24 - 1)]
        assert second == (Frame.WINDOW_UPDATE, 0, 0, (2**31 - 1 - 65_535).to_bytes(4, "big"))

    def test_a_small_request_is_headers_and_data_in_one_piece(self) -> None:
        made = protocol()
        sent = made.ask(0)
        assert isinstance(sent, bytes)
        assert frames_in(sent) == [(Frame.HEADERS, END_HEADERS, 1, BLOCKS.first), (Frame.DATA, END_STREAM, 1, SMALL)]

    def test_every_request_has_a_stream_of_its_own_and_later_ones_short_headers(self) -> None:
        made = protocol()
        for stream in (1, 3, 5):
            head, data = asked(made)
            assert head == (Frame.HEADERS, END_HEADERS, stream, BLOCKS.first if stream == 1 else BLOCKS.later)
            assert data[2] == stream
            assert made.take(answer(stream=stream)) == 200

    @pytest.mark.parametrize("size", [0, 100, 4095])
    def test_a_peer_with_a_small_table_gets_headers_without_one(self, size: int) -> None:
        made = protocol()
        asked(made)
        assert made.take(settings((Setting.TABLE_SIZE, size)) + answer()) == 200
        assert asked(made)[0][3] == BLOCKS.without_table

    @pytest.mark.parametrize("before", [True, False], ids=["before", "under-way"])
    def test_a_peer_that_takes_more_gets_more(self, before: bool) -> None:
        made = protocol()
        wide = settings((Setting.INITIAL_WINDOW, 1 << 20), (Setting.MAX_FRAME, 1 << 20), (Setting.MAX_STREAMS, 1))
        wide += frame(Frame.WINDOW_UPDATE, 0, 0, (1 << 20).to_bytes(4, "big"))
        if before:
            assert made.take_idle(wide)
            assert said(made) == [(Frame.SETTINGS, ACK, 0, b"")]
            assert asked(made, 1)[1:] == [(Frame.DATA, END_STREAM, 1, LARGE)]
        else:
            first = asked(made, 1)[1:]
            assert sum(len(data) for _, _, _, data in first) == 65_535
            assert max(len(data) for _, _, _, data in first) == 16_384
            assert made.take(wide) == 0
            settled, *rest = said(made)
            assert settled == (Frame.SETTINGS, ACK, 0, b"")
            assert b"".join(data for _, _, _, data in [*first, *rest]) == LARGE
            assert len(rest) == 1

    def test_a_window_that_shrinks_below_zero_holds_the_rest_back(self) -> None:
        made = protocol()
        asked(made, 1)
        assert made.take(settings((Setting.INITIAL_WINDOW, 0))) == 0
        assert said(made) == [(Frame.SETTINGS, ACK, 0, b"")]
        both = [frame(Frame.WINDOW_UPDATE, 0, stream, (65_535).to_bytes(4, "big")) for stream in (0, 1)]
        assert made.take(b"".join(both)) == 0
        assert said(made) == []
        assert made.take(frame(Frame.WINDOW_UPDATE, 0, 1, (10).to_bytes(4, "big"))) == 0
        assert [len(data) for _, _, _, data in said(made)] == [10]

    def test_an_answer_before_the_whole_request_is_sent_is_the_last_of_its_connection(self) -> None:
        made = protocol()
        asked(made, 1)
        assert made.take(refusal(8)) == 1008
        assert made.used_up
        assert made.take_idle(frame(Frame.WINDOW_UPDATE, 0, 0, (1 << 20).to_bytes(4, "big"))) is False
        assert said(made) == []

    def test_a_connection_ends_when_its_streams_are_used_up(self) -> None:
        made = protocol()
        made._stream = 2**31 - 7
        asked(made)
        assert not made.used_up
        made.take(answer(stream=2**31 - 5))
        asked(made)
        assert made.used_up


def test_a_body_that_is_too_long_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http2_module, "KEPT_BYTES", 100)
    made = protocol(keep=True)
    asked(made)
    assert made.take(answer(b"y" * 200)) == 200
    assert made.body() == b""


@pytest.mark.parametrize("keep", [False, True], ids=["times-only", "keeping-answers"])
class TestAnswers:
    @pytest.mark.parametrize(
        ("data", "body"),
        [
            (answer(), b"hello"),
            (answer(b""), b""),
            (peer2.SERVER_SETTINGS + answer(), b"hello"),
            (answer(b"y" * 40_000), b"y" * 40_000),
            (
                headers() + b"".join(frame(Frame.DATA, 0, 1, bytes([byte])) for byte in message(b"hello")) + trailers(),
                b"hello",
            ),
            (headers() + frame(Frame.DATA, PADDED, 1, b"\x03" + message(b"hello") + b"\0" * 3) + trailers(), b"hello"),
            (headers() + frame(Frame.DATA, PADDED, 1, b"\x00") + answer(b"hi")[len(headers()) :], b"hi"),
            (headers(1, block((":status", "103"))) + answer(), b"hello"),
            (
                frame(Frame.HEADERS, 0, 1, peer2.HEAD[:3])
                + frame(Frame.CONTINUATION, 0, 1, peer2.HEAD[3:5])
                + frame(Frame.CONTINUATION, END_HEADERS, 1, peer2.HEAD[5:])
                + frame(Frame.DATA, 0, 1, message(b"hello"))
                + trailers(),
                b"hello",
            ),
            (
                headers(1, b"\x02" + b"\0" * 5 + peer2.HEAD + b"\0\0", END_HEADERS | PADDED | PRIORITY)
                + frame(Frame.DATA, 0, 1, message(b"hello"))
                + trailers(),
                b"hello",
            ),
            (frame(0xAA, 0, 7, b"unknown") + frame(Frame.PRIORITY, 0, 1, b"\0" * 5) + answer(), b"hello"),
            (frame(Frame.WINDOW_UPDATE, 0, 1, b"\0\0\0\1") + answer(), b"hello"),
            (answer() + frame(Frame.RST_STREAM, 0, 1, b"\0" * 4), b"hello"),
        ],
        ids=[
            "plain", "empty", "after-settings", "large", "bytewise-frames", "padded", "padding-only", "informational",
            "continued", "padded-headers", "unknown-frames", "window", "then-reset",
        ],
    )  # fmt: skip
    def test_a_good_answer_is_whole_however_it_is_cut(self, keep: bool, data: bytes, body: bytes) -> None:
        for cut in [len(data), *range(1, min(len(data), 120))]:
            made = protocol(keep=keep)
            asked(made)
            outcome = 0
            for at in range(0, len(data), cut):
                outcome = made.take(data[at : at + cut]) or outcome
            assert outcome == 200
            assert not made.used_up
            assert made.body() == (body if keep else b"")
            assert made.head() == b""

    @pytest.mark.parametrize(
        ("data", "outcome", "label"),
        [
            (refusal(14, "gone"), 1014, "UNAVAILABLE"),
            (refusal(99), 1002, "UNKNOWN"),
            (answer(b"half").replace(peer2.FINE, block(("grpc-status", "9"))), 1009, "FAILED_PRECONDITION"),
            (trailers(1, block((":status", "404"))), 404, "404"),
            (headers(1, block((":status", "503"))) + frame(Frame.DATA, END_STREAM, 1, b"sorry"), 503, "503"),
            (headers(1, block((":status", "503"))) + frame(Frame.DATA, END_STREAM, 1), 503, "503"),
            (frame(Frame.RST_STREAM, 0, 1, b"\0\0\0\7"), Failure.RESET, "stream reset"),
            (headers() + frame(Frame.RST_STREAM, 0, 1, b"\0\0\0\7"), Failure.RESET, "stream reset"),
            (frame(Frame.GOAWAY, 0, 0, b"\0" * 8), Failure.CLOSED, "connection closed"),
        ],
    )  # fmt: skip
    def test_an_answer_that_is_none_is_counted_so(self, keep: bool, data: bytes, outcome: int, label: str) -> None:
        made = protocol(keep=keep)
        asked(made)
        assert made.take(data) == outcome
        assert describe_failures({outcome: 1}) == f"{label}: 1"

    @pytest.mark.parametrize(
        "data",
        [
            headers() + trailers(),  # no message
            headers() + frame(Frame.DATA, 0, 1, message(b"hello")[:-1]) + trailers(),
            headers() + frame(Frame.DATA, 0, 1, message(b"hello") + b"!") + trailers(),
            headers() + frame(Frame.DATA, 0, 1, message(b"hello") * 2) + trailers(),
            headers() + frame(Frame.DATA, 0, 1, b"\1" + message(b"hello")[1:]) + trailers(),  # compressed
            headers() + frame(Frame.DATA, END_STREAM, 1, message(b"hello")),  # no trailers
            headers() + frame(Frame.DATA, 0, 1, message(b"hello")) + trailers(1, block(("x", "y"))),
            headers() + headers(),
            headers(1, HTML) + answer()[len(headers()):],
            *(answer()[: -len(trailers())] + trailers(1, block(*pairs)) for pairs in STATUSES),
            trailers(1, block(("x", "y"))),
            trailers(1, block((":status", "103"))),
            headers(1, block((":status", "1000"))),
            headers(1, block((":status", "99"))),
            headers(1, b"\xff\xff\xff\xff\xff\xff"),
            headers(3),
            frame(Frame.DATA, 0, 1, b"x"),
            frame(Frame.DATA, PADDED, 1, b"\x09x"),
            frame(Frame.DATA, PADDED, 1, b""),
            headers() + frame(Frame.DATA, 0, 3, b"x"),
            frame(Frame.HEADERS, 0, 1, peer2.HEAD) + frame(Frame.PING, 0, 0, b"12345678"),
            frame(Frame.HEADERS, 0, 1, peer2.HEAD) + frame(Frame.DATA, 0, 1, b"x"),
            frame(Frame.HEADERS, 0, 1, peer2.HEAD) + frame(Frame.CONTINUATION, 0, 1, b"x" * 40_000) * 2,
            frame(Frame.CONTINUATION, END_HEADERS, 1, peer2.HEAD),
            frame(Frame.HEADERS, 0, 1, b"x" * 70_000),
            frame(Frame.PUSH_PROMISE, END_HEADERS, 1, b"\0\0\0\2" + peer2.HEAD),
            frame(Frame.PING, 0, 0, b"short"),
            frame(Frame.PING, 0, 1, b"12345678"),
            frame(Frame.SETTINGS, 0, 0, b"\0\1\0\0"),
            frame(Frame.SETTINGS, 0, 1),
            settings((Setting.INITIAL_WINDOW, 2**31)),
            settings((Setting.MAX_FRAME, 100)),
            settings((Setting.MAX_FRAME, 2**24)),
            frame(Frame.WINDOW_UPDATE, 0, 0, b"\0\0\0\0"),
            frame(Frame.WINDOW_UPDATE, 0, 0, b"\0\1"),
            frame(Frame.WINDOW_UPDATE, 0, 0, b"\x7f\xff\xff\xff"),
            frame(Frame.WINDOW_UPDATE, 0, 1, b"\x7f\xff\xff\xff"),
            frame(Frame.RST_STREAM, 0, 0, b"\0" * 4),
            frame(Frame.RST_STREAM, 0, 5, b"\0" * 4),
            frame(Frame.RST_STREAM, 0, 1, b"\0"),
            frame(Frame.GOAWAY, 0, 1, b"\0" * 8),
            frame(Frame.GOAWAY, 0, 0, b"\0"),
            answer() + frame(Frame.DATA, 0, 1, b"more"),
        ],
    )  # fmt: skip
    def test_what_breaks_the_protocol_is_malformed(self, keep: bool, data: bytes) -> None:
        made = protocol(keep=keep)
        asked(made)
        assert made.take(data) == Failure.MALFORMED

    def test_the_frames_of_an_earlier_stream_do_not_answer_the_next(self, keep: bool) -> None:
        made = protocol(keep=keep)
        asked(made)
        assert made.take(answer()) == 200
        asked(made)
        late = frame(Frame.RST_STREAM, 0, 1, b"\0" * 4) + frame(Frame.WINDOW_UPDATE, 0, 1, b"\0\0\0\1")
        assert made.take(late) == 0
        assert made.take(answer(b"mine", stream=3)) == 200
        assert made.body() == (b"mine" if keep else b"")

    def test_no_answer_ends_with_its_connection(self, keep: bool) -> None:
        made = protocol(keep=keep)
        asked(made)
        assert made.take(headers() + frame(Frame.DATA, 0, 1, message(b"hello"))) == 0
        assert made.end() == 0


class TestTheConnection:
    @pytest.mark.parametrize(
        "data",
        [b"HTTP/1.1 400 Bad Request\r\n\r\n", answer(), b"\0" * 40, frame(Frame.SETTINGS, ACK, 0) + answer()],
        ids=["HTTP/1.1", "an answer", "zeros", "an acknowledgement"],
    )
    def test_a_peer_that_does_not_greet_speaks_something_else(self, data: bytes) -> None:
        made = protocol(greeted=False)
        asked(made)
        assert made.take(data) == Failure.MALFORMED

    def test_settings_and_pings_are_acknowledged_and_answers_to_pings_not(self) -> None:
        made = protocol(greeted=False)
        ping, pong = frame(Frame.PING, 0, 0, b"12345678"), frame(Frame.PING, ACK, 0, b"87654321")
        assert made.take_idle(settings() + ping + pong)
        assert said(made) == [(Frame.SETTINGS, ACK, 0, b""), (Frame.PING, ACK, 0, b"12345678")]

    def test_a_farewell_lets_the_call_under_way_end_and_is_the_last_of_its_connection(self) -> None:
        made = protocol()
        asked(made)
        assert made.take(frame(Frame.GOAWAY, 0, 0, b"\x7f\xff\xff\xff" + b"\0" * 4)) == 0
        assert made.used_up
        assert made.take(answer()) == 200
        assert made.used_up

    @each_row(
        "data", [frame(Frame.GOAWAY, 0, 0, b"\0" * 8), answer(), b"\0" * 9, headers(), frame(Frame.DATA, 0, 1, b"x")]
    )
    def test_what_comes_unasked_ends_the_connection(self, data: bytes) -> None:
        made = protocol()
        assert not made.take_idle(data)

    def test_the_window_of_what_we_receive_is_opened_again(self) -> None:
        made = protocol(keep=False)
        asked(made)
        made.take(headers())
        opened = 0
        size = 2**24 - 1
        whole = frame(Frame.DATA, 0, 1, bytes(size))
        for _ in range(70):
            assert made.take(whole) == 0
            opened += sum(int.from_bytes(data, "big") for kind, _, _, data in said(made) if kind == Frame.WINDOW_UPDATE)
        assert opened >= 2**30
        assert opened <= 70 * size


class TestOutgoing:
    def test_what_is_sent_keeps_to_every_window_and_is_the_message(self) -> None:
        draw = random.Random(3)
        for _ in range(50):
            outgoing, window = Outgoing(), 65_535
            text = message(draw.randbytes(draw.randrange(300_000)))
            stream_window = draw.randrange(1, 100_000)
            outgoing.set(Setting.INITIAL_WINDOW, stream_window)
            largest = draw.randrange(16_384, 100_000)
            outgoing.set(Setting.MAX_FRAME, largest)
            sent: Any = outgoing.begin(1, text, (b"", b""))
            parts = frames_in(sent if isinstance(sent, bytes) else b"".join(sent))
            while outgoing.pending:
                total = sum(len(data) for *_, data in parts)
                assert total == min(window, stream_window)
                more, stream = draw.randrange(1, 60_000), draw.choice([0, 1])
                outgoing.widen(stream, more.to_bytes(4, "big"))
                outgoing.widen(9, b"\0\0\0\1")  # of a stream that is gone
                if stream:
                    stream_window += more
                else:
                    window += more
                parts += frames_in(b"".join(outgoing.more()))
            assert b"".join(data for *_, data in parts) == text
            assert max(len(data) for *_, data in parts) <= largest
            assert [flags for _, flags, *_ in parts] == [0] * (len(parts) - 1) + [END_STREAM]

    def test_unknown_settings_change_nothing(self) -> None:
        outgoing = Outgoing()
        outgoing.set(0x99, 1)
        assert frames_in(bytes(outgoing.begin(1, SMALL, (b"", b""))))[0][3] == SMALL  # type: ignore[arg-type]

    def test_padding_is_taken_off(self) -> None:
        assert unpadded(0, b"\x02ab") == b"\x02ab"
        assert unpadded(PADDED, b"\x02abcd") == b"ab"
        with pytest.raises(BrokenProtocolError):
            unpadded(PADDED, b"\x02a")


def test_a_server_that_keeps_its_own_table_of_our_headers_reads_them() -> None:
    made, decoder = protocol(), hpack.Decoder()
    for stream in (1, 3, 5):
        (_, _, _, head), _ = asked(made)
        assert dict(decoder.decode(head))[":path"] == "/inference.GRPCInferenceService/ModelInfer"
        made.take(answer(stream=stream))
