"""What to do about a service that does not know the path of a request: the paths that its openapi.json describes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pytest_mlpatterns.wording import listed

if TYPE_CHECKING:
    import httpx

    from pytest_mlpatterns.serving.engine import StartOptions
    from pytest_mlpatterns.serving.targets import App, Command, Url

__all__ = ["advice_on_path"]

_DESCRIPTION = "/openapi.json"
_TIMEOUT_S = 2.0
_MOST_SHOWN = 5
_METHODS = ("post", "put", "patch")
_WRONG = (404, 405)


def advice_on_path(
    response: httpx.Response, target: App | Command | Url, options: StartOptions, *, client: httpx.Client
) -> str:
    """The end of a message about a response that is not a success; empty unless its path is the reason.

    Args:
        response: the answer of the service.
        target: the service.
        options: has the payload and the user's function that builds requests.
        client: asks the service for its description.
    """
    if response.status_code not in _WRONG:
        return ""
    known = _paths_of(client)
    shown = [f"{method.upper()} {path}" for path, methods in known.items() for method in methods]
    has = f"; the service has {listed(shown[:_MOST_SHOWN])} (its {_DESCRIPTION[1:]})" if shown else ""
    if options.builder is not None:
        return f"{has}; correct the path that request= returns"
    if options.payload is not None and not options.payload.bodies:
        return f"{has}; correct the path of the requests in perf_payload"
    path = next(iter(known), "/predict")
    if type(target).__name__ == "Url":
        return f"{has}; name the path that takes inputs in the address"
    return f'{has}; name the path that takes inputs: {type(target).__name__}(..., path="{path}")'


def _paths_of(client: httpx.Client) -> dict[str, list[str]]:
    """The methods that take a body, by path; empty if the service does not describe itself."""
    import httpx

    from pytest_mlpatterns.serving.bounded_client import get_page

    try:
        response = get_page(client, _DESCRIPTION, _TIMEOUT_S)
        described: Any = response.json() if response.is_success else {}
        return {
            path: methods
            for path, operations in described.get("paths", {}).items()
            if (methods := [name for name in _METHODS if name in operations])
        }
    except (httpx.HTTPError, ValueError, AttributeError, TypeError, RecursionError):  # no answer, or of another form
        return {}
