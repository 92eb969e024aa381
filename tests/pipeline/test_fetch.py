"""Images that rows name by path or address."""

import base64
import platform
import time
from collections.abc import Callable, Iterator, Sequence
from http.server import BaseHTTPRequestHandler
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from pipeline.input import fetch
from pipeline.input.fetch import fetch_images
from pipeline.input.formats.rows import RawRow
from pipeline.input.videos import video_block
from pipeline.storage import patience, web
from pipeline.storage.store import StorageError, StorageSettings, Store, Unreachable
from tests.pipeline.inputs import write
from tests.proxy import Proxy, web_server
from tests.s3 import S3, forget_connections, free_ports

Answer = Callable[["Handler", int], None]


class Handler(BaseHTTPRequestHandler):
    """Answers a path by what the test says; counts how often it was asked."""

    answers: dict[str, Answer]
    asked: list[str]

    def do_GET(self) -> None:
        self.asked.append(self.path)
        try:
            self.answers[self.path.partition("?")[0]](self, self.asked.count(self.path))
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    def say(self, status: int, body: bytes = b"", length: int | None = None, **headers: str) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: Any) -> None:
        pass


class Web:
    """A host on this machine."""

    def __init__(self, url: str, handler: type[Handler]) -> None:
        self.url = url
        self.answers, self.asked = handler.answers, handler.asked


@pytest.fixture
def host() -> Iterator[Web]:
    own = type("Own", (Handler,), {"answers": {}, "asked": []})
    with web_server(own) as url:
        yield Web(url, own)


@pytest.fixture(autouse=True)
def in_a_hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """No host is gone yet, and what takes seconds takes tenths of them."""
    monkeypatch.setattr(web, "_gone", {})
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(web, "PATIENCE_S", 2.0)


def beside_a_shard(folder: Store | Path) -> Store:
    if isinstance(folder, Store):
        return folder
    write(folder / "rows.jsonl", "{}")
    return Store(str(folder))


def fetched(sources: Sequence[Any], folder: Store | Path) -> list[list[bytes] | str]:
    """The images of each row, or the kind of its fault."""
    rows = [RawRow(image=source) for source in sources]
    images = fetch_images(rows, beside_a_shard(folder))
    return [row.fault.type if row.fault else found for row, found in zip(rows, images, strict=True)]


def message_of(source: Any, folder: Store | Path) -> str:
    row = RawRow(image=source)
    fetch_images([row], beside_a_shard(folder))
    assert row.fault is not None
    return row.fault.message


def test_an_address_on_the_web_is_an_image_whatever_characters_it_is_written_in(host: Web, tmp_path: Path) -> None:
    host.answers["/a%20b/%C3%A4.jpg"] = lambda handler, _: handler.say(200, b"one")
    host.answers["/http://x.org/y.jpg"] = lambda handler, _: handler.say(200, b"two")
    found = fetched(
        [f"{host.url}/a b/ä.jpg", f"{host.url}/a%20b/%C3%A4.jpg#part", f"{host.url}/http://x.org/y.jpg?q=a b&s=/"],
        tmp_path,
    )
    assert found == [[b"one"], [b"one"], [b"two"]]
    assert "/http://x.org/y.jpg?q=a%20b&s=/" in host.asked


def test_a_redirection_is_followed_on_the_web_and_nowhere_else(host: Web, tmp_path: Path) -> None:
    secret = write(tmp_path / "secret", b"secret")
    host.answers["/moved"] = lambda handler, _: handler.say(302, Location="/there")
    host.answers["/there"] = lambda handler, _: handler.say(200, b"here")
    host.answers["/loop"] = lambda handler, _: handler.say(302, Location="/loop")
    host.answers["/disk"] = lambda handler, _: handler.say(302, Location=secret.as_uri())
    host.answers["/ftp"] = lambda handler, _: handler.say(302, Location="ftp://127.0.0.1/x")
    found = fetched([f"{host.url}/{name}" for name in ("moved", "loop", "disk", "ftp")], tmp_path)
    assert found == [[b"here"], "StorageError", "StorageError", "StorageError"]


