"""A client of the user's own, which sends the requests of a load in place of the built-in one.

It is a value, the wire of its requests, and has a :class:`Caller` for each request in flight. This module must not know
when requests are due, nor in which thread or event loop a caller runs.
"""

import inspect
import sys
import traceback
from array import array
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from time import perf_counter_ns
from typing import Any

from pytest_mlpatterns.records.outcomes import Failure
from pytest_mlpatterns.wire.body import Body, Headers, WireError
from pytest_mlpatterns.wire.wire import REST_JSON, Wire

PICKLED = "application/x-python-pickle"  # Media type of a functional request that goes to the client
PLACES = ("url", "address")  # Parameters of a client that get where the service is
_HEADERS = (("content-type", PICKLED),)
_LONGEST = 200  # Letters of an error in a message
_SUCCEEDED = 200  # Outcome of an answer, as a server would give it


@dataclass(frozen=True, slots=True)
class ClientWire(Wire):
    """The wire of requests that a client of the user's own sends, and its codec: inputs and answers are pickled."""

    protocol: str = "client"
    codec: str = "pickle"
    compression: str | None = None
    name: str = ""  # of the client
    packed: bytes = b""  # the client, pickled
    is_async: bool = False  # whether it is awaited, instead of called in a thread
    served: Wire = REST_JSON  # over which a model that this package serves takes requests
    import_path: tuple[str, ...] = ()  # where its modules are found

    def __post_init__(self) -> None:
        """Nothing: no user writes it."""

    def __str__(self) -> str:
        return f"client {self.name}"

    def encode_inputs(self, inputs: Sequence[Any]) -> Body:
        """Pickle an input."""
        return self.encode_outputs(inputs[0])

    def encode_outputs(self, outputs: Any) -> Body:
        """Pickle an answer; one of a class that is known here alone by value."""
        import cloudpickle

        try:
            return Body((cloudpickle.dumps(outputs),), _HEADERS)
        except Exception as error:  # pickling runs the user's code, which may raise any error
            raise WireError(f"{type(error).__name__}: {error}") from error

    def decode_outputs(self, body: bytes | memoryview, headers: Headers) -> list[Any]:
        """An input, or an answer."""
        import cloudpickle

        try:
            return [cloudpickle.loads(body)]
        except Exception as error:  # of the user's own classes
            raise WireError(f"{type(error).__name__}: {error}") from error

    def load(self) -> Any:
        """The client in another process. Raises Exception: any error of the user's code."""
        return unpacked(self.packed, self.import_path)


def unpacked(pickled: bytes, import_path: Sequence[str]) -> Any:
    """A value of the test's process in another one, where its modules are found too. Raises Exception: of any kind."""
    import cloudpickle

    sys.path.extend(entry for entry in import_path if entry not in sys.path)
    return cloudpickle.loads(pickled)


def served_wire(wire: Wire) -> Wire:
    """The wire over which servers of this package take requests of this one."""
    return wire.served if isinstance(wire, ClientWire) else wire


