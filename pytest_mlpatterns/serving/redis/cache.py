"""Answers kept in a server that speaks the Redis protocol, for
:class:`~pytest_mlpatterns.patterns.cache_layer.Caching`.

This module must not know what is kept, or under which keys.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from pytest_mlpatterns.errors import DeploymentError, missing_extra
from pytest_mlpatterns.patterns.cache_layer import StoreUnavailable
from pytest_mlpatterns.patterns.store_url import without_password

if TYPE_CHECKING:
    from collections.abc import Awaitable, Mapping

__all__ = ["RedisCache"]

_TURNS = 5
_TURN_S = 0.05
_SAFETY_TTL_MS = 3_600_000
_MAX_CONNECTIONS = 10_000


class RedisCache:
    """Keeps values in a running server; all on the event loop that first used it.

    The server has 250 ms for an answer, a new connection included. Values without a time of their own are kept for one
    hour: a server that others use too outlives us, and must not fill with what nobody will ask for again.

    Args:
        url: ``redis://[user:password@]host:port/db``; likewise ``rediss``, ``valkey`` and ``valkeys``.
        prefix: stands before every key, so that deployments that share a server do not share answers.
        ttl_ns: how long values are kept, at least 1 ms; None: one hour.

    Raises:
        DeploymentError: the package ``redis`` is not installed, or the address is none.
        StoreAway: from :meth:`get` and :meth:`put`: the server refuses, or does not answer in time.
    """

    def __init__(self, url: str, prefix: bytes, ttl_ns: int | None) -> None:
        self._name = without_password(url)
        try:
            from redis import RedisError
            from redis.asyncio import Redis
            from redis.asyncio.retry import Retry
            from redis.backoff import NoBackoff
        except ImportError as error:
            raise DeploymentError(missing_extra(f"Cached(store={self._name!r})", "redis", "redis")) from error
        self._prefix = prefix
        self._ttl_ms = _SAFETY_TTL_MS if ttl_ns is None else ttl_ns // 1_000_000
        self._errors = (RedisError, OSError)
        try:
            self._client = Redis.from_url(
                url.replace("valkey", "redis", 1) if url.startswith("valkey") else url,
                protocol=2,  # a new connection needs no exchange about versions
                socket_timeout=None,  # time is counted in _in_time
                socket_connect_timeout=None,
                retry=Retry(NoBackoff(), 0),
                max_connections=_MAX_CONNECTIONS,
            )
        except ValueError as error:
            raise DeploymentError(
                f"Cached(store={self._name!r}) is no address of a server: {error}; write redis://127.0.0.1:6379/0"
            ) from error

    async def get(self, keys: list[bytes]) -> list[bytes | None]:
        """What is kept under each of these keys, None where nothing is."""
        values: list[bytes | None] = await self._in_time(self._client.mget([self._prefix + key for key in keys]))
        return values

    async def put(self, items: Mapping[bytes, bytes]) -> None:
        """Keep these values under their keys, in one round trip."""
        pipeline = self._client.pipeline(transaction=False)
        for key, value in items.items():
            pipeline.set(self._prefix + key, value, px=self._ttl_ms)
        await self._in_time(pipeline.execute())

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def _in_time(self, asking: Awaitable[Any]) -> Any:
        """The answer, if it comes within some turns of the event loop that last a while each.

        A plain deadline would blame the server for a model that is a plain function: as long as it works the loop
        stands still, and afterwards the deadline is over and the answer there, but unread. Such a wait is one turn.
        """
        task = asyncio.ensure_future(asking)
        try:
            for _ in range(_TURNS):
                if (await asyncio.wait((task,), timeout=_TURN_S))[0]:
                    return task.result()
        except self._errors as error:
            raise StoreUnavailable(f"{self._name}: {type(error).__name__}: {error}") from error
        finally:
            task.cancel()
        raise StoreUnavailable(f"{self._name} did not answer within {_TURNS * _TURN_S:.2f} s")
