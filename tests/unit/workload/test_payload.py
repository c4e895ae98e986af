"""Payloads: the messages are HTTP as a server reads it, identities are stable and sensitive, nonsense is refused."""

import itertools
import json
import math
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httptools
import httpx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.each_row import each_row
from support.synthetic import PROPERTY

from pytest_mlpatterns.errors import SettingError
from pytest_mlpatterns.workload import payload as payload_module
from pytest_mlpatterns.workload.input_order import DRAWS, InOrder, Shuffled, Uniform, Zipf, zipf_probabilities
from pytest_mlpatterns.workload.payload import MAX_PRODUCED, Payload, read_payload
from pytest_mlpatterns.workload.prompts import Prompts


class Parsed:
    """One message as an HTTP server takes it apart."""

    def __init__(self, message: bytes) -> None:
        self.url = b""
        self.headers: list[tuple[str, str]] = []
        self.body = b""
        self.complete = 0
        parser = httptools.HttpRequestParser(self)
        parser.feed_data(message)
        self.method = parser.get_method().decode()
        self.keep_alive = parser.should_keep_alive()

    def on_url(self, url: bytes) -> None:
        self.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name.decode().lower(), value.decode()))

    def on_body(self, body: bytes) -> None:
        self.body += body

    def on_message_complete(self) -> None:
        self.complete += 1

    def header(self, name: str) -> str:
        (value,) = (value for known, value in self.headers if known == name)
        return value


def parsed(payload: Payload, host: str = "127.0.0.1", path: str = "/predict") -> list[Parsed]:
    found = [Parsed(message) for message in payload.messages(host, 8000, path)]
    assert all(message.complete == 1 for message in found)
    return found


@PROPERTY
@given(st.lists(st.lists(st.floats(allow_nan=False, allow_infinity=False)) | st.text(), min_size=1, max_size=5))
def test_each_input_is_one_complete_request_with_one_instance(inputs: list[Any]) -> None:
    messages = parsed(read_payload(inputs), path="/v1/models/digits:predict")
    assert [json.loads(message.body) for message in messages] == [{"instances": [item]} for item in inputs]
    for message in messages:
        assert (message.method, message.url) == ("POST", b"/v1/models/digits:predict")
        assert message.header("host") == "127.0.0.1:8000"
        assert message.header("content-type") == "application/json"
        assert message.header("content-length") == str(len(message.body))
        assert message.keep_alive


def test_an_ipv6_host_stands_in_brackets() -> None:
    (message,) = parsed(read_payload([1]), host="::1")
    assert message.header("host") == "[::1]:8000"


@each_row(
    "given_inputs",
    [[1.5, 2.5], [3.5, 4.5]],
    ([1.5, 2.5], [3.5, 4.5]),
    np.array([[1.5, 2.5], [3.5, 4.5]]),
    [np.array([1.5, 2.5]), np.array([3.5, 4.5], dtype=np.float32)],
    {"a": [1.5, 2.5], "b": [3.5, 4.5]}.values(),
    lambda: [[1.5, 2.5], [3.5, 4.5]],
    lambda: iter([(1.5, 2.5), (3.5, 4.5)]),
)
def test_inputs_come_from_anything_that_can_be_gone_through(given_inputs: Any) -> None:
    payload = read_payload(given_inputs)
    assert len(payload.inputs) == 2
    assert tuple(body.joined() for body in payload.bodies) == (
        b'{"instances":[[1.5,2.5]]}',
        b'{"instances":[[3.5,4.5]]}',
    )


def test_of_a_function_that_never_ends_the_first_inputs_are_taken() -> None:
    def endless() -> Iterator[int]:
        return itertools.count()

    assert len(read_payload(endless).inputs) == MAX_PRODUCED


def test_inputs_come_from_a_file_of_json_lines(tmp_path: Path) -> None:
    path = tmp_path / "inputs.jsonl"
    path.write_text('[1, 2]\n\n{"text": "ü"}\n', encoding="utf-8")
    assert read_payload(path).inputs == ([1, 2], {"text": "ü"})


def test_a_line_of_a_file_ends_only_where_json_says_so(tmp_path: Path) -> None:
    path = tmp_path / "inputs.jsonl"
    path.write_bytes('"one\u2028two\u2029three\x85four"\r\n"five"\n'.encode())
    assert read_payload(path).inputs == ("one\u2028two\u2029three\x85four", "five")


