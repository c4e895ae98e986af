"""The wire ``openai``: requests for completions and chats, and the texts in their answers, for client and server.

A client's text is a prompt, or the message of a user if the path is for chats. A dictionary with ``prompt`` or
``messages`` is the request itself; its ``output_tokens`` become ``max_tokens`` and ``ignore_eos``. Requests stream and
ask for the usage unless they contain something else.

The server passes a request to the model as the dictionary that the client sent, and the model yields text. A chunk
counts as one token and so does a word of a prompt, since this package has no tokenizer.
"""

import secrets
import time
from collections.abc import Mapping, Sequence
from typing import Any

import orjson
from msgspec import Struct

from pytest_mlpatterns.wire.body import JSON_HEADERS, Body, Headers, WireError, json_in
from pytest_mlpatterns.wire.kserve_v1 import DONE, StreamError, encode_value, events_in, is_event_stream
from pytest_mlpatterns.wire.stream_events import Event
from pytest_mlpatterns.wording import shown

COMPLETIONS = "/v1/completions"
CHAT = "/v1/chat/completions"
MODELS = "/v1/models"
_SERVER_ERROR = 500  # First status that is the server's fault
NO_MODEL = b'{"model":"",'  # Begin of a request that names no model; :func:`with_model` fills in the server's
_CHAT_END, _END = "/chat/completions", "/completions"
_EXPECTED = 'expected text, or a dictionary with a prompt or messages; write {"prompt": "...", "output_tokens": 64}'
_MESSAGE = '{"role": "user", "content": "..."}'
_MOST_TOKENS = 1_000_000  # Most tokens of an answer; more is a slip in the input


class OpenAIError(WireError):
    """A request that is refused.

    ``param``: the field that is the reason; None: the whole request. ``code``: for programs; None: there is none.
    """

    def __init__(self, text: str, param: str | None = None, *, status: int = 400, code: str | None = None) -> None:
        super().__init__(text)
        self.status = status
        self.param = param
        self.code = code


class OpenAIRequest(Struct, frozen=True):
    """A request."""

    # the request as the model gets it; ``max_tokens`` is there if the client sent ``max_completion_tokens``
    given: dict[str, Any]
    is_chat: bool  # whether it has messages instead of a prompt
    is_stream: bool
    has_usage: bool
    max_tokens: int | None  # most chunks of the answer; None: the model decides
    prompt_tokens: int  # words of the prompt, or the number of its tokens if it is a list of them
    model: str


def read_openai_request(path: str, body: bytes | memoryview, model: str) -> OpenAIRequest:
    """Decode a request. ``path``: ``CHAT`` or ``COMPLETIONS``."""
    try:
        given = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise OpenAIError(f"the body is not JSON: {error}") from None
    if not isinstance(given, dict):
        raise OpenAIError("the body is not a JSON object, expected one with a prompt or messages")
    is_chat = path == CHAT
    prompt_tokens = _words_of_messages(given) if is_chat else _words_of_prompt(given)
    name = given.get("model")
    if name is not None and name != model:
        text = f"the model {shown(name)} does not exist, expected {model!r}"
        raise OpenAIError(text, "model", status=404, code="model_not_found")
    if given.get("n") not in (None, 1):
        raise OpenAIError(f"n is {shown(given['n'])}, expected 1; send a request for each answer", "n")
    stream, options = given.get("stream") or False, given.get("stream_options")
    if not isinstance(stream, bool):
        raise OpenAIError(f"stream is {shown(stream)}, expected true or false", "stream")
    if options is not None and not (stream and isinstance(options, dict)):
        raise OpenAIError("stream_options are for streams, expected an object with stream: true", "stream_options")
    return OpenAIRequest(
        given, is_chat, stream, bool((options or {}).get("include_usage")), _max_tokens(given), prompt_tokens, model
    )


def _max_tokens(given: dict[str, Any]) -> int | None:
    field = "max_completion_tokens" if given.get("max_completion_tokens") is not None else "max_tokens"
    most = given.get(field)
    if most is None:
        return None
    if not isinstance(most, int) or isinstance(most, bool) or most < 1:
        raise OpenAIError(f"{field} is {shown(most)}, expected a whole number from 1", field)
    given["max_tokens"] = most
    return most


def _words_of_prompt(given: dict[str, Any]) -> int:
    prompt = given.get("prompt")
    if isinstance(prompt, list) and len(prompt) == 1 and isinstance(prompt[0], str | list):
        prompt = given["prompt"] = prompt[0]
    if isinstance(prompt, str):
        return len(prompt.split())
    if isinstance(prompt, list) and prompt and all(isinstance(token, int) for token in prompt):
        return len(prompt)
    found = "is missing" if prompt is None else f"is {shown(prompt)}"
    raise OpenAIError(f"prompt {found}, expected one text or list of tokens; send a request for each", "prompt")


def _words_of_messages(given: dict[str, Any]) -> int:
    messages = given.get("messages")
    if not isinstance(messages, list) or not messages or not all(isinstance(one, dict) for one in messages):
        found = "are missing" if messages is None else f"are {shown(messages)}"
        raise OpenAIError(f'messages {found}, expected a list such as [{{"role": "user", "content": "…"}}]', "messages")
    return sum(len(text.split()) for message in messages for text in _texts_of(message.get("content")))


