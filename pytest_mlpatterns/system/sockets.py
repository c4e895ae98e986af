"""Sockets on 127.0.0.1 that one process opens and another serves from."""

from __future__ import annotations

import socket

__all__ = ["BACKLOG", "held_port", "inherited_socket", "listening_socket"]

BACKLOG = 2048


def listening_socket() -> socket.socket:
    """A socket that listens on a free port of 127.0.0.1.

    The protocol is given because asyncio sets TCP_NODELAY only then; without TCP_NODELAY a response can wait 40 ms for
    the acknowledgement of the previous one.
    """
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.bind(("127.0.0.1", 0))
    listener.listen(BACKLOG)
    return listener


def held_port() -> socket.socket:
    """A socket that reserves a free port of 127.0.0.1 until a server that binds its port itself listens there.

    It does not listen. SO_REUSEPORT lets a server of the same user bind the same port.
    """
    holder = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    holder.bind(("127.0.0.1", 0))
    return holder


def inherited_socket(descriptor: int) -> socket.socket:
    """The socket of a descriptor that was inherited from another process; the protocol is given here too."""
    return socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, fileno=descriptor)