class Frame:
    """As libraries of data frames have them: gone through by the names of its columns."""

    columns = ("a", "b")

    def __iter__(self) -> Iterator[str]:
        return iter(self.columns)


def a_frame() -> Frame:
    return Frame()


def nothing() -> list[object]:
    return []


REQUEST = httpx.Request("POST", "http://test/", json=1)
MIXED = "perf_payload mixes inputs and httpx.Request objects, expected one kind; the first"


@each_row(
    ("wrong", "message"),
    ([], "perf_payload is empty, expected at least one input"),
    (np.zeros((0, 3)), "perf_payload is empty, expected at least one input"),
    (nothing, "perf_payload is empty, expected at least one input"),
    ("text", "perf_payload is str, expected a list of inputs"),
    (b"bytes", "perf_payload is bytes, expected a list of inputs"),
    ({"a": 1}, "perf_payload is dict, expected a list of inputs"),
    (5, "perf_payload is int, expected a list of inputs"),
    (None, "perf_payload is NoneType, expected a list of inputs"),
    (np.array(5), "perf_payload is ndarray, expected a list of inputs"),
    (list, "perf_payload is type, expected a list of inputs"),
    (lambda: 5, "perf_payload is a function that returns int, expected one that yields inputs"),
    (lambda: "text", "perf_payload is a function that returns str, expected one that yields inputs"),
    ((n for n in range(3)), "perf_payload is generator, which can be read only once; return a list, or the"),
    (iter([1]), "perf_payload is list_iterator, which can be read only once; return a list, or the generator"),
    (itertools.count(), "perf_payload is count, which can be read only once; return a list, or the generator"),
    (Uniform(iter([1])), "perf_payload is list_iterator, which can be read only once"),
    (Zipf(map(abs, [1])), "perf_payload is map, which can be read only once"),
    (Frame(), "perf_payload is Frame, expected its rows; return frame.to_dict('records') or frame.values.tolist()"),
    (InOrder(map(abs, [1])), "perf_payload is map, which can be read only once"),
    (Zipf(Frame()), "perf_payload is Frame, expected its rows; return frame.to_dict('records')"),
    (Frame, "perf_payload is type, expected its rows"),
    (a_frame, "perf_payload is a function that returns Frame, expected its rows; return frame.to_dict("),
    ([1, 2, object()], "perf_payload item 2 is object, which cannot be sent over rest+json: "),
    ([[[1, 2], [3, math.nan]]], 'perf_payload item 0 has NaN at [1][1], which JSON cannot carry; use wire="rest+bin'),
    ([b"raw"], "perf_payload item 0 is bytes, which cannot be sent over rest+json: "),
    ([REQUEST, 1], f"{MIXED} input is item 1"),
    ([1, 1, REQUEST], f"{MIXED} request is item 2"),
)
def test_a_value_that_is_no_collection_is_refused_by_its_type(wrong: Any, message: str) -> None:
    with pytest.raises(SettingError) as caught:
        read_payload(wrong)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "cannot be read: "), (b"\xff\xfe", "cannot be read: "), (b"1\n\n{\n", "line 3 is not JSON: ")],
    ids=["absent", "no text", "no json"],
)
def test_a_file_that_cannot_be_read_is_named_with_its_line(tmp_path: Path, content: bytes | None, message: str) -> None:
    path = tmp_path / "inputs.jsonl"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(SettingError) as caught:
        read_payload(path)
    assert str(caught.value).startswith(f"perf_payload {path} {message}")


def test_more_than_the_limit_is_refused_by_the_item_that_goes_beyond_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(payload_module, "MAX_PAYLOAD_BYTES", 2**20)
    item = "x" * 400_000
    assert len(read_payload([item, item]).bodies) == 2
    with pytest.raises(SettingError) as caught:
        read_payload([item, item, item, item])
    assert str(caught.value) == (
        "perf_payload makes over 1 MiB of requests by item 2 of 4; give a sample of the inputs"
    )


def request(method: str = "POST", url: str = "http://test/a", **content: Any) -> httpx.Request:
    return httpx.Request(method, url, **content)


