"""The key of an input in a cache: equal inputs have equal keys."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

import orjson

from pytest_mlpatterns.patterns.layer import RequestError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["key_of"]

_CANONICAL = orjson.OPT_SORT_KEYS | orjson.OPT_SERIALIZE_NUMPY


def key_of(instance: Any) -> bytes:
    """The SHA-256 of an input: equal for inputs that are equal in JSON, or as arrays in type, shape and elements.

    The order of the keys of an object does not matter.
    """
    named = instance if isinstance(instance, dict) else {"": instance}
    if all(isinstance(value, bytes) or hasattr(value, "dtype") for value in named.values()) and named:
        return _key_of_arrays(named)
    try:
        text = orjson.dumps(instance, default=_plain, option=_CANONICAL)
        if b"null" in text:  # orjson writes NaN and the infinities so
            text = json.dumps(instance, default=_plain, sort_keys=True).encode()
    except TypeError as error:
        raise RequestError(
            500,
            f"Cached cannot compare inputs of type {type(instance).__name__}: {error}; "
            "it needs inputs that JSON can express, so put it before the stage that makes these",
        ) from error
    return hashlib.sha256(text).digest()


def _plain(value: Any) -> Any:
    """A JSON form of bytes and of numpy's types."""
    return ["bytes", value.hex()] if isinstance(value, bytes) else value.tolist()


def _key_of_arrays(named: Mapping[str, Any]) -> bytes:
    digest = hashlib.sha256()
    for name, value in sorted(named.items()):
        if isinstance(value, bytes):
            digest.update(repr((name, len(value))).encode())
            digest.update(value)
        else:
            digest.update(repr((name, value.dtype.str, value.shape)).encode())
            digest.update(value.tobytes() if not value.flags.c_contiguous else value.reshape(-1).view("u1").data)
    return digest.digest()