def test_a_redirection_may_be_followed_at_every_try(host: Web, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "LONGEST_PAUSE_S", 0.2)
    monkeypatch.setattr(web, "PATIENCE_S", 30.0)
    host.answers["/moved"] = lambda handler, _: handler.say(302, Location="/there")
    host.answers["/there"] = lambda handler, n: handler.say(200, b"here") if n > 12 else handler.say(503)
    assert fetched([f"{host.url}/moved"], tmp_path) == [[b"here"]]


def test_hosts_that_are_gone_are_forgotten_in_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web, "PATIENCE_S", 0.0)
    monkeypatch.setattr(web, "GONE_S", 0.0)
    for port in free_ports(3):
        assert fetched([f"http://127.0.0.1:{port}/x"], tmp_path) == ["Unreachable"]
    assert web._gone == {}


def test_what_a_host_refuses_is_not_asked_twice(host: Web, tmp_path: Path) -> None:
    for status in (401, 403, 404, 410, 501):
        host.answers[f"/{status}"] = lambda handler, _, status=status: handler.say(status)
    found = fetched([f"{host.url}/{status}" for status in (401, 403, 404, 410, 501)], tmp_path)
    assert found == ["StorageError", "StorageError", "NotFound", "NotFound", "StorageError"]
    assert sorted(host.asked) == ["/401", "/403", "/404", "/410", "/501"]
    assert "404" in message_of(f"{host.url}/404", tmp_path)


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_host_that_is_busy_is_asked_again(host: Web, tmp_path: Path, status: int) -> None:
    host.answers["/x"] = lambda handler, n: handler.say(200, b"x") if n > 2 else handler.say(status)
    assert fetched([f"{host.url}/x"], tmp_path) == [[b"x"]]
    assert len(host.asked) == 3


def test_a_file_that_breaks_off_is_asked_for_again(host: Web, tmp_path: Path) -> None:
    host.answers["/x"] = lambda handler, n: handler.say(200, b"whole" if n > 1 else b"wh", 5)
    assert fetched([f"{host.url}/x"], tmp_path) == [[b"whole"]]


