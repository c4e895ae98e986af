"""When the launches of a comparison are judged, and how surely: beside a stored baseline, and paired with a revision.

The comparisons and the changes that an entry sees use the same looks. Pure. This module must not
know how anything is measured.
"""

from __future__ import annotations

from msgspec.structs import replace

from pytest_mlpatterns.analysis.statistics.alpha_spending import SequentialPlan

__all__ = [
    "BASELINE_ALPHA",
    "CONFIRMING_LAUNCHES",
    "CONFIRMING_PAIRS",
    "FEWEST_PAIRS",
    "REVISION_ALPHA",
    "looks_beside_entry",
    "looks_of_pairs",
    "looks_that_fit",
]

BASELINE_ALPHA = 0.01
"""Probability that a comparison with a stored baseline fails a change exactly at the tolerance, over all looks and
metrics; the same of passing one."""
REVISION_ALPHA = 0.025
"""The same of an interleaved run: the probability of failing a change exactly at the tolerance, and of passing one just
beyond it."""
CONFIRMING_LAUNCHES = 2
"""Launches that a failing verdict rests on, if the test allows that many."""
FEWEST_PAIRS = 3
"""Paired launches before the first look: fewer give no usable interval."""
CONFIRMING_PAIRS = 4
"""Pairs that a failing ratio rests on, if the budget has time for them. If a service settles at even chances in one of
two ways, 1.6 % of unchanged runs have the slower one on the present side of three pairs, and 0.4 % of four."""
_SPARE_LOOKS = 1
"""Looks beyond those that fit: three or four launches know their scatter less surely than Student's t has it. Over the
families of ``benchmarks/location_simulation.py`` 2.3 % of changes of exactly the tolerance fail with none, 2.1 % with
one, and 1.6 % with five; of the unchanged runs of ``slot_simulation.py`` these leave 8, 8 and 18 % open in 30 s."""
_PAIR_NS = 1_500_000_000
"""Shortest paired launch; the launches that fit into the budget bound the number of interim looks."""


def looks_beside_entry(recorded: int, *, launches: int, alpha: float) -> SequentialPlan:
    """The interim looks beside a stored baseline: after each launch.

    Args:
        recorded: launches of the entry.
        launches: most launches of the test.
        alpha: probability of failing a change exactly at the tolerance, of this metric.
    """
    return SequentialPlan(
        first=1, last=launches, alpha=alpha, pass_alpha=BASELINE_ALPHA, fixed_launches=max(recorded, 1)
    )


def looks_of_pairs(tolerance: float, alpha: float, budget_ns: int) -> SequentialPlan:
    """The interim looks at paired launches, planned before the first one.

    Args:
        tolerance: the smallest one of the metrics that are judged together.
        alpha: probability of failing a change exactly at the limit.
        budget_ns: time of the run.
    """
    return SequentialPlan.for_tolerance(tolerance, alpha, most=budget_ns // _PAIR_NS)


def looks_that_fit(looks: SequentialPlan, budget_ns: int, launch_s: float) -> SequentialPlan:
    """The looks for which the budget has time, as the launches before the first look show.

    A look that never happens wastes its share of the error probability: if fourteen were planned, the interval of three
    launches is 1.3 times as wide. How long launches take has no part in their ratio.
    """
    fitting = int(budget_ns / (1e9 * max(launch_s, 1e-9)))
    return replace(looks, last=min(looks.last, max(fitting, looks.first) + _SPARE_LOOKS))
