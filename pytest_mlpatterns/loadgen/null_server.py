"""A null server in a process of its own: one fixed response to every request.

It answers all its connections together, so that a generator at its limit finds many responses at a time.
"""

from __future__ import annotations

import selectors
import socket
from collections.abc import Callable
from typing import Protocol

from pytest_mlpatterns.loadgen.messages import Transport
from pytest_mlpatterns.system.child import Channel
from pytest_mlpatterns.system.sockets import listening_socket

_BURST_WAIT_S = 0.02  # Longest wait for further requests, in seconds, before those that came are answered
_PIECE = 65_536  # Bytes of one read


class Peer(Protocol):
    """The server's side of one connection."""

    def take(self, data: bytes) -> bytes:
        """Take bytes of the client. Returns bytes to send at once."""
        ...

    def answer(self) -> bytes:
        """The response to a complete request; empty if none is complete."""
        ...


class Http1Peer:
    """Treats every received piece as one HTTP/1.1 request."""

    _BODY = b'{"predictions":[0]}'
    _HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(_BODY)

    def take(self, _data: bytes) -> bytes:
        """Send nothing at once."""
        return b""

    def answer(self) -> bytes:
        """The fixed response."""
        return self._HEAD + self._BODY


class GrpcPeer:
    """Answers every finished stream with a short message."""

    def __init__(self) -> None:
        import hpack

        from pytest_mlpatterns.loadgen.http2_frames import PREFACE

        encoder = hpack.Encoder()
        encoder.header_table_size = 0
        self._head = encoder.encode([(":status", "200"), ("content-type", "application/grpc")])
        self._trailers = encoder.encode([("grpc-status", "0")])
        self._rest = b""
        self._preface_left = len(PREFACE)
        self._asked: list[int] = []

    def take(self, data: bytes) -> bytes:
        """Answer settings, and note the streams that ended."""
        from pytest_mlpatterns.loadgen.http2_frames import ACK, END_STREAM, HEADER, Frame, frame

        skipped = min(self._preface_left, len(data))
        self._preface_left -= skipped
        data = self._rest + data[skipped:]
        at, reply = 0, b""
        while len(data) - at >= HEADER.size:
            length_and_kind, flags, stream = HEADER.unpack_from(data, at)
            length, kind = length_and_kind >> 8, length_and_kind & 0xFF
            if len(data) - at < HEADER.size + length:
                break
            at += HEADER.size + length
            if kind == Frame.SETTINGS and not flags & ACK:
                reply += frame(Frame.SETTINGS, 0, 0) + frame(Frame.SETTINGS, ACK, 0)
            elif kind == Frame.DATA:
                reply += frame(Frame.WINDOW_UPDATE, 0, 0, length.to_bytes(4, "big")) if length else b""
                if flags & END_STREAM:
                    self._asked.append(stream)
        self._rest = data[at:]
        return reply

    def answer(self) -> bytes:
        """The response to the stream that ended first."""
        from pytest_mlpatterns.loadgen.http2_frames import END_HEADERS, END_STREAM, Frame, frame
        from pytest_mlpatterns.wire.grpc_call import message_prefix

        if not self._asked:
            return b""
        stream = self._asked.pop(0)
        return b"".join(
            (
                frame(Frame.HEADERS, END_HEADERS, stream, self._head),
                frame(Frame.DATA, 0, stream, message_prefix(64) + bytes(64)),
                frame(Frame.HEADERS, END_HEADERS | END_STREAM, stream, self._trailers),
            )
        )


_PEERS: dict[Transport, Callable[[], Peer]] = {Transport.HTTP1: Http1Peer, Transport.GRPC: GrpcPeer}


def main() -> None:
    """Receive the transport, send the port, and serve until the parent closes the channel."""
    channel = Channel()
    new_peer = _PEERS[channel.receive()]
    listener = listening_socket()
    ended, ending = socket.socketpair()
    channel.listen(lambda _message: None, ending.close)
    channel.send(listener.getsockname()[1])
    with selectors.DefaultSelector() as selector, listener, ended:
        selector.register(listener, selectors.EVENT_READ)
        selector.register(ended, selectors.EVENT_READ)
        peers: dict[socket.socket, Peer] = {}
        asking: dict[socket.socket, bytes] = {}
        while True:
            ready = [key.fileobj for key, _ in selector.select(_BURST_WAIT_S)]
            for sock in ready:
                assert isinstance(sock, socket.socket)
                if sock is ended:
                    return
                if sock is listener:
                    connection, _ = listener.accept()
                    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    selector.register(connection, selectors.EVENT_READ)
                    peers[connection] = new_peer()
                elif data := sock.recv(_PIECE):
                    if reply := peers[sock].take(data):
                        sock.sendall(reply)
                    if answer := peers[sock].answer():
                        asking[sock] = answer
                else:
                    selector.unregister(sock)
                    sock.close()
                    del peers[sock]
            if len(asking) >= len(peers) or not ready:
                for sock, answer in asking.items():
                    sock.sendall(answer)
                asking.clear()
