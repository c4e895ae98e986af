"""An interleaved run whose launches are made up: what a judgement asks of it, without a server."""

from collections.abc import Callable
from dataclasses import dataclass, field

from pytest_mlpatterns.analysis.statistics.log_ratio import PairedCapacity, PairedLaunch
from pytest_mlpatterns.records.launch import Launch
from pytest_mlpatterns.records.verdict import Outcome


@dataclass(kw_only=True)
class DeclaredRun:
    """Launches one after the other, from the third on judged after each."""

    names: tuple[str, str] = ("main (1a2b3c4)", "the present")
    in_flight: int | None = 1
    spent_s: float = 1.0
    launches: list[PairedLaunch] = field(default_factory=list)
    capacities: list[PairedCapacity] = field(default_factory=list)
    first_launches: list[Launch] = field(default_factory=list)
    second_launches: list[Launch] = field(default_factory=list)
    first_starts_ns: list[int] = field(default_factory=list)
    second_starts_ns: list[int] = field(default_factory=list)

    def next_launch(self) -> tuple[PairedLaunch, Launch, Launch]:
        """A paired launch, and those of its sides."""
        raise NotImplementedError

    def decide(self, judge: Callable[..., Outcome], _budget_ns: int, *, max_launches: int) -> Outcome:
        outcome = Outcome.INCONCLUSIVE
        while outcome is Outcome.INCONCLUSIVE and len(self.launches) < max_launches:
            paired, first, second = self.next_launch()
            self.launches.append(paired)
            self.first_launches.append(first)
            self.second_launches.append(second)
            outcome = judge(self.launches) if len(self.launches) >= 3 else outcome
        return outcome
