"""What a local disk does that is full, old or strange."""

import errno
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pipeline.storage import local_disk
from pipeline.storage.probes import conditional_writes
from pipeline.storage.store import StorageError, Store


def test_a_full_disk_is_named_at_once_and_nothing_half_written_stays(small_disk: Path) -> None:
    store = Store(str(small_disk / "out"))
    assert store.publish("part-0", bytes(2**20)) is True
    began = time.monotonic()
    for write in (store.publish, store.replace):
        with pytest.raises(StorageError, match=rf"cannot (publish|replace) {small_disk}/out/part-1: the disk is full"):
            write("part-1", bytes(3 * 2**20))
    assert time.monotonic() - began < 30, "it was tried again"
    assert os.listdir(small_disk / "out") == ["part-0"]
    store.delete(["part-0"])
    assert store.publish("part-1", bytes(2**20)) is True


def test_on_a_disk_without_hard_links_files_are_whole_but_the_first_writer_is_not_promised_to_win(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def link(*_: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", link)
    store = Store(str(tmp_path))
    assert store.publish("part", b"first") is True and store.publish("part", b"second") is False
    assert store.read("part") == b"first" and conditional_writes(store) is False
    assert os.listdir(tmp_path) == ["part"]


def test_a_link_whose_reply_was_lost_on_the_way_from_a_file_server_is_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.link

    def link(source: str, target: str) -> None:
        real(source, target)
        raise FileExistsError(errno.EEXIST, "File exists")

    monkeypatch.setattr(os, "link", link)
    store = Store(str(tmp_path))
    assert store.publish("part", b"mine") is True
    monkeypatch.setattr(os, "link", real)
    assert store.publish("part", b"theirs") is False and store.read("part") == b"mine"


def test_a_probe_leaves_neither_files_nor_the_folders_that_it_made(tmp_path: Path) -> None:
    (tmp_path / "made before").mkdir()
    for above in ("made before", "absent/too"):
        assert conditional_writes(Store(f"{tmp_path}/{above}/out")) is True
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["made before"]


def test_folders_that_another_driver_clears_away_meanwhile_are_made_again(tmp_path: Path) -> None:
    store = Store(str(tmp_path / "out"))
    is_over = threading.Event()

    def probe() -> None:
        while not is_over.is_set():
            conditional_writes(store)

    with ThreadPoolExecutor(2) as drivers:
        probing = [drivers.submit(probe) for _ in range(2)]
        for number in range(200):
            assert store.publish(f"_triptych/probes/{number}", b"x")
            store.delete([f"_triptych/probes/{number}"])
        is_over.set()
    for one in probing:
        one.result()


def test_a_listing_and_a_look_up_agree_on_when_a_file_was_written_behind_a_link_too(tmp_path: Path) -> None:
    store = Store(str(tmp_path / "data"))
    store.publish("file", b"x")
    (tmp_path / "aside").write_bytes(b"y")
    (tmp_path / "data" / "link").symlink_to(tmp_path / "aside")
    (tmp_path / "data" / "to nothing").symlink_to(tmp_path / "absent")
    os.utime(tmp_path / "aside", (1, 1.25))
    by_path = {entry.path: entry for entry in store.list()}
    assert by_path["file"] == store.entry("file") and by_path["link"] == store.entry("link")
    assert by_path["link"].etag == "1970-01-01T00:00:01.250000Z" and "to nothing" in by_path


def test_a_folder_that_is_a_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StorageError, match=r"cannot publish .*file/part"):
        Store(str(tmp_path / "file")).publish("part", b"x")


def test_only_our_own_hidden_names_are_taken_for_unfinished_files() -> None:
    assert local_disk.is_unfinished(local_disk.unfinished_name("part-00001.parquet"))
    for name in (".part.unfinished", "part.unfinished", ".env", f"x{local_disk.unfinished_name('part')}"):
        assert not local_disk.is_unfinished(name)
