"""Listings: by the page, and of ten million files no more is kept than is needed."""

import tracemalloc
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from pipeline.storage import listing
from pipeline.storage.listing import Entry, entries_of
from pipeline.storage.store import StorageSettings, Store
from tests.proxy import proxy
from tests.s3 import S3, forget_connections

NUM_FILES = 50_000


def as_s3_lists() -> Iterator[dict[str, Any]]:
    for number in range(NUM_FILES):
        name = f"bucket/photos/{number % 100:03d}/{number:012d}.jpg"
        tag = f'"{number:032x}"'
        times = {"LastModified": datetime(2026, 1, 1, second=number % 60, tzinfo=UTC), "StorageClass": "STANDARD"}
        yield {"Key": name, "name": name, "size": 60_000 + number, "type": "file", "ETag": tag, **times}


def test_a_file_in_a_listing_takes_little_memory() -> None:
    tracemalloc.start()
    try:
        entries = entries_of("bucket/photos", as_s3_lists())
        bytes_each = tracemalloc.get_traced_memory()[1] / NUM_FILES
    finally:
        tracemalloc.stop()
    assert entries[0] == Entry("000/000000000000.jpg", 60_000, "0" * 32) and len(entries) == NUM_FILES
    assert bytes_each < 320


def test_a_page_that_stumbles_is_asked_for_again_and_no_other(s3: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "PAGE_FILES", 3)
    names = [f"a b/{number}+é.jpg" for number in range(7)]
    with proxy(s3.endpoint_url) as between:
        store = Store(f"{s3.uri}/set", StorageSettings(endpoint_url=between.url))
        for name in names:
            store.replace(name, b"x")
        Store(s3.uri, store.settings).replace("set-aside.jpg", b"beside the folder, not in it")
        found = store._found("")
        first = next(found)["name"]
        between.answer(503, "SlowDown")
        assert [first, *(each["name"] for each in found)] == [f"{s3.bucket}/set/{name}" for name in names]
        assert between.count("GET", "list-type=2") == 3 + 1
        assert [entry.path for entry in store.list("a b")] == names
    forget_connections()
