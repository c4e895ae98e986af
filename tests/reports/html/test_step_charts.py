"""The steps of the function beside the load in the page: marks on each chart over time, and the course of latency."""

from __future__ import annotations

import re

from support.stepped import Step, stepped_launch
from support.synthetic import LAYERS, result

from pytest_mlpatterns.analysis.capacity.step_impact import USUAL_LIMIT, around_steps, impacts_of, latency_moments
from pytest_mlpatterns.judging.result_builder import with_steps
from pytest_mlpatterns.reports.html.charts import charts_of
from pytest_mlpatterns.reports.html.drawing import chart_figure
from pytest_mlpatterns.reports.text.notes import describe_steps

OVER_TIME = {"Latency over time", "System load over time", "Memory over time", "Queue depth over time"}
LAUNCHES = [
    stepped_launch(Step(blocked_s=blocked_s, length_s=0.5), Step(begin_s=2.5, length_s=0.0, name="kill"), seed=seed)
    for seed, blocked_s in enumerate((0.5, 0.2))
]
IMPACTS = impacts_of(around_steps(LAUNCHES), USUAL_LIMIT)
STEPPED = with_steps(result(layers=LAYERS), IMPACTS, latency_moments(LAUNCHES[-1]))


def test_each_chart_over_time_marks_the_steps_of_the_last_launch() -> None:
    charts = {chart.title: chart for chart in charts_of(STEPPED)}
    assert charts.keys() >= OVER_TIME
    for title, chart in charts.items():
        expected = ((1.0, 1.5, "reload"), (2.5, 2.5, "kill")) if title in OVER_TIME else ()
        assert chart.spans == expected, title
    drawn = str(chart_figure(charts["System load over time"]))
    assert re.findall(r"<title>(reload|kill)</title>", drawn) == ["reload", "kill"]


def test_the_course_has_the_hurt_requests_of_the_last_launch() -> None:
    (course,) = (chart for chart in charts_of(STEPPED) if chart.title == "Latency over time")
    assert course.title == "Latency over time"
    assert course.summary.startswith("reload: ")
    assert len(course.rows) == 80
    assert len({len(row) for row in course.rows} | {len(course.columns)}) == 1


def test_without_steps_nothing_is_marked() -> None:
    plain = with_steps(result(layers=LAYERS), (), ())
    assert plain == result(layers=LAYERS)
    assert all(not chart.spans for chart in charts_of(plain))


def test_the_notes_name_the_worst_launch_of_each_step() -> None:
    reload_note, kill_note = STEPPED.judged.notes
    assert reload_note.startswith("step reload, 1.00 s to 1.50 s, the worst of 2 launches: ")
    assert " requests hurt, worst " in reload_note
    assert kill_note.startswith("step kill, at 2.50 s, the worst of 2 launches: ")
    assert describe_steps(IMPACTS[:1])[0].startswith("step reload, 1.00 s to 1.50 s: ")
