"""Text of a service that would command GitHub's runner or the terminal, and credentials: where they may not appear."""

import json
import re
from pathlib import Path
from xml.dom import minidom

import pytest
from support.fault_run import run_fault_here
from support.nightly import rarer
from support.project import Project

pytestmark = pytest.mark.processes

HOSTILE = (
    "<script>alert(1)</script>|x|\\n::error file=a::pwn\\n  ::set-output name=a::b\\n::stop-commands::x\\n"
    "##[command]a ##[error]b\\n%0A::error::p2\\r::warning::p3\\x1b[2J"
)
SERVER = f"""
import http.server, itertools, os, sys

HOSTILE = "{HOSTILE}"
count = itertools.count(1)
print(HOSTILE, flush=True)

class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # head and body in one packet

    def do_GET(self):
        self.answer(200, b"")

    def do_POST(self):
        self.rfile.read(int(self.headers["content-length"]))
        number = next(count)
        if str(number) == sys.argv[2]:
            print(HOSTILE, "the last words", flush=True)
            os._exit(7)
        self.answer(200 if number < 3 or number % 2 else 500, HOSTILE.encode())

    def answer(self, status, body):
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass

http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""
TESTS = f"""
import pytest
from pytest_mlpatterns import Command

HOSTILE = "{HOSTILE}"
QUICK = dict(concurrency=2, duration="1s", warmup="0s", launches=1, timeout="2s", budget="3s")

class TestService:
    @pytest.fixture
    def perf_target(self, last):
        words = ["{{python}}", "srv.py", "{{port}}", last]
        words += ["--api-key", "SECRETKEY", "-H", "Authorization: Bearer SECRETBEARER"]
        return Command(words, path="/p?token=SECRETQUERY", stop="1s", env={{"MY_TOKEN": "SECRETENV"}})

    @pytest.fixture
    def perf_payload(self):
        return ["SECRETPAYLOAD"]

    @pytest.mark.parametrize("last", ["5", "never"])
    @pytest.mark.perf(**QUICK)
    def test_it(self, perf):
        perf.assert_rtm_below("900ms")

def raises(batch):
    raise ValueError(HOSTILE)

@pytest.mark.perf(model=raises, payload=["x"], **QUICK)
def test_raises(perf):
    perf.assert_rtm_below("900ms")

def answers(batch):
    return [HOSTILE] * len(batch)

def check(inputs, outputs):
    assert inputs == outputs, outputs[0]

@pytest.mark.perf(model=answers, payload=["x"], check=check, **QUICK)
def test_check(perf):
    perf.assert_rtm_below("900ms")
"""
COMMANDS = re.compile(r"^\s*::(?P<name>\S*).*$|##\[", re.MULTILINE)
"""What GitHub's runner reads as a command."""


@pytest.mark.parametrize("style", ["long", *rarer("native")])
def test_hostile_text_commands_nothing_and_credentials_are_shown_nowhere(style: str, tmp_path: Path) -> None:
    files = Project().with_file("srv.py", SERVER).with_file("test_it.py", TESTS)
    summary = tmp_path / "summary.md"
    summary.touch()
    written = ["--perf-json", "r.json", "--perf-html", "r.html", "--junit-xml", "j.xml"]
    environment = {"GITHUB_ACTIONS": "true", "GITHUB_STEP_SUMMARY": str(summary), "OMP_PASSWORD": "SECRETOMP"}
    run = run_fault_here(files, tmp_path, "-v", f"--tb={style}", *written, environment=environment)
    run.assert_ended({"failed": 4}, "the last words")
    found = [(one["name"], one[0]) for one in COMMANDS.finditer(run.text)]
    assert [name for name, _ in found] == ["error"] * 4, run.text
    assert all(text.startswith("::error file=test_it.py,") for _, text in found)
    assert not set("\x1b\r") & set(run.text)
    assert "| ::error file=a::pwn" in run.text
    texts = {name: (tmp_path / "project" / name).read_text(encoding="utf-8") for name in ("r.json", "r.html", "j.xml")}
    for name, text in {"terminal": run.text, "summary": summary.read_text(encoding="utf-8"), **texts}.items():
        assert "SECRET" not in text.replace("SECRETPAYLOAD", ""), name
        assert "SECRETPAYLOAD" not in text or name in ("terminal", "j.xml"), name
    assert "--api-key ***" in texts["r.json"]
    assert "<script>alert" not in texts["r.html"]
    assert json.loads(texts["r.json"])["results"]
    minidom.parseString(texts["j.xml"])
