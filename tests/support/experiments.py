"""A perf test of which nothing is started, since the launches that are judged are declared."""

from typing import Any, cast

from pytest_mlpatterns.baseline.lookup import BaselineMatch
from pytest_mlpatterns.config.run_settings import BaselineMode
from pytest_mlpatterns.config.settings import read_settings
from pytest_mlpatterns.judging.experiment import Experiment, LoadDriver
from pytest_mlpatterns.records.baseline_entry import Entry
from pytest_mlpatterns.records.verdict import Accepted
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
