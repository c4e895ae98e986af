"""The wire format as users name it: protocol, codec and compression, for example ``rest+json+gzip``."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass

from pytest_mlpatterns.errors import SettingError, missing_extra
from pytest_mlpatterns.wording import did_you_mean, shown

_CODECS = {
    "rest": ("json", "binary", "msgpack"),
    "grpc": ("protobuf",),
    "openai": ("json",),
    "invocations": ("json", "csv"),
}
_COMPRESSIONS = ("gzip", "zstd", "br")
_NEEDED = {
    "msgpack": (("msgpack",), "wires"),
    "zstd": (("zstandard",), "wires"),
    "br": (("brotli",), "wires"),
    "grpc": (("grpc", "hpack", "google.protobuf"), "grpc"),
}
"""Packages that a part of a wire needs, and the extra that installs them."""
_SHORT = {"grpc": "grpc+protobuf", "openai": "openai+json", "invocations": "invocations+json"}
_ALLOWED = (
    "'rest+json', 'rest+binary' or 'rest+msgpack', each also with '+gzip', '+zstd' or '+br' (such as "
    "'rest+json+gzip'), 'grpc', 'openai', 'invocations' or 'invocations+csv'"
)


@dataclass(frozen=True, slots=True)
class Wire:
    """Format of requests and responses; ``str()`` returns the short form.

    Args:
        protocol: ``"rest"``, ``"grpc"``, ``"openai"``: completions and chats as OpenAI defines them, or
            ``"invocations"``: ``POST /invocations`` of MLflow and SageMaker.
        codec: ``"json"``: REST JSON of KServe and TF Serving (V1), or the Open Inference Protocol (V2) if the path ends
            in ``/infer``; ``"binary"``: V2 with the binary tensor extension; ``"msgpack"``: V1 in MessagePack, with
            arrays as arrays; ``"protobuf"``: V2 over gRPC; ``"csv"``: rows of text, for invocations.
        compression: content coding of requests and responses: ``"gzip"``, ``"zstd"``, ``"br"``, or None.

    Raises:
        SettingError: a part is unknown, or the combination is not possible.
    """

    protocol: str = "rest"
    codec: str = "json"
    compression: str | None = None

    def __post_init__(self) -> None:
        is_text = all(part is None or isinstance(part, str) for part in (self.protocol, self.codec, self.compression))
        known = is_text and self.codec in _CODECS.get(self.protocol, ())
        if not known or (self.compression is not None and self.compression not in _COMPRESSIONS):
            raise SettingError(f"{shown(self)}, expected {_ALLOWED}")
        if self.protocol != "rest" and self.compression is not None:
            raise SettingError(f"{shown(self)}, expected no compression over {self.protocol}; write {self.protocol!r}")

    @classmethod
    def parse(cls, text: str, source: str = "Wire.parse") -> Wire:
        """Read the short form.

        Args:
            text: ``"rest+json"``, ``"rest+binary+zstd"``, ``"grpc"``.
            source: option or argument, as the message names it.

        Raises:
            SettingError: the wire is unknown; lists the known ones.
        """
        try:
            protocol, codec, *compression = _SHORT.get(text, text).split("+")
            return cls(protocol, codec, *compression)
        except (SettingError, ValueError, TypeError):
            every = [f"rest+{codec}" for codec in _CODECS["rest"]]
            every += [f"{plain}+{compression}" for plain in every for compression in _COMPRESSIONS]
            hint = did_you_mean(text, [*every, *_SHORT, "invocations+csv"], "{!r}")
            raise SettingError(f"{source} is {shown(text)}, {hint}expected {_ALLOWED}") from None

    def __str__(self) -> str:
        whole = f"{self.protocol}+{self.codec}"
        if self.protocol != "rest":
            return next((short for short, long in _SHORT.items() if long == whole), whole)
        return "+".join(filter(None, (self.protocol, self.codec, self.compression)))

    def check_installed(self, source: str) -> None:
        """Check that the packages of the wire are installed.

        Args:
            source: option or argument, as the message names it.

        Raises:
            SettingError: a package is missing; names it and the command that installs it.
        """
        for part in (self.protocol, self.codec, self.compression):
            packages, extra = _NEEDED.get(part or "", ((), ""))
            if missing := next((package for package in packages if not _is_installed(package)), None):
                raise SettingError(missing_extra(f"{source} is {shown(str(self))}, which", missing, extra))

    @property
    def between_processes(self) -> Wire:
        """Wire between the processes of a deployment whose clients use this wire."""
        if self.protocol in ("openai", "invocations"):
            return REST_JSON
        return Wire("rest", "binary") if self.protocol == "grpc" else self


def _is_installed(package: str) -> bool:
    try:
        return importlib.util.find_spec(package) is not None
    except ModuleNotFoundError:  # its parent package is missing
        return False


REST_JSON = Wire()  # The default wire
GRPC = Wire("grpc", "protobuf")  # Open Inference over gRPC
