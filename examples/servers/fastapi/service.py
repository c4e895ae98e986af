"""A FastAPI service: texts in, how cheerful they are out. A text costs 5 ms."""

import os
import time

from fastapi import FastAPI
from fastapi.responses import PlainTextResponse
from prometheus_client import Histogram, generate_latest
from pydantic import BaseModel

COST_S = 0.005 * float(os.environ.get("SLOWDOWN", "1"))
WORDS = Histogram("text_words", "Words in a text.", buckets=(1, 2, 5, 10, 20, 50))

app = FastAPI()


class Text(BaseModel):
    text: str


@app.get("/health")
def health() -> str:
    return "ok"


@app.post("/classify")
def classify(body: Text) -> dict[str, float]:
    words = body.text.lower().split()
    WORDS.observe(len(words))
    time.sleep(COST_S)
    return {"cheerful": sum(word in ("good", "great", "fine") for word in words) / max(1, len(words))}


@app.get("/metrics", response_class=PlainTextResponse)
def metrics() -> bytes:
    return generate_latest()
