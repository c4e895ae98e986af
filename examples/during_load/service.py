"""A service that loads its model again on request: beside the requests, or with BLOCKING=1 while they wait.

It is a plain ASGI application, so that it needs no framework.
"""

import asyncio
import json
import os

BLOCKING = os.environ.get("BLOCKING") == "1"
LOADS_S = 0.5
"""Time that the model takes to load."""


class Service:
    def __init__(self):
        self.version = 1
        self.loading = asyncio.Lock()

    async def reload(self):
        async with self.loading:
            await asyncio.sleep(LOADS_S)
            self.version += 1
        return {"version": self.version}

    async def predict(self, instances):
        if BLOCKING:
            async with self.loading:
                pass
        await asyncio.sleep(0.005)
        return {"predictions": [sum(row) for row in instances]}


service = Service()


async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        return
    body = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body"):
            break
    if scope["path"] == "/reload":
        answer = await service.reload()
    elif scope["path"] == "/predict":
        answer = await service.predict(json.loads(body)["instances"])
    else:
        answer = {"version": service.version}
    text = json.dumps(answer).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(text)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": text})
