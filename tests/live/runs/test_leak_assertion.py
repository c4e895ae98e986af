"""Leaks as users meet them: a service that keeps what each request opened, and what is refused."""

import re
from pathlib import Path

import pytest
from support.project import Project

pytestmark = pytest.mark.processes

LEAKY = """
import time

import pytest

OPEN = []

def leaky(batch):
    time.sleep(0.02)
    OPEN.append(open(__file__))
    return batch

@pytest.mark.perf(payload=[1, 2, 3], model=leaky, duration="200ms", warmup="0s", launches=1)
def test_it(perf):
    perf.assert_no_leak("1GiB", duration="4s")
"""


def test_descriptors_that_every_request_keeps_open_are_seen_and_the_result_holds_the_course(tmp_path: Path) -> None:
    run = Project().with_file("test_perf.py", LEAKY).run(tmp_path, "--perf-json", "results.json")
    (result,) = run.json("results.json")["results"]
    found = {one["metric"]: one for one in result["verdicts"]}
    assert found["memory_growth"]["outcome"] != "fail"
    assert result["growth"]["requests"] == sorted(result["growth"]["requests"])
    assert len(result["growth"]["rss_bytes"]) == len(result["growth"]["requests"])
    if "descriptor_growth" not in found:  # the machine stalled through most of the load
        assert "are too few to see a leak" in found["memory_growth"]["reason"]
        return
    assert found["descriptor_growth"]["outcome"] != "pass"
    assert re.match(r"open descriptors grow by [\d,]+ \(±", found["descriptor_growth"]["reason"])
    if found["descriptor_growth"]["outcome"] == "fail":
        assert "find what leaks; if the limit is too tight, change it" in run.failure("test_it")
