"""Content codings: what is compressed comes back, never more than allowed, and clients get what they prefer."""

import gzip
import importlib.util
import zlib
from typing import Any

import brotli
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st
from support.each_row import each_row
from support.synthetic import PROPERTY

from pytest_mlpatterns.wire import Body, WireError
from pytest_mlpatterns.wire.compression import (
    CODINGS,
    TooLargeError,
    UnpackedReader,
    accepted_coding,
    compressed,
    decompressed,
)


@pytest.mark.parametrize("coding", CODINGS)
@PROPERTY
@given(parts=st.lists(st.binary(max_size=200), min_size=1))
def test_what_is_compressed_comes_back(coding: str, parts: list[bytes]) -> None:
    body = compressed(Body(tuple(memoryview(part) for part in parts), (("a", "b"),)), coding)
    assert body.headers == (("a", "b"), ("content-encoding", coding))
    assert decompressed(body.joined(), coding, 10_000) == b"".join(parts)
    assert decompressed(memoryview(body.joined()), coding, 10_000) == b"".join(parts)


def test_others_understand_it() -> None:
    undo: dict[str, Any] = {
        "gzip": gzip.decompress,
        "br": brotli.decompress,
        "zstd": lambda data: zstandard.ZstdDecompressor().decompressobj().decompress(data),
    }
    for coding, decompress in undo.items():
        assert decompress(compressed(Body((b"text" * 99,), ()), coding).joined()) == b"text" * 99


def test_several_members_and_frames_are_one_body() -> None:
    assert decompressed(gzip.compress(b"a") + gzip.compress(b"b"), "gzip", 9) == b"ab"
    assert decompressed(zstandard.compress(b"a") + zstandard.compress(b"b"), "zstd", 9) == b"ab"


@pytest.mark.parametrize("coding", CODINGS)
def test_a_bomb_is_defused_at_the_limit(coding: str) -> None:
    bomb = compressed(Body((b"\0" * 10_000_000,), ()), coding).joined()
    assert len(bomb) < 12_000
    with pytest.raises(TooLargeError, match="the body is over the limit of 1000000 bytes when it is decompressed"):
        decompressed(bomb, coding, 1_000_000)
    assert len(decompressed(bomb, coding, 10_000_000)) == 10_000_000


def test_many_members_together_are_bounded_too() -> None:
    with pytest.raises(TooLargeError):
        decompressed(gzip.compress(b"\0" * 1000) * 100, "gzip", 10_000)


@each_row("coding", CODINGS)
@each_row("damage", ["random", "cut"])
def test_what_is_not_of_the_coding_is_refused(coding: str, damage: str) -> None:
    whole = compressed(Body((bytes(range(256)) * 9,), ()), coding).joined()
    with pytest.raises(WireError, match=f"the body is not {coding}"):
        decompressed(b"neither" * 9 if damage == "random" else whole[: len(whole) // 2], coding, 10_000)


def test_an_unknown_coding_is_refused_with_those_that_are_known() -> None:
    with pytest.raises(WireError, match="Content-Encoding 'lzma', expected one of gzip, deflate, zstd, br"):
        decompressed(zlib.compress(b"a"), "lzma", 9)


@pytest.mark.parametrize("bits", [zlib.MAX_WBITS, -zlib.MAX_WBITS])
def test_deflate_is_read_with_its_header_and_without(bits: int) -> None:
    packer = zlib.compressobj(wbits=bits)
    whole = packer.compress(b"text" * 99) + packer.flush()
    assert decompressed(whole, "deflate", 1000) == b"text" * 99
    with pytest.raises(WireError, match="the body is not deflate"):
        decompressed(whole[:-9], "deflate", 1000)


class _Pieces(list[bytes]):
    def feed(self, data: bytes) -> int:
        self.append(data)
        return data.count(b"\n")


@each_row(("coding", "pack"), [("gzip", gzip.compress), ("deflate", zlib.compress)])
@each_row("size", [1, 7, 1000])
def test_a_stream_of_pieces_that_are_compressed_one_by_one_is_read_whole(coding: str, pack: Any, size: int) -> None:
    found = _Pieces()
    reader, sent = UnpackedReader(found, coding), pack(b"one\n") + pack(b"two\nthree\n")
    assert sum(reader.feed(sent[at : at + size]) for at in range(0, len(sent), size)) == 3
    assert b"".join(found) == b"one\ntwo\nthree\n"


@each_row(
    ("header", "coding"),
    ("gzip", "gzip"),
    ("GZIP", "gzip"),
    ("gzip, deflate, br, zstd", "zstd"),
    ("gzip;q=1.0, br;q=0.5, zstd;q=0.1", "gzip"),
    ("br ; q=0.2 , gzip ; q=0.1", "br"),
    ("deflate, identity", None),
    ("", None),
    ("gzip;q=0", None),
    ("gzip;q=x", None),
    ("*", "zstd"),
    ("*;q=0.5, gzip", "gzip"),
    ("zstd;q=0, *", "br"),
)
def test_a_client_gets_the_coding_that_it_prefers(header: str, coding: str | None) -> None:
    assert accepted_coding(header) == coding


def test_a_coding_that_is_not_installed_is_not_offered(monkeypatch: pytest.MonkeyPatch) -> None:
    accepted_coding.cache_clear()
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert accepted_coding("br, zstd, gzip;q=0.1") == "gzip"
    accepted_coding.cache_clear()
