"""What the tests share: project builder, repositories, declared results, and services to test against."""

from importlib.metadata import distributions
from pathlib import Path

TESTS = Path(__file__).parents[1]
ROOT = TESTS.parent
SERVICES = Path(__file__).parent / "services"
HAS_RAY = any(distributions(name="ray"))
"""Whether Ray is installed; ``tests/live/ray`` is found as a package of that name, so an import system is no judge."""
