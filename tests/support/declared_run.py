"""An interleaved run whose launches are made up: what a judgement asks of it, without a server."""

from dataclasses import dataclass, field

from pytest_mlpatterns.analysis.statistics.log_ratio import PairedCapacity, PairedLaunch
from pytest_mlpatterns.records.launch import Launch


@dataclass(kw_only=True)
class DeclaredRun:
    """Launches one after the other, which take no time."""

    names: tuple[str, str] = ("main (1a2b3c4)", "the working tree")
    in_flight: int | None = 1
    spent_s: float = 1.0
    beyond_ns: int = 0
    launches: list[PairedLaunch] = field(default_factory=list)
    capacities: list[PairedCapacity] = field(default_factory=list)
    first_launches: list[Launch] = field(default_factory=list)
    second_launches: list[Launch] = field(default_factory=list)
    first_starts_ns: list[int] = field(default_factory=list)
    second_starts_ns: list[int] = field(default_factory=list)
    start_ns = 0.0

    def next_launch(self) -> tuple[PairedLaunch, Launch, Launch]:
        """A paired launch, and those of its sides."""
        raise NotImplementedError

    def measure(self, _budget_ns: int) -> None:
        paired, first, second = self.next_launch()
        self.launches.append(paired)
        self.first_launches.append(first)
        self.second_launches.append(second)

    def search(self, _budget_ns: int) -> None:
        raise NotImplementedError

    def start_again(self) -> None:
        raise NotImplementedError
