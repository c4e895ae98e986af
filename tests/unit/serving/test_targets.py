"""Addresses of services that exist: their parts, and what is refused before anything is contacted."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.each_row import each_row

from pytest_mlpatterns import JsonLines, Prometheus
from pytest_mlpatterns.errors import SettingError
from pytest_mlpatterns.serving.targets import App, Command, Url, prometheus_of, require_other_ports, with_ports


@each_row(
    ("url", "host", "port", "path"),
    ("http://127.0.0.1:8000/predict", "127.0.0.1", 8000, "/predict"),
    ("http://127.0.0.1:8000", "127.0.0.1", 8000, "/"),
    ("http://localhost", "localhost", 80, "/"),
    ("http://model.example/v1/models/a:predict", "model.example", 80, "/v1/models/a:predict"),
    ("http://127.0.0.1:8000/predict?model=a&b=%20", "127.0.0.1", 8000, "/predict?model=a&b=%20"),
    ("http://127.0.0.1:8000?model=a", "127.0.0.1", 8000, "/?model=a"),
    ("http://[::1]:8000/predict", "::1", 8000, "/predict"),
    ("HTTP://Localhost:81/A", "localhost", 81, "/A"),
    ("https://model.example/predict", "model.example", 443, "/predict"),
    ("https://model.example:8443/predict", "model.example", 8443, "/predict"),
)
def test_an_address_has_host_port_and_path(url: str, host: str, port: int, path: str) -> None:
    target = Url(url)
    assert (target.host, target.port, target.path) == (host, port, path)
    assert str(target) == url


@each_row(
    ("url", "expected"),
    ("ftp://127.0.0.1", "has scheme 'ftp', expected http"),
    ("127.0.0.1:8000", "expected http"),
    ("localhost:8000", "expected http"),
    ("", "expected http"),
    ("http://", "has no host or port"),
    ("http:///predict", "has no host or port"),
    ("http://:8000", "has no host or port"),
    ("http://127.0.0.1:0", "has no host or port"),
    ("http://127.0.0.1:99999", "expected an address such as http://127.0.0.1:8000/predict"),
    ("http://127.0.0.1:http", "expected an address such as http://127.0.0.1:8000/predict"),
    ("http://[::1", "expected an address such as http://127.0.0.1:8000/predict"),
    ("http://user:secret@127.0.0.1", "send credentials in httpx.Request headers"),
    ("http://user@127.0.0.1", "send credentials in httpx.Request headers"),
    ("http://127.0.0.1/#part", "has a user, password or fragment"),
    (8000, "expected an address such as http://127.0.0.1:8000/predict"),
    (None, "expected"),
    (b"http://127.0.0.1", "expected"),
    ("http://127.0.0.1/two words", "expected"),
    ("http://127.0.0.1/prédict", "expected"),
    ("http://127.0.0.1/predict?text=größer", "expected"),
)
def test_what_is_no_http_address_is_refused(url: Any, expected: str) -> None:
    with pytest.raises(SettingError) as caught:
        Url(url)
    message = str(caught.value)
    assert message.startswith("Url(")
    assert expected in message
    assert "\n" not in message
    assert "secret" not in message  # where logs would keep it


@each_row(
    ("url", "is_https", "origin"),
    ("http://127.0.0.1:8000/predict?a", False, "http://127.0.0.1:8000"),
    ("http://localhost", False, "http://localhost:80"),
    ("https://localhost/a", True, "https://localhost:443"),
    ("https://[::1]:8443/a", True, "https://[::1]:8443"),
)
def test_an_address_has_an_origin(url: str, is_https: bool, origin: str) -> None:
    assert (Url(url).is_https, Url(url).origin) == (is_https, origin)


def test_an_authority_to_trust_is_a_file_that_exists(tmp_path: Path) -> None:
    certificate = tmp_path / "ca.pem"
    certificate.write_text("certificate", encoding="utf-8")
    assert Url("https://localhost", ca=certificate).ca == certificate
    for url, ca in (
        ("https://localhost", tmp_path / "absent.pem"),
        ("https://localhost", tmp_path),
        ("http://localhost", certificate),
    ):
        with pytest.raises(SettingError) as caught:
            Url(url, ca=ca)
        message = f"Url(ca={str(ca)!r}), expected a certificate file that exists, for an https address"
        assert str(caught.value) == message


@each_row("pid", [0, -1, "twelve", True, 1.0])
def test_an_impossible_process_is_refused(pid: Any) -> None:
    with pytest.raises(SettingError) as caught:
        Url("http://127.0.0.1", pid=pid)
    assert str(caught.value) == f"Url(pid={pid!r}), expected the number of a running process"


def test_numbers_of_numpy_are_kept_as_plain_ones() -> None:
    app, url = App("pkg.main:app", workers=np.int64(2)), Url("http://127.0.0.1", pid=np.int32(12))  # type: ignore[arg-type]
    assert (type(app.workers), type(url.pid)) == (int, int)
    assert str(app) == "App('pkg.main:app', workers=2)"


@each_row(
    ("target", "expected"),
    (App("pkg.main:app"), "App('pkg.main:app')"),
    (App("pkg.main:app", workers=2, env={"A": "1"}, cwd="/tmp"), "App('pkg.main:app', workers=2)"),
    (
        App("pkg.main:make", path="/p", server="granian", balance="shared-socket", factory=True),
        "App('pkg.main:make', path='/p', server='granian', balance='shared-socket', factory=True)",
    ),
    (Command("serve --port {port}"), "Command('serve --port {port}')"),
    (Command(("serve", "{port}"), ready="/health", path="/p"), "Command('serve {port}', path='/p')"),
    (
        Command(["/opt/bin/serve", "--name", "two words", "/home/me/model.bin", "{port}"]),
        "Command(\"serve --name 'two words' model.bin {port}\")",
    ),
    (Command("{python} -m serve --url http://127.0.0.1:{port}/a"), None),
)
def test_a_target_reads_the_same_wherever_it_runs(target: App | Command, expected: str | None) -> None:
    assert str(target) == (expected or "Command('{python} -m serve --url http://127.0.0.1:{port}/a')")


@each_row(
    ("arguments", "expected"),
    ({"app": "pkg.main"}, "App('pkg.main'), expected an import string"),
    ({"app": "pkg/main.py:app"}, "expected an import string"),
    ({"app": print}, "expected an import string"),
    ({"workers": 0}, "App(workers=0), expected a whole number of processes from 1 to 64"),
    ({"workers": True}, "App(workers=True), expected a whole number"),
    ({"workers": "2"}, "App(workers='2'), expected a whole number"),
    ({"server": "gunicorn"}, "App(server='gunicorn'), expected one of 'uvicorn', 'granian'"),
    ({"balance": "random"}, "App(balance='random'), expected one of 'round-robin', 'least-outstanding'"),
    ({"factory": 1}, "App(factory=1), expected True or False"),
    ({"path": "predict"}, "App(path='predict'), expected a path such as"),
    ({"path": "/prédict"}, "expected a path such as"),
    ({"ready": "http://x/health"}, "App(ready='http://x/health'), expected a path"),
    ({"ready": 1}, "App(ready=1), expected a path"),
    ({"env": {"A": 1}}, "App(env=...), expected a mapping of text to text"),
    ({"env": ["A=1"]}, "App(env=...), expected a mapping of text to text"),
    ({"cwd": 1}, "App(cwd=1), expected the path of a directory"),
    ({"python": 3.11}, "App(python=3.11), expected the path of a Python interpreter"),
    ({"stop": 5}, "App(stop=...) is 5, expected a time with its unit"),
    ({"name": "a b"}, "App(name='a b'), expected a word such as \"fake\""),
    ({"companions": App("fake:app")}, "App(companions=App('fake:app')), expected a list of App(...) and Command("),
    ({"companions": ["fake:app"]}, "App(companions=['fake:app']), expected a list"),
    ({"companions": [App("a:b", companions=[App("c:d")])]}, "has App('a:b'); list its companions here, before it"),
    ({"companions": [App("a:b", name="one")] * 2}, "has two of the name 'one', expected different names"),
    ({"metrics": 9090}, "App(metrics=9090), expected a path such as"),
    ({"metrics": "metrics"}, "Prometheus('metrics'), expected a path or address"),
)
def test_what_is_no_application_is_refused(arguments: dict[str, Any], expected: str) -> None:
    with pytest.raises(SettingError) as caught:
        App(**{"app": "pkg.main:app", **arguments})
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


@each_row(
    ("command", "expected"),
    ("serve", 'has no {port}, expected it in the command or in env; write "serve --port {port}", port=8000 if it'),
    (
        "serve --port {grpc_port}",
        "has no {port}, expected it in the command or in env (a port alone is {port}, whatever it speaks); write",
    ),
    ("", "is empty, expected a command"),
    ([], "is empty, expected a command"),
    (["", "{port}"], "is empty, expected a command"),
    ("serve 'x", "cannot be split into words: No closing quotation"),
    ("cd app && serve {port}", "has &&, expected one command without a shell"),
    ("serve {port} > log", "has >, expected one command without a shell"),
    ("THREADS=1 serve {port}", "begins with a variable, expected the command; write env={...}"),
    (8000, "Command(8000), expected a command line or its words"),
    (None, "Command(None), expected a command line or its words"),
)
def test_what_is_no_command_is_refused(command: Any, expected: str) -> None:
    with pytest.raises(SettingError) as caught:
        Command(command)
    assert expected in str(caught.value)


def test_a_port_that_a_command_opens_wherever_it_runs_is_given_beside_it() -> None:
    fixed = Command("serve", port=8000)
    assert str(fixed) == "Command('serve', port=8000)"
    for given, expected in (
        ({"command": "serve {port}", "port": 8000}, "has {port} and port=8000, expected one of them"),
        ({"command": "serve", "port": 70_000}, "Command(port=70000), expected the port that the server opens"),
    ):
        with pytest.raises(SettingError) as caught:
            Command(**given)
        assert expected in str(caught.value)
    require_other_ports(fixed, Command("serve", port=8001))
    require_other_ports(Command("serve {port}"), Command("serve {port}"))
    beside = App("a:b", companions=[fixed])
    for own, other in ((fixed, fixed), (beside, fixed), (fixed, beside)):
        with pytest.raises(SettingError, match=r"opens port 8000 on both sides of a comparison, .*: write \{port\} in"):
            require_other_ports(own, other)


def test_the_places_of_ports_are_found_in_words_and_environment() -> None:
    target = Command("serve {port} {grpc_port}", env={"METRICS": "{metrics_port}", "AGAIN": "{port}", "NO": "{Port}"})
    assert target.ports == ("port", "grpc_port", "metrics_port")
    assert Command("serve", env={"PORT": "{port}"}).ports == ("port",)


def test_a_port_of_no_companion_is_refused() -> None:
    target = Command("serve {port} {port:fake}")
    assert with_ports("a {port} {port:fake}", target, {"fake": 80}) == "a {port} 80"
    for ports, known in (({}, "a companion before it"), ({"a": 1, "b": 2}, "one of a, b")):
        with pytest.raises(
            SettingError, match=rf"asks for \{{port:fake\}}, expected the name of {known}; write compan"
        ):
            with_ports("{port:fake}", target, ports)


def test_results_name_companions_and_messages_do_not() -> None:
    target = Command("serve {port} {port:fake}", companions=[App("fake:app", name="fake")])
    assert str(target) == "Command('serve {port} {port:fake}')"
    assert target.describe().text == "Command('serve {port} {port:fake}') beside App('fake:app', name='fake')"


def test_what_a_target_was_given_cannot_be_changed_later() -> None:
    environment = {"A": "1"}
    target = App("pkg.main:app", env=environment)
    environment["A"] = "2"
    assert target.env == {"A": "1"}
    assert target == App("pkg.main:app", env={"A": "1"})
    assert len({target, App("pkg.main:app", env={"A": "1"}), App("pkg.main:app", workers=2)}) == 2
    words = ["serve", "{port}"]
    command = Command(words)
    words.append("--debug")
    assert command.words == ("serve", "{port}")


def test_metrics_of_a_target_is_a_path_or_a_value() -> None:
    named = Prometheus("/stats", batch_size="rows")
    assert prometheus_of(App("a:b", metrics="/metrics")) == Prometheus("/metrics")
    assert prometheus_of(Url("http://localhost", metrics=named)) is named
    assert prometheus_of(Command("serve {port}")) is None
    with pytest.raises(SettingError, match=r"Url\(metrics=1\)"):
        Url("http://localhost", metrics=1)  # type: ignore[arg-type]


@pytest.mark.parametrize("made", [App, Url, Command])
def test_the_form_of_streams_is_one_of_few_and_no_part_of_the_name(made: Any) -> None:
    address = {App: "service:app", Url: "http://127.0.0.1:1/p", Command: "serve {port}"}[made]
    keys = JsonLines(tokens="n")
    assert [made(address, stream=stream).stream for stream in ("chunks", keys, None)] == ["chunks", keys, None]
    assert str(made(address, stream="lines")) == str(made(address))  # its baseline is that of the same service
    with pytest.raises(SettingError, match=rf"^{made.__name__}\(stream='ndjson'\), expected \"lines\" for JSON lines"):
        made(address, stream="ndjson")
