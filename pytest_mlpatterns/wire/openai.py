"""The client's half of the wire ``openai``: inputs as requests for completions or chats, and texts in their answers.

A text is a prompt, or the message of a user if the path is that of chats. A dictionary with ``prompt`` or ``messages``
is the request itself; its ``output_tokens`` become ``max_tokens`` and ``ignore_eos``. Requests stream and ask for the
usage unless they say otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import orjson

from pytest_mlpatterns.wire.body import Body, Headers, WireError
from pytest_mlpatterns.wire.kserve_v1 import encode_value
from pytest_mlpatterns.wire.openai_answer import CHAT, COMPLETIONS
from pytest_mlpatterns.wire.rest_stream import StreamError, events_in, is_event_stream
from pytest_mlpatterns.wording import shown

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_mlpatterns.wire.event_stream import Event

__all__ = ["NO_MODEL", "OpenAICodec", "as_request", "model_path", "openai_path", "with_model"]

NO_MODEL = b'{"model":"",'
"""Begin of a request that names no model; :func:`with_model` fills in that of the server."""
_HEADERS = (("content-type", "application/json"),)
_CHAT_END, _END = "/chat/completions", "/completions"
_EXPECTED = 'expected text, or a dictionary with a prompt or messages; write {"prompt": "...", "output_tokens": 64}'
_MESSAGE = '{"role": "user", "content": "..."}'
_MOST_TOKENS = 1_000_000


class OpenAICodec:
    """The codec; see :class:`pytest_mlpatterns.wire.codec.Codec`.

    Args:
        path: path of the request, which decides whether a text is a prompt or a message.
    """

    def __init__(self, path: str = COMPLETIONS) -> None:
        self._is_chat = path.partition("?")[0].endswith(_CHAT_END)

    def path(self, model: str) -> str:
        """Path of completions."""
        return COMPLETIONS

    def encode_inputs(self, inputs: Sequence[Any]) -> Body:
        """Encode a request, which has one input."""
        if len(inputs) != 1:
            raise WireError(f"{len(inputs)} inputs, expected one for each request")
        return Body((encode_value(self._request(inputs[0])),), _HEADERS)

    def decode_inputs(self, body: bytes | memoryview, headers: Headers) -> list[Any]:
        """Decode the input of a request."""
        try:
            return [orjson.loads(body)]
        except orjson.JSONDecodeError as error:
            raise WireError(f"the body is not JSON: {error}") from None

    def encode_outputs(self, outputs: Any) -> Body:
        """Refuse: the server's half writes answers, :mod:`pytest_mlpatterns.wire.openai_answer`."""
        raise WireError("outputs of the wire openai are written one by one")

    def decode_outputs(self, body: bytes | memoryview, headers: Headers) -> list[Any]:
        """Decode an answer: the list of its chunks if it is a stream, else its text; a list of this one output.

        Raises:
            StreamError: the stream ended with an error.
            WireError: the answer has another form.
        """
        if not is_event_stream(headers):
            return [_text_in(_loaded(bytes(body)))]
        return [[text for event in events_in(bytes(body)) if (text := _text_of(event))]]

    def _request(self, value: Any) -> dict[str, Any]:
        if isinstance(value, str):
            asked = {"messages": [{"role": "user", "content": value}]} if self._is_chat else {"prompt": value}
        else:
            asked = as_request(value)
        request: dict[str, Any] = {"model": asked.pop("model", ""), "stream": True, **asked}
        if request["stream"] is True:
            request.setdefault("stream_options", {"include_usage": True})
        return request


