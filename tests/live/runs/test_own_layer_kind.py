"""A pattern in one file of a project brings its metric, its note and its chart, in a distributed run too."""

from pathlib import Path

import pytest
from support.project import APART, Project

pytestmark = pytest.mark.processes

TESTS = """
from dataclasses import dataclass
from inspect import isawaitable

from pytest_mlpatterns import Figure, LayerKind, PartsChart, Pattern, Unit

@dataclass(frozen=True)
class Counting(Pattern):
    layer_kind = LayerKind(
        figures=(
            Figure(
                "counting_inputs",
                "inputs of a request",
                Unit.COUNT,
                of=("inputs",),
                over=("requests",),
                note="{} inputs a request",
            ),
        ),
        charts=(PartsChart("What was counted", "kind", "things", {"inputs": "input", "requests": "request"}, "in"),),
    )

    def layer(self, inside, tally, resources):
        async def counting(inputs):
            tally.count("requests")
            tally.count("inputs", len(inputs))
            outputs = inside[0](inputs)
            return await outputs if isawaitable(outputs) else outputs

        return counting

@pytest.mark.perf(pattern=Counting())
def test_it(perf):
    perf.assert_rtm_below("60s")
    assert perf.metrics.figure("counting_inputs").value == 1
    with pytest.raises(KeyError, match="'counting_input', did you mean counting_inputs[?]"):
        perf.metrics.figure("counting_input")
"""


def test_a_pattern_in_a_test_file_brings_metric_note_and_chart(tmp_path: Path) -> None:
    options = ("--perf-json", "out.json", "--perf-html", "out.html", "-W", "ignore")
    run = Project().with_tests(TESTS).run(tmp_path, *options, *APART)
    assert run.outcomes == {"passed": 1}
    (result,) = run.json("out.json")["results"]
    assert result["metrics"]["counting_inputs"][0] == 1
    assert "counting: 1.00 inputs a request" in run.out
    page = (tmp_path / "out.html").read_text(encoding="utf-8")
    assert "What was counted" in page
    assert "Inputs of a request" in page
