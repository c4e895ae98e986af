"""When memory is traced to its lines, and that whatever goes wrong then is a note beside the verdict."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from pytest_mlpatterns.config.settings import ProfileMode
from pytest_mlpatterns.errors import DeploymentError
from pytest_mlpatterns.judging import cause_search
from pytest_mlpatterns.judging.budget import Budget, Spending
from pytest_mlpatterns.judging.cause_search import trace_limit_ns
from pytest_mlpatterns.judging.causes import Causes
from pytest_mlpatterns.judging.sequential import SequentialMeasurement
from pytest_mlpatterns.measurement.variant import Variant
from pytest_mlpatterns.records.profile import ProfileRecord
from pytest_mlpatterns.records.samples import HeldMemory, HeldRecord, MemorySite
from pytest_mlpatterns.records.verdict import Outcome, Verdict

MIB = 1024**2
S = 1_000_000_000
LIMITS: list[dict[str, object]] = []
"""Arguments of the starts of both sides."""
DEPLOYMENT = SimpleNamespace(close=lambda: None)
REVISION: Any = SimpleNamespace(
    name="main (abc1234)",
    worktree=SimpleNamespace(
        root=Path("/tmp/tree"), directory=Path("/tmp/tree/project"), present_root=Path("/srv/project")
    ),
    setup=lambda: SimpleNamespace(payload=None),
    start=lambda **given: LIMITS.append(given) or DEPLOYMENT,
    close=lambda: None,
)


class Scripted:
    """Takes the place of the measurement: what each side holds, or the error of one."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, bool]] = []
        self.held: list[HeldMemory | Exception | None] = []

    def __call__(
        self, variant: Variant, _deployment: object, _generator: object, *, of_growth: bool
    ) -> HeldMemory | None:
        self.asked.append((variant.name, of_growth))
        found = self.held.pop(0)
        if isinstance(found, Exception):
            raise found
        return found


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> Scripted:
    LIMITS.clear()
    script = Scripted()
    script.held = [
        HeldMemory({("/tmp/tree/project/model.py", 3): MIB}, MIB),
        HeldMemory({("/srv/project/model.py", 4): 3 * MIB}, 3 * MIB),
    ]
    monkeypatch.setattr(cause_search, "held_under_load", script)
    monkeypatch.setattr(cause_search, "profile_of", lambda *_, **__: ProfileRecord())
    monkeypatch.setattr(cause_search, "replace", lambda plan, **_: plan)
    return script


def traced(
    *metrics: str,
    mode: ProfileMode = ProfileMode.AUTO,
    attached: bool = False,
    held: HeldRecord | None = None,
    starts_ns: tuple[int, ...] = (),
) -> Causes:
    """What is known after these metrics have failed."""
    experiment: Any = SimpleNamespace(
        settings=SimpleNamespace(profile=mode, engine="local", startup_timeout_ns=60 * S, budget_ns=400 * S),
        driver=SimpleNamespace(on_search=lambda _: None),
        system=SimpleNamespace(
            options=SimpleNamespace(root=Path("/srv/project"), trees=None), is_attached=attached, start=REVISION.start
        ),
        setup=SimpleNamespace(pattern="Url('http://host')"),
        plan=None,
        generator=None,
    )
    found = Causes(experiment, SequentialMeasurement(cast("Any", None), Spending(Budget(60 * S)), 8))
    found.held = held
    verdicts = [Verdict(metric, "revision", Outcome.FAIL, "more") for metric in metrics]
    found.search(REVISION, verdicts, starts_ns)
    return found


def test_a_failure_of_peak_memory_is_traced_on_both_sides(scripted: Scripted) -> None:
    found = traced("rtm", "peak_memory", "memory_growth")
    assert scripted.asked == [("main (abc1234)", False), ("the working tree", False)]
    site = MemorySite("<module>", "model.py", 4, "", MIB, 3 * MIB)
    assert found.held == HeldRecord("", False, MIB, 3 * MIB, (site,))
    assert found._measurement.took_ns > found._measurement.budget.spent_ns == 0


@pytest.mark.parametrize(
    ("mode", "starts_ns", "limit_ns"),
    [
        (ProfileMode.AUTO, (1 * S, 2 * S), 80 * S),
        (ProfileMode.AUTO, (2 * S, 4 * S), 101 * S),
        (ProfileMode.ON, (2 * S, 4 * S), 160 * S),
    ],
)
def test_the_limit_of_a_traced_start_follows_the_slowest_start_of_the_model_and_that_of_the_search(
    scripted: Scripted, mode: ProfileMode, starts_ns: tuple[int, ...], limit_ns: int
) -> None:
    traced("peak_memory", mode=mode, starts_ns=starts_ns)
    assert 2 * [{"traced": "start", "timeout_ns": limit_ns}] == LIMITS


@pytest.mark.parametrize(
    ("starts_ns", "limit_ns"), [((), 60 * S), ((S // 2, S), 60 * S), ((3 * S,), 120 * S), ((60 * S,), 300 * S)]
)
def test_that_limit_is_the_tests_at_least_and_bounded(starts_ns: tuple[int, ...], limit_ns: int) -> None:
    assert trace_limit_ns(60 * S, starts_ns) == limit_ns
    assert trace_limit_ns(600 * S, starts_ns) == 600 * S


def test_a_leak_is_traced_by_its_growth(scripted: Scripted) -> None:
    traced("memory_growth")
    assert [of_growth for _, of_growth in scripted.asked] == [True, True]
    assert [given["traced"] for given in LIMITS] == ["load", "load"]  # the start is as fast as ever


@pytest.mark.parametrize(
    "given",
    [
        {"metrics": ("rtm", "error_rate")},
        {"metrics": ("peak_memory",), "mode": ProfileMode.OFF},
        {"metrics": ("peak_memory",), "held": HeldRecord("done before")},
    ],
)
def test_nothing_is_traced_without_need(scripted: Scripted, given: dict[str, Any]) -> None:
    assert traced(*given.pop("metrics"), **given).held == given.get("held")
    assert scripted.asked == []


def test_an_attached_service_and_one_of_the_users_own_have_no_lines(scripted: Scripted) -> None:
    note = "memory by line is not known: the processes of Url('http://host') are not those of this run"
    assert traced("peak_memory", attached=True).held == HeldRecord(note)
    scripted.held = [None, None]
    assert traced("peak_memory").held.note.startswith("memory by line is known of models only; ")


def test_an_error_is_a_note(scripted: Scripted) -> None:
    scripted.held[0] = DeploymentError("it died\nat length")
    found = traced("peak_memory")
    assert found.held == HeldRecord("memory by line is not known: it died")
    assert found._measurement.took_ns > found._measurement.budget.spent_ns == 0
