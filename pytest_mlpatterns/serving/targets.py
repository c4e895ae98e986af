"""Services that exist already, as the ``perf_target`` fixture names them. Values only: nothing is opened here.

A :class:`Url` runs already; an :class:`App` and a :class:`Command` are started for the test and ended after it.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from pytest_mlpatterns.errors import SettingError
from pytest_mlpatterns.fields import set_whole
from pytest_mlpatterns.records.addressing import Balance
from pytest_mlpatterns.records.setup import SystemDescription, SystemKind
from pytest_mlpatterns.serving.import_string import is_import_string
from pytest_mlpatterns.serving.prometheus import Prometheus
from pytest_mlpatterns.units import parse_duration

__all__ = ["App", "Command", "Target", "Url", "prometheus_of"]

_PORTS = re.compile(r"\{((?:[a-z]\w*_)?port)\}")
_FOR_A_SHELL = {"&&", "||", "|", ";", "&", ">", ">>", "<"}
_SERVERS = ("uvicorn", "granian")


@dataclass(frozen=True, slots=True)
class Url:
    """A service that runs already. Nothing is started or stopped, and only this address is contacted.

    Args:
        url: ``http://host[:port]/path`` or ``https://…`` that takes the requests. Inputs of ``perf_payload`` are posted
            to it as ``{"instances": [input]}``; ``httpx.Request`` objects keep their own path and body.
        pid: process whose tree is the service, for CPU, memory and load; without it these metrics are None.
        http2: speak HTTP/2. That and https go through a client library (extra ``https``), whose cost is in the result.
        ca: file with the certificate of an authority to trust besides those of the system (https).
        metrics: where it tells its own figures in Prometheus' text format: a path, an address, or :class:`Prometheus`.

    Raises:
        SettingError: not an http or https address, an impossible pid, or a certificate file that is not there.
    """

    url: str
    pid: int | None = None
    http2: bool = False
    ca: str | Path | None = None
    metrics: str | Prometheus | None = None

    def __post_init__(self) -> None:
        found = f"Url({re.sub('//[^/@]*@', '//…@', repr(self.url))})"
        if not isinstance(self.url, str):
            raise SettingError(f"{found}, expected an address such as http://127.0.0.1:8000/predict")
        try:
            parts = urlsplit(self.url)
            port = parts.port
        except ValueError as error:
            raise SettingError(f"{found}, expected an address such as http://127.0.0.1:8000/predict; {error}") from None
        if "://" not in self.url:
            raise SettingError(
                f"{found} has no scheme, expected http or https; write http://{self.url or 'host:port/path'}"
            )
        if parts.scheme not in ("http", "https"):
            raise SettingError(
                f"{found} has scheme {parts.scheme!r}, expected http or https; write http://host:port/path"
            )
        if not parts.hostname or port == 0:
            raise SettingError(
                f"{found} has no host or port, expected an address such as http://127.0.0.1:8000/predict"
            )
        if parts.username or parts.password or parts.fragment:
            raise SettingError(f"{found} has a user, password or fragment; send credentials in httpx.Request headers")
        if not self.path.isascii() or not self.path.isprintable() or " " in self.path:
            raise SettingError(f"{found}, expected a path of printable ASCII; quote it: urllib.parse.quote(path)")
        if self.pid is not None:
            set_whole(self, "pid", least=1, expected="the number of a running process")
        if self.ca is not None and (parts.scheme != "https" or not Path(self.ca).is_file()):
            raise SettingError(
                f"Url(ca={str(self.ca)!r}), expected a certificate file that exists, for an https address"
            )
        _check_metrics("Url", self.metrics)

    def __str__(self) -> str:
        return self.url

    def describe(self) -> SystemDescription:
        """The service as records keep it."""
        return SystemDescription(str(self), SystemKind.URL)

    @property
    def host(self) -> str:
        """Host name or address."""
        return urlsplit(self.url).hostname or ""

    @property
    def port(self) -> int:
        """Port; 80, or 443 for https, where the address names none."""
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
        """Path and query, as they stand in a request line."""
        parts = urlsplit(self.url)
        return (parts.path or "/") + (f"?{parts.query}" if parts.query else "")


@dataclass(frozen=True, slots=True)
class App:
    """An ASGI application (FastAPI, Starlette, Litestar, Django, …), served on 127.0.0.1 as long as the test runs.

    Args:
        app: import string ``"package.module:attribute"`` of the application; it is imported as the test file is.
        path: path that inputs of ``perf_payload`` are posted to; ``httpx.Request`` objects keep their own.
        workers: so many processes of it.
        server: ``"uvicorn"`` or ``"granian"`` (extra ``granian``).
        balance: how requests reach the workers: every worker has a port of its own and the load takes them in turn
            (``"round-robin"``) or by how busy they are (``"least-outstanding"``); or all accept from one socket, as
            they do behind ``uvicorn --workers`` (``"shared-socket"``), which can leave one idle.
        factory: the attribute is a function that makes the application.
        ready: path that answers 2xx once requests may come; without it any answer at all will do.
        metrics: where it tells its own figures in Prometheus' text format: a path, or :class:`Prometheus`.
        env: environment variables beside those of pytest.
        cwd: working directory, relative to pytest's root directory; that one by default.
        stop: how long it may take to end before it is killed.

    Raises:
        SettingError: an argument that cannot be used.
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

    def __post_init__(self) -> None:
        if not is_import_string(self.app):
            raise SettingError(
                f'App({self.app!r}), expected an import string; write App("package.module:attribute"), with '
                "factory=True where that is a function which makes the application"
            )
        set_whole(self, "workers", least=1, most=64, expected="a whole number of processes from 1 to 64")
        for name, value, allowed in (
            ("server", self.server, _SERVERS),
            ("balance", self.balance, [str(known) for known in Balance]),
        ):
            if value not in allowed:
                raise SettingError(f"App({name}={value!r}), expected one of {', '.join(map(repr, allowed))}")
        if not isinstance(self.factory, bool):
            raise SettingError(f"App(factory={self.factory!r}), expected True or False")
        _check_start("App", self)

    def __str__(self) -> str:
        return _shown(self, repr(self.app), ("path", "workers", "server", "balance", "factory"))

    def describe(self) -> SystemDescription:
        """The service as records keep it."""
        return SystemDescription(str(self), SystemKind.APP)


