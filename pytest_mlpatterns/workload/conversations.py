"""Conversations: inputs with ``turns``, prepared as one request for each turn with the history before it.

The history is scripted: the answers in it are the input's, else placeholders of the length that was asked for.
So every request is known before the load, and two runs send the same. Pure; it must not know wires or loads.
"""

import itertools
from array import array
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from msgspec import Struct

from pytest_mlpatterns.errors import SettingError
from pytest_mlpatterns.units import parse_duration
from pytest_mlpatterns.wording import shown
from pytest_mlpatterns.workload.prompts import MAX_TOKENS, WORDS

_USUAL_TOKENS = 64  # Tokens of a placeholder if the input asks for no length
_ROLES = ("user", "assistant", "system", "developer", "tool")
_ENDS = -1  # Think time after the last message of a conversation, as a job has it
_OWN = ("turns", "think_time")
_EXPECTED = '"text" or {"role": "user", "content": "text", "think_time": "2s", "output_tokens": 64}'


class Conversations(Struct, frozen=True):
    """Which requests of a payload follow each other; requests of a conversation are neighbours."""

    starts: bytes  # the index of the first request of each conversation, native unsigned 32-bit integers
    # for each request the time from its answer to the next request, or -1 if it is the last of its conversation;
    # native signed 64-bit integers
    think_ns: bytes

    def order(self, drawn: bytes, *, all_requests: bool) -> bytes:
        """Indices of requests in the order in which they are sent, native unsigned 32-bit integers.

        ``drawn``: numbers of conversations in the order in which they begin; empty for one after the other.
        """
        if all_requests and not drawn:
            return b""
        starts = array("I", self.starts)
        numbers = array("I", drawn) or range(len(starts))
        if not all_requests:
            return array("I", [starts[number] for number in numbers]).tobytes()
        ends = [*starts[1:], len(array("q", self.think_ns))]
        members = (range(starts[number], ends[number]) for number in numbers)
        return array("I", itertools.chain.from_iterable(members)).tobytes()


class ConversationRequests(Struct, frozen=True):
    """One request for each turn of a conversation, and for each other input."""

    requests: tuple[Any, ...]  # a dictionary for each turn; other inputs as they are
    origins: tuple[int, ...]  # for each request the index of its input
    conversations: Conversations


def is_conversation(item: object) -> bool:
    """Whether an input is a conversation."""
    return isinstance(item, Mapping) and "turns" in item


def conversation_requests(inputs: Sequence[Any], name: Callable[[int], str]) -> ConversationRequests:
    """Expand conversations, inputs with ``turns``, into one request per turn; other inputs stay one request."""
    requests: list[Any] = []
    origins: list[int] = []
    starts, think_ns = array("I"), array("q")
    for number, item in enumerate(inputs):
        starts.append(len(requests))
        if is_conversation(item):
            conversation = _Conversation(item, name(number))
            requests += conversation.requests
            think_ns.extend(conversation.think_ns)
        else:
            requests.append(item)
            think_ns.append(_ENDS)
        origins += [number] * (len(requests) - len(origins))
    return ConversationRequests(tuple(requests), tuple(origins), Conversations(starts.tobytes(), think_ns.tobytes()))


class _Conversation:
    """Reads one conversation, message by message."""

    def __init__(self, item: Mapping[str, Any], name: str) -> None:
        self.requests: list[dict[str, Any]] = []
        self.think_ns: list[int] = []
        self._name = name
        self._history: list[dict[str, Any]] = []
        self._placeholder: dict[str, Any] | None = None
        self._fields = {field: value for field, value in item.items() if field not in _OWN}
        if others := sorted({"prompt", "messages"} & set(self._fields)):
            raise SettingError(f"{name} has turns and {others[0]}, expected one of them; put all texts into turns")
        self._usual_ns = self._time(item.get("think_time", "0s"), "think_time")
        given = item["turns"]
        if not isinstance(given, list | tuple) or not given:
            raise SettingError(f"{name} has turns {shown(given)}, expected a list of {_EXPECTED}")
        for number, message in enumerate(given):
            self._take(message, number)
        if not self.requests:
            raise SettingError(f"{name} has turns without a text of a user, expected at least one; write {_EXPECTED}")
        self.think_ns.append(_ENDS)

    def _take(self, given: object, number: int) -> None:
        """Take a message: one of the user is a turn, which is asked; any other one belongs to the history."""
        message = {"content": given} if isinstance(given, str) else given
        if not isinstance(message, Mapping) or message.get("role", "user") not in _ROLES or "content" not in message:
            raise SettingError(f"{self._name} has turn {number} {shown(given)}, expected {_EXPECTED}")
        own = {"role": "user", **message}
        think = own.pop("think_time", None)
        tokens = {"output_tokens": own.pop("output_tokens")} if "output_tokens" in own else {}
        asks = own["role"] == "user"
        if not asks and (think is not None or tokens):
            raise SettingError(
                f"{self._name} has think_time or output_tokens at turn {number}, a message of the {own['role']}; "
                "expected them at messages of the user"
            )
        if asks and think is not None and not self.requests:
            raise SettingError(
                f"{self._name} has think_time at turn {number}, the first one, before which there is no answer to "
                "think about; give it to a later turn, or to the whole conversation"
            )
        if self._placeholder is not None and own["role"] in ("user", "system", "developer"):
            self._history.append(self._placeholder)
        self._placeholder = None
        self._history.append(own)
        if asks:
            self._ask(tokens, self._usual_ns if think is None else self._time(think, f"think_time of turn {number}"))

    def _ask(self, tokens: dict[str, Any], think_ns: int) -> None:
        if self.requests:
            self.think_ns.append(think_ns)
        request = {**self._fields, "messages": [*self._history], **tokens}
        self.requests.append(request)
        asked = next((request[key] for key in ("output_tokens", "max_tokens") if key in request), _USUAL_TOKENS)
        count = asked if type(asked) is int and 0 < asked <= MAX_TOKENS else _USUAL_TOKENS
        self._placeholder = {"role": "assistant", "content": " ".join(itertools.islice(itertools.cycle(WORDS), count))}

    def _time(self, value: object, what: str) -> int:
        return parse_duration(value, name=f"{self._name}: {what}")