def test_a_host_that_never_recovers_is_the_rows_error(
    host: Web, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(web, "PATIENCE_S", 0.3)
    host.answers["/x"] = lambda handler, _: handler.say(503)
    assert fetched([f"{host.url}/x", b"mine"], tmp_path) == ["Unreachable", [b"mine"]]


def test_a_dead_host_costs_its_patience_once(host: Web, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web, "PATIENCE_S", 1.0)
    monkeypatch.setattr(fetch, "NUM_FETCHERS", 1)
    host.answers["/x"] = lambda handler, _: handler.say(200, b"x")
    (port,) = free_ports(1)
    started = time.monotonic()
    found = fetched([*(f"http://127.0.0.1:{port}/{n}" for n in range(60)), f"{host.url}/x"], tmp_path)
    assert found == [*["Unreachable"] * 60, [b"x"]]
    assert time.monotonic() - started < 30


def test_a_host_that_is_back_is_trusted_again(host: Web, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web, "PATIENCE_S", 0.1)
    host.answers["/x"] = lambda handler, n: handler.say(200, b"x") if n > 2 else handler.say(500)
    host.answers["/y"] = lambda handler, n: handler.say(200, b"y") if n > 1 else handler.say(500)
    url = f"{host.url}/x"
    assert fetched([url], tmp_path) == ["Unreachable"]
    assert fetched([url], tmp_path) == ["Unreachable"]
    assert fetched([url], tmp_path) == [[b"x"]]
    monkeypatch.setattr(web, "PATIENCE_S", 30.0)
    assert fetched([f"{host.url}/y"], tmp_path) == [[b"y"]]


def test_a_slow_host_is_given_up_on(host: Web, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def drip(handler: Handler, _: int) -> None:
        handler.say(200, b"", 1000)
        for _ in range(100):
            handler.wfile.write(b"x")
            time.sleep(0.05)

    def silence(handler: Handler, _: int) -> None:
        time.sleep(3)

    monkeypatch.setattr(web, "PATIENCE_S", 0.0)
    monkeypatch.setattr(web, "TRY_S", 0.5)
    monkeypatch.setattr(web, "STALL_S", 0.5)
    host.answers |= {"/drip": drip, "/silence": silence}
    assert fetched([f"{host.url}/drip", f"{host.url}/silence"], tmp_path) == ["Unreachable"] * 2


def test_what_is_too_large_is_not_read_to_its_end(host: Web, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sent = 0

    def endless(handler: Handler, _: int) -> None:
        nonlocal sent
        handler.send_response(200)
        handler.end_headers()  # of unknown length, until the connection ends
        for _ in range(2000):
            sent += handler.wfile.write(bytes(2**16))

    monkeypatch.setattr(fetch, "LIMIT_BYTES", 10_000)
    host.answers |= {
        "/endless": endless,
        "/large": lambda handler, _: handler.say(200, b"", 10 * 2**30),
        "/fits": lambda handler, _: handler.say(200, bytes(10_000)),
        "/over": lambda handler, _: handler.say(200, bytes(10_001)),
    }
    found = fetched([f"{host.url}/{name}" for name in ("endless", "large", "over", "fits")], tmp_path)
    assert found == ["TooLarge", "TooLarge", "TooLarge", [bytes(10_000)]]
    assert sent < 2000 * 2**16 / 2


def test_the_shards_own_host_is_no_rows_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    home = f"http://127.0.0.1:{free_ports(1)[0]}"
    folder = Store(f"{home}/set")
    folder = Store(folder.uri, folder.settings.model_copy(update={"patience_s": 0.3}))
    for address in ("a.jpg", f"{home}/other/a.jpg"):
        with pytest.raises(Unreachable):
            fetched([address], folder)
    elsewhere = f"http://127.0.0.1:{free_ports(1)[0]}/a.jpg"
    monkeypatch.setattr(web, "PATIENCE_S", 0.1)
    assert fetched([elsewhere], folder) == ["Unreachable"]


def test_relative_to_a_shard_on_the_web_is_beside_it(host: Web) -> None:
    host.answers["/set/deep/a.jpg"] = lambda handler, _: handler.say(200, b"a")
    assert fetched(["deep/a.jpg"], Store(f"{host.url}/set")) == [[b"a"]]


@pytest.mark.parametrize(
    "address",
    [
        "/etc/hostname",
        "file:///etc/hostname",
        "FILE:///etc/hostname",
        "local:///etc/hostname",
        "simplecache::file:///etc/hostname",
        "../../etc/hostname",
        "..",
        "sftp://host/x.jpg",
        "github://a:b@c/x.jpg",
        "memory://elsewhere/x.jpg",
    ],
)
def test_a_dataset_in_a_bucket_names_no_file_of_the_machine_that_reads_it(address: str) -> None:
    assert fetched([address], Store("memory://bucket/set")) == ["Refused"]


def test_a_file_of_the_same_bucket_is_named_in_full_or_from_the_shard(tmp_path: Path) -> None:
    Store("memory://bucket").replace("pictures/a//b.jpg", b"b")
    Store("memory://bucket").replace("pictures/c.jpg", b"c")
    folder = Store("memory://bucket/set")
    found = fetched(["memory://bucket/pictures/a//b.jpg", "../pictures/c.jpg", "./d.jpg"], folder)
    assert found == [[b"b"], [b"c"], "NotFound"]


def test_two_slashes_in_a_key_are_not_one(tmp_path: Path) -> None:
    Store("memory://bucket").replace("set/deep//b.jpg", b"two")
    Store("memory://bucket").replace("set/deep/b.jpg", b"one")
    folder = Store("memory://bucket/set")
    assert fetched(["deep//b.jpg", "deep/b.jpg", "x/../deep//b.jpg"], folder) == [[b"two"], [b"one"], [b"two"]]
    assert fetched(["b.jpg"], Store("memory://bucket/set/deep//")) == [[b"two"]]


def test_an_address_may_hold_the_image_itself(tmp_path: Path) -> None:
    inline = base64.b64encode(b"\xfb\xffpixels").decode()
    assert "+" in inline and "=" in inline
    sound = [
        inline,
        inline.rstrip("="),
        "\n".join([inline[:4], inline[4:]]),
        inline.replace("+", "%2B").replace("=", "%3D"),
    ]
    addresses = [f"{head}{body}" for head in ("data:image/png;base64,", "DATA:;base64,") for body in sound]
    assert fetched(addresses, tmp_path) == [[b"\xfb\xffpixels"]] * 8
    assert fetched(["data:image/svg+xml,%3Csvg", "data:,a%20b"], tmp_path) == [[b"<svg"], [b"a b"]]
    assert fetched(["data:image/png;base64,?", "data:image/png;base64"], tmp_path) == ["WrongAddress"] * 2


def test_a_dict_names_its_image_as_hubs_and_chat_messages_do(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"a")
    forms: list[Any] = [
        {"path": "a.jpg"},
        {"bytes": None, "path": "a.jpg"},
        {"bytes": b"a", "path": "gone.jpg"},
        {"url": "a.jpg"},
        {"image_url": "a.jpg"},
        {"type": "image_url", "image_url": {"url": "a.jpg", "detail": "high"}},
        [{"type": "image_url", "image_url": {"url": "a.jpg"}}],
    ]
    assert fetched(forms, tmp_path) == [[b"a"]] * 7
    assert fetched([{}, {"bytes": None, "path": None}, {"url": ""}], tmp_path) == [[], [], []]


@pytest.mark.parametrize(
    "unknown",
    [
        {"src": "a.jpg"},
        {"filename": "a.jpg"},
        {"type": "image", "image": "a.jpg"},
        {"bytes": "", "path": "", "uri": "a.jpg"},
        {"image_url": {"href": "a.jpg"}},
        {"path": 7},
    ],
)
def test_a_dict_of_another_form_is_the_rows_error_and_never_no_image(unknown: Any, tmp_path: Path) -> None:
    assert fetched([unknown], tmp_path) == ["WrongType"]


def test_what_is_no_address_is_said_to_be_none(tmp_path: Path) -> None:
    addresses = ["http://", "http://[::1/x", "https://user:password@127.0.0.1/x", "http://h:port/x"]
    assert fetched(addresses, tmp_path) == ["WrongAddress"] * 4
    assert "password" not in message_of(addresses[2], tmp_path)


def test_a_signature_stays_out_of_the_message(host: Web, tmp_path: Path) -> None:
    host.answers["/x"] = lambda handler, _: handler.say(403)
    host.answers["/large"] = lambda handler, _: handler.say(200, b"", 10 * 2**30)
    for name in ("x", "large"):
        assert "hush" not in message_of(f"{host.url}/{name}?X-Amz-Signature=hushhush", tmp_path)


OF_THE_MACHINE = {
    "ExpiredToken": "the credentials have expired",
    "InvalidAccessKeyId": "does not know this access key",
    "RequestTimeTooSkewed": "the clock of this machine is wrong",
}
OF_THE_BUCKET = {
    "NoSuchBucket": "there is no such bucket",
    "PermanentRedirect": "in another region",
    "Unauthorized": "Unauthorized",
}


def in_bucket(s3: S3, between: Proxy) -> Store:
    return Store(f"{s3.uri}/set", StorageSettings(endpoint_url=between.url, patience_s=0))


@pytest.mark.parametrize(("code", "said"), [*OF_THE_MACHINE.items(), *OF_THE_BUCKET.items()])
def test_what_every_row_would_suffer_here_is_no_rows_fault(s3: S3, between: Proxy, code: str, said: str) -> None:
    folder = in_bucket(s3, between)
    folder.replace("a.jpg", b"a")
    between.answer(404 if code == "NoSuchBucket" else 400, code)
    with pytest.raises(StorageError, match=f"{said}.*asked from {platform.node()}"):
        fetched(["a.jpg"], folder)
    assert fetched(["a.jpg"], folder) == [[b"a"]]


def test_what_another_bucket_suffers_is_the_fault_of_those_rows_that_name_it(s3: S3, between: Proxy) -> None:
    folder = in_bucket(s3, between)
    folder.replace("a.jpg", b"a")
    assert fetched(["s3://of-somebody-else/x.jpg", "a.jpg", "none.jpg"], folder) == ["NotFound", [b"a"], "NotFound"]
    between.answer(403, "AccessDenied")
    assert fetched(["a.jpg"], folder) == ["StorageError"]


def test_without_credentials_no_row_is_to_blame_wherever_its_shard_lies(
    s3: S3, between: Proxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "rows.jsonl", "{}")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    for folder in (in_bucket(s3, between), Store(str(tmp_path), in_bucket(s3, between).settings)):
        with pytest.raises(StorageError, match="found no credentials"):
            fetched([f"{s3.uri}/a.jpg"], folder)


def test_wrong_credentials_are_no_videos_fault(s3: S3, between: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = in_bucket(s3, between)
    folder.replace("a.mp4", b"a")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "another secret")
    forget_connections()
    with pytest.raises(StorageError, match="the secret key does not fit"):
        video_block(["a.mp4"], folder, 4, 100)


@pytest.mark.parametrize("is_mount_point_left", [False, True])
def test_a_disk_that_is_not_mounted_is_no_rows_fault(tmp_path: Path, is_mount_point_left: bool) -> None:
    mounted = Store(str(write(tmp_path / "disk/a.jpg", b"a").parent))
    assert fetched(["a.jpg", "b.jpg"], mounted) == [[b"a"], "NotFound"]
    (tmp_path / "disk/a.jpg").unlink()
    if not is_mount_point_left:
        (tmp_path / "disk").rmdir()
    with pytest.raises(StorageError, match=f"is empty or missing on {platform.node()}; was it removed, or is"):
        fetched(["a.jpg"], mounted)
    if find_spec("av"):
        with pytest.raises(StorageError, match="was it removed, or is a disk not mounted"):
            video_block(["a.mp4"], mounted, 4, 100)


def test_a_folder_of_a_bucket_that_is_gone_is_no_rows_fault(s3: S3, between: Proxy) -> None:
    folder = in_bucket(s3, between)
    folder.replace("deep/a.jpg", b"a")
    assert fetched(["a.jpg", "b.jpg"], folder) == ["NotFound", "NotFound"]
    assert between.count("GET", "list-type=2") == 1, "once for all rows of a unit"
    between.answer(404, "NoSuchKey")
    between.answer(403, "AccessDenied")
    assert fetched(["a.jpg"], folder) == ["NotFound"], "who may not list has to believe it"
    folder.delete(["deep/a.jpg"])
    bucket = Store(s3.uri, folder.settings)
    for mark in ("set/", "set/deep/", "set-aside/a.jpg"):
        bucket.replace(mark, b"")
    assert fetched(["a.jpg"], folder) == ["NotFound"], "there are folders still"
    bucket.delete(["set/deep/"])
    with pytest.raises(StorageError, match=f"{folder.uri} is empty or missing on .*; was it removed"):
        fetched(["a.jpg"], folder)


def test_a_row_that_names_a_folder_that_is_nowhere_is_to_blame_itself(tmp_path: Path) -> None:
    assert fetched(["/nowhere/a.jpg", "nowhere/a.jpg"], tmp_path) == ["NotFound", "NotFound"]
