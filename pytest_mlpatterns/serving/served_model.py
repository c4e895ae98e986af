"""The name of the model that a server of the wire ``openai`` lists, for requests that name none."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_mlpatterns.wire.openai import model_path

if TYPE_CHECKING:
    import httpx

__all__ = ["first_model"]

_TIMEOUT_S = 5.0


def first_model(client: httpx.Client, path: str) -> str:
    """The first model of the list beside the path of requests; empty if the server has no such list.

    Args:
        client: asks the server.
        path: path of requests, such as ``/v1/chat/completions``.
    """
    import httpx

    from pytest_mlpatterns.serving.bounded_client import get_page

    try:
        response = get_page(client, model_path(path), _TIMEOUT_S)
        name = response.json()["data"][0]["id"] if response.is_success else ""
    except (httpx.HTTPError, ValueError, KeyError, IndexError, TypeError, RecursionError):  # no answer, or another form
        return ""
    return name if isinstance(name, str) else ""
