"""Seeded profiles for the tests of reports: what was sampled and found is declared, nothing here runs a profiler."""

from pytest_mlpatterns.records.launch import Estimate
from pytest_mlpatterns.records.profile import Frame, FunctionChange, FunctionTime, ProfileNode, ProfileRecord

MS = 1_000_000
FRAMES = (
    Frame("worker", owner="process"),
    Frame("HTTP server", owner="layer"),
    Frame("wire: decode", owner="layer"),
    Frame("model", owner="model"),
    Frame("Digits.predict", "model.py", 30),
    Frame("normalize", "model.py", 41),
    Frame("sort", "numpy/_core/fromnumeric.py", 900, "library"),
    Frame("classify", "model.py", 61),
    Frame("wire: encode", owner="layer"),
    Frame("dumps", "json/__init__.py", 183, "python"),
)


def slower_normalize() -> ProfileRecord:
    """``normalize`` sorts: 0.4 → 2.7 ms per request, of 3.0 → 5.4 ms."""
    return ProfileRecord(
        profiler="py-spy 0.4.2",
        rate_hz=500.0,
        slowdown=(1.021, 1.008, 1.034),
        blocks=8,
        samples=1_600,
        lost=3,
        compared=True,
        frames=FRAMES,
        nodes=(
            ProfileNode(-1, 0, 0, 0),
            ProfileNode(0, 1, 210_000, 215_000),
            ProfileNode(1, 2, 120_000, 121_000),
            ProfileNode(1, 3, 10_000, 10_000),
            ProfileNode(3, 4, 60_000, 62_000),
            ProfileNode(4, 5, 400_000, 420_000),
            ProfileNode(5, 6, 0, 2_280_000),
            ProfileNode(4, 7, 2_100_000, 2_190_000),
            ProfileNode(1, 8, 40_000, 41_000),
            ProfileNode(8, 9, 60_000, 0),
        ),
        changes=(
            FunctionChange(
                (4, 5),
                400_000,
                2_700_000,
                Estimate(2_300_000, 2_100_000, 2_500_000),
                2_339_000,
                "slower",
                44,
                "order = np.sort(values)",
                "sort (numpy/_core/fromnumeric.py)",
            ),
        ),
        functions=(
            FunctionTime(4, 2_560_000, 4_952_000, 60_000, 62_000, Estimate(2_392_000, 2_150_000, 2_634_000)),
            FunctionTime(5, 400_000, 2_700_000, 400_000, 420_000, Estimate(2_300_000, 2_100_000, 2_500_000)),
            FunctionTime(6, 0, 2_280_000, 0, 2_280_000, Estimate(2_280_000, 2_090_000, 2_470_000)),
            FunctionTime(7, 2_100_000, 2_190_000, 2_100_000, 2_190_000, Estimate(90_000, -60_000, 240_000)),
            FunctionTime(9, 60_000, 0, 60_000, 0, Estimate(-60_000, -71_000, -49_000)),
            FunctionTime(2, 120_000, 121_000, 120_000, 121_000, Estimate(1_000, -20_000, 22_000)),
        ),
    )


def nothing_stands_out() -> ProfileRecord:
    """The same functions without a change beyond noise."""
    return ProfileRecord(
        profiler="py-spy 0.4.2",
        rate_hz=500.0,
        slowdown=(1.02, 0.99, 1.05),
        blocks=8,
        samples=1_600,
        compared=True,
        frames=FRAMES,
        nodes=(
            ProfileNode(-1, 0, 0, 0),
            ProfileNode(0, 3, 10_000, 10_000),
            ProfileNode(1, 4, 60_000, 62_000),
            ProfileNode(2, 5, 400_000, 500_000),
        ),
        largest=FunctionChange((4, 5), 400_000, 500_000, Estimate(100_000, -100_000, 300_000), 102_000, "slower"),
        functions=(FunctionTime(5, 400_000, 500_000, 400_000, 500_000, Estimate(100_000, -100_000, 300_000)),),
    )


def present_alone() -> ProfileRecord:
    """One side: ``--perf-profile on`` without a revision."""
    return ProfileRecord(
        profiler="py-spy 0.4.2",
        rate_hz=500.0,
        blocks=4,
        samples=800,
        frames=FRAMES[:6],
        nodes=(
            ProfileNode(-1, 0, 0, 0),
            ProfileNode(0, 3, 0, 10_000),
            ProfileNode(1, 4, 0, 62_000),
            ProfileNode(2, 5, 0, 420_000),
        ),
        functions=(FunctionTime(4, 0, 482_000, 0, 62_000), FunctionTime(5, 0, 420_000, 0, 420_000)),
    )
