"""Readings over requests, and the growth per request of one launch."""

from dataclasses import replace

import numpy as np
import pytest
from support.synthetic import MS, START_NS, S, usage

from pytest_mlpatterns.analysis.causes.growth import growth_record, track_of
from pytest_mlpatterns.analysis.metrics.blocks import growth_rate
from pytest_mlpatterns.records.samples import ResourceTrack, Window

WINDOW = Window(START_NS, START_NS + 3 * S)
DONE_NS = np.arange(START_NS - S, START_NS + 4 * S, 10 * MS)  # one every 10 ms, from a second before the window


def test_a_track_has_the_readings_of_the_windows_and_counts_every_answer() -> None:
    used = usage(seconds=3.0)
    counted = replace(used, descriptors=np.arange(used.time_ns.size), threads=np.full(used.time_ns.size, 3))
    track = track_of(counted, DONE_NS, (Window(START_NS, START_NS + S), Window(START_NS + 2 * S, START_NS + 3 * S)))
    assert track.requests.size == 40
    assert track.requests[:2].tolist() == [101, 106]  # a second of answers came before, and one with the reading
    assert track.requests[20] == 301
    assert track.rss_bytes.tolist() == [100 * 2**20] * 40
    assert track.descriptors[0] == 10
    assert set(track.threads.tolist()) == {3}


def test_processes_that_are_not_known_have_no_track() -> None:
    assert track_of(None, DONE_NS, (WINDOW,)) is None


def test_without_a_reading_in_the_window_there_is_no_track() -> None:
    assert track_of(usage(), DONE_NS, (Window(0, 1),)) is None


def test_the_growth_of_a_launch_is_its_slope_in_spite_of_peaks() -> None:
    requests = np.arange(0, 1000, 10, dtype=np.int64)
    peaks = 10**8 * (np.arange(100) % 10 == 0)
    track = ResourceTrack(requests, 2**26 + 300 * requests + peaks, descriptors=requests)
    assert growth_rate(track, "rss_bytes") == pytest.approx(300)
    assert growth_rate(track, "descriptors") == pytest.approx(1)
    assert growth_rate(track, "threads") is None


def test_a_growth_is_at_least_nothing_and_needs_requests() -> None:
    requests = np.arange(0, 1000, 10, dtype=np.int64)
    assert growth_rate(ResourceTrack(requests, 2**26 - requests), "rss_bytes") == 0
    assert growth_rate(ResourceTrack(requests[:10], requests[:10]), "rss_bytes") is None
    assert growth_rate(None, "rss_bytes") is None


def test_reports_get_some_readings_and_the_growth_of_the_second_half() -> None:
    requests = np.arange(400, dtype=np.int64) * 10
    record = growth_record(ResourceTrack(requests, 2**26 + 100 * requests))
    assert len(record.requests) == len(record.rss_bytes) == 120
    assert record.requests[0] == 0
    assert record.requests[-1] == 3990
    assert record.slope == pytest.approx((100, 100, 100))
    assert not record.levels_off


def test_reports_of_few_readings_have_no_growth() -> None:
    record = growth_record(ResourceTrack(np.arange(3), np.arange(3)))
    assert record.requests == (0, 1, 2)
    assert record.slope is None
    assert not record.levels_off
    assert growth_record(None) is None
