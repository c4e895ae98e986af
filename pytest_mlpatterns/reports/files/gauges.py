"""Results as gauges, for databases of time series: OpenMetrics text, and OTLP in JSON. Results → text.

Each metric of a result is three gauges: its value, and both ends of its interval. A change that a verdict judged is
three more. Times are in seconds and sizes in bytes, as both formats ask for.

Formats: OpenMetrics 1.0 (openmetrics.io, 2020), as Prometheus' text file collector, Pushgateway and ``promtool`` read
it; and ``ExportMetricsServiceRequest`` of OTLP 1.x in its JSON encoding (opentelemetry.io), as a collector's receivers
``otlp`` and ``otlpjsonfile`` do.
"""

import json
from collections.abc import Iterator
from dataclasses import astuple
from datetime import datetime
from typing import Any

from msgspec import Struct

from pytest_mlpatterns.analysis.metrics.definitions import known_metric
from pytest_mlpatterns.analysis.metrics.metric import Goodput, objective_of
from pytest_mlpatterns.errors import ResultFileError
from pytest_mlpatterns.records.result import TestResult
from pytest_mlpatterns.records.verdict import Kind
from pytest_mlpatterns.reports.files.result_file import MOST, Results
from pytest_mlpatterns.units import Unit
from pytest_mlpatterns.wording import visible

_PREFIX = "mlpatterns"
_UNITS = {
    Unit.DURATION: ("seconds", "s", 1e-9),
    Unit.RATE: ("requests_per_second", "{request}/s", 1.0),
    Unit.TOKEN_RATE: ("tokens_per_second", "{token}/s", 1.0),
    Unit.RATIO: ("ratio", "1", 1.0),
    Unit.SIZE: ("bytes", "By", 1.0),
    Unit.INSTRUCTIONS: ("", "{instruction}", 1.0),
    Unit.COST: ("per_million_requests", "1", 1.0),
    Unit.PER_SECOND: ("per_second", "1/s", 1.0),
    Unit.COUNT: ("", "1", 1.0),
}
"""Name of each unit in OpenMetrics, in OTLP (UCUM), and the factor to it from the result file's unit."""
_ENDS = ("", "_low", "_high")


class _Gauge(Struct, frozen=True):
    """A gauge."""

    name: str  # without prefix and unit
    unit: Unit  # in the result file
    help: str  # what it is, in a few words

    @property
    def full_name(self) -> str:
        """Prefix, name and unit of OpenMetrics, the unit once."""
        name, unit = f"{_PREFIX}_{self.name}", _UNITS[self.unit][0]
        return name if not unit or name.endswith(f"_{unit}") else f"{name}_{unit}"


class _Point(Struct, frozen=True):
    """A value of a gauge."""

    gauge: _Gauge  # it is a value of this one
    labels: dict[str, str]  # by which the points of a gauge differ
    value: float  # in the unit of both formats


_CHANGE = _Gauge("change", Unit.RATIO, "Change of a metric, worse is positive")


def openmetrics_text(results: Results) -> str:
    """The results as an OpenMetrics exposition, without times, which scrapers add."""
    families: dict[str, list[_Point]] = {}
    for point in _points(results):
        families.setdefault(point.gauge.full_name, []).append(point)
    lines = []
    for name, points in sorted(families.items()):
        unit = _UNITS[points[0].gauge.unit][0]
        lines.append(f"# TYPE {name} gauge")
        lines += [f"# UNIT {name} {unit}"] if unit else []
        lines.append(f"# HELP {name} {_escaped(points[0].gauge.help)}")
        lines += [f"{name}{_label_set(point.labels)} {point.value!r}" for point in points]
    lines += _kinds(results)
    lines += [f"# TYPE {_PREFIX}_run info", f"# HELP {_PREFIX}_run What was measured, and where."]
    lines.append(f"{_PREFIX}_run_info{_label_set(_run(results))} 1")
    lines += [f"# TYPE {_PREFIX}_run_end_seconds gauge", f"# UNIT {_PREFIX}_run_end_seconds seconds"]
    lines.append(f"# HELP {_PREFIX}_run_end_seconds When the run ended, in seconds since 1970.")
    lines.append(f"{_PREFIX}_run_end_seconds {_end_ns(results) / 1e9!r}")
    return "\n".join([*lines, "# EOF"]) + "\n"


