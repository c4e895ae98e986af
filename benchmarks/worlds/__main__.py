"""Runs the bench: ``python benchmarks/worlds --help``; ``python benchmarks/worlds record`` measures its recordings."""

import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
    if sys.argv[1:2] == ["record"]:
        from worlds.record import main

        main(sys.argv[2:])
    else:
        from worlds.bench_of_worlds import main

        main(sys.argv[1:])