def _texts_of(content: object) -> list[str]:
    if isinstance(content, str):
        return [content]
    parts = content if isinstance(content, list) else []
    return [part["text"] for part in parts if isinstance(part, dict) and isinstance(part.get("text"), str)]


class OpenAIWriter:
    """Writes the answer to one request, chunk by chunk."""

    def __init__(self, request: OpenAIRequest) -> None:
        self._request = request
        self._texts: list[str] = []
        self._count = 0
        chat = request.is_chat
        self._head = {
            "id": f"{'chatcmpl' if chat else 'cmpl'}-{secrets.token_hex(12)}",
            "object": ("chat.completion.chunk" if chat else "text_completion") if request.is_stream else
            ("chat.completion" if chat else "text_completion"),
            "created": int(time.time()),
            "model": request.model,
        }  # fmt: skip

    @property
    def is_full(self) -> bool:
        """Whether the answer has as many chunks as the client wants."""
        return self._count == self._request.max_tokens

    def add(self, chunk: Any) -> None:
        """Add a chunk to an answer that is not streamed. Raises WireError: it is not text."""
        self._texts.append(_text(chunk))
        self._count += 1

    def whole(self) -> bytes:
        """The body of an answer that is not streamed."""
        text = "".join(self._texts)
        said = {"message": {"role": "assistant", "content": text}} if self._request.is_chat else {"text": text}
        choice = {"index": 0, **said, "logprobs": None, "finish_reason": self._reason()}
        return orjson.dumps({**self._head, "choices": [choice], "usage": self._usage()})

    def chunk(self, chunk: Any) -> bytes:
        """The event of a chunk; before the first chunk of a chat, an event with the role.

        Raises WireError: it is not text.
        """
        text = _text(chunk)
        self._count += 1
        if not self._request.is_chat:
            return self._event({"text": text})
        role = self._event({"delta": {"role": "assistant", "content": ""}}) if self._count == 1 else b""
        return role + self._event({"delta": {"content": text}})

    def end(self) -> bytes:
        """The events of the reason why the answer ended, of the usage if the client wants it, and of the end."""
        last = self._event({"delta": {}} if self._request.is_chat else {"text": ""}, self._reason())
        usage = _event({**self._head, "choices": [], "usage": self._usage()}) if self._request.has_usage else b""
        return last + usage + DONE

    def error(self, error: Exception) -> bytes:
        """The events after an error in the middle."""
        return b"data: " + encode_openai_error(_SERVER_ERROR, str(error)) + b"\n\n" + DONE

    def _event(self, said: dict[str, Any], reason: str | None = None) -> bytes:
        choice = {"index": 0, **said, "logprobs": None, "finish_reason": reason}
        usage = {"usage": None} if self._request.has_usage else {}
        return _event({**self._head, "choices": [choice], **usage})

    def _reason(self) -> str:
        return "length" if self.is_full else "stop"

    def _usage(self) -> dict[str, int]:
        prompt = self._request.prompt_tokens
        return {"prompt_tokens": prompt, "completion_tokens": self._count, "total_tokens": prompt + self._count}


def encode_openai_error(status: int, text: str, *, param: str | None = None, code: str | None = None) -> bytes:
    """The body of an error."""
    kind = "server_error" if status >= _SERVER_ERROR else "invalid_request_error"
    readable = text.encode(errors="replace").decode()
    return orjson.dumps({"error": {"message": readable, "type": kind, "param": param, "code": code}})


def encode_models(name: str) -> bytes:
    """The list of models, which has one."""
    model = {"id": name, "object": "model", "created": int(time.time()), "owned_by": "pytest-mlpatterns"}
    return orjson.dumps({"object": "list", "data": [model]})


def _text(chunk: Any) -> str:
    if not isinstance(chunk, str):
        raise WireError(f"it is {type(chunk).__name__}, expected text")
    return chunk.encode(errors="replace").decode() if not chunk.isascii() else chunk


def _event(message: dict[str, Any]) -> bytes:
    return b"data: " + orjson.dumps(message) + b"\n\n"


class OpenAICodec:
    """The codec; see :class:`pytest_mlpatterns.wire.codec.Codec`."""

    def __init__(self, path: str = COMPLETIONS) -> None:
        self._is_chat = path.partition("?")[0].endswith(_CHAT_END)

    def path(self, model: str) -> str:
        """Path of completions."""
        return COMPLETIONS

    def encode_inputs(self, inputs: Sequence[Any]) -> Body:
        """Encode a request, which has one input."""
        if len(inputs) != 1:
            raise WireError(f"{len(inputs)} inputs, expected one for each request")
        return Body((encode_value(self._request(inputs[0])),), JSON_HEADERS)

    def decode_inputs(self, body: bytes | memoryview, headers: Headers) -> list[Any]:
        """Decode the input of a request."""
        return [json_in(body)]

    def encode_outputs(self, outputs: Any) -> Body:
        """Refuse: the server's half writes answers, :mod:`pytest_mlpatterns.wire.openai`."""
        raise WireError("outputs of the wire openai are written one by one")

    def decode_outputs(self, body: bytes | memoryview, headers: Headers) -> list[Any]:
        """Decode an answer: the list of its chunks if it is a stream, else its text; a list of this one output.

        Raises StreamError: the stream ended with an error. Raises WireError: the answer has another form.
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

    ``value``: a dictionary with ``prompt`` or ``messages``.
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
    """The path of the request for an input: a dictionary's fields decide between chats and completions."""
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
