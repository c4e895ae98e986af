"""Cache storage in a Redis or Valkey server, for :class:`~pytest_mlpatterns.patterns.cache_layer.CacheLayer`."""

import asyncio
from collections.abc import Awaitable, Mapping
from typing import Any

from pytest_mlpatterns.errors import DeploymentError, missing_extra
from pytest_mlpatterns.patterns.arguments import without_password
from pytest_mlpatterns.patterns.cache_layer import StoreUnavailable

_WAITS = 5  # Waits for an answer of the store, after which it counts as unavailable
_WAIT_S = 0.05  # Length of one wait, in seconds; a stop of the event loop costs one wait, not all
_DEFAULT_TTL_MS = 3_600_000
"""Time after which an entry expires without ``ttl=``, in milliseconds: an hour, so no run leaves entries."""
_MAX_CONNECTIONS = 10_000  # Most connections to the store: as many as requests in flight


class RedisCache:
    """Stores values in a running server. All calls must come from one event loop.

    The time limit of a call is 250 ms, including a new connection. Values expire after an hour by default, because a
    shared server outlives the deployment and must not fill up with unused values.

    ``url``: ``redis://[user:password@]host:port/db``, or the same with ``rediss``, ``valkey`` or ``valkeys``.
    ``prefix``: first part of each key, so that deployments that share a server do not share values. ``ttl_ns``: time to
    live of a value, at least 1 ms; None: one hour.
    """

    def __init__(self, url: str, prefix: bytes, ttl_ns: int | None) -> None:
        self._name = without_password(url)
        # _in_time limits the time
        limits = {"max_connections": _MAX_CONNECTIONS, "socket_connect_timeout": None}
        self._client = connect(url, "Cached(store={!r})", pool="ConnectionPool", **limits)
        from redis import RedisError

        self._prefix = prefix
        self._ttl_ms = _DEFAULT_TTL_MS if ttl_ns is None else ttl_ns // 1_000_000
        self._errors = (RedisError, OSError)

    async def get(self, keys: list[bytes]) -> list[bytes | None]:
        """The value of each key, or None."""
        values: list[bytes | None] = await self._in_time(self._client.mget([self._prefix + key for key in keys]))
        return values

    async def put(self, items: Mapping[bytes, bytes]) -> None:
        """Store values under their keys, in one round trip."""
        pipeline = self._client.pipeline(transaction=False)
        for key, value in items.items():
            pipeline.set(self._prefix + key, value, px=self._ttl_ms)
        await self._in_time(pipeline.execute())

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def _in_time(self, command: Awaitable[Any]) -> Any:
        """Await a command for at most five waits of 50 ms.

        A single deadline would fail if a model that is a plain function blocked the event loop: the deadline would have
        passed, with the answer there but unread. A blocked loop uses up only one of the waits.
        """
        task = asyncio.ensure_future(command)
        try:
            for _ in range(_WAITS):
                if (await asyncio.wait((task,), timeout=_WAIT_S))[0]:
                    return task.result()
        except self._errors as error:
            raise StoreUnavailable(f"{self._name}: {type(error).__name__}: {error}") from error
        finally:
            task.cancel()
        raise StoreUnavailable(f"{self._name} did not answer within {_WAITS * _WAIT_S:.2f} s")


def connect(url: str, owner: str, *, pool: str, **settings: Any) -> Any:
    """Create a client of a server (``redis.asyncio.Redis``) without automatic retries.

    The return type is ``Any``, because the annotations of redis cover all protocols and settings at once.

    ``owner``: the pattern with its address, for messages. ``pool``: name of the class of the connections, and
    ``settings``: arguments of both.
    """
    shown = owner.format(without_password(url))
    try:
        import redis.asyncio as redis
        from redis.asyncio.retry import Retry
        from redis.backoff import NoBackoff
    except ImportError as error:
        raise DeploymentError(missing_extra(shown, "redis", "redis")) from error
    try:
        connections = getattr(redis, pool).from_url(
            url.replace("valkey", "redis", 1) if url.startswith("valkey") else url,
            protocol=2,  # saves a round trip in each new connection
            socket_timeout=None,  # with one, redis sends through wait_for, which before Python 3.12 loses cancellations
            retry=Retry(NoBackoff(), 0),
            **settings,
        )
    except ValueError as error:
        raise DeploymentError(
            f"{shown} is not the address of a server: {error}; write redis://127.0.0.1:6379/0"
        ) from error
    return redis.Redis.from_pool(connections)