@dataclass(frozen=True, slots=True)
class Command:
    """A server that a command starts, in a session of its own, and that ends with the test.

    ``{port}`` in the command or in ``env`` is replaced by a free port, which the server must open on 127.0.0.1, and
    ``{python}`` by the Python that runs pytest, whose environment's commands are found first. ``{grpc_port}``, where
    the wire ``grpc`` is spoken, ``{metrics_port}`` and other names that end in ``_port`` are further free ports. The
    server stays in the foreground; what it prints is shown where it fails.

    Args:
        command: a line, split as a shell would but run without one, or a list of words.
        ready: path that answers 2xx once requests may come; without it any answer at all will do.
        path: path that inputs of ``perf_payload`` are posted to; ``httpx.Request`` objects keep their own.
        metrics: where it tells its own figures in Prometheus' text format: a path, an address such as
            ``"http://127.0.0.1:{metrics_port}/metrics"``, or :class:`Prometheus`.
        env: environment variables beside those of pytest.
        cwd: working directory, relative to pytest's root directory; that one by default.
        stop: how long it may take to end, once it got SIGTERM, before it is killed.

    Raises:
        SettingError: an argument that cannot be used, or a command without a place for the port.
    """

    command: str | Sequence[str]
    ready: str | None = None
    path: str = "/"
    metrics: str | Prometheus | None = None
    env: Mapping[str, str] = field(default_factory=dict, hash=False)
    cwd: str | Path | None = None
    stop: str = "5s"

    def __post_init__(self) -> None:
        if not isinstance(self.command, str):
            try:
                words = tuple(str(word) for word in self.command)
            except TypeError:
                raise SettingError(
                    f'Command({self.command!r}), expected a command line or its words; write "serve --port {{port}}"'
                ) from None
            object.__setattr__(self, "command", words)
        try:
            words = self.words
        except ValueError as error:  # a quote without its other half
            raise SettingError(f"Command({self.command!r}) cannot be split into words: {error}") from None
        if not words or not words[0]:
            raise SettingError(f'Command({self.command!r}) is empty, expected a command; write "serve --port {{port}}"')
        if isinstance(self.command, str) and (operators := _FOR_A_SHELL.intersection(words)):
            raise SettingError(
                f"Command({self.command!r}) has {', '.join(sorted(operators))}, expected one command without a shell; "
                'write Command(["sh", "-c", "…"]) where it needs one, env= for variables and cwd= for the directory'
            )
        if isinstance(self.command, str) and re.match(r"\w+=", words[0]):
            raise SettingError(
                f"Command({self.command!r}) begins with a variable, expected the command; write env={{...}} for it"
            )
        _check_start("Command", self)
        if "port" not in self.ports:
            raise SettingError(
                f"Command({self.command!r}) has no place for the port, expected {{port}} in it or in env; "
                'write "serve --port {port}", or Url(...) for a server that runs already'
            )

    def __str__(self) -> str:
        words = [word if word.find("/") < 0 or not Path(word).is_absolute() else Path(word).name for word in self.words]
        line = self.command if isinstance(self.command, str) and words == list(self.words) else shlex.join(words)
        return _shown(self, repr(re.sub(r"'(\S*\{\w+\}\S*)'", r"\1", line)), ("path",))

    def describe(self) -> SystemDescription:
        """The service as records keep it."""
        return SystemDescription(str(self), SystemKind.COMMAND)

    @property
    def words(self) -> tuple[str, ...]:
        """The command, word by word."""
        return tuple(shlex.split(self.command) if isinstance(self.command, str) else self.command)

    @property
    def ports(self) -> tuple[str, ...]:
        """The names of the ports that are to be put in, each once."""
        texts = [*self.words, *self.env.values()]
        return tuple(dict.fromkeys(name for text in texts for name in _PORTS.findall(text)))


