"""Do slices measure a ratio better than blocks one after the other, where the truth is known?

One caller asks two services in turn on a host whose speed changes between two values, each for a random time. A launch
has four pairs of blocks of 0.1 s, or the same pairs cut into slices. Its log ratio is worked out as the plugin does.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from bench import Claim, Table

from pytest_mlpatterns.analysis.statistics.distributions import location
from pytest_mlpatterns.analysis.statistics.log_ratio import paired_log_ratio
from pytest_mlpatterns.measurement.paired_blocks import BlockDesign, ResponsePace, answer_rate, joined_slices
from pytest_mlpatterns.records.samples import Samples, Window

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

CLAIM = (
    "on a host that changes its speed within a second, launches whose blocks are cut into slices scatter at most "
    "half as much; on a steady one not more; a change of 10 % is measured to 0.5 %"
)
TRIALS = 200
PAIRS = 4
CHANGE = 0.10
STEP_NS = 1_000_000
"""Step of the host's speed in time."""


@dataclass(frozen=True)
class Host:
    """A host whose work takes ``slow`` times as long in every second of its moments.

    Attributes:
        moment_s: mean length of a moment.
    """

    label: str
    slow: float = 1.0
    moment_s: float = 1.0

    def work_done(self, rng: np.random.Generator, seconds: float) -> NDArray[np.float64]:
        """Nanoseconds of work that a request gets until the begin of each step."""
        steps = round(seconds * 1e9 / STEP_NS)
        switches = rng.random(steps) < STEP_NS / 1e9 / self.moment_s
        is_slow = (np.cumsum(switches) + rng.integers(2)) % 2 == 1
        return np.concatenate([[0], np.cumsum(STEP_NS / np.where(is_slow, self.slow, 1.0))])


HOSTS = (
    Host("steady"),
    Host("1.8 times as slow, for 30 ms at a time", 1.8, 0.03),
    Host("1.8 times as slow, for 0.3 s at a time", 1.8, 0.3),
    Host("1.8 times as slow, for 3 s at a time", 1.8, 3.0),
)
SERVICES_MS = (0.5, 3.0, 20.0)


class Caller:
    """One caller, on the clock of a host.

    Args:
        spread: standard deviation of the log of the work of a request.
    """

    def __init__(self, rng: np.random.Generator, host: Host, *, seconds: float, spread: float = 0.05) -> None:
        self._rng = rng
        self._done = host.work_done(rng, seconds)
        self._spread = spread
        self.now_ns = 0

    def ask_for(self, length_ns: int, work_ns: float) -> tuple[list[tuple[int, int]], Window]:
        """Ask one request after the other until a time is over: when each was due and done."""
        started_ns, asked = self.now_ns, []
        while self.now_ns < started_ns + length_ns:
            work = work_ns * math.exp(self._rng.normal(0, self._spread))
            step, into_ns = divmod(self.now_ns, STEP_NS)
            have = self._done[step] + into_ns / STEP_NS * (self._done[step + 1] - self._done[step])
            last = int(np.searchsorted(self._done, have + work))
            late = (self._done[last] - have - work) / (self._done[last] - self._done[last - 1])
            done_ns = round((last - late) * STEP_NS)
            asked.append((self.now_ns, done_ns))
            self.now_ns = done_ns
        return asked, Window(started_ns, started_ns + length_ns)


def samples_of(asked: Sequence[tuple[int, int]]) -> Samples:
    due, done = np.array(asked, dtype=np.int64).T
    none = np.zeros(due.size, dtype=np.int64)
    return Samples(
        due_ns=due,
        sent_ns=due,
        done_ns=done,
        outcome=np.full(due.size, 200, dtype=np.int16),
        request=none.astype(np.uint32),
        target=none.astype(np.uint8),
        received_bytes=none.astype(np.uint32),
    )


def launch(rng: np.random.Generator, host: Host, work_ns: tuple[float, float], *, sliced: bool) -> tuple[float, float]:
    """The log ratios of the mean latency and of the rate of one launch."""
    paces = [ResponsePace(work, work) for work in work_ns]
    plan = BlockDesign().blocks(paces, 0.8)
    slices = plan.slices if sliced else 1
    caller = Caller(rng, host, seconds=4 * PAIRS * sum(plan.lengths_ns) / 1e9)
    figures: list[list[tuple[float, float]]] = [[], []]
    for pair in range(PAIRS):
        seen: list[list[tuple[list[tuple[int, int]], Window]]] = [[], []]
        for _ in range(slices):
            for side in (0, 1) if pair % 2 == 0 else (1, 0):
                length_ns = plan.slice_ns[side] if sliced else plan.lengths_ns[side]
                seen[side].append(caller.ask_for(length_ns, work_ns[side]))
        for side, parts in enumerate(seen):
            found = samples_of([one for asked, _ in parts for one in asked])
            samples, window = joined_slices(found, [window for _, window in parts])
            latencies = samples.latency_ns[samples.successes_in(window)]
            figures[side].append((location(latencies), answer_rate(samples, window, closed=True)))
    first, second = figures
    mean, rate = (paired_log_ratio([a[k] for a in first], [b[k] for b in second]).value for k in (0, 1))
    return mean, rate


def measure() -> Iterator[Table]:
    rows: list[Sequence[str]] = []
    scatter: dict[tuple[str, float, bool], float] = {}
    errors: list[float] = []
    for host in HOSTS:
        for service_ms in SERVICES_MS:
            work_ns = service_ms * 1e6, service_ms * 1e6 * (1 + CHANGE)
            row = [host.label, f"{service_ms:g} ms"]
            for sliced in (False, True):
                rng = np.random.default_rng(1)
                found = np.array([launch(rng, host, work_ns, sliced=sliced) for _ in range(TRIALS)])
                scatter[host.label, service_ms, sliced] = float(found[:, 0].std())
                row += [f"{100 * found[:, 0].std():.1f} %", f"{100 * found[:, 1].std():.1f} %"]
                if sliced:
                    off = abs(found.mean(axis=0) - np.array([1, -1]) * math.log1p(CHANGE))
                    errors.append(float((off - 2 * found.std(axis=0) / math.sqrt(TRIALS)).max()))
                    row.append(f"{100 * math.expm1(found[:, 0].mean()):+.1f} %")
            rows.append(row)
    quick = [(host.label, service) for host in HOSTS[1:3] for service in SERVICES_MS[:2]]
    steady = [(HOSTS[0].label, service) for service in SERVICES_MS]
    claims = [
        Claim(
            "scatter in slices of that in blocks, speed changes",
            max(scatter[*key, True] / scatter[*key, False] for key in quick),
            at_most=0.5,
        ),
        Claim("steady", max(scatter[*key, True] / scatter[*key, False] for key in steady), at_most=1.15),
        Claim("error of +10 % beyond two standard errors", max(errors), at_most=0.005),
    ]
    headings = ("host", "service", "blocks: mean", "rate", "slices: mean", "rate", "+10 % is measured as")
    yield Table(f"scatter of the log ratio of a launch, {TRIALS} launches each", headings, rows, claims)
