"""What each node of a cluster says of itself before a run starts, asked here without a cluster."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.input.units import Unit
from pipeline.pipeline_settings import PipelineSettings
from pipeline.preflight.check import PreflightResult, stored_files
from pipeline.preflight.inputs import Plan
from pipeline.preflight.nodes import probe_from_node
from pipeline.settings import check_settings
from pipeline.state.ledger import PLAN
from pipeline.storage.store import Store
from tests.pipeline.drivers import probed
from tests.pipeline.toys import ToyJob
from tests.s3 import S3, forget_connections


@pytest.fixture
def store(s3: S3) -> Iterator[Store]:
    """The bucket, asked with the credentials of the moment."""
    forget_connections()
    yield Store(s3.uri, s3.settings)
    forget_connections()


def trouble(store: Store) -> dict[str, str]:
    return probe_from_node(ToyJob(), [], {"read.uri": (store, "a.tar")})[1]


def test_a_node_that_reaches_a_store_has_no_trouble_whatever_lies_there(store: Store) -> None:
    assert trouble(store) == {}
    store.replace("a.tar", b"")
    assert trouble(store) == {}
    store.replace("a.tar", b"content")
    assert trouble(store) == {}


def test_a_node_without_credentials_says_so(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    assert "found no credentials; set AWS_ACCESS_KEY_ID" in trouble(store)["read.uri"]


def test_a_node_with_a_wrong_key_says_so(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "another secret")
    assert "the secret key does not fit the access key" in trouble(store)["read.uri"]


def test_a_node_whose_server_has_no_such_bucket_says_so(store: Store) -> None:
    assert "there is no such bucket" in trouble(Store("s3://nowhere-at-all", store.settings))["read.uri"]


def test_a_node_says_which_paths_it_does_not_have(tmp_path: Path) -> None:
    absent = str(tmp_path / "weights")
    assert probe_from_node(ToyJob(), [str(tmp_path), absent], {})[0] == [absent]


def test_every_store_that_the_settings_name_is_asked_and_no_other_model() -> None:
    unit = Unit(0, "s3://in/set", "a.tar", "webdataset", 0, 1, b"")
    models = probed("s3://weights/aria"), probed("/local/weights", "job.check.")
    ready = PreflightResult(*models, Plan([unit]), "", is_started=False, is_done=False)
    settings = check_settings(
        PipelineSettings,
        {"read": {"uri": "s3://in/set"}, "model": {"path": "s3://weights/aria"}, "write": {"uri": "s3://out"}},
    )
    output = Store("s3://out")
    assert stored_files(ready, settings, ToyJob(), output) == {
        "read.uri": (Store("s3://in/set"), "a.tar"),
        "write.uri": (output, PLAN),
        "model.path": (Store("s3://weights/aria"), "config.json"),
    }
