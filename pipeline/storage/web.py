"""Get a file by http: bounded in size and time, patient with a host that is busy but not with one that is gone.

It knows addresses and hosts; what the file is for, it does not know. A dataset may name any address on the web, so
whatever a host does costs memory and time that are known beforehand, and nothing but the web is ever opened.
"""

import functools
import http.client
import socket
import threading
import time
import urllib.error
import urllib.request
from typing import Any
from urllib.parse import quote, urlsplit, urlunsplit

from pipeline.redaction import redacted
from pipeline.storage.faults import StorageError, Unreachable
from pipeline.storage.patience import patiently

SCHEMES = ("http", "https")
# How long a stranger's host is asked again that is down, busy or at odds with itself.
PATIENCE_S = 30.0
# One try: until the next bytes come, and until the last have come.
STALL_S, TRY_S = 10.0, 60.0
# A host that gave up is believed to be gone for so long after it last failed: its files are tried once, and it has to
# answer soon.
GONE_S = 60.0
SOON_S = 5.0
# Many hosts refuse Python's own name.
HEADERS = {"User-Agent": "Mozilla/5.0 (compatible; Triptych)", "Accept": "*/*"}

# Host -> until when it is believed to be gone. All threads of a process share what they learn.
_gone: dict[str, float] = {}
_gone_lock = threading.Lock()


class TooLarge(StorageError):
    """There are more bytes than anybody wants to read."""


class WrongAddress(StorageError):
    """This is no address that can be asked."""


def host_of(url: str) -> str:
    """Return an address's host and port, as it writes them."""
    return url.partition("://")[2].partition("/")[0].lower()


def get(url: str, limit_bytes: int, patience_s: float) -> bytes:
    """Return the file at an address.

    Raises:
        NotFound: The host says that there is none.
        TooLarge: It has more than `limit_bytes` bytes.
        WrongAddress: No host can be asked for this.
        Unreachable: The host did not answer, or could not, for `patience_s`.
        StorageError: The host refuses.
    """
    return patiently(lambda: _body(url, limit_bytes, STALL_S), f"cannot read {url}", host_of(url), patience_s)


def get_from_stranger(url: str, limit_bytes: int) -> bytes:
    """Return the file at an address that somebody wrote into a dataset: one dead host must not hold up all rows.

    Raises:
        StorageError: See `get`. `Unreachable` after `PATIENCE_S`, or at once where the host has just given up.
    """
    host = host_of(url)
    patience_s, stall_s = (0.0, SOON_S) if _is_gone(host) else (PATIENCE_S, STALL_S)
    try:
        data = patiently(lambda: _body(url, limit_bytes, stall_s), f"cannot read {url}", host, patience_s)
    except Unreachable:
        _note(host, is_gone=True)
        raise
    except StorageError:  # and not because it was silent
        _note(host, is_gone=False)
        raise
    _note(host, is_gone=False)
    return data


def _is_gone(host: str) -> bool:
    with _gone_lock:
        return time.monotonic() < _gone.get(host, 0.0)


def _note(host: str, *, is_gone: bool) -> None:
    now = time.monotonic()
    with _gone_lock:
        _gone.pop(host, None)
        if is_gone:
            _gone[host] = now + GONE_S
            for old in [name for name, until in _gone.items() if until <= now]:  # a dataset may name a million hosts
                del _gone[old]


def _request(url: str) -> urllib.request.Request:
    """Write an address as servers expect it, whatever characters a dataset wrote it in."""
    try:
        parts = urlsplit(url)
        if parts.username is not None or parts.password is not None:
            raise ValueError("it contains a user name")
        if not parts.hostname:
            raise ValueError("it names no host")
        host = parts.hostname if ":" in parts.hostname else parts.hostname.encode("idna").decode()
        place = f"[{host}]" if ":" in host else host
        place += f":{parts.port}" if parts.port else ""
    except ValueError as error:
        raise WrongAddress(f"cannot read an address: {error}; expected https://host/path") from error
    path, query = (quote(part, safe="/%:@!$&'()*+,;=~?-._[]|") for part in (parts.path, parts.query))
    return urllib.request.Request(urlunsplit((parts.scheme, place, path or "/", query, "")), headers=HEADERS)


def _body(url: str, limit_bytes: int, stall_s: float) -> bytes:
    """Read an address once.

    Raises:
        StorageError: `TooLarge` or `WrongAddress`, see `get`.
        OSError: Of the many kinds that a connection fails with; pipeline.storage.faults knows them apart.
    """
    deadline = time.monotonic() + TRY_S
    with _opened(_request(url), stall_s) as response:
        pieces: list[bytes] = []
        size = response.length or 0  # what the host says; below, what it sends
        if size <= limit_bytes:
            size = 0
            while size <= limit_bytes and (piece := response.read1(2**18)):
                pieces.append(piece)
                size += len(piece)
                if time.monotonic() > deadline:
                    raise TimeoutError(f"{size} bytes arrived in {TRY_S:g} s, and the file was not complete")
        if size > limit_bytes:
            raise TooLarge(f"{redacted(url)} has more than {limit_bytes} bytes, the most allowed")
        if response.length:
            raise ConnectionError(f"the host closed the connection {response.length} bytes before the end")
    return b"".join(pieces)


def _opened(request: urllib.request.Request, timeout_s: float) -> http.client.HTTPResponse:
    try:
        response = _opener().open(request, timeout=timeout_s)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code in (404, 410):
            raise FileNotFoundError(f"the host answers {error.code} {error.reason}") from None
        raise
    except urllib.error.URLError as error:  # around what happened
        if isinstance(error.reason, socket.gaierror) and error.reason.errno == socket.EAI_AGAIN:
            raise ConnectionError(f"no DNS server answers: {error.reason}") from None
        raise (error.reason if isinstance(error.reason, OSError) else error) from None
    assert isinstance(response, http.client.HTTPResponse)
    return response


@functools.cache
def _opener() -> urllib.request.OpenerDirector:
    """Return what opens http and nothing else: Python's own would follow a redirection to ftp, too."""
    opener = urllib.request.OpenerDirector()
    handlers: list[Any] = [
        urllib.request.ProxyHandler(),
        urllib.request.UnknownHandler(),
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPRedirectHandler(),
        urllib.request.HTTPErrorProcessor(),
    ]
    for handler in handlers:
        opener.add_handler(handler)
    return opener
