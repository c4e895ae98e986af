"""When a test is profiled, and that whatever goes wrong then is a note beside the verdict."""

import signal
import threading
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from msgspec.structs import replace
from support.declared_run import DeclaredRun
from support.each_row import each_row
from support.synthetic import even_launch

from pytest_mlpatterns.config.settings import ProfileMode
from pytest_mlpatterns.errors import DeploymentError, ProfilerError
from pytest_mlpatterns.judging import cause_search
from pytest_mlpatterns.judging.budget import Budget, Spending
from pytest_mlpatterns.judging.causes import Causes
from pytest_mlpatterns.judging.experiment import Experiment
from pytest_mlpatterns.judging.sequential import SequentialMeasurement
from pytest_mlpatterns.measurement.profiled_pair import ProfiledSide
from pytest_mlpatterns.records.profile import ProfiledBlock, ProfiledRun, ProfileRecord
from pytest_mlpatterns.records.verdict import Outcome, Verdict
from pytest_mlpatterns.reports.text.where import functions_explain
from pytest_mlpatterns.revision.client import RevisionClient
from pytest_mlpatterns.system.time_limit import TimeIsUp, time_limit


def verdict(metric: str, outcome: Outcome = Outcome.FAIL) -> Verdict:
    return Verdict(metric, "revision", outcome, "slower")


FAILED = [verdict("rtm")]
SHOWN: list[str] = []
ENDED: list[str] = []
"""How often the other revision was ended."""


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
            settings=SimpleNamespace(
                profile=mode, engine=engine, budget_ns=60_000_000_000, startup_timeout_ns=60_000_000_000
            ),
            system=SimpleNamespace(options=options, is_attached=attached, start=lambda **_: None),
            setup=SimpleNamespace(pattern="Url('http://host')"),
            plan=Plan(),
            generator=None,
            driver=SimpleNamespace(on_progress=print, on_search=SHOWN.append),
            revision=None,
            smoke=smoke,
        ),
    )


class Plan(SimpleNamespace):
    warmup_ns = 60_000_000_000


def causes_of(mode: ProfileMode, **given: Any) -> Causes:
    return Causes(
        experiment(mode, **given), SequentialMeasurement(cast("Any", None), Spending(Budget(60_000_000_000)), 8)
    )


def profiled(*verdicts: Verdict) -> bool:
    causes = causes_of(ProfileMode.AUTO)
    causes.search(REVISION, verdicts)
    return causes.profile is not None


REVISION = cast(
    "RevisionClient",
    SimpleNamespace(
        name="main (abc1234)",
        worktree=SimpleNamespace(
            root=Path("/tmp/tree"), directory=Path("/tmp/tree/project"), present_root=Path("/srv/top")
        ),
        setup=lambda: SimpleNamespace(payload=None),
        start=lambda **_: None,
        close=lambda: ENDED.append("closed"),
    ),
)


@pytest.fixture(autouse=True)
def _plain_plans(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cause_search, "replace", lambda plan, **changes: SimpleNamespace(**vars(plan), **changes))


@each_row("metric", ["rtm", "p99", "throughput", "nmrt", "cpu_per_request", "ttft", "tpot", "output_tokens"])
def test_a_failure_of_a_time_or_a_rate_asks_for_functions(metric: str) -> None:
    assert profiled(verdict("error_rate"), verdict(metric))
    assert not profiled(verdict(metric, Outcome.PASS), verdict(metric, Outcome.INCONCLUSIVE))


@each_row("metric", ["peak_memory", "memory_growth", "error_rate", "cold_start", "response_bytes"])
def test_a_failure_of_anything_else_does_not(metric: str) -> None:
    assert not functions_explain(metric)


def test_auto_profiles_after_a_failure_only() -> None:
    causes = causes_of(ProfileMode.AUTO)
    causes.search(REVISION, [verdict("rtm", Outcome.PASS)])
    causes.profile_alone()
    assert causes.profile is None
    causes.search(REVISION, FAILED)
    assert causes.profile.profiler == "scripted 1"
    assert causes._measurement.took_ns > causes._measurement.budget.spent_ns == 0


def test_on_profiles_always_and_once_and_off_never() -> None:
    on, off = causes_of(ProfileMode.ON), causes_of(ProfileMode.OFF)
    on.search(REVISION, [])
    first = on.profile
    assert first is not None
    for causes in (on, off):
        causes.search(REVISION, FAILED)
        causes.profile_alone()
    assert on.profile is first
    assert off.profile is None


def test_on_profiles_the_present_without_a_revision_and_no_smoke_run() -> None:
    smoke, causes = causes_of(ProfileMode.ON, smoke=True), causes_of(ProfileMode.ON)
    smoke.profile_alone()
    causes.profile_alone()
    assert (smoke.profile, causes.profile is None, ScriptedPair.sides[1]) == (None, False, None)


