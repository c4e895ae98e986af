"""A server's own figures over HTTP: read when asked for, its queue watched meanwhile, and told where they cannot be."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from pytest_mlpatterns import DeploymentError, Prometheus
from pytest_mlpatterns.serving.external import scraper as scrape
from pytest_mlpatterns.serving.external.scraper import Scraper, scraper_of

DEPTH = "# TYPE mosec_service_remaining_task gauge\nmosec_service_remaining_task {}\n"


class Teller:
    """A server that tells one text after the other, the last for ever; ``asked`` is released at each request."""

    def __init__(self, *texts: str) -> None:
        self.asked = threading.Semaphore(0)
        left = list(texts)

        class Handler(BaseHTTPRequestHandler):
            def do_GET(handler) -> None:  # noqa: N805 - self is the teller
                text = left.pop(0) if len(left) > 1 else left[0]
                handler.send_response(200 if text else 500)
                handler.end_headers()
                handler.wfile.write(text.encode())
                self.asked.release()

            def log_message(handler, *_: object) -> None:  # noqa: N805
                """Say nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.origin = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def tellers() -> Iterator[list[Teller]]:
    running: list[Teller] = []
    yield running
    for teller in running:
        teller.close()


def test_a_queue_is_watched_whatever_single_readings_come_to(
    tellers: list[Teller], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scrape, "_INTERVAL_S", 0.01)
    texts = [DEPTH.format(2), "", "<html>", "# nothing\n", DEPTH.format(5), DEPTH.format(5)]
    tellers.append(Teller(*texts))
    scraper = scraper_of(Prometheus(), [tellers[0].origin])
    scraper.start()
    for _ in texts:
        assert tellers[0].asked.acquire(timeout=15)
    (queued,) = scraper.layers()
    scraper.close()
    depths = [depth for _, depth in queued.series["depth"]]
    assert depths[0] == 2
    assert set(depths) == {2, 5}
    assert 2 * queued.counters["observed_ns"] <= queued.counters["depth_ns"] <= 5 * queued.counters["observed_ns"]


def test_processes_with_an_address_each_add_up(tellers: list[Teller]) -> None:
    tellers += [Teller(DEPTH.format(2)), Teller(DEPTH.format(3))]
    scraper = scraper_of(Prometheus(), [teller.origin for teller in tellers])
    scraper.start()
    assert {depth for _, depth in scraper.layers()[0].series["depth"]} == {5}
    scraper.close()


def test_what_knows_nothing_yet_is_no_error_before_its_first_request(tellers: list[Teller]) -> None:
    tellers.append(Teller("# nothing\n"))
    scraper = scraper_of(Prometheus(), [tellers[0].origin])
    scraper.start(require_known=False)
    assert scraper.layers() == ()
    with pytest.raises(DeploymentError, match="has none of the known metrics; it has none; name your own"):
        scraper.start()
    scraper.close()


def test_an_address_of_its_own_has_its_port_put_in(tellers: list[Teller]) -> None:
    tellers.append(Teller("<html>"))
    port = int(tellers[0].origin.rpartition(":")[2])
    scraper = scraper_of(Prometheus("http://127.0.0.1:{metrics_port}/m"), ["unused"], {"metrics_port": port})
    with pytest.raises(DeploymentError, match=rf"127\.0\.0\.1:{port}/m is not in the text format of Prometheus"):
        scraper.start()
    scraper.close()


def test_an_unreachable_service_is_an_error_with_its_address() -> None:
    scraper = Scraper(["http://127.0.0.1:1/metrics"], Prometheus())
    with pytest.raises(DeploymentError, match=r"metrics: http://127\.0\.0\.1:1/metrics: ConnectError"):
        scraper.layers()
    scraper.close()


@pytest.mark.parametrize("text", ["<html>", ""], ids=["no-metrics", "status"])
def test_no_error_shows_a_credential_of_the_address(tellers: list[Teller], text: str) -> None:
    tellers.append(Teller(text))
    scraper = scraper_of(Prometheus("/m?token=s3cr3t"), [tellers[0].origin])
    with pytest.raises(DeploymentError, match=r"/m\?token=\*\*\* ") as caught:
        scraper.layers()
    scraper.close()
    assert "s3cr3t" not in str(caught.value)


def test_without_the_parser_it_is_told_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    with pytest.raises(DeploymentError, match=r"pip install 'pytest-mlpatterns\[prometheus\]'"):
        Scraper([], Prometheus())
