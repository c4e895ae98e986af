"""The user's own services, as the ``perf_target`` fixture names them. Values only: nothing is opened here.

A :class:`Url` is already running. An :class:`App` or :class:`Command` is started for the test and ended after it.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import SplitResult, urlsplit

from pytest_mlpatterns.credentials import address_without_credentials, public_command, public_words, unquoted
from pytest_mlpatterns.errors import SettingError
from pytest_mlpatterns.fields import check_truth, set_whole
from pytest_mlpatterns.records.addressing import Balance
from pytest_mlpatterns.records.setup import SystemDescription, SystemKind
from pytest_mlpatterns.serving.import_string import is_import_string, meant_import_string
from pytest_mlpatterns.serving.prometheus import Prometheus
from pytest_mlpatterns.units import parse_duration
from pytest_mlpatterns.wire.stream_lines import JsonLines
from pytest_mlpatterns.wire.stream_request import read_stream
from pytest_mlpatterns.wording import shown

_PORTS = re.compile(r"\{((?:[a-z]\w*_)?port)\}")
_COMPANION_PORT = re.compile(r"\{port:([A-Za-z][\w-]*)\}")
"""Placeholder of the port of a companion."""
_SHELL_OPERATORS = {"&&", "||", "|", ";", "&", ">", ">>", "<"}
"""Words that only a shell understands; a command is started without one."""
_SERVERS = ("uvicorn", "granian")
_APP = 'write App("package.module:attribute")'


@dataclass(frozen=True, slots=True)
class Url:
    """A running service. It is not started or stopped, and only this address is contacted.

    Args:
        url: ``http://host[:port]/path`` or ``https://…`` that takes the requests. Inputs of ``perf_payload`` are posted
            to it as ``{"instances": [input]}``; ``httpx.Request`` objects keep their own path and body.
        pid: root of the service's process tree, for CPU, memory and load; without it these metrics are None.
        http2: use HTTP/2. HTTP/2 and https need a client library (extra ``https``), whose cost is part of the result.
        ca: file with the certificate of an additional trusted authority (https).
        metrics: path or address of the service's Prometheus metrics, or a :class:`Prometheus`.
        stream: the form of its streams: ``"lines"`` for JSON lines, :class:`JsonLines` if their keys name tokens,
            ``"chunks"`` for chunks of anything, ``"whole"`` for answers that are no streams. By default server-sent
            events and JSON lines are recognized by their media types.

    Raises:
        SettingError: not an http or https address, an invalid pid, or a certificate file that does not exist.
    """

    url: str
    pid: int | None = None
    http2: bool = False
    ca: str | Path | None = None
    metrics: str | Prometheus | None = None
    stream: str | JsonLines | None = None

    def __post_init__(self) -> None:
        found = f"Url({shown(public_command(self.url))})"
        if not isinstance(self.url, str):
            raise SettingError(f"{found}, expected an address such as http://127.0.0.1:8000/predict")
        parts = _split(self.url, found)
        if not _is_plain(self.path):
            raise SettingError(f"{found}, expected a path of printable ASCII; quote it: urllib.parse.quote(path)")
        if not _is_plain(self.host):
            raise SettingError(f"{found}, expected a host of printable ASCII; write host.encode('idna').decode()")
        check_truth(self, "http2")
        if self.pid is not None:
            set_whole(self, "pid", least=1, expected="the number of a running process")
        if self.ca is not None and (parts.scheme != "https" or not _is_file(self.ca)):
            shown_ca = shown(str(self.ca) if isinstance(self.ca, Path) else self.ca)
            raise SettingError(f"Url(ca={shown_ca}), expected a certificate file that exists, for an https address")
        _check_metrics("Url", self.metrics)
        read_stream(self.stream, "Url")

    def __str__(self) -> str:
        return address_without_credentials(self.url)

    def __repr__(self) -> str:
        return _shown(self, repr(str(self)), ("pid", "http2"))

    def describe(self) -> SystemDescription:
        """Description of the service for results."""
        return SystemDescription(str(self), SystemKind.URL)

    @property
    def host(self) -> str:
        """Host name or address."""
        return urlsplit(self.url).hostname or ""

    @property
    def port(self) -> int:
        """Port; the default is 80, or 443 for https."""
        return urlsplit(self.url).port or (443 if self.is_https else 80)

    @property
    def is_https(self) -> bool:
        """Whether the connection is encrypted."""
        return urlsplit(self.url).scheme == "https"

    @property
    def origin(self) -> str:
        """Scheme, host and port."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'https' if self.is_https else 'http'}://{host}:{self.port}"

    @property
    def path(self) -> str:
        """Path and query, as in the request line."""
        parts = urlsplit(self.url)
        return (parts.path or "/") + (f"?{parts.query}" if parts.query else "")


