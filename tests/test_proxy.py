import http.client
import http.server
import threading
import time
from collections.abc import Iterator

import pytest

from tests.proxy import Proxy, proxy, web_server


class Answering(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        body = b"x" * 1000
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def between() -> Iterator[Proxy]:
    with web_server(Answering) as url, proxy(url) as running:
        yield running


def get(between: Proxy, path: str = "/x") -> tuple[int, bytes]:
    connection = http.client.HTTPConnection(between.url.removeprefix("http://"), timeout=20)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def test_what_passes_is_counted(between: Proxy) -> None:
    assert get(between, "/a") == (200, b"x" * 1000) == get(between, "/b")
    assert between.count("GET") == 2 and between.count("GET", "/b") == 1 and between.count("PUT") == 0
    assert between.bytes_down > 2000 and 0 < between.bytes_up < 1000


def test_a_stopped_proxy_holds_back_and_goes_on(between: Proxy) -> None:
    between.stop()
    answers: list[tuple[int, bytes]] = []
    thread = threading.Thread(target=lambda: answers.append(get(between)))
    thread.start()
    time.sleep(0.3)
    assert answers == []
    between.go_on()
    thread.join(20)
    assert answers == [(200, b"x" * 1000)]


def test_a_refusing_proxy_refuses_until_it_accepts_again(between: Proxy) -> None:
    between.refuse()
    with pytest.raises(ConnectionRefusedError):
        get(between)
    between.accept()
    assert get(between)[0] == 200


def test_it_answers_itself_and_loses_replies_as_often_as_it_was_told(between: Proxy) -> None:
    between.answer(503, "SlowDown", times=2)
    assert [get(between)[0] for _ in range(3)] == [503, 503, 200]
    between.lose_replies()
    with pytest.raises((http.client.RemoteDisconnected, ConnectionResetError)):
        get(between)
    assert get(between)[0] == 200
