"""The bench of worlds: tests of which the truth is known, judged by the whole package, with launches that are drawn.

``python benchmarks/worlds --help`` has its options; :mod:`worlds.bench_of_worlds` prints the table.
"""

from worlds.bench_of_worlds import CLAIM, measure

__all__ = ["CLAIM", "measure"]