@dataclass(frozen=True, slots=True)
class App:
    """An ASGI application (FastAPI, Starlette, Litestar, Django, …), served on 127.0.0.1 during the test.

    Args:
        app: import string ``"package.module:attribute"`` of the application, imported with pytest's import path.
        path: path to which inputs of ``perf_payload`` are posted; ``httpx.Request`` objects keep their own.
        workers: number of processes.
        server: ``"uvicorn"`` or ``"granian"`` (extra ``granian``).
        balance: how requests reach the workers. ``"round-robin"`` and ``"least-outstanding"``: each worker has its own
            port, and the load generator chooses in turn or by requests in flight. ``"shared-socket"``: all workers
            accept from one socket, as with ``uvicorn --workers``, which can leave one idle.
        factory: the attribute is a function that returns the application.
        ready: path that answers 2xx when the application is ready; by default any answer counts.
        metrics: path of the application's Prometheus metrics, or a :class:`Prometheus`.
        env: environment variables in addition to pytest's.
        cwd: working directory, relative to pytest's root directory, which is the default.
        python: Python of another environment, which serves it, relative to pytest's root directory. That environment
            needs uvicorn or granian, but not this package.
        stop: time limit for the end after SIGTERM, before the processes are killed.
        stream: the form of answers that come in pieces, as of :class:`Url`.
        companions: what it needs beside it, ``App(...)`` and ``Command(...)``: started before it, in this order, and
            ended after it. Their CPU time and memory are not counted.
        name: by which ``{port:NAME}`` in a command or ``env`` means the port of a companion.

    Raises:
        SettingError: an argument is not valid.
    """

    app: str
    path: str = "/"
    workers: int = 1
    server: str = "uvicorn"
    balance: str = "round-robin"
    factory: bool = False
    ready: str | None = None
    metrics: str | Prometheus | None = None
    env: Mapping[str, str] = field(default_factory=dict, hash=False)
    cwd: str | Path | None = None
    stop: str = "5s"
    stream: str | JsonLines | None = None
    companions: Sequence[App | Command] = ()
    name: str = ""
    python: str | Path | None = None

    def __post_init__(self) -> None:
        if not is_import_string(self.app):
            meant = meant_import_string(self.app) if isinstance(self.app, str) else ""
            raise SettingError(
                f"App({shown(self.app)}), expected an import string of an application, or with factory=True of a "
                f"function that returns one; {meant or _APP}"
            )
        set_whole(self, "workers", least=1, most=64, expected="a whole number of processes from 1 to 64")
        for name, value, allowed in (
            ("server", self.server, _SERVERS),
            ("balance", self.balance, [str(known) for known in Balance]),
        ):
            if not isinstance(value, str) or value not in allowed:
                raise SettingError(f"App({name}={shown(value)}), expected one of {', '.join(map(repr, allowed))}")
        check_truth(self, "factory")
        _check_start("App", self)

    def __str__(self) -> str:
        return _shown(self, repr(self.app), ("path", "workers", "server", "balance", "factory", "name"))

    __repr__ = __str__

    def describe(self) -> SystemDescription:
        """Description of the service for results."""
        return SystemDescription(_with_companions(self), SystemKind.APP)


