"""The verdict on one metric, of what the baseline file and the recorded code say: a table of all cases."""

from typing import Any

from msgspec.structs import replace
from support import ROOT
from support.each_row import each_row
from support.synthetic import MS

from pytest_mlpatterns.judging.screen import with_rates
from pytest_mlpatterns.judging.settled_comparison import _slower_machine
from pytest_mlpatterns.judging.settling_rules import EXCUSED, RULES, Seen, settle
from pytest_mlpatterns.records.launch import Estimate
from pytest_mlpatterns.records.setup import FactChange
from pytest_mlpatterns.records.verdict import OpenBy, Outcome, Verdict

PASS, FAIL, OPEN = Outcome.PASS, Outcome.FAIL, Outcome.INCONCLUSIVE
THEN_NS = 4.0 * MS
BUSY = "other processes used 1.2 of the 2 cores"
SLOWER = "a fixed workload takes 1.50 times as long"
PACKAGE = "onnxruntime 1.19 → 1.20"
OTHER_FILES = "whose files differ from those that perf-baseline.json was recorded from"


def screened(outcome: Outcome, change: float = 0.0, *, half: float = 0.05, metric: str = "rtm") -> Verdict:
    """What the file says: a change in the interval of this half width, at a tolerance of 10 %."""
    interval = Estimate(change, change - half, change + half)
    return Verdict(metric, "baseline", outcome, "by the file", interval, 0.10, THEN_NS, THEN_NS * (1 + change))


def judged(outcome: Outcome, change: float = 0.0, *, half: float = 0.05, metric: str = "rtm") -> Verdict:
    """What the recorded code says."""
    return replace(screened(outcome, change, half=half, metric=metric), against="revision", reason="interleaved")


def verdict(file: Verdict | None, recorded: Verdict | None = None, **known: Any) -> Verdict:
    return settle(Seen(file=file, recorded=recorded, **{"name": "a1b2c3d", **known})).verdict


WORSE, MAYBE_WORSE = screened(FAIL, 0.5), screened(OPEN, 0.12)
SHARED: dict[str, Any] = {"today": screened(FAIL, 0.5)}
"""The recorded code is as slow today."""


