"""A model's files come to a machine once, whole, and stay what they were."""

import logging
import os
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.storage import model_files
from pipeline.storage.model_folder import local_copy
from pipeline.storage.store import NotFound, StorageError, StorageSettings, Store
from tests.proxy import Proxy
from tests.s3 import S3

FETCH = """
import sys
from pipeline.storage.model_folder import local_copy
from pipeline.storage.store import StorageSettings
print(local_copy(sys.argv[1], StorageSettings(endpoint_url=sys.argv[2])))
"""


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TRIPTYCH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def remote() -> Store:
    """A model of two files on a store without a network."""
    store = Store(f"memory://{uuid.uuid4().hex}/tiny-3.2-b")
    store.publish("config.json", b"{}")
    store.publish("model.safetensors", b"123")
    return store


def fetching(uri: str, endpoint_url: str) -> "subprocess.Popen[str]":
    command = [sys.executable, "-c", FETCH, uri, endpoint_url]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def test_a_local_model_stays_where_it_is(tmp_path: Path) -> None:
    assert local_copy(str(tmp_path), StorageSettings()) == str(tmp_path)


def test_a_remote_model_is_copied_once_and_again_when_it_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    remote = Store(f"memory://{uuid.uuid4().hex}/tiny")
    remote.publish("config.json", b"{}")
    remote.publish("model.safetensors", b"123")
    first = local_copy(remote.uri, StorageSettings())
    assert Path(first, "config.json").read_bytes() == b"{}"
    assert Path(first, "model.safetensors").read_bytes() == b"123"
    Path(first, "mark").touch()
    assert local_copy(remote.uri, StorageSettings()) == first
    assert Path(first, "mark").exists(), "the second call copied again"
    remote.replace("config.json", b"{ }")
    second = local_copy(remote.uri, StorageSettings())
    assert second != first
    assert Path(second, "config.json").read_bytes() == b"{ }"


def test_of_a_remote_model_only_what_is_read_is_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    remote = Store(f"memory://{uuid.uuid4().hex}/tiny")
    wanted = ["chat_template.jinja", "config.json", "model.safetensors"]
    for name in [*wanted, "original/consolidated.00.pth", "original/params.json", "README.md", "model.bin", ".x.json"]:
        remote.publish(name, b"{}")
    copy = local_copy(remote.uri, StorageSettings())
    assert sorted(os.listdir(copy)) == wanted
    remote.replace("original/consolidated.00.pth", b"{ }")
    assert local_copy(remote.uri, StorageSettings()) == copy


def test_more_chat_templates_are_copied_from_the_folder_where_they_stand(cache: Path) -> None:
    remote = Store(f"memory://{uuid.uuid4().hex}/tiny")
    more = "additional_chat_templates"
    names = ["config.json", f"{more}/default.jinja", f"{more}/notes.txt", f"{more}/a/b.jinja", "other/c.jinja"]
    for name in names:
        remote.publish(name, b"{}")
    copy = Path(local_copy(remote.uri, StorageSettings()))
    there = {path.relative_to(copy).as_posix() for path in copy.rglob("*") if path.is_file()}
    assert there == {"config.json", f"{more}/default.jinja"}
    (copy / more / "default.jinja").unlink()
    assert local_copy(remote.uri, StorageSettings()) == str(copy) and (copy / more / "default.jinja").is_file()


def test_a_half_copied_model_is_never_used_and_what_is_whole_of_it_is_kept(remote: Store) -> None:
    whole = Path(local_copy(remote.uri, StorageSettings()))
    half = Path(f"{whole}.unfinished")
    whole.rename(half)
    (half / "left over").touch()
    (half / "config.json").write_bytes(b"{")
    kept = (half / "model.safetensors").stat().st_ino
    assert local_copy(remote.uri, StorageSettings()) == str(whole)
    assert sorted(os.listdir(whole)) == ["config.json", "model.safetensors"]
    assert (whole / "config.json").read_bytes() == b"{}" and (whole / "model.safetensors").stat().st_ino == kept


@pytest.mark.parametrize("damage", [b"12", b"321", None], ids=["shorter", "other", "gone"])
def test_a_damaged_copy_is_made_good(remote: Store, caplog: pytest.LogCaptureFixture, damage: bytes | None) -> None:
    file = Path(local_copy(remote.uri, StorageSettings()), "model.safetensors")
    file.unlink() if damage is None else file.write_bytes(damage)
    assert local_copy(remote.uri, StorageSettings()) == str(file.parent)
    assert file.read_bytes() == b"123"
    assert "had changed since it was fetched" in caplog.text and "['model.safetensors']" in caplog.text


