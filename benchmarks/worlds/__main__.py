"""Runs the bench: ``python benchmarks/worlds --help``; ``python benchmarks/worlds record`` measures its recordings."""

import importlib
import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
    records = sys.argv[1:2] == ["record"]
    module = importlib.import_module("worlds.record" if records else "worlds.bench_of_worlds")
    module.main(sys.argv[2:] if records else sys.argv[1:])