def test_each_side_has_its_tree_and_a_short_warm_up() -> None:
    causes_of(ProfileMode.AUTO).search(REVISION, FAILED)
    now, before = ScriptedPair.sides
    assert before.variant.name == "main (abc1234)"
    assert now.variant.plan.warmup_ns == before.variant.plan.warmup_ns == 1_000_000_000
    assert now.names._root == "/srv/top/project"
    assert before.names._top.endswith("/tmp/tree")
    causes = causes_of(ProfileMode.AUTO)
    causes._experiment.system.options.trees = Path("/srv/top"), Path("/tmp/old")  # type: ignore[misc]
    causes.search(REVISION, FAILED)
    assert ScriptedPair.sides[0].names._top == "/tmp/old", "of an old commit that is measured"


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"attached": True}, "no profile: the processes of Url('http://host') are not those of this run"),
        ({"engine": "ray"}, 'no profile: processes of engine="ray" may run on other machines'),
    ],
)
def test_what_cannot_be_profiled_says_why(given: dict[str, object], words: str) -> None:
    causes = causes_of(ProfileMode.AUTO, **given)
    causes.search(REVISION, FAILED)
    assert causes.profile == ProfileRecord(note=words)


@pytest.mark.parametrize(
    "error", [ProfilerError("py-spy cannot read\nat length"), DeploymentError("py-spy cannot read")]
)
def test_an_error_is_a_note(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ScriptedPair, "raises", error)
    causes = causes_of(ProfileMode.AUTO)
    causes.search(REVISION, FAILED)
    assert causes.profile == ProfileRecord(note="no profile: py-spy cannot read")


INTERRUPTED = "the search for the cause was interrupted"


@pytest.mark.parametrize(
    ("while_cleaning", "note"),
    [
        (KeyboardInterrupt(), INTERRUPTED),
        (TimeIsUp(), INTERRUPTED),
        (DeploymentError("it does not end"), "no profile: it does not end"),
    ],
)
def test_an_interrupt_ends_the_search_and_takes_effect_after_the_verdicts(
    monkeypatch: pytest.MonkeyPatch, while_cleaning: BaseException, note: str
) -> None:
    """Also if it is cleaned up when the time of the search is over, or what cleans up fails."""

    def run(_: object) -> ProfiledRun:
        try:
            raise KeyboardInterrupt
        finally:
            raise while_cleaning

    monkeypatch.setattr(ScriptedPair, "run", run)
    causes = causes_of(ProfileMode.AUTO)
    causes.search(REVISION, FAILED)
    assert causes.profile == ProfileRecord(note=note)
    assert causes.interrupted


class Ignored:
    """Python drops what is raised while it goes."""

    def __del__(self) -> None:
        threading.Event().wait(0.1)


class Waiting(ScriptedPair):
    """Waits for what never comes, and then cleans up for as long; a library makes another error of the end."""

    def run(self) -> ProfiledRun:
        never = threading.Event()
        Ignored()
        try:
            never.wait()
        except KeyboardInterrupt:
            pytest.fail("a limit is no interrupt")
        finally:
            try:
                never.wait()
            except BaseException as error:
                raise SystemError("unbalanced") from error
        raise AssertionError


@pytest.fixture
def waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cause_search, "ProfiledPair", Waiting)
    monkeypatch.setattr("pytest_mlpatterns.judging.causes._LEAST_NS", 20_000_000)
    monkeypatch.setattr("pytest_mlpatterns.system.time_limit._CLEANING_S", 0.02)
    for listed in (SHOWN, ENDED):
        listed.clear()


@pytest.mark.usefixtures("waiting")
def test_a_search_has_a_limit_that_holds_while_it_waits() -> None:
    causes = causes_of(ProfileMode.AUTO)
    causes._experiment.settings.budget_ns = 0  # type: ignore[misc]
    handler = signal.getsignal(signal.SIGURG)
    causes.search(REVISION, FAILED)
    note = "the cause was not found in 20.0 ms; --perf-profile on looks for it without a limit"
    assert causes.profile == ProfileRecord(note=note)
    assert not causes.interrupted
    assert [*dict.fromkeys(SHOWN)] == ["median latency is worse; searching for the cause, 1 s left", ""]
    assert signal.getsignal(signal.SIGURG) is handler


def test_a_limit_that_is_over_at_once_ends_the_block_alone_and_leaves_no_tick() -> None:
    handler = signal.getsignal(signal.SIGURG)
    for _ in range(20):
        with pytest.raises(TimeIsUp), time_limit(0, lambda _left: None):
            threading.Event().wait()
        assert signal.getsignal(signal.SIGURG) is handler
    assert not [one for one in threading.enumerate() if one.name == "ticks"]


@pytest.mark.usefixtures("waiting")
def test_the_limit_is_a_quarter_of_the_budget_and_a_start_and_a_profile_that_was_asked_for_has_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    limits: list[int | None] = []
    monkeypatch.setattr(cause_search, "profile_of", lambda *_, longest_ns, **__: limits.append(longest_ns))
    causes_of(ProfileMode.AUTO).search(REVISION, FAILED)
    causes_of(ProfileMode.ON).search(REVISION, FAILED)
    slow = causes_of(ProfileMode.AUTO)
    slow._measurement.take(DeclaredRun(second_launches=[replace(even_launch(), cold_start_ns=9 * 10**9)]))  # type: ignore[arg-type]
    slow.search(REVISION, FAILED)
    assert limits == [15_000_000_000, None, 24_000_000_000]
    assert ENDED == ["closed"] * 3