class ClientAnswer:
    """One answer of a client at a time, and when its chunks came; the columns of streams are read from it.

    ``value``: what was returned, or the list of the chunks. ``error``: what was raised, and where, in one line; empty
    without an error. ``traceback``: the same at length. A chunk that is a whole number is a number of tokens.
    """

    input_tokens = -1

    def __init__(self) -> None:
        self.chunk_ns: array[int] = array("q")
        self.reader: ClientAnswer = self
        self.begin()

    def begin(self) -> None:
        """Await the answer to another request."""
        self.began_ns: int = perf_counter_ns()
        self.done_ns: int = 0
        self.value: Any = None
        self.chunks: list[Any] = []
        self.output_tokens: int = -1
        self.error: str = ""
        self.traceback: str = ""
        del self.chunk_ns[:]

    @property
    def first_byte_ns(self) -> int:
        """When its first chunk came; 0 without one."""
        return self.chunk_ns[0] if self.chunk_ns else 0

    @property
    def outcome(self) -> int:
        """As a server would answer it, or a code of :class:`Failure`."""
        return Failure.RAISED.value if self.error else _SUCCEEDED

    @property
    def text(self) -> bytes | None:
        """The text of its chunks; None if they are none."""
        texts = [chunk for chunk in self.chunks if isinstance(chunk, str)]
        return "".join(texts).encode() if texts else None

    def words(self, _outcome: int) -> str:
        """What is wrong with it, in one line."""
        return self.error

    def take(self, chunk: Any) -> None:
        """Take a chunk that has come now."""
        self.chunk_ns.append(perf_counter_ns())
        self.chunks.append(chunk)
        if isinstance(chunk, int) and not isinstance(chunk, bool):
            self.output_tokens = max(self.output_tokens, 0) + chunk

    def end(self, value: Any = None) -> None:
        """Take the whole answer, which has come now; without one it is the list of the chunks."""
        self.done_ns = perf_counter_ns()
        self.value = self.chunks if value is None and self.chunk_ns else value

    def fail(self, error: BaseException) -> None:
        """Take an error."""
        self.done_ns = perf_counter_ns()
        frames = [one for one in traceback.extract_tb(error.__traceback__) if one.filename != __file__]
        last = next((one for one in reversed(frames) if "site-packages" not in one.filename), None)
        at = f" ({last.filename.rpartition('/')[2]}:{last.lineno})" if last else ""
        text = " ".join(str(error).split())[:_LONGEST]
        self.error = f"{type(error).__name__}{': ' if text else ''}{text}{at}"
        self.traceback = "".join([*traceback.format_list(frames), *traceback.format_exception_only(error)]).rstrip()


class Caller:
    """A client as one caller has it, with at most one request at a time: for a class an object of its own.

    ``address``: ``host:port`` of the service; empty if the client is measured by itself. Its methods run in the thread
    or event loop that awaits them; a client that is not async ends them without waiting.
    """

    def __init__(self, client: Any, address: str, *, scheme: str = "http") -> None:
        self.answer: ClientAnswer = ClientAnswer()
        self.is_alone: bool = not address
        self._client = client
        self._places = dict(zip(PLACES, (f"{scheme}://{address}", address), strict=True)) if address else {}
        self._send: Callable[[Any], Any] | None = None
        self._made: Any = None

    async def open(self) -> None:
        """Make the object, and open it, unless that is done. Raises Exception: any that the client raises."""
        if self._send is not None:
            return
        send = self._client
        if isinstance(send, type):
            self._made = send()
            if opening := getattr(self._made, "open", None):
                await _done(opening(**self._asked(opening)))
            send = self._made.send
        asked = self._asked(send)
        self._send = (lambda value: send(value, **asked)) if asked else send

    async def call(self, value: Any) -> None:
        """Send an input, and take its answer or its error."""
        answer = self.answer
        answer.begin()
        try:
            await self.open()
            assert self._send is not None
            found = await _done(self._send(value))
            if inspect.isasyncgen(found):
                async for chunk in found:
                    answer.take(chunk)
                answer.end()
            elif inspect.isgenerator(found):
                for chunk in found:
                    answer.take(chunk)
                answer.end()
            else:
                answer.end(found)
        except Exception as error:  # of the user's client
            answer.fail(error)

    async def close(self) -> None:
        """Close the object, if it has a method for that; an error of it is printed."""
        made, self._made, self._send = self._made, None, None
        try:
            if closing := getattr(made, "close", None):
                await _done(closing())
        except Exception:  # of the user's client, whose requests are over
            traceback.print_exc()

    def _asked(self, function: Callable[..., Any]) -> dict[str, str]:
        """The places of the service that a function has a parameter for."""
        return {name: self._places[name] for name in parameters_of(function) if name in self._places}


def parameters_of(function: Callable[..., Any]) -> tuple[str, ...]:
    """Names of the parameters of a function; empty if they are not known."""
    try:
        return tuple(inspect.signature(function).parameters)
    except (TypeError, ValueError):  # of a function in C
        return ()


def answer_nothing(_value: object) -> None:
    """A client that does nothing, beside which a load generator is measured."""


async def await_nothing(_value: object) -> None:
    """A client that does nothing and is awaited."""


def run_now(work: Coroutine[Any, Any, None]) -> None:
    """Run what waits for nothing, without an event loop."""
    try:
        work.send(None)
    except StopIteration:
        return
    work.close()
    raise TypeError("a client that is not async has awaited")


async def _done(value: Any) -> Any:
    return await value if inspect.isawaitable(value) else value
