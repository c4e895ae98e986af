"""Servers that people test, each resolved together with the package by ``uv pip compile``; nothing is installed."""

import re
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor

from page import by_outcome

__all__ = ["SERVERS", "table_of_servers"]

SERVERS = (
    "bentoml",
    "fastapi[standard]",
    "flask gunicorn",
    "granian",
    "infinity-emb[server]",
    "kserve",
    "litestar[standard]",
    "litserve",
    "lmdeploy",
    "mlflow",
    "mlserver mlserver-sklearn",
    "mosec",
    "nvidia-pytriton",
    "quart hypercorn",
    "ray[serve]",
    "robyn",
    "sanic",
    "seldon-core",
    "sglang",
    "text-generation",
    "tritonclient[all]",
    "vllm",
    "xinference",
)
"""Requirements, as they stand on the index; the first of a row names the server."""

Resolve = Callable[[Iterable[str]], dict[str, str]]


def table_of_servers(resolve: Resolve, package: str) -> tuple[str, list[str]]:
    """The table, and the servers that do not fit.

    ``resolve``: the versions of everything that requirements need, by name; raises OSError if none fit together.
    """
    with ThreadPoolExecutor(2) as pool:
        found = dict(zip(SERVERS, pool.map(lambda one: _fits(one.split(), resolve, package), SERVERS), strict=True))
    table = by_outcome("server", ((f"{server} {version}", outcome) for server, (version, outcome) in found.items()))
    return table, [server for server, (_, outcome) in found.items() if not outcome.startswith("fits")]


def _fits(requirements: list[str], resolve: Resolve, package: str) -> tuple[str, str]:
    """The newest version of a server, and whether it keeps it beside the package, with all that it needs."""
    alone = resolve(requirements)
    name = re.split(r"[\[<>=]", requirements[0])[0].lower()
    try:
        beside = resolve([*requirements, package])
    except OSError:
        return alone[name], "**does not fit**"
    if beside[name] != alone[name]:
        return alone[name], f"**fits as {beside[name]} only**"
    changed = [f"{one} {beside[one]} in place of {version}" for one, version in alone.items() if beside[one] != version]
    return alone[name], f"fits; {', '.join(changed)}" if changed else "fits"
