"""How many connections a load needs, and the refusal where the system allows fewer."""

import pytest
from support.each_row import each_row

from pytest_mlpatterns import ClosedLoop, ConstantRate, SettingError, Stages
from pytest_mlpatterns.loadgen.ceiling import check_connections
from pytest_mlpatterns.loadgen.messages import LoadJob
from pytest_mlpatterns.records.addressing import Remote
from pytest_mlpatterns.workload.endpoint import Endpoint
from pytest_mlpatterns.workload.schedule import Schedule

RAMP = Stages([("1s", 10), ("1s", 900)], of="concurrency")  # type: ignore[arg-type]


def check(
    schedule: Schedule, allowed: int | None, *, addresses: int = 1, processes: int = 1, remote: Remote | None = None
) -> None:
    endpoint = Endpoint(tuple(("127.0.0.1", 1000 + number) for number in range(addresses)), remote=remote)
    check_connections(LoadJob(endpoint, (), schedule, 1, 0, 1), processes, allowed)


@each_row(
    ("schedule", "addresses", "processes", "allowed"),
    (ClosedLoop(800), 1, 1, 800),
    (ClosedLoop(800), 2, 1, 1600),
    (ClosedLoop(800), 1, 2, 400),
    (ClosedLoop(10_000), 1, 1, None),
    (RAMP, 1, 1, 900),
    (ConstantRate(100_000), 1, 1, 10),
    (Stages([("1s", 5000)]), 1, 1, 10),  # type: ignore[arg-type]
)
def test_a_load_that_the_system_allows_is_not_refused(
    schedule: Schedule, addresses: int, processes: int, allowed: int | None
) -> None:
    check(schedule, allowed, addresses=addresses, processes=processes)


@each_row(
    ("schedule", "addresses", "processes", "message"),
    (ClosedLoop(10_000), 1, 1, "10,000 requests in flight need as many connections, but the system allows 799 "),
    (ClosedLoop(800), 1, 1, "lower the concurrency to 799, or raise the hard limit on open files (ulimit -Hn)"),
    (ClosedLoop(400), 2, 1, "connections to each of 2 addresses, but the system allows 399 (a process may open 799"),
    (ClosedLoop(2000), 1, 2, "the system allows 1,598 (a process may open 799 beside its other 200 files)"),
    (RAMP, 1, 1, "900 requests in flight"),
)
def test_another_is_refused_with_the_number_that_is_allowed(
    schedule: Schedule, addresses: int, processes: int, message: str
) -> None:
    with pytest.raises(SettingError) as refused:
        check(schedule, 799, addresses=addresses, processes=processes)
    assert message in str(refused.value)


def test_a_limit_below_any_connection_names_the_one_that_is_needed() -> None:
    with pytest.raises(SettingError, match=r"files\); raise the hard limit on open files \(ulimit -Hn\) to 204$"):
        check(ClosedLoop(4), 0, addresses=2, processes=2)


def test_a_client_library_opens_its_connections_itself() -> None:
    check(ClosedLoop(100), 1, remote=Remote("https://127.0.0.1", http2=True))
