"""The verdict on one metric, by what the file and the recorded code show of it: one table of rules.

The file is a fast screen, and the recorded code in these minutes is the judge. What both share is no failure of this
code. It passes only if nothing has changed that could be its cause, and the machine of these minutes explains all of
it. Pure. This module must not know how anything was measured.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from msgspec import Struct
from msgspec.structs import replace

from pytest_mlpatterns.analysis.metrics.definitions import metric_named
from pytest_mlpatterns.judging.machine_doubts import is_within
from pytest_mlpatterns.records.setup import FactChange
from pytest_mlpatterns.records.verdict import OpenBy, Outcome, Verdict, WhyOpen
from pytest_mlpatterns.units import format_percent
from pytest_mlpatterns.wording import listed

PASS, FAIL, OPEN = Outcome.PASS, Outcome.FAIL, Outcome.INCONCLUSIVE
_MOST_FACTS = 3  # Changed facts that a verdict names


class Seen(Struct, frozen=True, kw_only=True):
    """Everything that decides one metric of a test that the file has screened."""

    file: Verdict | None = None  # of the file; None if it does not know the metric
    recorded: Verdict | None = None  # beside the recorded code; None if that was not measured
    name: str = ""  # of the recorded code in messages
    is_same: bool = False  # whether the working tree is the recorded code, which was then not measured again
    is_standing: bool = False  # whether no machine changes the metric
    is_faster: bool = False  # whether the machine is faster than at the recording, or may be
    other_files: str = ""  # half a sentence on how the recorded code differs from what was recorded
    today: Verdict | None = None  # the recorded code of today beside the file; None if that is not known
    changed: str = ""  # what of the environment a person changed since the recording, in words
    is_small: bool = False  # whether that is only the patch level of packages
    excuse: str = ""  # what of the machine explains what is shared today, in words
    excuse_then: str = ""  # what of the machine explains what the file saw, in words
    slower: str = ""  # that the machine of these minutes may be slower, by as much as leaves no sure failure, in words
    busy: str = ""  # what the machine does today, also if it explains less
    # that the counted work of a request is unchanged, and most of its time, in words; empty if not, or not counted
    work: str = ""

    def after(self, changes: Sequence[FactChange]) -> Seen:
        """The same after these changes of the environment, at most three of which are named."""
        named = [str(one) for one in sorted(changes, key=lambda one: one.is_small)]  # patch levels last
        more = f" and {len(named) - _MOST_FACTS} more" if len(named) > _MOST_FACTS else ""
        words = f"{', '.join(named[:_MOST_FACTS])}{more}" if more else listed(named)
        return replace(self, changed=words, is_small=all(one.is_small for one in changes))

    @property
    def by_file(self) -> Outcome | None:
        """The outcome of the file."""
        return None if self.file is None else self.file.outcome

    @property
    def beside(self) -> Outcome | None:
        """The outcome beside the recorded code."""
        return None if self.recorded is None else self.recorded.outcome

    @property
    def is_worse(self) -> bool:
        """Whether the file saw it worse than the tolerance, surely or by its estimate."""
        return self.file is not None and self.file.is_worse

    @property
    def is_decided(self) -> bool:
        """Whether the file alone decides: it passes, or fails what no machine changes."""
        return self.by_file is PASS or (self.by_file is FAIL and self.is_standing)

    @property
    def is_suspected(self) -> bool:
        """Whether it is slower than the recorded code beyond the tolerance, by its estimate."""
        return self.recorded is not None and self.recorded.suspected

    @property
    def is_sure(self) -> bool:
        """Whether it is suspected, and surely slower than the recorded code."""
        change = None if self.recorded is None else self.recorded.change
        return self.is_suspected and change is not None and change.low > 0


class Rule(Struct, frozen=True):
    """One case, and its verdict."""

    when: str  # the case: what the recorded code ``beside`` and the ``file`` show, and what ``both`` share
    then: str  # its verdict
    applies: Callable[[Seen], object]
    verdict: Callable[[Seen], Verdict]


class Decision(Struct, frozen=True):
    """The verdict on one metric, and why."""

    verdict: Verdict
    rule: Rule
    seen: Seen  # what the rule applied to


def settle(seen: Seen) -> Decision:
    """The verdict of the first rule that applies."""
    rule = next(rule for rule in RULES if rule.applies(seen))
    return Decision(rule.verdict(seen), rule, seen)


def _by_file(seen: Seen) -> Verdict:
    assert seen.file is not None
    return seen.file


def _beside(seen: Seen) -> Verdict:
    """The verdict beside the recorded code, with what the file saw worse, too."""
    assert seen.recorded is not None
    said = f"; by the file: {_short(seen)}" if seen.is_worse and seen.beside is not PASS else ""
    return replace(seen.recorded, reason=f"{seen.recorded.reason}{said}")


def _by_work(seen: Seen) -> Verdict:
    found = seen.recorded or _by_file(seen)
    return replace(found, outcome=PASS, why_open=None, reason=f"{found.reason}; {seen.work}")


def _by_file_alone(seen: Seen) -> Verdict:
    """The file's verdict; a failure that the machine explains is open."""
    found = _by_file(seen)
    if seen.other_files and seen.recorded is not None:
        found = replace(found, reason=f"{_shared(seen)}, {seen.other_files}: it may have the change too")
    excuse = seen.excuse_then or seen.slower
    if seen.by_file is not FAIL or not excuse:
        return found
    return found.left_open(WhyOpen(OpenBy.MACHINE, excuse), f"but {excuse}")