def as_request(value: object) -> dict[str, Any]:
    """A request as the protocol has it: ``output_tokens`` becomes ``max_tokens`` and ``ignore_eos``.

    Args:
        value: a dictionary with ``prompt`` or ``messages``.

    Raises:
        WireError: it is another value, or one of these fields has another form.
    """
    if not isinstance(value, dict) or not ("prompt" in value or "messages" in value):
        raise WireError(f"it is {shown(value)}, {_EXPECTED}")
    asked = dict(value)
    if "prompt" in asked and "messages" in asked:
        raise WireError("it has a prompt and messages, expected one of them; leave the other out")
    prompt, messages = asked.get("prompt", ""), asked.get("messages", [{"role": ""}])
    if not isinstance(prompt, str) and not (isinstance(prompt, list) and prompt):
        raise WireError(f"its prompt is {shown(prompt)}, expected text or a list of tokens")
    if not isinstance(messages, list) or not messages:
        raise WireError(f"its messages are {shown(messages)}, expected a list such as [{_MESSAGE}]")
    for number, message in enumerate(messages):
        if not isinstance(message, Mapping) or not isinstance(message.get("role"), str):
            raise WireError(f"its message {number} is {shown(message)}, expected {_MESSAGE}")
    if "output_tokens" in asked:
        tokens = asked.pop("output_tokens")
        if type(tokens) is not int or not 1 <= tokens <= _MOST_TOKENS:
            expected = f"expected a whole number of tokens from 1 to {_MOST_TOKENS:,}"
            raise WireError(f"its output_tokens are {shown(tokens)}, {expected}; write 64")
        if "max_tokens" in asked or "max_completion_tokens" in asked:
            raise WireError("it has output_tokens and a limit of its own, expected one of them; leave max_tokens out")
        asked["max_tokens"] = tokens
        asked.setdefault("ignore_eos", True)
    return asked


def openai_path(value: object, path: str) -> str:
    """The path of the request for an input: a dictionary's fields decide between chats and completions.

    Args:
        value: the input.
        path: path of the target; empty for a server of this package.
    """
    plain, mark, query = path.partition("?")
    chat = isinstance(value, dict) and "messages" in value
    prompt = isinstance(value, dict) and "prompt" in value
    if not path or plain in ("/", "/v1", "/v1/"):
        plain = CHAT if chat else COMPLETIONS
    elif prompt and not chat and plain.endswith(_CHAT_END):
        plain = plain.removesuffix(_CHAT_END) + _END
    elif chat and plain.endswith(_END) and not plain.endswith(_CHAT_END):
        plain = plain.removesuffix(_END) + _CHAT_END
    return plain + mark + query


def model_path(path: str) -> str:
    """The path of the list of models on the server that takes requests at a path."""
    plain = openai_path(None, path).partition("?")[0]
    return plain.removesuffix(_END).removesuffix("/chat") + "/models" if plain.endswith(_END) else "/v1/models"


def with_model(body: bytes, model: str) -> bytes:
    """A request with the name of its model, if it names none; without one if the name is empty."""
    if not body.startswith(NO_MODEL):
        return body
    name = b'{"model":%s,' % orjson.dumps(model) if model else b"{"
    return name + body[len(NO_MODEL) :]


def _text_of(event: Event) -> str:
    """The text of an event; empty if it has none."""
    message = _loaded(event.data)
    if error := message.get("error"):
        raise StreamError(str(error.get("message", error)) if isinstance(error, dict) else str(error))
    return _text_in(message, default="")


def _loaded(data: bytes) -> dict[str, Any]:
    try:
        message = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise WireError(f"the answer is not JSON: {error}") from None
    if not isinstance(message, dict):
        raise WireError(f"the answer is {shown(message)}, expected a JSON object")
    return message


def _text_in(message: dict[str, Any], default: str | None = None) -> str:
    """The text of the first choice of an answer or of an event; the default if it has none."""
    try:
        choice = message["choices"][0]
        found = choice["text"] if "text" in choice else (choice.get("message") or choice["delta"])["content"]
    except (KeyError, IndexError, TypeError):
        found = None
    if isinstance(found, str):
        return found
    if default is None:
        raise WireError(f"the answer {shown(message)} has no text in its first choice")
    return default
