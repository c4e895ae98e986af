"""What tests look at and do on a Ray cluster, called in a Ray driver of their own."""

from typing import Any

FOREIGN = "foreign"
"""An application that is none of ours."""


class _Greeter:
    def __call__(self, _request: Any) -> str:
        return "still here"


def deploy_foreign() -> None:
    """Deploy an application as another user of the cluster would."""
    import sys

    from ray import cloudpickle, serve

    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    serve.run(serve.deployment(_Greeter).options(name="greeter").bind(), name=FOREIGN, route_prefix=f"/{FOREIGN}")


def applications() -> dict[str, str]:
    """The state of each application, by name."""
    from ray import serve

    return {name: str(found.status.value) for name, found in serve.status().applications.items()}


def actors() -> list[str]:
    """Names of our actors that live."""
    from ray.util import list_named_actors

    return [actor["name"] for actor in list_named_actors(all_namespaces=True) if actor["namespace"] == "mlpatterns"]


def start_serve_on_a_single_node() -> tuple[int, dict[str, object], tuple[str, ...]]:
    """The port of the proxies, the options of Serve and the notes of a cluster of one node where Serve does not run."""
    from unittest.mock import patch

    from pytest_mlpatterns.engines.ray.messages import RayJob
    from pytest_mlpatterns.engines.ray.remote import cluster

    with patch.object(cluster, "_get_global_client", return_value=None), patch.object(cluster.serve, "start") as start:
        proxies = cluster.serve_proxies(RayJob("127.0.0.1:6379"), nodes=1)
    host, port = proxies.http
    assert proxies.port is not None
    with proxies.port as held:
        assert held.getsockname() == (host, port)
    return port, start.call_args.kwargs["http_options"], proxies.notes