def test_ready_made_requests_keep_their_method_path_headers_and_body() -> None:
    payload = read_payload(
        [
            request("PUT", "http://elsewhere:9/a%20b?x=1&y=ü", json={"q": 1}, headers={"X-Key": "secret"}),
            request("GET", "http://elsewhere:9"),
            request("POST", "http://elsewhere:9/form", data={"a": "b"}),
        ]
    )
    assert tuple(body.joined() for body in payload.bodies) == ()
    put, get, post = parsed(payload)
    assert (put.method, put.url) == ("PUT", b"/a%20b?x=1&y=%C3%BC")
    assert json.loads(put.body) == {"q": 1}
    assert put.header("x-key") == "secret"
    assert put.header("host") == "elsewhere:9"
    assert put.header("content-length") == str(len(put.body))
    assert (get.method, get.url, get.body) == ("GET", b"/", b"")
    assert (post.body, post.header("content-type")) == (b"a=b", "application/x-www-form-urlencoded")


def test_a_request_whose_body_is_a_stream_is_sent_with_its_length() -> None:
    streamed = request(content=iter([b"one ", b"two"]))
    assert streamed.headers["transfer-encoding"] == "chunked"
    payload = read_payload([streamed])
    for _ in range(2):  # a launch after another sends the same
        (message,) = parsed(payload)
        assert message.body == b"one two"
        assert message.header("content-length") == "7"
        assert "transfer-encoding" not in dict(message.headers)


def test_a_request_with_files_is_sent_as_one_message() -> None:
    (message,) = parsed(read_payload([request(files={"image": b"\x00\x01"})]))
    assert message.header("content-type").startswith("multipart/form-data; boundary=")
    assert b"\x00\x01" in message.body
    assert message.header("content-length") == str(len(message.body))


@pytest.mark.parametrize("method", ["HEAD", "CONNECT"])
def test_a_request_whose_answer_has_no_body_is_refused(method: str) -> None:
    payload = read_payload([request(method)])
    with pytest.raises(SettingError, match=f"perf_payload contains a {method} request, .*; use another method"):
        payload.messages("127.0.0.1", 8000, "/")


def answer(request: httpx.Request) -> httpx.Response:
    """A server that says what it got."""
    got = {"method": request.method, "path": request.url.raw_path.decode(), "body": request.content.decode()}
    return httpx.Response(200, json={**got, "key": request.headers.get("x-key"), "host": request.headers["host"]})


def test_the_first_request_can_be_sent_by_a_client() -> None:
    with httpx.Client(transport=httpx.MockTransport(answer), base_url="http://here:1") as client:
        plain = client.request(**read_payload([[1, 2], [3]]).request("/predict", 0)).json()
        made = request("PUT", "http://there:2/a?x=1", json=1, headers={"x-key": "k"})
        ready = client.request(**read_payload([made]).request("/predict", 0)).json()
    assert plain == {
        "method": "POST", "path": "/predict", "body": '{"instances":[[1,2]]}', "key": None, "host": "here:1",
    }  # fmt: skip
    assert ready == {"method": "PUT", "path": "/a?x=1", "body": "1", "key": "k", "host": "here:1"}


def test_an_identity_is_the_same_in_every_version_and_on_every_machine() -> None:
    assert read_payload([[5.1, 3.5], [4.9, 3.0]]).digest == "sha256:c0b87787eba464f4"
    assert read_payload(np.array([[5.1, 3.5], [4.9, 3.0]])).digest == "sha256:c0b87787eba464f4"
    assert read_payload([request(json=1)]).digest == read_payload([request(json=1)]).digest


def test_whatever_changes_what_is_sent_changes_the_identity() -> None:
    different = [
        read_payload([1, 2]),
        read_payload([2, 1]),
        read_payload([1]),
        read_payload([1, 2, 2]),
        read_payload([[1, 2]]),
        read_payload(["1", "2"]),
        read_payload(Uniform([1, 2])),
        read_payload(Uniform([1, 2], seed=1)),
        read_payload(Zipf([1, 2])),
        read_payload(Zipf([1, 2], exponent=1.5)),
        read_payload([request(content=b"1")]),
        read_payload([request(content=b"2")]),
        read_payload([request("PUT", content=b"1")]),
        read_payload([request(url="http://test/b", content=b"1")]),
        read_payload([request(url="http://test/a?b", content=b"1")]),
    ]
    assert len({payload.digest for payload in different}) == len(different)


def test_the_host_of_a_ready_made_request_is_no_part_of_the_identity() -> None:
    assert read_payload([request(url="http://one/a")]).digest == read_payload([request(url="http://two/a")]).digest


def order_of(payload: Payload) -> np.ndarray:
    return np.frombuffer(payload.order(), np.uint32)


