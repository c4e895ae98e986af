"""A language model served one request at a time, and with continuous batching: what its callers wait for, and get."""

import pytest
from model import LETTERS, LanguageModel

from pytest_mlpatterns import Continuous, Prompts, Single

ONE_THREAD = {"OPENBLAS_NUM_THREADS": "1"}  # for numpy; a core is left for everything else


@pytest.fixture
def perf_model():
    return LanguageModel


@pytest.fixture
def perf_payload():
    return Prompts(input_tokens=(4, 1), output_tokens=(96, 16))  # words in, letters out


def complete(requests, answers):
    """No answer from under load is cut short."""
    for request, letters in zip(requests, answers, strict=True):
        assert len(letters) == request["max_tokens"]
        assert set(letters) <= set(LETTERS)


@pytest.mark.perf(
    pattern=[Single(env=ONE_THREAD), Continuous(max_batch_size=8, env=ONE_THREAD)],
    wire="openai",
    concurrency=8,
    duration="1s",
    check=complete,
)
def test_writing(perf):
    perf.assert_ttft_below("2s")
    perf.assert_tpot_below("200ms")
    perf.assert_output_tokens_at_least(rps=50)
    perf.assert_goodput_at_least(rps=1, slo="ttft<2s, tpot<200ms")
