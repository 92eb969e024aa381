"""What only a real S3 server shows: multipart objects, pages of a listing, refusals."""

import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import botocore.session
import pytest

from pipeline.storage.deletion import delete_at_once
from pipeline.storage.file_systems import open_file_system
from pipeline.storage.store import NotFound, StorageError, StorageSettings, Store, Unreachable
from tests.proxy import proxy
from tests.s3 import S3, forget_connections

PART_BYTES = 8 * 2**20


@pytest.fixture
def fresh_connections() -> Iterator[None]:
    """Connections keep the credentials that they began with: forget them before a test with others, and after it."""
    forget_connections()
    yield
    forget_connections()


def upload_in_parts(s3: S3, key: str, data: bytes) -> None:
    client = botocore.session.get_session().create_client("s3", endpoint_url=s3.endpoint_url)
    try:
        upload = client.create_multipart_upload(Bucket=s3.bucket, Key=key)["UploadId"]
        pieces = [data[start : start + PART_BYTES] for start in range(0, len(data), PART_BYTES)]
        tags = [
            client.upload_part(Bucket=s3.bucket, Key=key, UploadId=upload, PartNumber=number, Body=piece)["ETag"]
            for number, piece in enumerate(pieces, 1)
        ]
        parts = [{"PartNumber": number, "ETag": tag} for number, tag in enumerate(tags, 1)]
        client.complete_multipart_upload(Bucket=s3.bucket, Key=key, UploadId=upload, MultipartUpload={"Parts": parts})
    finally:
        client.close()


def test_an_object_that_was_uploaded_in_parts_reads_like_any_other(s3: S3) -> None:
    data = os.urandom(24 * 2**20)
    upload_in_parts(s3, "large.bin", data)
    store = Store(s3.uri, s3.settings)
    entry = store.entry("large.bin")
    assert entry.size == len(data) and (entry.etag or "").endswith("-3")
    assert store.read("large.bin") == data
    across = slice(PART_BYTES - 5, PART_BYTES + 7)
    assert store.read("large.bin", across.start, across.stop) == data[across]
    assert store.read("large.bin", len(data) - 3, len(data) + 100) == data[-3:]
    assert store.read("large.bin", len(data) + 1, len(data) + 2) == b""
    with store.open("large.bin") as file:
        assert file.read(10) == data[:10]
        file.seek(-10, os.SEEK_END)
        assert file.read() == data[-10:]
        file.seek(across.start)
        assert file.read(12) == data[across]
        file.seek(0)
        assert file.read() == data


def test_a_listing_of_several_pages_is_whole_and_in_order(s3: S3) -> None:
    store = Store(f"{s3.uri}/many", s3.settings)
    names = [f"{number % 7}/{number:05}" for number in range(1200)]
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda name: store.replace(name, b"x"), names))
    assert [entry.path for entry in store.list()] == sorted(names)
    assert [entry.path for entry in store.glob("3/*")] == sorted(name for name in names if name.startswith("3/"))


Action = Callable[[Store], object]
ACTIONS: dict[str, Action] = {
    "list": lambda store: store.list(),
    "glob": lambda store: store.glob("*.tar"),
    "entry": lambda store: store.entry("x"),
    "read": lambda store: store.read("x"),
    "open": lambda store: store.open("x").close(),
    "publish": lambda store: store.publish("x", b"1"),
    "replace": lambda store: store.replace("x", b"1"),
    "delete": lambda store: store.delete(["x"]),
}


@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.usefixtures("fresh_connections")
def test_a_wrong_secret_is_refused_at_once_with_the_remedy(
    s3: S3, monkeypatch: pytest.MonkeyPatch, action: str
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "quite-another-secret")
    began = time.monotonic()
    with pytest.raises(
        StorageError, match=rf"s3://{s3.bucket}.*check AWS_(SECRET_ACCESS_KEY|ACCESS_KEY_ID and)"
    ) as caught:
        ACTIONS[action](Store(s3.uri, s3.settings))
    assert not isinstance(caught.value, Unreachable)
    assert time.monotonic() - began < 30, "it was tried again"


@pytest.mark.usefixtures("fresh_connections")
def test_an_unknown_access_key_is_refused_with_the_remedy(s3: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "nobody")
    with pytest.raises(StorageError, match="does not know this access key; check AWS_ACCESS_KEY_ID"):
        Store(s3.uri, s3.settings).list()


@pytest.mark.usefixtures("fresh_connections")
def test_absent_credentials_are_named(s3: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)
    monkeypatch.setenv("AWS_CONFIG_FILE", os.devnull)
    with pytest.raises(StorageError, match=r"found no credentials; set AWS_ACCESS_KEY_ID .* or storage.anon: true"):
        Store(s3.uri, s3.settings).read("x")