@each_row(
    ("file", "recorded", "known", "outcome"),
    [
        # the recorded code decides
        *((file, judged(FAIL, 0.3), {}, FAIL) for file in (None, screened(PASS), screened(OPEN, 0.5), WORSE)),
        *((file, judged(PASS), {}, PASS) for file in (None, screened(PASS), screened(OPEN, 0.05))),
        (screened(PASS), judged(FAIL, 0.3), {"excuse": BUSY, "excuse_then": BUSY}, FAIL),
        # two measurements
        (screened(PASS), judged(OPEN, 0.05), {}, PASS),
        (screened(PASS), judged(OPEN, 0.05), {"is_faster": True}, OPEN),
        (screened(PASS), judged(OPEN, 0.15), {}, OPEN),  # suspected
        (WORSE, judged(OPEN, 0.13), {}, FAIL),
        (WORSE, judged(OPEN, 0.13), {"excuse_then": BUSY}, OPEN),
        (WORSE, judged(OPEN, 0.13, half=0.2), {}, OPEN),
        (WORSE, judged(OPEN, 0.05, half=0.1), {}, OPEN),
        # the file alone
        (screened(PASS), None, {}, PASS),
        (WORSE, None, {}, FAIL),
        (WORSE, None, {"excuse_then": BUSY}, OPEN),
        (WORSE, None, {"slower": SLOWER}, OPEN),
        # the working tree is the recorded code
        (screened(OPEN, 0.05), None, {"is_same": True}, PASS),
        (screened(OPEN, -0.3), None, {"is_same": True}, PASS),
        (WORSE, None, {"is_same": True}, OPEN),
        (WORSE, None, {"is_same": True, "changed": "OMP_NUM_THREADS 1 → 4"}, FAIL),
        (WORSE, None, {"is_same": True, "excuse": SLOWER}, PASS),
        (screened(FAIL, 0.5, metric="peak_memory"), None, {"is_same": True, "is_standing": True}, FAIL),
        # what slowed the first launches down has passed
        (WORSE, judged(PASS), {"today": screened(PASS, 0.02)}, PASS),
        (MAYBE_WORSE, judged(PASS), {"today": screened(OPEN, 0.08)}, PASS),
        (WORSE, judged(PASS), {"today": screened(OPEN, 0.12)}, OPEN),
        # both share it
        (WORSE, judged(PASS), SHARED, OPEN),
        (MAYBE_WORSE, judged(PASS), SHARED, OPEN),
        (WORSE, judged(PASS), SHARED | {"excuse": SLOWER}, PASS),
        (WORSE, judged(PASS), SHARED | {"busy": BUSY}, OPEN),
        (WORSE, judged(PASS), SHARED | {"excuse_then": BUSY}, OPEN),  # of other minutes
        (WORSE, judged(PASS), SHARED | {"changed": PACKAGE}, FAIL),
        (WORSE, judged(PASS), SHARED | {"changed": PACKAGE, "busy": BUSY}, FAIL),
        (WORSE, judged(PASS), SHARED | {"changed": PACKAGE, "excuse": BUSY}, OPEN),
        (WORSE, judged(PASS), SHARED | {"changed": PACKAGE, "slower": SLOWER}, OPEN),
        (MAYBE_WORSE, judged(PASS), SHARED | {"changed": PACKAGE}, OPEN),
        (WORSE, judged(PASS), SHARED | {"changed": "idna 3.7.0 → 3.7.1", "is_small": True}, OPEN),
        (WORSE, judged(PASS), SHARED | {"changed": "idna 3.7.0 → 3.7.1", "is_small": True, "excuse": BUSY}, OPEN),
        # the recorded commit holds other files
        (WORSE, judged(PASS), SHARED | {"other_files": OTHER_FILES}, FAIL),
        (WORSE, judged(PASS), SHARED | {"other_files": OTHER_FILES, "excuse": BUSY, "excuse_then": BUSY}, OPEN),
        (MAYBE_WORSE, judged(PASS), SHARED | {"other_files": OTHER_FILES, "excuse": BUSY}, OPEN),
        (WORSE, judged(PASS), {"other_files": OTHER_FILES, "today": screened(PASS, 0.02)}, PASS),
    ],
)  # fmt: skip
def test_each_case_has_its_verdict(
    file: Verdict | None, recorded: Verdict | None, known: dict[str, Any], outcome: Outcome
) -> None:
    assert verdict(file, recorded, **known).outcome is outcome


@each_row(
    ("known", "by", "said"),
    [
        ({}, OpenBy.UNEXPLAINED, "not the code, and no sign of the machine explains it"),
        ({"busy": BUSY}, OpenBy.MACHINE, f"not the code, and {BUSY}, which explains less"),
        ({"busy": BUSY, "is_standing": True}, OpenBy.UNEXPLAINED, "not the code, and no sign of the machine explains"),
        (
            {"changed": PACKAGE, "excuse": BUSY},
            OpenBy.UNEXPLAINED,
            f"not the code; {PACKAGE} changed since the baseline was recorded, and {BUSY}",
        ),
        (
            {"changed": "idna 3.7.0 → 3.7.1", "is_small": True},
            OpenBy.UNEXPLAINED,
            "not the code; idna 3.7.0 → 3.7.1 changed since the baseline was recorded",
        ),
    ],
)
def test_what_both_share_and_stays_open_has_its_true_reason(known: dict[str, Any], by: OpenBy, said: str) -> None:
    found = verdict(WORSE, judged(PASS), **SHARED, **known)
    shared = "median latency 4.00 ms → 6.00 ms, 50.0 % worse than the baseline, and so is a1b2c3d today: "
    assert found.outcome is OPEN
    assert found.why_open.by is by
    assert found.reason.startswith(shared + said)


def test_a_failure_names_the_changed_environment_the_other_files_or_what_the_file_saw_too() -> None:
    today = "and so is a1b2c3d today"
    assert verdict(WORSE, judged(PASS), **SHARED, changed=PACKAGE).reason.endswith(
        f"{today}: not the code, but {PACKAGE} changed since the baseline was recorded; "
        "if that is intended, record it anew"
    )
    others = verdict(WORSE, judged(PASS), **SHARED, other_files=OTHER_FILES).reason
    assert others.endswith(f"{today}, {OTHER_FILES}: it may have the change too")
    seen = "by the file: median latency 4.00 ms → 6.00 ms, 50.0 % worse than the baseline"
    assert verdict(WORSE, judged(FAIL, 0.3)).reason == f"interleaved; {seen}"
    mean = replace(WORSE, judged_by="latency_mean")
    assert verdict(mean, judged(FAIL, 0.3)).reason == f"interleaved; {seen.replace('median latency', 'mean latency')}"