@pytest.mark.parametrize("kind", [list, tuple, np.array, range], ids=["list", "tuple", "array", "range"])
def test_the_inputs_of_a_list_are_sent_in_a_shuffled_order_that_is_always_the_same(kind: Any) -> None:
    given = range(1_000) if kind is range else kind(range(1_000))
    payload = read_payload(given)
    order = order_of(payload)
    assert payload.is_shuffled
    assert payload.inputs == tuple(given)  # the first input is that of the functional check
    assert sorted(order) == list(range(1_000)) != order.tolist()
    assert order.tobytes() == read_payload(range(1_000)).order() == payload.bare().order()
    assert abs(np.corrcoef(order[:100], range(100))[0, 1]) < 0.2  # no trend within a window


def test_the_lines_of_a_file_and_complete_requests_are_shuffled_too(tmp_path: Path) -> None:
    (tmp_path / "inputs.jsonl").write_text("1\n2\n3\n")
    assert read_payload(tmp_path / "inputs.jsonl").is_shuffled
    assert read_payload([request(content=b"1"), request(content=b"2")]).is_shuffled


@each_row("given", [InOrder([1, 2, 3]), lambda: iter([1, 2, 3]), Prompts(count=3), [1]])
def test_inputs_whose_order_is_decided_are_sent_as_listed(given: Any) -> None:
    payload = read_payload(given)
    assert payload.order() == b""
    assert not payload.is_shuffled


def test_the_digest_of_a_list_is_that_of_the_same_inputs_as_listed() -> None:
    assert read_payload([1, 2, 3]).digest == read_payload(InOrder([1, 2, 3])).digest
    assert str(Shuffled()) == "shuffled"  # the set-up has it, and says so


def test_uniform_draws_are_even() -> None:
    order = order_of(read_payload(Uniform([10, 20, 30, 40])))
    assert order.size == DRAWS
    assert np.bincount(order) / DRAWS == pytest.approx(np.full(4, 0.25), abs=0.005)


@pytest.mark.parametrize("exponent", [0.0, 0.7, 1.0, 2.5])
def test_zipf_draws_follow_their_law(exponent: float) -> None:
    weights = 1 / np.arange(1, 21) ** exponent
    assert zipf_probabilities(20, exponent) == pytest.approx(weights / weights.sum())
    order = order_of(read_payload(Zipf(range(20), exponent=exponent)))
    assert order.size == DRAWS
    assert np.bincount(order, minlength=20) / DRAWS == pytest.approx(weights / weights.sum(), abs=0.005)


@pytest.mark.parametrize("kind", [Uniform, Zipf])
def test_draws_are_those_of_their_seed(kind: Any) -> None:
    assert read_payload(kind([1, 2, 3], seed=1)).order() == read_payload(kind([1, 2, 3], seed=1)).order()
    assert read_payload(kind([1, 2, 3], seed=1)).order() != read_payload(kind([1, 2, 3], seed=2)).order()


def test_draws_say_how_they_are_made() -> None:
    assert str(Uniform([1], seed=3)) == "uniform(seed=3)"
    assert str(Zipf([1], exponent=1.5)) == "zipf(exponent=1.5, seed=0)"


def test_numbers_of_numpy_are_kept_as_plain_ones() -> None:
    draw = Zipf([1], exponent=np.float32(1.5), seed=np.uint8(3))  # type: ignore[arg-type]
    assert (type(draw.exponent), type(draw.seed)) == (float, int)
    assert repr(draw) == "Zipf(inputs=[1], exponent=1.5, seed=3)"
    assert repr(Uniform([1], seed=np.int64(2))) == "Uniform(inputs=[1], seed=2)"  # type: ignore[arg-type]


@each_row("exponent", [-1, float("nan"), float("inf"), "1", None, True])
def test_an_impossible_exponent_is_refused(exponent: Any) -> None:
    with pytest.raises(SettingError) as caught:
        Zipf([1], exponent=exponent)
    assert str(caught.value) == f"Zipf(exponent={exponent!r}), expected a number that is not negative; write 1.1"


@each_row("kind", [Uniform, Zipf])
@each_row("seed", [-1, "x", 1.5])
def test_an_impossible_seed_is_refused(kind: Any, seed: Any) -> None:
    with pytest.raises(SettingError, match="seed"):
        kind([1], seed=seed)


@pytest.mark.processes
def test_random_numbers_are_loaded_before_a_load_can_be_interrupted() -> None:
    """numpy loads them when they are first asked for, and its C code can lose a Ctrl-C that arrives meanwhile."""
    code = "import sys, pytest_mlpatterns.workload.payload; sys.exit('numpy.random' not in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
