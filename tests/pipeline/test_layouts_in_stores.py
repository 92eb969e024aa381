"""Layouts that other tools write give the same rows in a bucket as on a disk, for few requests."""

import itertools
import random
import zipfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import botocore.session
import pyarrow as pa
import pytest

from pipeline.input.read import read_unit
from pipeline.input.units import InputPlan, ReadSettings, plan_input
from pipeline.storage.store import StorageSettings, Store
from tests.pipeline.inputs import faults, write
from tests.pipeline.layouts import LAYOUTS, ODD_NAMES, arrow, jsonl, noise, zip_of
from tests.proxy import Proxy, proxy
from tests.s3 import ENVIRONMENT, forget_connections, make_bucket

BUCKET = "layouts"
# Where addresses may stand in a file.
TEXTS = (".jsonl", ".csv", ".lst")

_folders = itertools.count()


@dataclass(frozen=True)
class Place:
    """A folder of a bucket, reached past the proxy that `between` is; what is read goes through it."""

    store: Store
    between: Proxy

    def upload(self, folder: Path) -> int:
        """Copy a folder; addresses in texts are then of the bucket. Return the bytes of all files."""
        size = 0
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            data = path.read_bytes()
            data = data.replace(str(folder).encode(), self.store.uri.encode()) if path.suffix in TEXTS else data
            self.store.replace(str(path.relative_to(folder)), data)
            size += len(data)
        return size

    def settings(self, **settings: Any) -> ReadSettings:
        """Return settings that read through the proxy."""
        through = {"uri": self.store.uri, "storage": {"endpoint_url": self.between.url}}
        return ReadSettings.model_validate(through | settings)

    def requests(self) -> Counter[str]:
        """Count what was asked so far."""
        return Counter("LIST" if "list-type=2" in line else line.split()[0] for line in self.between.requests)


@pytest.fixture(scope="module")
def bucket(s3_endpoint: str) -> Iterator[Place]:
    """One bucket for all tests of this file: to open connections anew takes longer than most of them."""
    forget_connections()
    with pytest.MonkeyPatch.context() as environment, proxy(s3_endpoint) as between:
        for name, value in ENVIRONMENT.items():
            environment.setenv(name, value)
        make_bucket(s3_endpoint, BUCKET)
        yield Place(Store(f"s3://{BUCKET}", StorageSettings(endpoint_url=s3_endpoint)), between)
    forget_connections()


@pytest.fixture
def place(bucket: Place) -> Place:
    """A folder of this test's own; the proxy counts from 0."""
    bucket.between.requests.clear()
    bucket.between.bytes_down = 0
    return replace(bucket, store=replace(bucket.store, uri=f"{bucket.store.uri}/{next(_folders)}"))


def moved(value: Any, folder: Path, uri: str) -> Any:
    """Return settings, rows or messages as they are in the bucket."""
    if isinstance(value, dict):
        return {name: moved(one, folder, uri) for name, one in value.items()}
    if isinstance(value, list):
        return [moved(one, folder, uri) for one in value]
    return value.replace(str(folder), uri) if isinstance(value, str) else value


def read_all(read: ReadSettings, unit_rows: int = 4) -> tuple[InputPlan, list[dict[str, Any]]]:
    planned = plan_input(read, unit_rows)
    return planned, [row for unit in planned.units for row in read_unit(unit, read).to_pylist()]


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_bucket_gives_the_rows_of_a_disk(name: str, tmp_path: Path, place: Place) -> None:
    settings = LAYOUTS[name](tmp_path)
    place.upload(tmp_path)
    here, expected = read_all(ReadSettings.model_validate(settings))
    there, rows = read_all(place.settings(**moved(settings, tmp_path, place.store.uri)))
    assert len(rows) >= 3 and faults(rows) == [None] * len(rows) and all(row["images"] for row in rows)
    assert rows == moved(expected, tmp_path, place.store.uri)
    assert there.notes == moved(here.notes, tmp_path, place.store.uri)
    assert there.warnings == moved(here.warnings, tmp_path, place.store.uri)
    asked = place.requests()
    num_units, has_table = len(there.units), "join" in settings
    assert asked["LIST"] <= 3 + has_table * 2 * (1 + num_units), "the input is listed once"
    assert asked["HEAD"] <= 2 + num_units * (1 + has_table), "no image is looked up before it is fetched"
    num_files = sum(3 * len(row["images"]) for row in rows)  # a picture, its text and its fields
    assert asked["GET"] <= num_files + 4 * (num_units + len({unit.shard for unit in there.units}))


def test_a_folder_that_a_console_made_is_no_picture(place: Place) -> None:
    place.store.replace("a/1.png", noise(0))
    client = botocore.session.get_session().create_client("s3", endpoint_url=place.store.settings.endpoint_url)
    client.put_object(Bucket=BUCKET, Key=f"{place.store.uri.rpartition('/')[2]}/a/", Body=b"")
    client.close()
    assert [row["key"] for row in read_all(place.settings())[1]] == ["a/1.png"]


