"""Header blocks: what a gRPC server reads in ours, and what we read in its."""

import hpack
import pytest
from support.each_row import each_row
from support.services.peer2 import block

from pytest_mlpatterns.loadgen.http2 import HeaderError, HeaderReader, Headers, RequestBlocks

METHOD = "/inference.GRPCInferenceService/ModelInfer"
EXPECTED = [
    (":method", "POST"),
    (":scheme", "http"),
    (":path", METHOD),
    (":authority", "127.0.0.1:80"),
    ("te", "trailers"),
    ("content-type", "application/grpc"),
    ("user-agent", "pytest-mlpatterns"),
]


def test_the_first_block_fills_the_table_that_the_later_ones_point_into() -> None:
    blocks = RequestBlocks.of(("127.0.0.1", 80), METHOD)
    decoder = hpack.Decoder()
    for data in (blocks.first, blocks.later, blocks.later):
        assert decoder.decode(data) == EXPECTED
    assert len(blocks.later) < 10 < len(blocks.first)


def test_the_block_without_a_table_is_read_by_a_peer_that_keeps_none() -> None:
    decoder = hpack.Decoder()
    decoder.header_table_size = decoder.max_allowed_table_size = 0
    for _ in range(2):
        assert decoder.decode(RequestBlocks.of(("127.0.0.1", 80), METHOD).without_table) == EXPECTED


def test_an_address_of_ipv6_stands_in_brackets() -> None:
    found = hpack.Decoder().decode(RequestBlocks.of(("::1", 80), METHOD).first)
    assert (":authority", "[::1]:80") in found


@each_row(
    ("pairs", "expected"),
    ([(":status", "200"), ("content-type", "application/grpc")], Headers(200, None, "", is_grpc=True)),
    ([(":status", "200"), ("content-type", "application/grpc-web")], Headers(200, None, "")),
    ([("grpc-status", "0")], Headers(None, 0, "")),
    ([(":status", "200"), ("grpc-status", "5"), ("grpc-message", "no%20model%3A%20x")], Headers(200, 5, "no model: x")),
    ([], Headers(None, None, "")),
)
def test_what_matters_is_read(pairs: list[tuple[str, str]], expected: Headers) -> None:
    reader = HeaderReader()
    data = block(*pairs)
    assert reader.read(data) == expected
    assert reader.read(data) is reader.read(data)  # looked up


def test_equal_bytes_mean_the_same_whatever_came_between() -> None:
    """A peer that puts into the table, although it was told that there is none, is read, but cannot point into it."""
    reader = HeaderReader()
    encoder = hpack.Encoder()
    first, later = (encoder.encode([(":status", "200"), ("x-request", "1")]) for _ in range(2))
    assert reader.read(first).http_status == 200
    with pytest.raises(HeaderError, match="malformed header block"):
        reader.read(later)
    assert reader.read(first).http_status == 200


@each_row(
    "data",
    b"\xff\xff\xff\xff\xff\xff",
    b"\x80",
    block((":status", "fine")),
    block(("grpc-status", "ok")),
    block((":status", "2_0")),
    b"\x00\x85",
)
def test_what_cannot_be_read_is_an_error(data: bytes) -> None:
    with pytest.raises(HeaderError):
        HeaderReader().read(data)


def test_a_peer_that_dates_its_answers_does_not_fill_the_memory() -> None:
    reader = HeaderReader()
    for number in range(3000):
        assert reader.read(block((":status", "200"), ("x-id", str(number)))).http_status == 200
    assert len(reader._known) <= 1024


def test_bytes_that_are_no_text_are_read_nonetheless() -> None:
    assert HeaderReader().read(b"\x00\x01x\x02\xff\xfe" + block((":status", "200"))[1:]).http_status == 200
