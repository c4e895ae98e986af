"""``python -m pytest_mlpatterns summary``: the table of a result file in Markdown."""

from pathlib import Path

import pytest
from support.synthetic import ENVIRONMENT, result

from pytest_mlpatterns.cli import main
from pytest_mlpatterns.reports.files.result_file import results_json


def test_table_and_failures_are_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "results.json"
    measured = [result("test_a.py::test_good"), result("test_a.py::test_bad", passed=False)]
    file.write_text(results_json(measured, ENVIRONMENT, "2026-11-24", baseline={}), encoding="utf-8")
    assert main(["summary", str(file)]) == 0
    text = capsys.readouterr().out
    assert text.startswith("### Performance: 1 broken test, 1 passed")
    assert r"- ✗ **test\_a.py::test\_bad**: " in text
    assert r"| test\_a.py::test\_good |" in text
