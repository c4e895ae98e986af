"""What the tests share: project builder, repositories, declared results, and services to test against."""

from pathlib import Path

TESTS = Path(__file__).parents[1]
ROOT = TESTS.parent
SERVICES = Path(__file__).parent / "services"
