"""``python -m pytest_mlpatterns``: what can be made of a result file later, on any machine, without measuring.

Reads files, writes what :mod:`pytest_mlpatterns.reports` makes of them, and says in one line what went wrong.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_mlpatterns.errors import ResultFileError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pytest_mlpatterns.reports.results import Results

__all__ = ["main"]

_FAILED = 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what the command line asks for, and return the exit code."""
    asked = _parser().parse_args(arguments)
    make: Callable[[Results], str] = asked.make
    try:
        text = make(_read(asked.results))
        if asked.output is None:
            sys.stdout.write(text)
        else:
            Path(asked.output).write_text(text, encoding="utf-8")
    except (ResultFileError, OSError) as error:
        sys.stderr.write(f"ERROR: {error}\n")
        return _FAILED
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m pytest_mlpatterns", description="Work with a file of --perf-json.")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    _add_command(
        commands, "export", "write the results in pytest-benchmark's format, for trackers of benchmarks", _benchmark
    )
    _add_command(commands, "report", "write the results as a page for a browser, which needs no network", _html)
    return parser


def _add_command(
    commands: argparse._SubParsersAction[argparse.ArgumentParser],
    name: str,
    what: str,
    make: Callable[[Results], str],
) -> None:
    """A command that makes text of a result file."""
    command = commands.add_parser(name, help=what, description=f"{what[0].upper()}{what[1:]}.")
    command.add_argument("results", metavar="RESULTS", help="a file that pytest --perf-json wrote")
    command.add_argument("-o", "--output", metavar="PATH", help="where to write it (default: standard output)")
    command.set_defaults(make=make)


def _read(file: str) -> Results:
    from pytest_mlpatterns.reports.results import read_results

    try:
        return read_results(Path(file).read_text(encoding="utf-8"))
    except (ResultFileError, UnicodeDecodeError) as error:
        raise ResultFileError(f"{file} {error}") from error


def _benchmark(results: Results) -> str:
    from pytest_mlpatterns.reports.benchmark import benchmark_json

    return benchmark_json(results)


def _html(results: Results) -> str:
    from pytest_mlpatterns.reports.html import html_report

    return html_report(results)


if __name__ == "__main__":
    sys.exit(main())
