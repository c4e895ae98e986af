"""An ASGI application with metrics of Prometheus."""

METRICS = b"""# TYPE batch_size histogram
batch_size_bucket{le="1"} 3
batch_size_bucket{le="+Inf"} 3
batch_size_sum 3
batch_size_count 3
"""


async def app(scope, receive, send):
    """Answer any request."""
    if scope["type"] != "http":
        return
    while (await receive()).get("more_body"):
        pass
    is_metrics = scope["path"] == "/metrics"
    kind = b"text/plain; version=0.0.4" if is_metrics else b"application/json"
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", kind)]})
    await send({"type": "http.response.body", "body": METRICS if is_metrics else b'{"predictions": [7]}'})
