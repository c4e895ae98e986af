"""A perf test of which nothing is started, since the launches that are judged are declared."""

from typing import Any, cast

from msgspec.structs import replace

from pytest_mlpatterns.baseline.lookup import BaselineMatch
from pytest_mlpatterns.config.run_settings import BaselineMode
from pytest_mlpatterns.config.settings import InconclusivePolicy, read_settings
from pytest_mlpatterns.judging.experiment import Experiment, LoadDriver
from pytest_mlpatterns.judging.verdict_log import VerdictLog
from pytest_mlpatterns.records.baseline_entry import Entry
from pytest_mlpatterns.records.result import TestResult
from pytest_mlpatterns.records.verdict import Accepted, Gate
from support.synthetic import SETUP


def declared_experiment(entry: Entry | None = None, **marker: object) -> Experiment:
    """The experiment of a test with these arguments of the marker, beside an entry if one is given."""
    settings = read_settings(marker, {}, {})
    mode = BaselineMode.OFF if entry is None else BaselineMode.CHECK
    return Experiment(
        test="test_it",
        settings=settings,
        setup=SETUP,
        system=cast("Any", None),
        plan=cast("Any", None),
        driver=LoadDriver({}, lambda _progress: None),
        command="pytest",
        baseline=BaselineMatch(SETUP, mode, entry),
        accepted=Accepted(settings.accept),
    )


def verdict_log(
    test: str, found: TestResult, *, gate: Gate = Gate.FAIL, policy: InconclusivePolicy = InconclusivePolicy.WARN
) -> VerdictLog:
    """The verdicts of a test with this result."""
    experiment = declared_experiment()
    settings = replace(experiment.settings, gate=gate, inconclusive=policy)
    return VerdictLog(replace(experiment, test=test, settings=settings), lambda: found)
