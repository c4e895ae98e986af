"""When a test is profiled, and that whatever goes wrong then is a note beside the verdict."""

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from pytest_mlpatterns.config.settings import ProfileMode
from pytest_mlpatterns.errors import DeploymentError, ProfilerError
from pytest_mlpatterns.judging import cause_search
from pytest_mlpatterns.judging.causes import Causes, names_functions
from pytest_mlpatterns.judging.experiment import Experiment
from pytest_mlpatterns.judging.sequential import SequentialMeasurement
from pytest_mlpatterns.measurement.profiled_pair import ProfiledSide
from pytest_mlpatterns.records.profile import ProfiledBlock, ProfiledRun, ProfileRecord
from pytest_mlpatterns.records.verdict import Outcome, Verdict
from pytest_mlpatterns.revision.client import RevisionClient


def verdict(metric: str, outcome: Outcome = Outcome.FAIL) -> Verdict:
    return Verdict(metric, "revision", outcome, "slower")


FAILED = [verdict("rtm")]


class ScriptedPair:
    """Takes the place of the measurement; ``raises`` is what goes wrong in it."""

    raises: Exception | None = None
    sides: Sequence[ProfiledSide | None] = ()

    def __init__(self, now: ProfiledSide, before: ProfiledSide | None, **_: object) -> None:
        ScriptedPair.sides = (now, before)

    def run(self) -> ProfiledRun:
        if self.raises is not None:
            raise self.raises
        block = ProfiledBlock((), 1)
        return ProfiledRun((block,), profiler="scripted 1")


@pytest.fixture(autouse=True)
def _scripted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cause_search, "ProfiledPair", ScriptedPair)
    monkeypatch.setattr(cause_search, "find_py_spy", lambda *_: SimpleNamespace(name="scripted 1"))
    monkeypatch.setattr(ScriptedPair, "raises", None)


def experiment(mode: ProfileMode, *, engine: str = "local", attached: bool = False, smoke: bool = False) -> Experiment:
    options = SimpleNamespace(root=Path("/srv/top/project"), directory=Path("/tmp"), trees=None)
    return cast(
        "Experiment",
        SimpleNamespace(
            settings=SimpleNamespace(profile=mode, engine=engine),
            system=SimpleNamespace(options=options, is_attached=attached, start=lambda **_: None),
            setup=SimpleNamespace(pattern="Url('http://host')"),
            plan=Plan(),
            generator=None,
            driver=SimpleNamespace(on_progress=print),
            revision=None,
            smoke=smoke,
        ),
    )


class Plan(SimpleNamespace):
    warmup_ns = 60_000_000_000


def causes_of(mode: ProfileMode, **given: Any) -> Causes:
    return Causes(experiment(mode, **given), SequentialMeasurement(cast("Any", None), 60_000_000_000, 8))


REVISION = cast(
    "RevisionClient",
    SimpleNamespace(
        name="main (abc1234)",
        worktree=SimpleNamespace(
            root=Path("/tmp/tree"), directory=Path("/tmp/tree/project"), present_root=Path("/srv/top")
        ),
        setup=lambda: SimpleNamespace(payload=None),
        start=lambda **_: None,
    ),
)


@pytest.fixture(autouse=True)
def _plain_plans(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cause_search, "replace", lambda plan, **changes: SimpleNamespace(**vars(plan), **changes))


@pytest.mark.parametrize("metric", ["rtm", "p99", "throughput", "nmrt", "cpu_per_request", "ttft", "tpot"])
def test_a_failure_of_a_time_or_a_rate_asks_for_functions(metric: str) -> None:
    assert names_functions([verdict("error_rate"), verdict(metric)])
    assert not names_functions([verdict(metric, Outcome.PASS), verdict(metric, Outcome.INCONCLUSIVE)])


@pytest.mark.parametrize("metric", ["peak_memory", "memory_growth", "error_rate", "cold_start", "response_bytes"])
def test_a_failure_of_anything_else_does_not(metric: str) -> None:
    assert not names_functions([verdict(metric)])


def test_auto_profiles_after_a_failure_only() -> None:
    causes = causes_of(ProfileMode.AUTO)
    causes.profile_comparison(REVISION, [verdict("rtm", Outcome.PASS)])
    causes.profile_alone()
    assert causes.profile is None
    causes.profile_comparison(REVISION, FAILED)
    assert causes.profile is not None
    assert causes.profile.profiler == "scripted 1"
    assert causes._measurement.interleaved_s > 0


def test_on_profiles_always_and_once() -> None:
    causes = causes_of(ProfileMode.ON)
    causes.profile_comparison(REVISION, [])
    first = causes.profile
    assert first is not None
    causes.profile_comparison(REVISION, FAILED)
    causes.profile_alone()
    assert causes.profile is first


def test_on_profiles_the_present_without_a_revision_and_no_smoke_run() -> None:
    smoke, causes = causes_of(ProfileMode.ON, smoke=True), causes_of(ProfileMode.ON)
    smoke.profile_alone()
    assert smoke.profile is None
    causes.profile_alone()
    assert causes.profile is not None
    assert ScriptedPair.sides[1] is None


def test_off_never_profiles() -> None:
    causes = causes_of(ProfileMode.OFF)
    causes.profile_comparison(REVISION, FAILED)
    causes.profile_alone()
    assert causes.profile is None


def test_an_old_commit_that_is_measured_has_the_tree_of_that_commit() -> None:
    causes = causes_of(ProfileMode.AUTO)
    causes._experiment.system.options.trees = Path("/srv/top"), Path("/tmp/old")  # type: ignore[misc]
    causes.profile_comparison(REVISION, FAILED)
    now, _ = ScriptedPair.sides
    assert now is not None
    assert now.names._top == "/tmp/old"


def test_each_side_has_its_tree_and_a_short_warm_up() -> None:
    causes_of(ProfileMode.AUTO).profile_comparison(REVISION, FAILED)
    now, before = ScriptedPair.sides
    assert now is not None
    assert before is not None
    assert before.variant.name == "main (abc1234)"
    assert now.variant.plan.warmup_ns == before.variant.plan.warmup_ns == 1_000_000_000
    assert now.names._root == "/srv/top/project"
    assert before.names._top.endswith("/tmp/tree")


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"attached": True}, "no profile: the processes of Url('http://host') are not those of this run"),
        ({"engine": "ray"}, 'no profile: processes of engine="ray" may run on other machines'),
    ],
)
def test_what_cannot_be_profiled_says_why(given: dict[str, object], words: str) -> None:
    causes = causes_of(ProfileMode.AUTO, **given)
    causes.profile_comparison(REVISION, FAILED)
    assert causes.profile == ProfileRecord(note=words)


@pytest.mark.parametrize(
    "error", [ProfilerError("py-spy cannot read\nat length"), DeploymentError("py-spy cannot read")]
)
def test_an_error_is_a_note(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ScriptedPair, "raises", error)
    causes = causes_of(ProfileMode.AUTO)
    causes.profile_comparison(REVISION, FAILED)
    assert causes.profile == ProfileRecord(note="no profile: py-spy cannot read")


def test_an_interrupt_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ScriptedPair, "raises", KeyboardInterrupt())
    causes = causes_of(ProfileMode.AUTO)
    with pytest.raises(KeyboardInterrupt):
        causes.profile_comparison(REVISION, FAILED)
    assert causes.profile is None
