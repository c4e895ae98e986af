"""The whole judging of one world: its baseline is recorded, and its test is judged, by the package itself.

Everything below ``Perf`` is real. Launches are drawn instead of measured, and the clock that budgets are counted by is
the world's. So the bench knows nothing of the rules, and judges any that ``Perf`` and ``InterleavedRun`` lead to.
"""

from __future__ import annotations

import functools
import time
import zlib
from contextlib import contextmanager
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from msgspec import Struct
from msgspec.structs import replace

from pytest_mlpatterns.baseline.lookup import BaselineMatch
from pytest_mlpatterns.baseline.updates import RunFacts, update_of
from pytest_mlpatterns.config.run_settings import BaselineMode
from pytest_mlpatterns.config.settings import read_settings
from pytest_mlpatterns.errors import MlpatternsError, PerfFailure, RegressionFailure
from pytest_mlpatterns.judging.experiment import Experiment, LoadDriver, Settlement
from pytest_mlpatterns.judging.perf import Perf
from pytest_mlpatterns.measurement.further_load import FollowedGrowth
from pytest_mlpatterns.measurement.interleaved import InterleavedRun
from pytest_mlpatterns.measurement.paired_blocks import BlockDesign, BlockPlan, response_pace
from pytest_mlpatterns.measurement.system_under_test import load_plan, read_inputs, setup_of
from pytest_mlpatterns.measurement.variant import Variant
from pytest_mlpatterns.records.baseline_entry import Entry, EntryKey
from pytest_mlpatterns.records.launch import Capacity, Launch, LaunchValue
from pytest_mlpatterns.records.result_parts import BaselineGap
from pytest_mlpatterns.records.samples import ResourceTrack
from pytest_mlpatterns.records.telemetry import PatternStats
from pytest_mlpatterns.records.verdict import Outcome
from pytest_mlpatterns.workload.window_plan import WindowPlan
from worlds.drawing import Side, side_of
from worlds.histories import history_ruling
from worlds.launches import WARM_NS, Pairing, Setting, file_launch, kept_facts, paired_launch, start_seconds
from worlds.remembering import remembered
from worlds.world import NO_CHANGE, Machine, Mode, Ruling, Service, Truth, World

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from pytest_mlpatterns.workload.plan import LoadPlan
    from pytest_mlpatterns.workload.window_plan import RequestWindow

RECORDED = "the baseline's commit (a1b2c3d)"
NOTE = "whose files differ from those that perf-baseline.json was recorded from"
_GROWTH_READINGS = 60
ENTRIES = 40  # Entries of a service on a machine, which worlds share


class Clock:
    """The time of a world, in the place of that of the machine."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def advance(self, seconds: float) -> None:
        self.now_s += seconds

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Let all that counts seconds count those of this clock."""
        real = time.perf_counter, time.perf_counter_ns
        time.perf_counter = lambda: self.now_s
        time.perf_counter_ns = lambda: round(self.now_s * 1e9)
        try:
            yield
        finally:
            time.perf_counter, time.perf_counter_ns = real