def test_only_one_rule_passes_what_is_worse_today() -> None:
    ruling = settle(Seen(file=WORSE, is_same=True, excuse=SLOWER))
    assert ruling.rule is EXCUSED
    assert ruling.verdict.reason.endswith(f"with the code that was recorded: {SLOWER}")
    assert RULES.index(EXCUSED) == len(RULES) - 3


@each_row(
    ("name", "before", "now", "is_small"),
    [
        ("package idna", "3.7.0", "3.7.1", True),
        ("package idna", "3.7", "3.7.1", True),
        ("package idna", "3.7", "3.8", False),
        ("package torch", "2.3.0+cu121", "2.3.0+cpu", False),
        ("package torch", "2.3.0", None, False),
        ("package torch", "2.3.0, 2.3.1", "2.3.1", False),
        ("Python", "3.11.7", "3.11.8", False),
    ],
)
def test_a_patch_level_is_a_small_change(name: str, before: str, now: str | None, is_small: bool) -> None:
    assert FactChange(name, before, now).is_small is is_small


class TestARateFollowsFromItsTimes:
    """One disturbed launch of an entry leaves the throughput of a closed loop open."""

    RATE = screened(OPEN, 0.02, half=0.15, metric="throughput")
    TTFT, TPOT = screened(PASS, metric="ttft"), screened(PASS, metric="tpot")

    @each_row(
        ("rate", "times", "outcome"),
        (RATE, (screened(PASS),), PASS),
        (RATE, (), OPEN),
        (RATE, (screened(OPEN, 0.05),), OPEN),
        (RATE, (screened(FAIL, 0.3),), OPEN),
        (screened(OPEN, 0.06, half=0.15, metric="throughput"), (screened(PASS),), OPEN),  # it looks slower
        (screened(FAIL, 0.3, metric="throughput"), (screened(PASS),), FAIL),
        (replace(RATE, metric="output_tokens"), (TTFT,), OPEN),  # tokens follow from two times
        (replace(RATE, metric="output_tokens"), (TTFT, TPOT), PASS),
    )
    def test_times_within_their_tolerance_decide_it(
        self, rate: Verdict, times: tuple[Verdict, ...], outcome: Outcome
    ) -> None:
        assert with_rates({one.metric: one for one in (rate, *times)})[rate.metric].outcome is outcome


@each_row(
    ("file", "is_standing", "decided"),
    [
        (screened(PASS), False, True),
        (WORSE, False, False),
        (screened(OPEN, 0.5), False, False),
        (screened(FAIL, 0.5, metric="peak_memory"), True, True),
        (screened(OPEN, 0.5, metric="peak_memory"), True, False),
    ],
)
def test_the_file_alone_decides_what_passes_and_what_no_machine_changes(
    file: Verdict, *, is_standing: bool, decided: bool
) -> None:
    assert Seen(file=file, is_standing=is_standing).is_decided is decided


def test_the_page_of_verdicts_shows_the_rules_in_their_order() -> None:
    rows = "\n".join(f"| {rule.when} | {rule.then} |" for rule in RULES)
    assert rows in (ROOT / "docs/explanation/verdicts.md").read_text(encoding="utf-8")


@each_row(
    ("beside", "excuse", "said"),
    [
        (
            screened(PASS, metric="peak_memory"),
            SLOWER,
            "this machine takes 1.5 times as long as when the baseline was recorded (a fixed",
        ),
        (screened(FAIL, 0.5, metric="peak_memory"), SLOWER, ""),
        (screened(PASS, metric="peak_memory"), "", ""),
    ],
)
def test_a_slower_machine_is_said_only_where_all_passes(beside: Verdict, excuse: str, said: str) -> None:
    decided = settle(Seen(file=WORSE, is_same=True, excuse=excuse)), settle(Seen(file=beside))
    found = _slower_machine({one.verdict.metric: one for one in decided})
    assert found.startswith(said)
    assert bool(found) is bool(said)