@dataclass(frozen=True, slots=True)
class Command:
    """A server that a command starts in its own session, and that ends with the test.

    In the command and in ``env``, ``{port}`` is replaced by a free port, which the server must open on 127.0.0.1, and
    ``{python}`` by the Python that runs pytest, or by ``python=``. Commands beside it come first in ``PATH``. Further
    free ports, of a server that opens several, are ``{grpc_port}``, which takes the requests if the wire is ``grpc``,
    ``{metrics_port}``, and any other name that ends in ``_port``. The server must stay in the foreground; if it fails,
    the error has its last output.

    Args:
        command: a command line, split into words as by a shell but run without one, or a list of words.
        ready: path that answers 2xx when the server is ready; by default any answer counts.
        path: path to which inputs of ``perf_payload`` are posted; ``httpx.Request`` objects keep their own.
        metrics: path of the server's Prometheus metrics, an address such as
            ``"http://127.0.0.1:{metrics_port}/metrics"``, or a :class:`Prometheus`.
        env: environment variables in addition to pytest's.
        cwd: working directory, relative to pytest's root directory, which is the default.
        python: Python of another environment, such as ``".venv-server/bin/python"``, relative to pytest's root
            directory; ``{python}`` and the commands beside it. That environment does not need this package.
        stop: time limit for the end after SIGTERM, before the processes are killed.
        stream: the form of answers that come in pieces, as of :class:`Url`.
        companions: as of :class:`App`.
        name: as of :class:`App`.
        port: the only port that the server can open, in place of ``{port}``, which two sides of a comparison need.

    Raises:
        SettingError: an argument is not valid, or the command has neither ``{port}`` nor ``port=``.
    """

    command: str | Sequence[str]
    ready: str | None = None
    path: str = "/"
    metrics: str | Prometheus | None = None
    env: Mapping[str, str] = field(default_factory=dict, hash=False)
    cwd: str | Path | None = None
    stop: str = "5s"
    stream: str | JsonLines | None = None
    companions: Sequence[App | Command] = ()
    name: str = ""
    python: str | Path | None = None
    port: int | None = None

    def __post_init__(self) -> None:
        __tracebackhide__ = True
        found = f"Command({shown(public_command(self.command))})"
        if not isinstance(self.command, str):
            object.__setattr__(self, "command", _words_of(self.command, found))
        try:
            words = self.words
        except ValueError as error:  # an unclosed quote
            raise SettingError(f"{found} cannot be split into words: {error}") from None
        if not words or not words[0]:
            raise SettingError(f'{found} is empty, expected a command; write "serve --port {{port}}"')
        if isinstance(self.command, str) and (operators := _SHELL_OPERATORS.intersection(words)):
            raise SettingError(
                f"{found} has {', '.join(sorted(operators))}, expected one command without a shell; "
                'write Command(["sh", "-c", "…"]) if it needs one, env= for variables and cwd= for the directory'
            )
        if isinstance(self.command, str) and re.match(r"\w+=", words[0]):
            raise SettingError(f"{found} begins with a variable, expected the command; write env={{...}} for it")
        if not all(map(_is_argument, words)):
            raise SettingError(f"{found} has NUL or characters that UTF-8 lacks, expected words of text")
        _check_start("Command", self)
        if self.port is not None:
            set_whole(self, "port", least=1, most=65_535, expected="the port that the server opens, from 1 to 65,535")
        if self.port is None and "port" not in self.ports:
            alone = " (a port alone is {port}, whatever it speaks)" if self.ports else ""
            raise SettingError(
                f"{found} has no {{port}}, expected it in the command or in env{alone}; write "
                '"serve --port {port}", port=8000 if it can open no other one, or Url(...) for a running server'
            )
        if self.port is not None and "port" in self.ports:
            raise SettingError(f"{found} has {{port}} and port={self.port}, expected one of them; leave port= out")

    def __str__(self) -> str:
        words = [Path(word).name if Path(word).is_absolute() else word for word in public_words(self.words)]
        line = self.command if isinstance(self.command, str) and words == list(self.words) else shlex.join(words)
        return _shown(self, repr(unquoted(line)), ("path", "name", "port"))

    __repr__ = __str__

    def describe(self) -> SystemDescription:
        """Description of the service for results."""
        return SystemDescription(_with_companions(self), SystemKind.COMMAND)

    @property
    def words(self) -> tuple[str, ...]:
        """The command as words."""
        return tuple(shlex.split(self.command) if isinstance(self.command, str) else self.command)

    @property
    def ports(self) -> tuple[str, ...]:
        """Names of the ports in the command and in ``env``, without duplicates."""
        texts = [*self.words, *self.env.values()]
        return tuple(dict.fromkeys(name for text in texts for name in _PORTS.findall(text)))