class DrawnRunner:
    """Launches of one side of a world, as ``LaunchRunner`` gives them."""

    def __init__(
        self, rng: np.random.Generator, clock: Clock, side: Side, *, machine: Machine, setting: Setting
    ) -> None:
        self._rng, self._clock = rng, clock
        self._side, self._machine, self._setting = side, machine, setting
        self.measured = 0

    def want_requests(self, enough: int, *, decides_alone: bool = False) -> None:
        """The verdicts need this many requests, for which the window is planned."""
        window = _window_of(self._side.service, _test_of(self._side.service).plan, enough, alone=decides_alone)
        self._setting = replace(self._setting, window=window)

    def measure(self, plan: object = None) -> Launch:
        drawn = file_launch(self._rng, self._side, self._setting, machine=self._machine, number=self.measured)
        self.measured += 1
        self._clock.advance(drawn.seconds)
        return drawn.launch

    def start_again(self) -> int:
        start_ns = self._side.service.start_ns * self._side.product("start") * self._machine.slower
        start_ns *= self._machine.starts
        start_ns *= float(np.exp(self._rng.normal(0, 0.06)))
        self._clock.advance(start_ns / 1e9 + 0.2)
        return round(start_ns)

    def search(self, _decided: object, _objective: object, budget_ns: int) -> Capacity:
        self._clock.advance(min(budget_ns / 1e9, 8.0))
        rate = self._side.service.callers * 1e9 / (self._side.service.answer_ns * self._side.product("time"))
        return Capacity(LaunchValue(rate, 0.02), self._side.service.callers, (), "drawn", at_least=False)

    def follow_growth(self, longest_ns: int, is_decided: Callable[[ResourceTrack], bool]) -> FollowedGrowth:
        """The memory over one long load: what requests leave behind, or what a process holds at random."""
        self._clock.advance(longest_ns / 1e9)
        requests = round(longest_ns * self._side.service.callers / self._side.service.answer_ns)
        seen = np.linspace(0, requests, _GROWTH_READINGS).astype(np.int64)
        growth = sum(one.growth for one in self._side.changes)
        rss = self._side.service.memory + growth * seen + self._rng.integers(0, 4096, seen.size)
        track = ResourceTrack(seen, rss.astype(np.int64), np.full(seen.size, 20), np.full(seen.size, 8))
        is_decided(track)
        return FollowedGrowth(track, PatternStats(), PatternStats(), is_whole=True)

    def offer_overload(self, _plan: object, _nmrt_rps: float) -> tuple[()]:
        return ()

    def log_tail(self) -> str:
        return ""

    def close(self) -> None:
        """End nothing: nothing runs."""


class DrawnRun(InterleavedRun):
    """An interleaved run whose launches are drawn; when it measures another one is the package's own."""

    def __init__(
        self,
        rng: np.random.Generator,
        clock: Clock,
        pairing: Pairing,
        *,
        design: BlockDesign,
        names: Sequence[str],
        plan: Any,
    ) -> None:
        first, second = (Variant(name, _never_started, plan) for name in names)
        super().__init__(first, second, cast("Any", None), on_progress=lambda _progress: None, design=design)
        self._rng, self._clock, self._pairing = rng, clock, pairing
        self._drawn_plan: BlockPlan | None = None

    def _measure(self, design: BlockDesign) -> None:
        sides = (self._pairing.first, self._pairing.second)
        start_s = start_seconds(sides, self._pairing.machine)
        schedule = self._variants[0].plan.schedule
        if self._drawn_plan is None:
            paces = [response_pace(schedule, one.service.answer_ns * one.product("time")) for one in sides]
            self._drawn_plan = design.blocks(paces, start_s, self._pairing.setting.inputs)
            if sides[0].service.stream is not None:  # streams are not cut into slices
                self._drawn_plan = replace(self._drawn_plan, slices=1)
        number = len(self.launches)
        drawn = paired_launch(self._rng, self._pairing, self._drawn_plan, number=number, start_s=start_s)
        self._clock.advance(drawn.seconds)
        self.first_launches.append(drawn.first)
        self.second_launches.append(drawn.second)
        self.launches.append(drawn.paired)

    def _start(self, *, second_began: bool) -> None:
        sides = (self._pairing.first, self._pairing.second)
        speed = self._pairing.machine.slower * self._pairing.machine.starts * float(np.exp(self._rng.normal(0, 0.02)))
        starts = [
            one.service.start_ns * one.product("start") * speed * float(np.exp(self._rng.normal(0, 0.06)))
            for one in sides
        ]
        self._clock.advance(max(starts) / 1e9 + 0.3)
        self.first_starts_ns.append(round(starts[0]))
        self.second_starts_ns.append(round(starts[1]))


def _never_started() -> Any:
    raise AssertionError("a world starts nothing")


class DrawnExperiment(Experiment, frozen=True, kw_only=True):
    """A test of a world."""

    draw: Callable[[str, str, BlockDesign], InterleavedRun]  # an interleaved run of two sides, by their names

    def variant(self, name: str) -> Variant:
        return Variant(name, _never_started, self.plan)

    def variant_under(self, pattern: Any, replica_cores: Any = None) -> Variant:
        return Variant(str(pattern), _never_started, self.plan)

    def interleave(self, first: Variant, second: Variant, look: Any = None) -> InterleavedRun:
        return self.draw(first.name, second.name, self.design)