Target = Url | App | Command
"""What ``perf_target`` may return."""


def prometheus_of(target: Target) -> Prometheus | None:
    """Where a target tells its own figures, and what they are called there."""
    return Prometheus(target.metrics) if isinstance(target.metrics, str) else target.metrics


def _shown(target: object, first: str, names: Sequence[str]) -> str:
    """A target as it stands in baselines: the same wherever it runs, so without environment and directory."""
    defaults = {name: found.default for name, found in type(target).__dataclass_fields__.items()}  # type: ignore[attr-defined]
    given = [f"{name}={getattr(target, name)!r}" for name in names if getattr(target, name) != defaults[name]]
    return f"{type(target).__name__}({', '.join([first, *given])})"


def _check_start(kind: str, target: App | Command) -> None:
    """What both targets that are started have in common; copies what could be changed later."""
    for name, value in (("path", target.path), ("ready", target.ready)):
        if value is not None and not _is_path(value):
            raise SettingError(f'{kind}({name}={value!r}), expected a path such as "/predict"; quote what is not ASCII')
    if not isinstance(target.env, Mapping) or not all(
        isinstance(text, str) for item in target.env.items() for text in item
    ):
        raise SettingError(f'{kind}(env=...), expected a mapping of text to text; write env={{"THREADS": "1"}}')
    if target.cwd is not None and not isinstance(target.cwd, str | Path):
        raise SettingError(f"{kind}(cwd={target.cwd!r}), expected a directory")
    parse_duration(target.stop, name=f"{kind}(stop=...)")
    object.__setattr__(target, "env", dict(target.env))
    _check_metrics(kind, target.metrics)


def _is_path(value: object) -> bool:
    return (
        isinstance(value, str)
        and value.startswith("/")
        and value.isascii()
        and value.isprintable()
        and " " not in value
    )


def _check_metrics(kind: str, given: object) -> None:
    if isinstance(given, str):
        Prometheus(given)
    elif given is not None and not isinstance(given, Prometheus):
        raise SettingError(
            f'{kind}(metrics={given!r}), expected a path such as "/metrics", or Prometheus("/metrics", ...)'
        )
