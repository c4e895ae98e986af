"""The steps of the function beside the load in the page: marks on each chart over time, and the course of latency."""

import re

from support.stepped import Step, stepped_launch
from support.synthetic import LAYERS, result

from pytest_mlpatterns.analysis.capacity.step_impact import USUAL_LIMIT, around_steps, impacts_of, latency_moments
from pytest_mlpatterns.records.capacity import LatencyMoment
from pytest_mlpatterns.reports.html.charts import tracks_chart
from pytest_mlpatterns.reports.html.drawing import chart_figure
from pytest_mlpatterns.reports.text.notes import describe_steps

LAUNCHES = [
    stepped_launch(Step(blocked_s=blocked_s, length_s=0.5), Step(begin_s=2.5, length_s=0.0, name="kill"), seed=seed)
    for seed, blocked_s in enumerate((0.5, 0.2))
]
IMPACTS = impacts_of(around_steps(LAUNCHES), USUAL_LIMIT)
STEPPED = result(
    layers=LAYERS, steps=IMPACTS, latency_over_time=latency_moments(LAUNCHES[-1]), notes=tuple(describe_steps(IMPACTS))
)


def test_the_courses_mark_the_steps_of_the_last_launch() -> None:
    chart = tracks_chart(STEPPED)
    assert [track.title for track in chart.tracks][-3:] == ["System load", "Memory", "Queue depth over time"]
    assert chart.spans == ((1.0, 1.5, "reload"), (2.5, 2.5, "kill"))
    assert set(re.findall(r"<title>(\w+)</title>", str(chart_figure(chart)))) == {"reload", "kill"}


def test_the_course_has_the_hurt_requests_of_the_last_launch() -> None:
    chart = tracks_chart(STEPPED)
    latency = chart.tracks[0]
    assert (latency.title, latency.names) == ("Latency", ("median", "longest"))
    assert latency.note.startswith("reload: ")
    assert len(latency.rows) > 60
    assert {len(row) for row in latency.rows} == {3}


def test_requests_that_fail_have_a_course_of_their_own() -> None:
    moments = tuple(
        LatencyMoment(float(at), None if at == 2 else 1e6, None if at == 2 else 2e6, int(at == 2)) for at in range(4)
    )
    chart = tracks_chart(result(steps=IMPACTS, latency_over_time=moments))
    latency, failed = chart.tracks[:2]
    assert [row[0] for row in latency.rows] == [0.0, 1.0, 3.0]
    assert failed.rows == ((0.0, 0.0), (1.0, 0.0), (2.0, 1.0), (3.0, 0.0))


def test_the_notes_name_the_worst_launch_of_each_step() -> None:
    reload_note, kill_note = STEPPED.judged.notes
    assert reload_note.startswith("step reload, 1.00 s to 1.50 s, the worst of 2 launches: ")
    assert " requests hurt, worst " in reload_note
    assert kill_note.startswith("step kill, at 2.50 s, the worst of 2 launches: ")
    assert describe_steps(IMPACTS[:1])[0].startswith("step reload, 1.00 s to 1.50 s: ")
