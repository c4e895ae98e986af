"""How functional requests travel: over gRPC, or over HTTP with the certificates of the target."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import httpx

    from pytest_mlpatterns.workload.endpoint import Endpoint

__all__ = ["transport_to"]


def transport_to(endpoint: Endpoint) -> httpx.BaseTransport:
    """The ``httpx`` transport of functional requests."""
    if endpoint.wire.protocol == "grpc":
        from pytest_mlpatterns.serving.grpc.client import GrpcTransport

        return GrpcTransport()
    from pytest_mlpatterns.serving.bounded_client import BoundedTransport

    context = ssl.create_default_context()
    if endpoint.remote is not None and endpoint.remote.ca_pem is not None:
        context.load_verify_locations(cadata=endpoint.remote.ca_pem.decode())
    return BoundedTransport(context)
