"""What a local disk does that is full, old or strange."""

import errno
import os
import time
from pathlib import Path

import pytest

from pipeline.storage import local_disk
from pipeline.storage.store import StorageError, Store, conditional_writes


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
    assert sorted(os.listdir(tmp_path)) == ["_triptych", "part"]
    assert list(tmp_path.glob("_triptych/**/*.*")) == []


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


def test_a_folder_that_is_a_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StorageError, match=r"cannot publish .*file/part"):
        Store(str(tmp_path / "file")).publish("part", b"x")


def test_only_our_own_hidden_names_are_taken_for_unfinished_files() -> None:
    assert local_disk.is_unfinished(local_disk.unfinished_name("part-00001.parquet"))
    for name in (".part.unfinished", "part.unfinished", ".env", f"x{local_disk.unfinished_name('part')}"):
        assert not local_disk.is_unfinished(name)