def _changed(seen: Seen) -> Verdict:
    reason = f"{_shared(seen)}: not the code, but {seen.changed} changed since the baseline was recorded"
    return replace(_by_file(seen), outcome=FAIL, reason=f"{reason}; if that is intended, record it anew")


def _perhaps_changed(seen: Seen) -> str:
    also = f", and {machine}" if (machine := seen.excuse or seen.slower or seen.busy) else ""
    return f"; {seen.changed} changed since the baseline was recorded{also}"


def _open(by: OpenBy, words: Callable[[Seen], str]) -> Callable[[Seen], Verdict]:
    """An open verdict; the words follow what both share."""

    def verdict(seen: Seen) -> Verdict:
        why = WhyOpen(by, f"{_who(seen)}: not the code{words(seen)}")
        return replace(_by_file(seen).left_open(why), reason=f"{_short(seen)}, {why}")

    return verdict


def _shared(seen: Seen) -> str:
    return f"{_short(seen)}, {_who(seen)}"


def _who(seen: Seen) -> str:
    return "with the code that was recorded" if seen.is_same else f"and so is {seen.name} today"


def _short(seen: Seen) -> str:
    """What the file saw, in short: ``median latency 1.45 ms → 1.85 ms, 27 % worse than the baseline``."""
    found = _by_file(seen)
    metric, then, now = metric_named(found.figure), found.reference_value, found.present_value
    figures = "" if then is None or now is None else f" {metric.show(then)} → {metric.show(now)},"
    worse = "" if found.change is None else f" {format_percent(abs(found.change.value))}"
    return f"{metric.label}{figures}{worse} worse than the baseline"


EXCUSED = Rule(
    "both; the machine of these minutes explains all of it",
    "PASS",
    lambda seen: seen.excuse,
    lambda seen: replace(_by_file(seen), outcome=PASS, reason=f"{_shared(seen)}: {seen.excuse}"),
)
"""The one rule by which a metric passes that is worse today."""
RULES = (
    Rule(
        "either: open; the counted work of a request is unchanged, and most of its time",
        "PASS",
        lambda seen: seen.work and OPEN in (seen.beside, seen.by_file),
        _by_work,
    ),
    Rule(
        "beside: open, not suspected; file: passes, on a machine that is no faster",
        "PASS",
        lambda seen: seen.beside is OPEN and seen.by_file is PASS and not (seen.is_suspected or seen.is_faster),
        _by_file,
    ),
    Rule(
        "beside: open, but surely slower; file: fails, and no machine explains it",
        "FAIL",
        lambda seen: seen.beside is OPEN and seen.is_sure and seen.by_file is FAIL and not seen.excuse_then,
        lambda seen: replace(_beside(seen), outcome=FAIL),
    ),
    Rule("beside: fails or is open", "that verdict", lambda seen: seen.beside in (FAIL, OPEN), _beside),
    Rule(
        "beside: passes; file: not worse, or the recorded code is today as the entry",
        "PASS",
        lambda seen: seen.beside is PASS and (not seen.is_worse or is_within(seen.today)),
        _beside,
    ),
    Rule(
        "file: it alone knows the metric, or fails what no machine changes",
        "the file's; undecided if the machine explains it",
        lambda seen: seen.beside is None and (seen.is_decided or not seen.is_same),
        _by_file_alone,
    ),
    Rule(
        "the working tree is the recorded code; file: not worse",
        "PASS",
        lambda seen: not seen.is_worse,
        lambda seen: replace(_by_file(seen), outcome=PASS),
    ),
    Rule(
        "both worse; the commit holds other files than were recorded",
        "the file's; undecided if the machine explains it",
        lambda seen: seen.other_files,
        _by_file_alone,
    ),
    Rule(
        "both surely; a package, variable or limit changed, and no slower machine may explain it",
        "FAIL, which names the change",
        lambda seen: seen.changed and seen.by_file is FAIL and not (seen.is_small or seen.excuse or seen.slower),
        _changed,
    ),
    Rule(
        "both; such a thing changed, also the patch level of a package",
        "undecided, with the change",
        lambda seen: seen.changed,
        _open(OpenBy.UNEXPLAINED, _perhaps_changed),
    ),
    EXCUSED,
    Rule(
        "both; it explains a part of it",
        "undecided, with that part",
        lambda seen: seen.busy and not seen.is_standing,
        _open(OpenBy.MACHINE, lambda seen: f", and {seen.busy}, which explains less"),
    ),
    Rule(
        "both; without a known reason",
        "undecided: look for data or a service that changed",
        lambda _seen: True,
        _open(OpenBy.UNEXPLAINED, lambda _seen: ", and no sign of the machine explains it"),
    ),
)
"""All cases in order; the first that applies decides. docs/explanation/verdicts.md shows them."""
