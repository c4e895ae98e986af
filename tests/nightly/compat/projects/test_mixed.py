"""A suite as projects have it: functions, classes, unittest, parameters, skips, expected failures, and a load."""

import sys
import unittest

import pytest


def doubled(batch):
    return [2 * value for value in batch]


@pytest.fixture(scope="module", params=["a", "b"])
def letter(request):
    return request.param


def test_function(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert doubled([1]) == [2]


def test_parameter(letter):
    assert letter in "ab"


class TestClass:
    def test_output(self, capsys):
        sys.stdout.write("seen\n")
        assert capsys.readouterr().out == "seen\n"


class TestCase(unittest.TestCase):
    def test_case(self):
        self.assertEqual(doubled([2]), [4])


@pytest.mark.skip(reason="on purpose")
def test_skipped():
    raise AssertionError


@pytest.mark.xfail(reason="on purpose", strict=True)
def test_expected_failure():
    raise AssertionError


@pytest.mark.perf(duration="200ms", warmup="0s", launches=1, concurrency=2)
def test_load(perf):
    assert perf.predict(4) == 8
    perf.assert_rtm_below("60s")
    perf.assert_error_rate_below("1%")


@pytest.mark.parametrize("value", [5, 6])
def test_deployment(perf_deploy, value):
    with perf_deploy("cached") as deployment:
        assert deployment.predict(value) == 2 * value
