import os
import pickle
import subprocess
import sys
import threading
import time
import uuid
from pathlib import Path

import pytest

from pipeline.storage import local_disk
from pipeline.storage.probes import conditional_writes
from pipeline.storage.store import (
    NotFound,
    StorageSettings,
    Store,
)
from tests.s3 import S3


@pytest.fixture(params=["local", "memory", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """The same promises hold on every kind of store."""
    if request.param == "local":
        return Store(str(tmp_path / "data"))
    if request.param == "memory":
        return Store(f"memory://{uuid.uuid4().hex}")
    server: S3 = request.getfixturevalue("s3")
    return Store(f"{server.uri}/data", server.settings, patience_s=20)


def test_what_is_published_can_be_listed_and_read(store: Store) -> None:
    assert store.list() == []
    assert store.publish("b/two.bin", b"second") and store.publish("a.bin", b"")
    assert [(entry.path, entry.size) for entry in store.list()] == [("a.bin", 0), ("b/two.bin", 6)]
    assert [entry.path for entry in store.list("b")] == ["b/two.bin"]
    assert store.list("absent") == []
    assert store.read("b/two.bin") == b"second"
    assert store.read("b/two.bin", 1, 4) == b"eco"
    assert store.read("a.bin") == b""
    assert store.size("b/two.bin") == 6
    with store.open("b/two.bin") as file:
        file.seek(3)
        assert file.read() == b"ond"


def test_a_listing_is_never_stale(store: Store) -> None:
    store.publish("one", b"1")
    assert len(store.list()) == 1
    Store(store.uri, store.settings).publish("two", b"2")
    assert len(store.list()) == 2
    store.delete(["one", "two", "three"])
    assert store.list() == []


def test_the_first_writer_wins(store: Store) -> None:
    assert store.publish("part", b"first") is True
    assert store.publish("part", b"second") is False
    assert store.read("part") == b"first"


@pytest.mark.parametrize("store", ["local", "s3"], indirect=True)  # memory:// has no threads to race
def test_exactly_one_of_many_simultaneous_writers_wins(store: Store) -> None:
    won: list[int] = []
    start = threading.Barrier(8)

    def write(number: int) -> None:
        start.wait()
        if store.publish("race", b"%d" % number * 1000):
            won.append(number)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1
    assert store.read("race") == b"%d" % won[0] * 1000


def test_replace_writes_over(store: Store) -> None:
    store.replace("part", b"first")
    store.replace("part", b"second")
    assert store.read("part") == b"second"


def test_only_files_exist(store: Store) -> None:
    store.publish("folder/file", b"x")
    assert store.exists("folder/file")
    assert not store.exists("folder/other")
    assert not store.exists("folder")


def test_an_absent_file_is_named_with_its_uri(store: Store) -> None:
    with pytest.raises(NotFound, match=r"absent\.bin"):
        store.read("absent.bin")
    with pytest.raises(NotFound, match=r"absent\.bin"):
        store.open("absent.bin")


def test_names_keep_their_odd_characters(store: Store) -> None:
    store.publish("a b/ü [1]#?.txt", b"odd")
    assert [entry.path for entry in store.list()] == ["a b/ü [1]#?.txt"]
    assert store.read("a b/ü [1]#?.txt") == b"odd"
    store.delete(["a b/ü [1]#?.txt"])
    assert store.list() == []


def test_a_glob_stays_in_its_folder(store: Store) -> None:
    for path in ("x/1.tar", "x/2.tar", "x/3.txt", "x/y/4.tar"):
        store.publish(path, b"x")
    assert [entry.path for entry in store.glob("x/*.tar")] == ["x/1.tar", "x/2.tar"]
    assert [entry.path for entry in store.glob("absent/*.tar")] == []


def test_the_probe_sees_that_the_first_writer_wins_and_leaves_nothing(store: Store) -> None:
    assert conditional_writes(store) is True
    assert store.list() == []


def test_a_store_travels_by_pickle(store: Store) -> None:
    store.publish("x", b"1")
    assert pickle.loads(pickle.dumps(store)).read("x") == b"1"


def test_a_relative_folder_means_the_same_in_another_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    store = Store("data")
    store.publish("x", b"1")
    monkeypatch.chdir("/")
    assert store.read("x") == b"1"


def test_writing_on_a_local_disk_leaves_no_other_files(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    store.publish("x", b"1")
    store.publish("x", b"2")
    store.replace("x", b"3")
    assert os.listdir(tmp_path) == ["x"]


def test_what_another_machine_left_is_hidden_and_swept_once_old(tmp_path: Path) -> None:
    leftover = tmp_path / f".part.{'0' * 12}-1-{uuid.uuid4().hex[:8]}.unfinished"
    leftover.write_bytes(b"half")
    store = Store(str(tmp_path))
    assert store.list() == []
    assert store.sweep() == 0
    os.utime(leftover, (time.time() - 7200,) * 2)
    assert store.sweep() == 1
    assert not leftover.exists()


KILLED_WHILE_WRITING = """
import os, pathlib, signal, sys
from pipeline.storage import local_disk
with local_disk._written(pathlib.Path(sys.argv[1]), [b"half"]):
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_process_left_is_swept_at_once_and_what_a_living_one_writes_is_not(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-c", KILLED_WHILE_WRITING, str(tmp_path / "sub" / "part")], check=False)
    mine = tmp_path / local_disk.unfinished_name("mine")
    mine.write_bytes(b"half")
    store = Store(str(tmp_path))
    assert len(list((tmp_path / "sub").iterdir())) == 1 and store.list() == []
    assert store.sweep() == 1
    assert list((tmp_path / "sub").iterdir()) == [] and mine.exists()


def test_probes_that_were_left_are_swept_once_old(store: Store) -> None:
    store.publish(f"_triptych/probes/{time.time() - 7200:.0f}-a", b"first")
    store.publish(f"_triptych/probes/{time.time():.0f}-b", b"first")
    assert store.sweep() == 1
    assert [entry.path[-1] for entry in store.list()] == ["b"]


def test_settings_have_no_place_for_credentials() -> None:
    with pytest.raises(ValueError, match="secret"):
        StorageSettings.model_validate({"secret": "x"})


def test_a_published_object_whose_reply_was_lost_counts_as_ours(s3: S3) -> None:
    store = Store(s3.uri, s3.settings)
    assert store._put_new("part", b"content", "me")
    assert store._put_new("part", b"content", "me") is True
    assert store._put_new("part", b"content", "someone else") is False


def test_two_slashes_in_a_key_are_not_one() -> None:
    bucket = Store(f"memory://{uuid.uuid4().hex}")
    for name in ("a/x.jpg", "a//x.jpg", "a//deep/x.jpg", "a///x.jpg"):
        bucket.replace(name, name.encode())
    deep = Store(f"{bucket.uri}/a//")
    assert [entry.path for entry in bucket.list("a")] == ["a///x.jpg", "a//deep/x.jpg", "a//x.jpg", "a/x.jpg"]
    assert [entry.path for entry in deep.list()] == ["/x.jpg", "deep/x.jpg", "x.jpg"]
    assert [entry.path for entry in deep.glob("*.jpg")] == ["x.jpg"]
    assert deep.read("x.jpg") == b"a//x.jpg" and deep.name("x.jpg") == f"{bucket.uri}/a//x.jpg"
    assert Store(f"{bucket.uri}/a").read("/x.jpg") == b"a//x.jpg"
    assert bucket.folder_of("a//x.jpg") == deep and bucket.folder_of("a/x.jpg") == Store(f"{bucket.uri}/a")


def test_a_slash_at_the_end_of_a_folder_means_nothing(tmp_path: Path) -> None:
    for uri in (f"memory://{uuid.uuid4().hex}/a", str(tmp_path)):
        Store(uri).replace("x.jpg", b"x")
        assert Store(f"{uri}/") == Store(uri) and Store(f"{uri}/").read("x.jpg") == b"x"
    assert Store("/").uri == "/" and Store("memory://").uri == "memory://"
