"""Kinds of addresses: what is installed works alike, what is not is named with its package."""

import sys
import threading
import uuid
from collections.abc import Iterator
from typing import Any

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from fsspec.registry import _registry

from pipeline.input.read import read_unit
from pipeline.input.units import ReadSettings
from pipeline.storage.file_systems import PACKAGES, open_file_system
from pipeline.storage.probes import conditional_writes
from pipeline.storage.store import StorageError, StorageSettings, Store
from tests.pipeline.inputs import plan_units, rows_as_members, tar_bytes
from tests.s3 import S3


def register(scheme: str, heeds_conditions: bool) -> None:
    """Make known a file system in memory whose addresses look like a hub's: several parts, none of them a server."""

    def path_of(path: str) -> str:
        return str(MemoryFileSystem._strip_protocol(path.removeprefix(f"{scheme}://")))

    def pipe_file(self: Any, path: str, value: bytes, mode: str = "overwrite", **options: Any) -> None:
        # Some S3 gateways take the condition of a write and do not heed it.
        heeded = mode if heeds_conditions else "overwrite"
        MemoryFileSystem.pipe_file(self, path, value, mode=heeded, **options)

    kept: dict[str, Any] = {"store": {}, "pseudo_dirs": [""]}
    content = {"protocol": scheme, "_strip_protocol": staticmethod(path_of), "pipe_file": pipe_file, **kept}
    fsspec.register_implementation(scheme, type(scheme, (MemoryFileSystem,), content), clobber=True)


@pytest.fixture(autouse=True)
def stand_ins() -> Iterator[None]:
    register("shelf", heeds_conditions=True)
    register("lastwins", heeds_conditions=False)
    yield
    for scheme in ("shelf", "lastwins"):
        _registry.pop(scheme)


def test_an_address_of_several_parts_is_listed_and_read_below_itself() -> None:
    root = f"shelf://datasets/someone/{uuid.uuid4().hex}/data"
    store = Store(root)
    rows = [{"key": f"{number}", "jpg": b"image", "txt": b"text"} for number in range(3)]
    store.publish("train/a.tar", tar_bytes(rows_as_members(rows)))
    assert [entry.path for entry in store.list()] == ["train/a.tar"]
    for uri in (root, f"{root}/train/a.tar", f"{root}/*/*.tar"):
        settings = ReadSettings(uri=uri)
        (unit,) = plan_units(settings, 10)
        assert read_unit(unit, settings).num_rows == 3


def test_a_store_that_does_not_heed_the_condition_is_found_out_and_left_clean() -> None:
    store = Store(f"lastwins://{uuid.uuid4().hex}")
    assert conditional_writes(store) is False
    assert store.list() == []


@pytest.mark.parametrize("scheme", ["gs", "az", "abfs", "oci"])
def test_a_missing_package_is_named_with_the_command_that_installs_it(
    scheme: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = PACKAGES[scheme]
    monkeypatch.setitem(sys.modules, package, None)  # importing it fails
    expected = f"cannot reach {scheme}://bucket/x: {scheme}:// needs the package {package}; pip install {package}"
    for action in (Store.list, Store.sweep, lambda store: store.read("y"), lambda store: store.publish("y", b"")):
        with pytest.raises(StorageError) as caught:
            action(Store(f"{scheme}://bucket/x"))
        assert str(caught.value) == expected
    with pytest.raises(StorageError, match="pip install"):
        plan_units(ReadSettings(uri=f"{scheme}://bucket/x/*.tar"), 10)


@pytest.mark.parametrize("uri", ["s4://bucket/x", "simplecache::s3://bucket/x"])
def test_an_unknown_kind_of_address_lists_the_known_ones(uri: str) -> None:
    with pytest.raises(
        StorageError, match=r"unknown kind of address .*, expected a local path, s3://, gs://, .*memory"
    ):
        Store(uri).list()


def test_a_hub_address_needs_no_other_package() -> None:
    assert open_file_system("hf://datasets/someone/something", StorageSettings()) is not None


def test_threads_share_one_client(s3: S3) -> None:
    opened: list[Any] = []
    threads = [threading.Thread(target=lambda: opened.append(open_file_system(s3.uri, s3.settings))) for _ in range(4)]
    for thread in threads:
        thread.start()
        thread.join()
    assert len({id(one) for one in opened}) == 1
