"""``python -m pytest_mlpatterns``: reports, exports and rankings from a result file, without measuring again.

An error is reported in one line.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from pytest_mlpatterns.errors import MlpatternsError, ResultFileError
from pytest_mlpatterns.system.files import read_text, replace_file
from pytest_mlpatterns.wording import visible

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pytest_mlpatterns.reports.files.result_file import Results

__all__ = ["main"]

_FAILED = 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line, and return the exit code."""
    options = _parser().parse_args(arguments)
    make: Callable[[Results, argparse.Namespace], str] = options.make
    try:
        text = make(_read(options.results), options)
        if options.output is None:
            sys.stdout.write(_for_people(text, sys.stdout) if options.for_people else text)
        else:
            _write(options.output, text)
    except (MlpatternsError, OSError) as error:
        sys.stderr.write(_for_people(f"ERROR: {error}\n", sys.stderr))
        return _FAILED
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m pytest_mlpatterns", description="Work with a file of --perf-json.")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    _add_command(commands, "export", "write the results in the format of pytest-benchmark", make=_benchmark)
    _add_command(commands, "report", "write the results as a self-contained HTML page", make=_html)
    ranking = _add_command(commands, "rank", "rank the patterns of each test", make=_ranking)
    ranking.add_argument(
        "weights",
        metavar="WEIGHTS",
        help="as in --perf-rank: rtm=0.5,nmrt=0.3,p95<50ms",
    )
    ranking.set_defaults(for_people=True)
    return parser


def _add_command(
    commands: argparse._SubParsersAction[argparse.ArgumentParser],
    name: str,
    what: str,
    *,
    make: Callable[[Results, argparse.Namespace], str],
) -> argparse.ArgumentParser:
    """Add a command that turns a result file into text."""
    command = commands.add_parser(name, help=what, description=f"{what[0].upper()}{what[1:]}.")
    command.add_argument("results", metavar="RESULTS", help="file written by pytest --perf-json")
    command.add_argument("-o", "--output", metavar="PATH", help="file to write (default: standard output)")
    command.set_defaults(make=make, for_people=False)
    return command


def _for_people(text: str, stream: TextIO) -> str:
    """The text with hidden characters spelled, in characters that the stream can encode."""
    from pytest_mlpatterns.reports.text.styled_text import in_ascii

    text = visible(text)
    try:
        text.encode(stream.encoding or "ascii")
    except UnicodeEncodeError:
        return in_ascii(text)
    return text


def _write(file: str, text: str) -> None:
    try:
        replace_file(Path(file), lambda: text)
    except OSError as error:
        raise OSError(f"{file} cannot be written: {error.strerror or error}; name another file") from error


def _read(file: str) -> Results:
    from pytest_mlpatterns.reports.files.result_file import read_results

    try:
        return read_results(read_text(Path(file)))
    except (ResultFileError, UnicodeDecodeError) as error:
        raise ResultFileError(f"{file} {error}") from error


def _benchmark(results: Results, _options: argparse.Namespace) -> str:
    from pytest_mlpatterns.reports.files.pytest_benchmark import benchmark_json

    return benchmark_json(results)


def _html(results: Results, _options: argparse.Namespace) -> str:
    from pytest_mlpatterns.reports.html.page import html_report

    return html_report(results)


def _ranking(results: Results, options: argparse.Namespace) -> str:
    import shutil

    from pytest_mlpatterns.analysis.criteria import parse_criteria
    from pytest_mlpatterns.analysis.ranking import Unmeasured, rank
    from pytest_mlpatterns.reports.text.ranking_table import ranking_lines

    criteria = parse_criteria(options.weights, "WEIGHTS")
    for result in results.results:
        criteria.check_currency(result.price)
    measured = {result.test for result in results.results}
    unmeasured = [
        Unmeasured(row["test"], ranking["group"], row["pattern"])
        for ranking in results.ranking
        for row in ranking["rows"]
        if row["test"] not in measured
    ]
    rankings = rank(results.results, criteria, unmeasured)
    return "\n".join(ranking_lines(rankings, results.results, shutil.get_terminal_size().columns)) + "\n"


if __name__ == "__main__":
    sys.exit(main())