def test_images_are_named_by_path_by_key_and_over_http(place: Place) -> None:
    client = botocore.session.get_session().create_client("s3", endpoint_url=place.store.settings.endpoint_url)
    folder = place.store.uri.rpartition("/")[2]
    rows = []
    for number, name in enumerate(ODD_NAMES):
        place.store.replace(f"p/{name}.png", noise(number))
        key = {"Bucket": BUCKET, "Key": f"{folder}/p/{name}.png"}
        address = client.generate_presigned_url("get_object", Params=key)
        rows.append({"image": [f"../p/{name}.png", f"{place.store.uri}/p/{name}.png", address, {"url": address}]})
    client.close()
    place.store.replace("lines/a.jsonl", jsonl(*rows).encode())
    _, found = read_all(place.settings(uri=f"{place.store.uri}/lines"))
    assert faults(found) == [None] * len(ODD_NAMES)
    assert [row["images"] for row in found] == [[noise(number)] * 4 for number in range(len(ODD_NAMES))]


def test_a_glob_lists_what_may_match_once(place: Place) -> None:
    for path in ("in [1]/a?.txt", "in [1]/ab.txt", "in 1/a.txt", "x-1.txt", "x-2.txt", "y.txt", "x-1.txt/deep.txt"):
        place.store.replace(path, path.encode())
    through = Store(place.store.uri, place.settings().storage)
    for pattern, expected, begins, is_flat in (
        ("x-*.txt", ["x-1.txt", "x-2.txt"], "%2Fx-&", True),
        ("x-1.txt/*", ["x-1.txt/deep.txt"], "%2Fx-1.txt%2F&", True),
        ("in*/*.txt", ["in 1/a.txt", "in [1]/a?.txt", "in [1]/ab.txt"], "%2Fin&", False),
        ("**/deep.txt", ["x-1.txt/deep.txt"], "%2F&", False),
    ):
        place.between.requests.clear()
        assert [entry.path for entry in through.glob(pattern)] == expected
        (line,) = place.between.requests
        assert begins in line and ("delimiter" in line) is is_flat
    for uri, texts in (
        ("in [1]", ["in [1]/a?.txt", "in [1]/ab.txt"]),
        ("in [1]/a?.txt", ["in [1]/a?.txt"]),
        ("in [[]1]/a?.txt", ["in [1]/a?.txt", "in [1]/ab.txt"]),
        ("in [01]/*", ["in 1/a.txt"]),
    ):
        _, rows = read_all(place.settings(uri=f"{place.store.uri}/{uri}"))
        assert [row["text"] for row in rows] == texts


def numbered(count: int, size: int) -> list[bytes]:
    chance = random.Random(0)
    return [chance.randbytes(size) for _ in range(count)]


def test_an_archive_in_no_order_is_read_once(tmp_path: Path, place: Place) -> None:
    files = numbered(300, 40_000)
    order = random.Random(1).sample(range(300), 300)
    members = {f"{n}.png": files[n] for n in order} | {f"{n}.txt": str(n).encode() for n in order[::3]}
    zip_of(tmp_path / "a.zip", members, zipfile.ZIP_STORED)
    size = place.upload(tmp_path)
    planned, rows = read_all(place.settings(), 50)
    assert [(row["key"], row["images"]) for row in rows] == [(f"{n}", [files[n]]) for n in order]
    assert [row["text"] for row in rows] == [None if number % 3 else str(n) for number, n in enumerate(order)]
    assert place.between.bytes_down < 1.2 * size and len(place.between.requests) < 8 * len(planned.units)


@pytest.mark.parametrize("batch_rows", [10, 60, 200])
def test_record_batches_are_fetched_once(
    batch_rows: int, tmp_path: Path, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.storage.held_bytes.tempfile.gettempdir", lambda: str(tmp_path))
    table = pa.table({"image": numbered(200, 50_000), "n": list(range(200))})
    arrow(tmp_path / "in/a.arrow", [table.slice(start, batch_rows) for start in range(0, 200, batch_rows)])
    size = place.upload(tmp_path / "in")
    read = place.settings()
    units = plan_input(read, 45).units
    place.between.bytes_down = 0
    assert [n for unit in units for n in read_unit(unit, read)["n"].to_pylist()] == list(range(200))
    assert place.between.bytes_down < 1.15 * size and len(units) <= 7


def test_a_shard_is_looked_up_once_for_each_unit(tmp_path: Path, place: Place) -> None:
    write(tmp_path / "a.jsonl", jsonl(*({"text": str(n)} for n in range(12))))
    place.upload(tmp_path)
    planned, _ = read_all(place.settings(uri=f"{place.store.uri}/a.jsonl"))
    assert len(planned.units) == 3 and place.requests() == {"HEAD": 1 + 3, "GET": 1 + 3}