Target = Url | App | Command  # Type of the value that ``perf_target`` returns


def prometheus_of(target: Target) -> Prometheus | None:
    """The target's Prometheus metrics, or None."""
    return Prometheus(target.metrics) if isinstance(target.metrics, str) else target.metrics


def with_ports(text: str, target: App | Command, ports: Mapping[str, int]) -> str:
    """A word or a variable of a target with the ports of its companions, by name."""
    if missing := set(_COMPANION_PORT.findall(text)) - ports.keys():
        known = f"one of {', '.join(ports)}" if ports else "a companion before it"
        raise SettingError(
            f"{target} asks for {{port:{min(missing)}}}, expected the name of {known}; write "
            f'companions=[App(..., name="{min(missing)}")]'
        )
    return _COMPANION_PORT.sub(lambda match: str(ports[match[1]]), text)


def require_other_ports(own: object, other: object) -> None:
    """Refuse two sides of a comparison that open the same port, since both run at the same time."""
    if shared := _fixed_ports(own) & _fixed_ports(other):
        raise SettingError(
            f"{other} opens port {min(shared)} on both sides of a comparison, which run at the same time; expected a "
            "port for each: write {port} in the command in place of port="
        )


def _fixed_ports(service: object) -> set[int]:
    """The ports that a target and its companions open wherever they run."""
    found = (service, *service.companions) if isinstance(service, App | Command) else ()
    return {one.port for one in found if isinstance(one, Command) and one.port is not None}


def _shown(target: object, first: str, names: Sequence[str]) -> str:
    """Text form of a target in baselines; without environment and directory, so that it is the same on each machine."""
    defaults = {name: found.default for name, found in type(target).__dataclass_fields__.items()}  # type: ignore[attr-defined]
    given = [f"{name}={getattr(target, name)!r}" for name in names if getattr(target, name) != defaults[name]]
    return f"{type(target).__name__}({', '.join([first, *map(address_without_credentials, given)])})"


def _with_companions(target: App | Command) -> str:
    """A target and what runs beside it, as results name them."""
    return " beside ".join(map(str, (target, *target.companions)))


def _check_start(kind: str, target: App | Command) -> None:
    """Check the fields that ``App`` and ``Command`` share, and copy the mutable one."""
    __tracebackhide__ = True
    for name, value in (("path", target.path), ("ready", target.ready)):
        if value is not None and not (isinstance(value, str) and value.startswith("/") and _is_plain(value)):
            found = shown(public_command(value))
            raise SettingError(
                f'{kind}({name}={found}), expected a path such as "/predict"; quote it if it is not ASCII'
            )
    if not isinstance(target.env, Mapping) or not all(
        isinstance(text, str) and _is_argument(text) for item in target.env.items() for text in item
    ):
        raise SettingError(f'{kind}(env=...), expected a mapping of text to text; write env={{"THREADS": "1"}}')
    if (bad := next((name for name in target.env if not name or "=" in name), None)) is not None:
        raise SettingError(f"{kind}(env=...) names the variable {shown(bad)}, expected a name without an equals sign")
    for name, given, what in (("cwd", target.cwd, "directory"), ("python", target.python, "Python interpreter")):
        if given is not None and not (isinstance(given, str | Path) and _is_argument(str(given))):
            raise SettingError(f"{kind}({name}={shown(given)}), expected the path of a {what}")
    parse_duration(target.stop, name=f"{kind}(stop=...)")
    object.__setattr__(target, "env", dict(target.env))
    _check_companions(kind, target)
    _check_metrics(kind, target.metrics)
    read_stream(target.stream, kind)


