"""More working threads than cores: said if they wait for each other, and only then."""

from dataclasses import replace

from support.each_row import each_row
from support.synthetic import even_launch, usage

from pytest_mlpatterns.analysis.health.machine import crowding_note
from pytest_mlpatterns.system.process_tree import busy_threads

S = 1_000_000_000


@each_row(
    ("threads", "cores", "used", "who", "mend"),
    (
        (4, 4),
        2,
        1.9,
        "8 busy threads of 2 processes share the 2 cores",
        'give the pattern env={"OMP_NUM_THREADS": "1"} or ',
    ),
    (
        (4,),
        2,
        1.9,
        "4 busy threads of 1 process share the 2 cores",
        'give the pattern env={"OMP_NUM_THREADS": "2"} or ',
    ),
    ((1, 1), 1, 0.95, "2 busy threads of 2 processes share the 1 core", "use "),
    ((1,), 0.5, 0.5, None, ""),
    ((1, 1), 2, 1.9, None, ""),
    ((4, 4), 2, 1.0, None, ""),
    ((), 2, 1.9, None, ""),
)
def test_threads_that_wait_for_others(
    threads: tuple[int, ...], cores: float, used: float, who: str | None, mend: str
) -> None:
    seen = replace(usage(used, 2.0, cores=cores), busy_threads=threads)
    why = f"{who} that the deployment has, and wait for each other: {mend}fewer replicas, or give it more cores"
    assert crowding_note([even_launch(used=seen)]) == (None if who is None else why)
    assert crowding_note([even_launch(used=None)]) is None


def test_threads_that_watch_or_wait_do_not_count() -> None:
    before = {7: {70: 5 * S, 71: 0}, 8: {80: 0}}
    after = {7: {70: 6 * S, 71: S // 100, 72: S // 2}, 8: {80: 9 * S // 10}, 9: {90: 0}}
    assert busy_threads(before, after) == (2, 1)


def test_an_idle_deployment_has_no_busy_thread() -> None:
    assert busy_threads({}, {7: {70: 20_000_000}}) == ()
    assert busy_threads({}, {}) == ()
