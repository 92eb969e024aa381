"""A TCP proxy on loopback that counts what passes, and can stall, refuse or lose what a test wants it to.

It sees bytes; the one thing that it knows of HTTP is how a request begins.
"""

import contextlib
import re
import socket
import threading
import urllib.parse
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

REQUEST_LINE = re.compile(rb"(GET|HEAD|PUT|POST|DELETE) \S+ HTTP/1\.[01]\r\n")
CHUNK_BYTES = 64 * 1024


class Proxy:
    """Forwards every connection to `endpoint_url`; safe to steer from any thread.

    Attributes:
        url: Where clients connect.
        bytes_up: Bytes that clients sent to the server.
        bytes_down: Bytes that the server sent to clients.
        num_connections: Connections accepted so far.
        requests: The request lines seen, as `GET /bucket/key HTTP/1.1`.
    """

    def __init__(self, endpoint_url: str) -> None:
        target = urllib.parse.urlsplit(endpoint_url)
        self._target = (target.hostname or "127.0.0.1", target.port or 80)
        self._lock = threading.Lock()
        self._runs = threading.Event()
        self._runs.set()
        self._open: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._answers: list[bytes] = []
        self._num_lost_replies = 0
        self._garbled = (b"", b"")
        self._refused_header = b""
        self._is_closed = False
        self.bytes_up = self.bytes_down = self.num_connections = 0
        self.requests: list[str] = []
        self._listener: socket.socket | None = None
        self._port = 0
        self.accept()
        self.url = f"http://127.0.0.1:{self._port}"

    def stop(self) -> None:
        """Let nothing pass any more; connections stay open, as when a server hangs."""
        self._runs.clear()

    def go_on(self) -> None:
        """Let pass again what `stop` held back."""
        self._runs.set()

    def refuse(self) -> None:
        """Cut every connection and refuse new ones, as when a server is dead."""
        with self._lock:
            listener, self._listener = self._listener, None
        if listener is not None:
            with contextlib.suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)  # wakes the thread that accepts
            listener.close()
        self.cut()

    def accept(self) -> None:
        """Take connections again after `refuse`, on the same port."""
        if self._listener is not None:
            return
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", self._port))
        listener.listen(128)
        self._port = listener.getsockname()[1]
        self._listener = listener
        self._start(self._take, listener)

    def cut(self) -> None:
        """End every connection that is open now, in the middle of whatever it does."""
        with self._lock:
            ends = list(self._open)
        for end in ends:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def answer(self, status: int, code: str, times: int = 1, message: str = "by the proxy") -> None:
        """Answer the next requests ourselves with an S3 error; the server does not see them."""
        with self._lock:
            self._answers += [_answer(status, code, message)] * times

    def refuse_header(self, name: str) -> None:
        """Answer 501, as servers do that do not know this header, to every request that has it from now on."""
        self._refused_header = name.lower().encode()

    def lose_replies(self, times: int = 1) -> None:
        """Cut the connection instead of handing on the server's next final replies: it did what was asked, unheard."""
        with self._lock:
            self._num_lost_replies = times

    def garble(self, old: bytes, new: bytes) -> None:
        """Put other bytes, as many, in place of some that servers send (where those come in one piece)."""
        assert len(old) == len(new)
        self._garbled = (old, new)

    def count(self, method: str, part_of_path: str = "") -> int:
        """Count the requests so far of one method whose address contains a text."""
        with self._lock:
            return sum(line.startswith(f"{method} ") and part_of_path in line for line in self.requests)

    def close(self) -> None:
        """End everything and wait for it."""
        self._is_closed = True
        self._runs.set()
        self.refuse()
        for thread in self._threads:
            thread.join(10)

    def _start(self, work: Callable[..., None], *arguments: socket.socket) -> None:
        thread = threading.Thread(target=work, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _take(self, listener: socket.socket) -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:  # closed by refuse
                return
            try:
                server = socket.create_connection(self._target, timeout=10)
            except OSError:
                client.close()
                continue
            server.settimeout(None)
            with self._lock:
                self.num_connections += 1
                self._open |= {client, server}
            self._start(self._serve, client, server)

    def _serve(self, client: socket.socket, server: socket.socket) -> None:
        down = threading.Thread(target=self._pump_down, args=(server, client), daemon=True)
        down.start()
        self._pump_up(client, server)
        down.join()
        with self._lock:
            self._open -= {client, server}
        client.close()
        server.close()

    def _pump_up(self, client: socket.socket, server: socket.socket) -> None:
        for chunk in self._chunks(client):
            with self._lock:
                self.bytes_up += len(chunk)
                line = REQUEST_LINE.match(chunk)
                if line:
                    self.requests.append(line[0].decode("latin-1").strip())
                answer = self._own_answer(chunk) if line else None
            if answer is not None:
                _sent(client, answer)
                _end(server)  # only now: the other thread then ends the client's side
                for _ in self._chunks(client):  # a body left unread would reset the connection before it is heard
                    pass
                break
            if not _sent(server, chunk):
                break
        _end(server)
        _end(client, reading_only=True)

    def _own_answer(self, head: bytes) -> bytes | None:
        if self._refused_header and self._refused_header in head.lower():
            return _answer(501, "NotImplemented", "by the proxy")
        return self._answers.pop(0) if self._answers else None

    def _pump_down(self, server: socket.socket, client: socket.socket) -> None:
        for chunk in self._chunks(server):
            with self._lock:
                self.bytes_down += len(chunk)
                loses = self._num_lost_replies > 0 and not chunk.startswith(b"HTTP/1.1 100")
                self._num_lost_replies -= loses
            if self._garbled[0]:
                chunk = chunk.replace(*self._garbled)
            if loses or not _sent(client, chunk):
                break
        _end(client)
        _end(server, reading_only=True)

    def _chunks(self, source: socket.socket) -> Iterator[bytes]:
        while True:
            try:
                chunk = source.recv(CHUNK_BYTES)
            except OSError:
                return
            self._runs.wait()
            if not chunk or self._is_closed:
                return
            yield chunk


@contextlib.contextmanager
def proxy(endpoint_url: str) -> Iterator[Proxy]:
    """Run a proxy before a server until the block ends."""
    between = Proxy(endpoint_url)
    try:
        yield between
    finally:
        between.close()


@contextlib.contextmanager
def web_server(handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    """Run a web server on this machine until the block ends; yield its address."""
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def _answer(status: int, code: str, message: str) -> bytes:
    body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>{message}</Message></Error>"
    head = f"HTTP/1.1 {status} {code}\r\nContent-Type: application/xml\r\nContent-Length: {len(body)}\r\n"
    return f"{head}Connection: close\r\n\r\n{body}".encode()


def _sent(end: socket.socket, data: bytes) -> bool:
    try:
        end.sendall(data)
    except OSError:
        return False
    return True


def _end(end: socket.socket, reading_only: bool = False) -> None:
    with contextlib.suppress(OSError):
        end.shutdown(socket.SHUT_RD if reading_only else socket.SHUT_WR)