def _check_companions(kind: str, target: App | Command) -> None:
    """Check what runs beside a target, and its own name as a companion."""
    if not isinstance(target.name, str) or (target.name and not re.fullmatch(r"[A-Za-z][\w-]*", target.name)):
        raise SettingError(f'{kind}(name={shown(target.name)}), expected a word such as "fake"')
    found = target.companions
    if not isinstance(found, list | tuple) or not all(isinstance(one, App | Command) for one in found):
        raise SettingError(f"{kind}(companions={shown(found)}), expected a list of App(...) and Command(...)")
    if nested := [one for one in found if one.companions]:
        raise SettingError(f"{kind}(companions=...) has {nested[0]}; list its companions here, before it")
    names = [one.name for one in found if one.name]
    if doubled := [name for name in names if names.count(name) > 1]:
        raise SettingError(f"{kind}(companions=...) has two of the name {shown(doubled[0])}, expected different names")
    object.__setattr__(target, "companions", tuple(found))


def _split(url: str, found: str) -> SplitResult:
    """The parts of the address of a service, ``found`` in messages."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise SettingError(
            f"{found}, expected an address such as http://127.0.0.1:8000/predict; {error!s:.100}"
        ) from None
    if "://" not in url:
        raise SettingError(
            f"{found} has no scheme, expected http or https; "
            f"write http://{address_without_credentials(url)[:100] or 'host:port/path'}"
        )
    if parts.scheme not in ("http", "https"):
        raise SettingError(
            f"{found} has scheme {shown(parts.scheme)}, expected http or https; write http://host:port/path"
        )
    if not parts.hostname or port == 0:
        raise SettingError(f"{found} has no host or port, expected an address such as http://127.0.0.1:8000/predict")
    if parts.username or parts.password or parts.fragment:
        raise SettingError(f"{found} has a user, password or fragment; send credentials in httpx.Request headers")
    return parts


def _words_of(command: object, found: str) -> tuple[str, ...]:
    """The words of a command that is given as a list."""
    if not isinstance(command, list | tuple):
        raise SettingError(f'{found}, expected a command line or its words; write "serve --port {{port}}"')
    if not all(isinstance(word, str | Path | int | float) for word in command):
        raise SettingError(f"{found}, expected words of text")
    try:
        return tuple(map(str, command))
    except ValueError:  # a number of more than 4,300 digits
        raise SettingError(f"{found}, expected words of text") from None


def _is_plain(text: str) -> bool:
    """Whether text can stand in the head of a request."""
    return text.isascii() and text.isprintable() and " " not in text


def _is_argument(text: str) -> bool:
    """Whether the system takes text as an argument, a variable or a path."""
    try:
        return b"\0" not in os.fsencode(text)
    except UnicodeEncodeError:
        return False


def _is_file(value: object) -> bool:
    return isinstance(value, str | Path) and os.path.isfile(value)  # unlike Path.is_file, for a name of any length


def _check_metrics(kind: str, given: object) -> None:
    if isinstance(given, str):
        Prometheus(given)
    elif given is not None and not isinstance(given, Prometheus):
        raise SettingError(
            f'{kind}(metrics={shown(given)}), expected a path such as "/metrics", or Prometheus("/metrics", ...)'
        )
