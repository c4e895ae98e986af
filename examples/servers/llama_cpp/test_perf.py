"""A language model as it is deployed: first token, time per token, and requests that keep both promises."""

import pytest

from pytest_mlpatterns import Command

SLOTS = 2
TOKENS = 8
STREAMED = {"ignore_eos": True, "stream": True, "stream_options": {"include_usage": True}}


@pytest.fixture
def perf_target():
    command = f"{{python}} serve.py --port {{port}} --slots {SLOTS}"
    return Command(command, path="/v1/chat/completions", ready="/health", metrics="/metrics")


@pytest.fixture
def perf_payload():
    questions = ["What is the sea?", "Name three birds.", "Why does it rain?", "Who was Ada Lovelace?"]
    return [
        {"messages": [{"role": "user", "content": question}], "max_tokens": TOKENS, "temperature": 0, **STREAMED}
        for question in questions
    ]


def alone(question):
    """A connection of its own: this server closes one after a stream without saying so, as the next request comes."""
    return {"json": question, "headers": {"connection": "close"}}


@pytest.mark.perf(wire="openai", request=alone, concurrency=SLOTS, timeout="60s")
def test_answers(perf):
    perf.assert_ttft_below("20s")
    perf.assert_tpot_below("2s")
    perf.assert_goodput_at_least(rps=0.05, slo="ttft<20s, tpot<2s")
    if not perf.smoke:  # one request makes no batch
        assert perf.metrics.batch_size.value > 1
        assert perf.metrics.output_tokens.value == TOKENS