def otlp_json(results: Results) -> str:
    """The results as one request of OTLP metrics, on one line."""
    time = str(_end_ns(results))
    gauges: dict[str, dict[str, Any]] = {}
    for point in _points(results):
        name, unit = f"{_PREFIX}.{point.gauge.name}", _UNITS[point.gauge.unit][1]
        empty = {"name": name, "description": point.gauge.help, "unit": unit, "gauge": {"dataPoints": []}}
        gauges.setdefault(name, empty)["gauge"]["dataPoints"].append(
            {"attributes": _attributes(point.labels), "timeUnixNano": time, "asDouble": point.value}
        )
    resource = {"service.name": "pytest-mlpatterns", **_run(results)}
    request = {
        "resourceMetrics": [
            {
                "resource": {"attributes": _attributes(resource)},
                "scopeMetrics": [{"scope": {"name": "pytest_mlpatterns"}, "metrics": list(gauges.values())}],
            }
        ]
    }
    return json.dumps(request, separators=(",", ":")) + "\n"


def _points(results: Results) -> Iterator[_Point]:
    for result in results.results:
        labels = _labels(result)
        for name, found in result.metrics.items():
            if (metric := known_metric(name)) is None:
                continue
            asked = metric.kind.promise if isinstance(metric.kind, Goodput) else objective_of(metric)
            further = {"objective": str(asked)} if asked else {}
            further |= {"currency": metric.currency} if metric.currency else {}
            base = metric.name.removesuffix(f"({asked})")
            plain = known_metric(base)  # the objective is an attribute
            gauge = _Gauge(base, metric.unit, base if plain is None else plain.label)
            yield from _three(gauge, labels | further, found)
        changes = {(one.metric, one.against): one.change for one in result.verdicts if one.change is not None}
        for (name, against), change in changes.items():  # of several verdicts on one, the last
            judged = labels | {"metric": name, "against": against}
            yield from _three(_CHANGE, judged, astuple(change))


def _three(gauge: _Gauge, labels: dict[str, str], found: tuple[float, float, float]) -> Iterator[_Point]:
    """A value and the ends of its interval; ends that are not known are left out."""
    words = ("", ", low end of its interval", ", high end of its interval")
    for end, word, value in zip(_ENDS, words, found, strict=True):
        if abs(value) < MOST:
            one = _Gauge(f"{gauge.name}{end}", gauge.unit, f"{gauge.help}{word}.")
            yield _Point(one, labels, value * _UNITS[gauge.unit][2])


def _labels(result: TestResult) -> dict[str, str]:
    return {"test": result.test, "pattern": str(result.setup.pattern), "load": str(result.setup.load)}


def _kinds(results: Results) -> list[str]:
    """One state set a test, also for tests that failed before they measured; a dashboard filters by the state."""
    name = f"{_PREFIX}_kind"
    found = [(_labels(result), result.kind) for result in results.results]
    found += [
        ({"test": failed.test, "pattern": failed.pattern, "load": ""}, failed.kind) for failed in results.unmeasured
    ]
    states = [(labels | {name: kind.value}, kind is present) for labels, present in found for kind in Kind]
    return [
        f"# TYPE {name} stateset",
        f"# HELP {name} What came of each test.",
        *(f"{name}{_label_set(labels)} {int(is_present)}" for labels, is_present in states),
    ]


def _run(results: Results) -> dict[str, str]:
    """What all points of a run share."""
    environment = results.environment
    return {
        "commit": results.commit or "",
        "processor": environment.processor,
        "cores": str(environment.cores),
        "python": environment.python,
    }


def _label_set(labels: dict[str, str]) -> str:
    return "{" + ",".join(f'{name}="{_escaped(value)}"' for name, value in labels.items()) + "}"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')


def _attributes(labels: dict[str, str]) -> list[dict[str, Any]]:
    return [{"key": name, "value": {"stringValue": value}} for name, value in labels.items()]


def _end_ns(results: Results) -> int:
    """When the run ended; a file that was changed by hand may have a date that is none."""
    try:
        return round(datetime.fromisoformat(results.date).timestamp()) * 1_000_000_000
    except (ValueError, OverflowError) as error:
        raise ResultFileError(f"has the date {visible(results.date)}, expected one of ISO 8601") from error
