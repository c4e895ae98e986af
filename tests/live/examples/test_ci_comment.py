"""The GitHub action and the GitLab component keep one comment up to date; forks and read-only tokens end in a word."""

import json
import os
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest
import yaml
from support import ROOT

pytestmark = pytest.mark.processes

ACTION = yaml.safe_load((ROOT / "action.yml").read_text(encoding="utf-8"))
GH = """#!{python}
import os, sys
with open(os.environ["CALLS"], "a") as calls:
    calls.write(" ".join(sys.argv[1:]).partition(" --jq")[0] + "\\n")
if "--paginate" in sys.argv:
    sys.stdout.write(os.environ["FOUND"])
sys.exit(os.environ["DENIED"] in sys.argv)
"""
PATH = "repos/team/shop/issues"


def step(name: str) -> str:
    (found,) = [one for one in ACTION["runs"]["steps"] if one.get("id") == name]
    assert isinstance(found["run"], str)
    return found["run"]


def command(directory: Path, name: str, text: str) -> None:
    file = directory / name
    file.write_text(text.replace("{python}", sys.executable), encoding="utf-8")
    file.chmod(file.stat().st_mode | stat.S_IXUSR)


def bash(script: str, directory: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the script of a step as GitHub does."""
    return subprocess.run(
        ["bash", "-eo", "pipefail", "-c", script],
        cwd=directory,
        env={"PATH": f"{directory}:{os.environ['PATH']}", **environment},
        capture_output=True,
        encoding="utf-8",
        timeout=120,
        check=False,
    )


@pytest.mark.parametrize(
    ("found", "head", "denied", "calls", "words"),
    [
        ("", "team/shop", "", [f"--paginate {PATH}/7/comments", f"--silent --method POST {PATH}/7/comments"], ""),
        (
            "11\n12\n",
            "team/shop",
            "",
            [f"--paginate {PATH}/7/comments", f"--silent --method PATCH {PATH}/comments/11"],
            "",
        ),
        ("", "stranger/shop", "", [], "a pull request of a fork gets no comment"),
        (
            "",
            "team/shop",
            "POST",
            [f"--paginate {PATH}/7/comments", f"--silent --method POST {PATH}/7/comments"],
            "pull-requests: write",
        ),
        ("", "team/shop", "--paginate", [f"--paginate {PATH}/7/comments"], "pull-requests: write"),
    ],
    ids=["first", "again", "fork", "denied", "unread"],
)
def test_there_is_one_comment(tmp_path: Path, found: str, head: str, denied: str, calls: list[str], words: str) -> None:
    command(tmp_path, "gh", GH)
    (tmp_path / "perf").mkdir()
    line = "### Performance: ünï\n"
    summary = line + "x" * 20 + "\n" + line * 4000  # what is too long is cut within a character
    (tmp_path / "perf" / "summary.md").write_text(summary, encoding="utf-8")
    assert summary.encode()[59_999:60_001].decode() == "ü"
    done = bash(
        step("comment"),
        tmp_path,
        RUNNER_TEMP=str(tmp_path),
        CALLS=str(tmp_path / "calls"),
        FOUND=found,
        DENIED=denied,
        NAME="a 'name'",
        REPOSITORY="team/shop",
        HEAD_REPOSITORY=head,
        NUMBER="7",
        HEAD_SHA="abc",
        REPORT_URL="http://127.0.0.1/report",
    )
    assert done.returncode == 0, done.stderr
    noted = (tmp_path / "calls").read_text().splitlines() if calls else []
    assert [one.partition(" -F")[0].removeprefix("api ") for one in noted] == calls
    assert words in done.stdout
    if calls:
        text = (tmp_path / "perf" / "comment.md").read_text(encoding="utf-8")
        assert text.startswith("<!-- pytest-mlpatterns: a--name- -->\n### Performance: ünï\n")
        assert 60_000 < len(text.encode()) < 65536
        assert text.endswith("abc, [report](http://127.0.0.1/report)\n")


def test_action_passes_arguments_as_a_shell_does_and_keeps_the_exit_code(tmp_path: Path) -> None:
    command(tmp_path, "git", "#!/bin/sh\necho false\n")
    command(
        tmp_path,
        "pytest",
        "#!{python}\nimport json, os, sys\n"
        "open(os.environ['CALLS'], 'w').write(json.dumps(sys.argv[1:]))\nsys.exit(1)\n",
    )
    command(tmp_path, "python", '#!/bin/sh\nexec {python} "$@"\n')
    environment = {name: str(tmp_path / name.lower()) for name in ("CALLS", "GITHUB_OUTPUT", "GITHUB_STEP_SUMMARY")}
    done = bash(
        step("measure"),
        tmp_path,
        RUNNER_TEMP=str(tmp_path),
        BASE="",
        BASE_REF="main",
        ARGUMENTS="tests/perf -k 'a or b'",
        PROBABLY="undecided",
        **environment,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "calls").read_text())[:5] == [
        *("tests/perf", "-k", "a or b", "--perf-against", "merge-base:origin/main")
    ]
    assert (tmp_path / "github_output").read_text() == "code=1\nverdict=1\n"
    for base, probably, words in (
        ("", "fail", "there is no pull request"),
        ("main", "Fail", "is 'Fail', expected undecided or fail"),
    ):
        given = {"BASE": "", "BASE_REF": base, "PROBABLY": probably, "ARGUMENTS": "", "RUNNER_TEMP": str(tmp_path)}
        refused = bash(step("measure"), tmp_path, **given)
        assert (refused.returncode, words in refused.stdout) == (2, True)


@pytest.mark.parametrize(
    ("pytest_code", "verdict", "code", "strict"),
    [
        *((0, 0, 0, 0), (0, 1, 0, 0), (0, 2, 0, 2), (0, 3, 0, 0), (1, 0, 1, 1), (1, 1, 1, 1), (1, 2, 2, 2)),
        *((1, 3, 3, 3), (1, 127, 1, 1), (2, 2, 1, 1), (4, 1, 1, 1), (5, 1, 1, 1)),
    ],
)
def test_exit_code_of_the_job_has_the_kind_of_what_pytest_does_not_let_pass(
    tmp_path: Path, pytest_code: int, verdict: int, code: int, strict: int
) -> None:
    """``strict``: the code with ``probably: fail``."""
    command(tmp_path, "git", "#!/bin/sh\necho false\n")
    command(tmp_path, "pytest", f"#!/bin/sh\nexit {pytest_code}\n")
    command(tmp_path, "python", f'#!/bin/sh\ntest "$3" != verdict || exit {verdict}\n')
    output = {name: str(tmp_path / name.lower()) for name in ("GITHUB_OUTPUT", "GITHUB_STEP_SUMMARY")}
    arguments = {"BASE": "", "BASE_REF": "main", "ARGUMENTS": "tests", "RUNNER_TEMP": str(tmp_path)}
    for probably, expected in (("undecided", code), ("fail", strict)):
        (tmp_path / "github_output").unlink(missing_ok=True)
        done = bash(step("measure"), tmp_path, **arguments, **output, PROBABLY=probably)
        assert done.returncode == 0, done.stderr
        assert (tmp_path / "github_output").read_text() == f"code={expected}\nverdict={verdict}\n"
        component = bash("\n".join(component_script(probably)), tmp_path)
        assert component.returncode == expected, component.stderr


def component_script(probably: str = "undecided") -> list[str]:
    _, job = yaml.safe_load_all((ROOT / "examples/ci/gitlab/component.yml").read_text(encoding="utf-8"))
    script: list[str] = job["performance"]["script"]
    inputs = {"$[[ inputs.tests ]] $[[ inputs.options ]]": "tests", "$[[ inputs.probably ]]": probably}
    for name, value in inputs.items():
        script = [line.replace(name, value) for line in script]
    return script


class Notes(BaseHTTPRequestHandler):
    """As much of GitLab's interface as the component uses: notes on two pages."""

    pages: ClassVar[dict[str, list[dict[str, Any]]]] = {}
    asked: ClassVar[list[tuple[str, str, str]]] = []
    status: ClassVar[int] = 200

    def answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        self.asked.append((self.command, self.path.partition("?")[0], json.loads(body)["body"] if body else ""))
        page = self.path.partition("&page=")[2]
        content = json.dumps(self.pages.get(page, {})).encode()
        self.send_response(self.status)
        self.send_header("content-length", str(len(content)))
        self.send_header("x-next-page", "2" if page == "1" else "")
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_POST = do_PUT = answer  # noqa: N815 - names of http.server

    def log_message(self, *args: object) -> None:
        """Nothing is logged."""


@pytest.fixture
def gitlab() -> Iterator[str]:
    Notes.pages, Notes.asked, Notes.status = {"1": [{"id": 1, "body": "hello"}], "2": []}, [], 200
    with HTTPServer(("127.0.0.1", 0), Notes) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def note(directory: Path, address: str, token: str = "secret") -> subprocess.CompletedProcess[str]:
    (script,) = [line for line in component_script() if line.startswith("python - <<")]
    (directory / "perf-summary.md").write_text("### Performance\n", encoding="utf-8")
    command(directory, "python", '#!/bin/sh\nexec {python} "$@"\n')
    token_of = {"MLPATTERNS_TOKEN": token} if token else {}
    return bash(
        script,
        directory,
        CI_API_V4_URL=address,
        CI_PROJECT_ID="3",
        CI_MERGE_REQUEST_IID="7",
        CI_COMMIT_SHA="abc",
        CI_JOB_URL="http://127.0.0.1/job",
        **token_of,
    )


def test_component_writes_a_first_note_then_changes_it(tmp_path: Path, gitlab: str) -> None:
    assert note(tmp_path, gitlab).returncode == 0
    method, path, text = Notes.asked[-1]
    assert (method, path) == ("POST", "/projects/3/merge_requests/7/notes")
    Notes.pages["2"] = [{"id": 22, "body": text}]
    assert note(tmp_path, gitlab).returncode == 0
    assert Notes.asked[-1][:2] == ("PUT", "/projects/3/merge_requests/7/notes/22")


@pytest.mark.parametrize(("token", "words"), [("", "there is no MLPATTERNS_TOKEN"), ("wrong", "needs the scope api")])
def test_component_goes_on_without_a_note(tmp_path: Path, gitlab: str, token: str, words: str) -> None:
    Notes.status = 403
    done = note(tmp_path, gitlab, token)
    assert done.returncode == 0
    assert words in done.stderr
