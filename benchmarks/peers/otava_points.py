"""Apache Otava on series from standard input and from its own generators, as JSON; runs in an environment of its own.

Input: ``{"series": [[…], …], "seeds": N}``. Output: for each given series the indices of the changes that Otava finds
with its own defaults, or null if it gives up; and for each generated one its name, values, true changes of the level,
and what Otava finds.
"""

from __future__ import annotations

import json
import sys
from functools import partial

from otava.analysis import compute_change_points
from otava_test_data import (
    banding,
    constant,
    multiple_changes,
    noise_normal,
    noise_uniform,
    outlier,
    phase_change,
    regression_fix,
    step_function,
    variance_change,
)
from otava_test_data.generators.advanced import multiple_outliers, multiple_variance_changes

LENGTHS = (50, 500)
OF_A_LEVEL = ("step", "regression_start", "regression_end")
"""Kinds of true changes that are changes of the level; an outlier, another variance and another phase are none."""
GENERATORS = {
    "constant": constant,
    "noise_normal": partial(noise_normal, sigma=5),
    "noise_uniform": noise_uniform,
    "outlier": partial(outlier, sigma=5),
    "multiple_outliers": partial(multiple_outliers, sigma=5),
    "banding": partial(banding, sigma=2),
    "step_function, no noise": step_function,
    "step_function, +20, sigma 5": partial(step_function, sigma=5),
    "step_function, +10, sigma 5": partial(step_function, value_after=110, sigma=5),
    "step_function, +5, sigma 2": partial(step_function, value_after=105, sigma=2),
    "step_function, -20, sigma 5": partial(step_function, value_before=120, value_after=100, sigma=5),
    "regression_fix, 10 points": partial(regression_fix, sigma=5),
    "regression_fix, 5 points": partial(regression_fix, sigma=5, regression_duration=5),
    "multiple_changes": partial(multiple_changes, sigma=5),
    "multiple_changes, no noise": multiple_changes,
    "variance_change": variance_change,
    "multiple_variance_changes": multiple_variance_changes,
    "phase_change": partial(phase_change, sigma=5),
}


def found_in(values: list[float]) -> list[int] | None:
    """Indices of the first points after Otava's changes, with its default window and p-value; None if it gives up.

    Otava 0.8.0 raises ``ValueError`` on some series of equal values.
    """
    try:
        changes, _ = compute_change_points(values)  # a list: it does not take arrays
    except ValueError:
        return None
    return sorted(int(change.index) for change in changes)


def main() -> None:
    """Read the request, answer it."""
    asked = json.load(sys.stdin)
    generated = []
    for name, make in GENERATORS.items():
        for length in LENGTHS:
            for seed in range(asked["seeds"]):
                series = make(length=length, seed=seed)
                values = series.data.tolist()
                truth = [point.index for point in series.change_points if point.change_type in OF_A_LEVEL]
                generated.append({"name": name, "values": values, "truth": truth, "found": found_in(values)})
    json.dump({"found": [found_in(values) for values in asked["series"]], "generated": generated}, sys.stdout)


if __name__ == "__main__":
    main()