@pytest.mark.usefixtures("fresh_connections")
def test_credentials_with_a_line_break_are_refused_at_once(s3: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SESSION_TOKEN", "a-token-that-is\nbroken-in-two")
    began = time.monotonic()
    with pytest.raises(StorageError, match="the credentials hold a line break") as caught:
        Store(s3.uri, s3.settings).read("x")
    assert time.monotonic() - began < 30 and "a-token" not in str(caught.value)


@pytest.mark.parametrize("action", sorted(set(ACTIONS) - {"delete"}))
def test_a_missing_bucket_is_named(s3: S3, action: str) -> None:
    with pytest.raises(NotFound, match=r"s3://no-such-bucket/.*: there is no such bucket; check the address"):
        ACTIONS[action](Store("s3://no-such-bucket/data", s3.settings))


@pytest.mark.parametrize("action", ["entry", "read", "open"])
def test_a_missing_key_is_named(s3: S3, action: str) -> None:
    with pytest.raises(NotFound, match=rf"s3://{s3.bucket}/x: "):
        ACTIONS[action](Store(s3.uri, s3.settings))


@pytest.mark.parametrize("action", ["list", "read", "publish"])
def test_a_wrong_endpoint_is_named_with_the_setting(s3: S3, action: str) -> None:
    store = Store(s3.uri, StorageSettings(endpoint_url="http://127.0.0.1:9", patience_s=0.5))
    with pytest.raises(Unreachable, match=rf"{s3.uri}.*: check storage\.endpoint_url.*:9.*gave up after \d s"):
        ACTIONS[action](store)


def test_an_endpoint_that_is_no_s3_server_gives_an_error_with_its_name(s3: S3) -> None:
    with pytest.raises(StorageError, match=f"cannot read {s3.uri}/x"):
        Store(s3.uri, StorageSettings(endpoint_url="ftp://127.0.0.1:9", patience_s=0)).read("x")


@pytest.mark.ray  # too slow for the default level: 110 MB
def test_a_large_object_is_one_put(s3: S3) -> None:
    store = Store(s3.uri, s3.settings)
    data = bytes(110 * 2**20)
    assert store.publish("large", data)
    assert "-" not in (store.entry("large").etag or "-"), "a dash marks a multipart upload"
    assert store.size("large") == len(data)


def test_an_object_that_won_and_was_removed_before_we_looked_whose_it_is_was_there(
    s3: S3, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(s3.uri, s3.settings)
    assert store.publish("unit.parquet", b"theirs")
    files = open_file_system(store.uri, store.settings)
    pipe_file = files.pipe_file

    def late(*arguments: Any, **options: Any) -> None:
        try:
            pipe_file(*arguments, **options)
        finally:
            files.rm_file(f"{s3.bucket}/unit.parquet")

    monkeypatch.setattr(files, "pipe_file", late)
    assert not store.publish("unit.parquet", b"ours")
    assert not store.exists("unit.parquet")


def test_many_objects_go_in_few_requests_and_those_that_are_gone_are_no_error(s3: S3) -> None:
    store = Store(f"{s3.uri}/out", s3.settings)
    paths = [f"a b/{number:02d} ü&<.txt" for number in range(12)]
    for path in [*paths, "kept"]:
        store.publish(path, b"x")
    with proxy(s3.endpoint_url) as between:
        through = Store(store.uri, StorageSettings(endpoint_url=between.url))
        through.delete([*paths, *(f"never there/{number}" for number in range(1500))])
        assert (between.count("POST"), between.count("DELETE")) == (2, 0)
        assert [entry.path for entry in store.list()] == ["kept"]
        through.delete([])
        through.delete(["kept"])
        assert (between.count("POST"), between.count("DELETE")) == (2, 1)


def test_what_a_server_would_not_delete_is_tried_alone_and_its_reason_is_heard(s3: S3) -> None:
    store = Store(s3.uri, s3.settings)
    paths = ["one", "two", "three"]
    with proxy(s3.endpoint_url) as between:
        through = Store(s3.uri, StorageSettings(endpoint_url=between.url, patience_s=60))
        for path in paths:
            store.publish(path, b"x")
        between.answer(501, "NotImplemented")
        through.delete(paths)
        assert store.list() == [] and between.count("DELETE") == 3
        for path in paths:
            store.publish(path, b"x")
        between.answer(503, "SlowDown", times=2)
        through.delete(paths)
        assert store.list() == [] and between.count("DELETE") == 3
        between.answer(501, "NotImplemented")
        between.answer(403, "AccessDenied")
        with pytest.raises(StorageError, match=rf"cannot delete {s3.uri}/one: .*AccessDenied"):
            through.delete(paths)


def test_objects_that_the_server_names_as_not_deleted_are_not_passed_over() -> None:
    class Client:
        """Answers as S3 does that removes one of two."""

        def call_s3(self, method: str, Bucket: str, Delete: dict[str, Any]) -> dict[str, Any]:
            assert (method, Bucket, Delete["Objects"]) == ("delete_objects", "b", [{"Key": "x/1"}, {"Key": "x/2"}])
            return {"Errors": [{"Key": "x/2", "Code": "InternalError", "Message": "try again"}]}

    assert delete_at_once(Client(), ["b/x/1", "b/x/2"]) == ["b/x/2"]


def test_an_object_of_pieces_is_put_whole_over_an_older_one(s3: S3) -> None:
    store = Store(f"s3://{s3.bucket}/pieces", s3.settings)
    store.replace("a", b"old")
    store.replace_by_pieces("a", (bytes([number]) * 2**20 for number in range(9)))
    assert store.read("a") == b"".join(bytes([number]) * 2**20 for number in range(9))
