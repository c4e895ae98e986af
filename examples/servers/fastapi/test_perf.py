"""The application as uvicorn serves it, with the requests that its clients send."""

import pytest

from pytest_mlpatterns import App, Prometheus

TEXTS = ["a good day", "a great and fine day", "rain"]


@pytest.fixture
def perf_target():
    return App("service:app", ready="/health", metrics=Prometheus("/metrics", batch_size="text_words"))


@pytest.fixture
def perf_payload():
    return TEXTS


def right(texts, answers):
    """Answers from under load are those to their own texts."""
    expected = dict(zip(TEXTS, [1 / 3, 2 / 5, 0.0], strict=True))
    assert [answer["cheerful"] for answer in answers] == pytest.approx([expected[text] for text in texts])


@pytest.mark.perf(
    concurrency=8,
    duration="1s",
    request=lambda text: {"path": "/classify", "json": {"text": text}},
    check=right,
)
def test_classify(perf):
    assert perf.client.post("/classify", json={"words": 3}).status_code == 422
    perf.assert_rtm_below("200ms")
    if not perf.smoke:
        assert 1 < perf.metrics.batch_size.value < 5  # words in a text