class _Test(Struct, frozen=True):
    """What all worlds of one service and mode share."""

    settings: Any
    setup: Any
    plan: Any
    window: RequestWindow | None


@functools.cache
def _test_of(service: Service) -> _Test:
    load: dict[str, object] = {"concurrency": service.callers}
    if service.rate_rps is not None:
        load = {"rate_rps": service.rate_rps}
    settings = read_settings({**load, "profile": "off", "count": "off", "inconclusive": "pass"}, {}, {})
    payload = read_inputs(settings, [[float(number)] for number in range(8)], None)
    plan = load_plan(settings, payload)
    return _Test(settings, setup_of(settings, payload, None, model=""), plan, _window_of(service, plan))


def _window_of(service: Service, plan: LoadPlan, enough: int = 0, *, alone: bool = False) -> RequestWindow | None:
    """The window of a slow service, or of one that a verdict needs more requests of; None if it has its usual time."""
    if service.rate_rps is not None:
        return None
    planned = plan.window_plan(round(service.start_ns), 8, enough=enough, decides_alone=alone)
    return planned.window(service.answer_ns / service.callers, WARM_NS) if isinstance(planned, WindowPlan) else None


class Judging:
    """One world, and what is drawn of it."""

    def __init__(self, world: World, seed: Sequence[int]) -> None:
        self.world = world
        self.clock = Clock()
        self._number = seed[-1]
        self._rng = np.random.default_rng(list(seed))
        self._test = _test_of(world.service)
        shared = (world.around, world.change) if world.mode is Mode.DIRTY else (world.around,)
        self.recorded = side_of(world.service, shared)
        self.present = side_of(world.service, (world.around, world.change))

    def ruling(self) -> Ruling:
        """Judge the test, beside an entry if it has one."""
        world, entry = self.world, None
        if world.mode not in (Mode.REVISION, Mode.PARITY):
            entry = _entry_of(world.service, world.then, named=world.named, number=self._number % ENTRIES)
        with self.clock.in_place(), remembered():
            return self._judged(entry)

    def recorded_entry(self) -> Entry:
        """The entry that an update of the baseline records on the machine of then."""
        with self.clock.in_place(), remembered():
            return self._entry()

    def _setting(self, *, changed: bool) -> Setting:
        facts = kept_facts(self.world.named, changed=changed)
        duration_ns = self._test.settings.duration_ns
        return Setting(duration_ns=duration_ns, window=self._test.window, facts=facts)

    def _experiment(self, match: BaselineMatch, **changes: Any) -> DrawnExperiment:
        known: dict[str, Any] = {
            "test": "test_world.py::test_it",
            "settings": self._test.settings,
            "setup": self._test.setup,
            "system": SimpleNamespace(is_attached=False, service=None, model=SimpleNamespace(model=None)),
            "plan": self._test.plan,
            "driver": LoadDriver({}, lambda _progress: None),
            "command": "pytest",
            "baseline": match,
            "draw": self._run,
        }
        return DrawnExperiment(**{**known, **changes})

    def _entry(self) -> Entry:
        """The entry that an update of the baseline records."""
        side, setting = side_of(self.world.service, ()), self._setting(changed=False)
        runner = DrawnRunner(self._rng, self.clock, side, machine=self.world.then, setting=setting)
        match = BaselineMatch(self._test.setup, BaselineMode.UPDATE)
        perf = Perf(self._experiment(match), cast("Any", runner))
        perf.finish(lambda _warning: None)
        result = perf.result(passed=True)
        assert result is not None
        return update_of(result, None, RunFacts({}, "a1b2c3d", "2026-01-31")).after

    def _run(self, first: str, second: str, design: BlockDesign) -> InterleavedRun:
        sides = (self.recorded, self.present)
        if self.world.mode is Mode.PARITY:  # the test's own side comes first
            sides = sides[::-1]
        setting = self._setting(changed=self.world.around != NO_CHANGE)
        pairing = Pairing(*sides, self._later(), setting)
        return DrawnRun(self._rng, self.clock, pairing, design=design, names=(first, second), plan=self._test.plan)

    def _later(self) -> Machine:
        """The machine once the first launches are over."""
        now = self.world.now
        if not now.first_only:
            return now
        return replace(now, others=0.0, steal=0.0, throttled=0.0)

    def _judged(self, entry: Entry | None) -> Ruling:
        setting = self._setting(changed=self.world.around != NO_CHANGE)
        runner = DrawnRunner(self._rng, self.clock, self.present, machine=self.world.now, setting=setting)
        perf = Perf(self._experiment(self._match(entry), **self._others()), cast("Any", runner))
        error: BaseException | None = None
        try:
            if self.world.mode is Mode.PARITY:
                perf.assert_not_slower_than("batched")
            else:
                perf.finish(lambda _warning: None)
        except (PerfFailure, MlpatternsError) as raised:
            error = raised
        return self._read(perf, error)

    def _match(self, entry: Entry | None) -> BaselineMatch:
        if entry is None:
            return BaselineMatch(self._test.setup, BaselineMode.OFF)
        found = BaselineMatch(self._test.setup, BaselineMode.CHECK, facts=entry.facts, name="perf-baseline.json")
        found = replace(found, recorded=EntryKey("test_it", "machine", entry.commit, entry.tree))
        if self.world.elsewhere:
            return replace(found, gap=BaselineGap.NOT_COMPARABLE, details="machine: A → B")
        return replace(found, entry=entry)

    def _others(self) -> dict[str, Any]:
        match self.world.mode:
            case Mode.SETTLED:
                return {"settle": lambda: Settlement(self._revision(RECORDED), RECORDED)}
            case Mode.DIRTY:
                return {"settle": lambda: Settlement(self._revision(RECORDED), RECORDED, NOTE)}
            case Mode.TREE:
                return {"settle": lambda: Settlement(None, "the working tree itself")}
            case Mode.REVISION:
                return {"revision": self._revision("main (a1b2c3d)")}
        return {}

    def _revision(self, name: str) -> Any:
        """The test at the other revision."""
        return SimpleNamespace(
            name=name,
            commit="a1b2c3d" + 33 * "0",
            accept=(),
            worktree=SimpleNamespace(revision=SimpleNamespace(name=name)),
            setup=lambda: SimpleNamespace(setup=self._test.setup, payload=self._test.plan.payload),
            facts=dict,
            start=_never_started,
            start_process=lambda: None,
            await_setup=lambda: None,
            close=lambda: None,
        )

    def _read(self, perf: Perf, error: BaseException | None) -> Ruling:
        """What came of the test, from its result and from what it raised."""
        seconds = self.clock.now_s
        result = perf.result(passed=error is None)
        if result is None:
            return Ruling("invalid", reasons=str(error), seconds=seconds)
        failed = [one for one in result.verdicts if one.outcome is Outcome.FAIL]
        undecided = [one for one in result.verdicts if one.outcome is Outcome.INCONCLUSIVE]
        chosen = failed or undecided
        metrics, reasons = tuple(one.metric for one in chosen), "; ".join(one.reason for one in chosen)
        launches = result.measured.launch_count
        if isinstance(error, RegressionFailure) or (error is not None and failed):
            return Ruling("fail", metrics, reasons, seconds, launches)
        if error is not None:
            return Ruling("invalid", reasons=str(error), seconds=seconds, launches=launches)
        if undecided:
            kind = "slower" if result.judged.probably_slower else "open"
            return Ruling(kind, metrics, reasons, seconds, launches)
        note = result.judged.baseline_note
        return Ruling("pass" if result.verdicts else "none", reasons=note, seconds=seconds, launches=launches)


@functools.cache
def _entry_of(service: Service, then: Machine, *, named: str, number: int) -> Entry:
    """One of some entries, which the worlds of one process share: to record one takes as long as to judge a test."""
    world = World(service, Mode.FILE, Truth.FINE, then=then, named=named)
    label = f"{service.label}, {then.label}, {then.slower}, {then.others}, {named}"
    return Judging(world, [zlib.crc32(label.encode()), number]).recorded_entry()


def ruling_of(world: World, seed: Sequence[int]) -> Ruling:
    """Judge one world; the same seed gives the same ruling. By its last number worlds share an entry."""
    if world.course is not None:
        return history_ruling(world.course, seed)
    return Judging(world, seed).ruling()