def test_a_copy_that_was_only_touched_is_kept(remote: Store) -> None:
    file = Path(local_copy(remote.uri, StorageSettings()), "model.safetensors")
    before = file.stat().st_ino
    os.utime(file, (1, 1))
    local_copy(remote.uri, StorageSettings())
    assert file.stat().st_ino == before


def test_two_models_whose_names_share_a_dot_do_not_share_a_lock(remote: Store, cache: Path) -> None:
    local_copy(remote.uri, StorageSettings())
    other = Store(remote.uri.replace("3.2", "3.3"))
    other.publish("config.json", b"{}")
    local_copy(other.uri, StorageSettings())
    assert len(list(cache.glob("*.lock"))) == 2


def test_a_cache_without_room_says_how_much_it_takes(
    remote: Store, small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    remote.replace("model.safetensors", bytes(30 * 10**6))
    monkeypatch.setenv("TRIPTYCH_CACHE", str(small_disk))
    with pytest.raises(StorageError, match=r"it takes 0\.03 GB, found 0\.00 GB free at .*; set TRIPTYCH_CACHE"):
        local_copy(remote.uri, StorageSettings())


def test_processes_that_want_a_model_at_once_fetch_it_once(s3: S3, between: Proxy, cache: Path) -> None:
    remote = Store(f"{s3.uri}/tiny", s3.settings)
    weights = os.urandom(3 * 10**6)
    for number in range(3):
        remote.publish(f"model-{number}.safetensors", weights)
    processes = [fetching(remote.uri, between.url) for _ in range(4)]
    folders = [process.communicate(timeout=200)[0].strip() for process in processes]
    assert [process.returncode for process in processes] == [0] * 4
    assert len(set(folders)) == 1
    assert all(Path(folders[0], f"model-{number}.safetensors").read_bytes() == weights for number in range(3))
    assert between.count("GET", ".safetensors") == 3
    assert between.bytes_down < 1.2 * 9 * 10**6


def test_a_fetch_that_is_killed_is_gone_on_with_and_never_half_seen(
    s3: S3, between: Proxy, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    remote = Store(f"{s3.uri}/tiny", s3.settings)
    weights = os.urandom(40 * 2**20)
    remote.replace("config.json", b"{}")
    remote.replace("model.safetensors", weights)
    victim = fetching(remote.uri, between.url)
    _wait_for(lambda: between.bytes_down > 34 * 2**20)  # one piece is written, the next under way
    victim.kill()
    victim.communicate(timeout=60)
    assert list(cache.glob("tiny-*/")) == list(cache.glob("tiny-*.unfinished/"))
    copy = Path(local_copy(remote.uri, StorageSettings(endpoint_url=between.url)))
    assert (copy / "model.safetensors").read_bytes() == weights and sorted(os.listdir(copy)) == [
        "config.json",
        "model.safetensors",
    ]
    assert between.count("GET", "config.json") == 1, "what was whole already was fetched again"
    assert list(cache.glob("*.unfinished")) == []


def test_a_copy_whose_content_is_not_what_the_store_says_is_refused(s3: S3, between: Proxy, cache: Path) -> None:
    Store(f"{s3.uri}/tiny", s3.settings).replace("config.json", b'{"is": "well"}')
    between.garble(b'{"is": "well"}', b'{"is": "hell"}')
    with pytest.raises(StorageError, match=r"config\.json: found the MD5 [0-9a-f]{32}, expected [0-9a-f]{32}"):
        local_copy(f"{s3.uri}/tiny", StorageSettings(endpoint_url=between.url))
    assert list(cache.glob("tiny-*/")) == list(cache.glob("tiny-*.unfinished/"))


def test_a_long_fetch_tells_how_far_it_is(
    remote: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(model_files, "PROGRESS_INTERVAL_S", 0.0)
    with caplog.at_level(logging.INFO):
        local_copy(remote.uri, StorageSettings())
    assert (
        "(2 files, 0.00 GB)" in caplog.text and "0.00 GB of 0.00 GB" in caplog.text and "fetched memory" in caplog.text
    )


def _wait_for(is_so: Callable[[], bool], limit_s: float = 100.0) -> None:
    deadline = time.monotonic() + limit_s
    while not is_so():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.005)


def test_a_model_that_is_nowhere_says_what_was_expected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(NotFound, match="expected a local folder, an fsspec URL or a hub name"):
        local_copy(str(tmp_path / "absent"), StorageSettings())
    with pytest.raises(NotFound, match=r"no files like \*\.json, \*\.safetensors, \*\.jinja there"):
        local_copy(f"memory://{uuid.uuid4().hex}", StorageSettings())
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(StorageError, match="neither a local folder nor a model that the hub lets us download"):
        local_copy("no-such-organisation/no-such-model", StorageSettings())
