"""Why Ray refuses to connect, in words that say what to do; only the text of its errors says which one it is."""

from __future__ import annotations

import platform
import re

from pytest_mlpatterns.system.ray.address import way_out

__all__ = ["why_refused"]

_VERSIONS = re.compile(r"Ray: (\S+)\s+Python: (\S+)")


def why_refused(error: BaseException, source: str, version: str) -> str:
    """Why a driver cannot connect, and what to do.

    Args:
        error: what Ray raised.
        source: where the address was given.
        version: of Ray in this environment.
    """
    causes = [error]
    while (cause := causes[-1].__cause__ or causes[-1].__context__) is not None:
        causes.append(cause)
    text = "\n".join(map(str, causes))
    if "Version mismatch" in text and (found := _VERSIONS.search(text)):
        here = f"Ray {version} and Python {platform.python_version()}"
        return (
            f"the cluster runs Ray {found[1]} and Python {found[2]}, this environment has {here}; "
            "install the same versions on both sides"
        )
    if "Could not find any running Ray" in text:
        return f"no Ray runs on this machine; start one (ray start --head), or {way_out(source)}"
    if "resolve node to connect to" in text:
        return (
            "this machine is no node of that cluster, and a Ray driver has to run on one; run pytest on a node, "
            "as a Ray job (ray job submit -- pytest)"
        )
    return f"Ray cannot connect: {text}"
