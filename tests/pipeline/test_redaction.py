"""Credentials never stand in a message, a log or a traceback, whatever fails."""

import logging
import traceback
from collections.abc import Callable

import pytest

from pipeline.redaction import redacted, refuse_credentials, without_secrets
from pipeline.storage.model_folder import local_copy
from pipeline.storage.store import StorageError, StorageSettings, Store
from tests.proxy import proxy
from tests.s3 import S3, forget_connections

SECRET, TOKEN = "wJalrXUtnFEMI/K7MDENG", "FwoGZXIvYXdzEBYaD"
KEY = "AKIAIOSFODNN7EXAMPLE"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("sftp://me:hunter2@host/x is gone", "sftp://***@host/x is gone"),
        ("https://h/x?a=1&X-Amz-Signature=abc&b=2", "https://h/x?a=1&X-Amz-Signature=***&b=2"),
        ("https://h/x?X-Amz-Credential=AKIA/1&X-Amz-Security-Token=t", "https://h/x?X-Amz-Credential=***&X-Amz-Security-Token=***"),
        ("https://a.blob.core.windows.net/c/x?sv=1&sig=abc%3D", "https://a.blob.core.windows.net/c/x?sv=1&sig=***"),
        ("abfs://container@account.dfs.core.windows.net/x", "abfs://container@account.dfs.core.windows.net/x"),
        ("s3://bucket/what?.tar", "s3://bucket/what?.tar"),
    ],
)  # fmt: skip
def test_addresses_keep_all_but_their_credentials(text: str, expected: str) -> None:
    assert without_secrets(text) == expected == redacted(text)


def test_settings_in_prose_are_not_touched() -> None:
    prompt = "Answer as key=value; Signature=none. Credential: what is it?"
    assert without_secrets(prompt) == prompt


def test_messages_lose_what_a_request_carries_and_what_the_environment_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("HF_TOKEN", "hf_abcdefgh")
    said = redacted(
        f"Authorization: AWS4-HMAC-SHA256 Credential={KEY}/20260101/us-east-1, Signature=0a1b"
        f" of {SECRET} hf_abcdefgh {KEY}"
    )
    for secret in (SECRET, "hf_abcdefgh", KEY, "0a1b"):
        assert secret not in said


def test_an_address_without_credentials_passes() -> None:
    assert refuse_credentials("s3://bucket/a@b/c?.tar") == "s3://bucket/a@b/c?.tar"


def actions(store: Store) -> list[Callable[[], object]]:
    return [
        lambda: store.list(),
        lambda: store.glob("*.tar"),
        lambda: store.entry("x"),
        lambda: store.read("x", 0, 3),
        lambda: store.open("x"),
        lambda: store.publish("x", b"1"),
        lambda: store.replace("x", b"1"),
        lambda: store.delete(["x"]),
        lambda: local_copy(store.uri, store.settings),
    ]


@pytest.mark.parametrize(
    ("status", "code", "variables"),
    [
        (403, "AccessDenied", {}),
        (503, "SlowDown", {}),
        (404, "NoSuchKey", {}),
        (403, "AccessDenied", {"AWS_SESSION_TOKEN": f"{TOKEN}\nX"}),
        (403, "AccessDenied", {"AWS_ACCESS_KEY_ID": f"{KEY}\r\n"}),
    ],
    ids=["refused", "throttled", "missing", "broken-token", "broken-key"],
)
def test_no_failure_of_a_store_shows_credentials(
    s3: S3,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    status: int,
    code: str,
    variables: dict[str, str],
) -> None:
    for name, value in {"AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET, **variables}.items():
        monkeypatch.setenv(name, value)
    forget_connections()
    logging.getLogger("pipeline").setLevel(logging.DEBUG)
    said: list[str] = []
    with proxy(s3.endpoint_url) as between:
        # A server that quotes the request in its answer, as Amazon's does when a signature is wrong.
        quoted = f"{code} &lt;Authorization: Credential={KEY}/x, Signature=abcdef0123&gt; {SECRET} {TOKEN}"
        between.answer(status, code, times=10_000, message=quoted)
        store = Store(s3.uri, StorageSettings(endpoint_url=between.url, patience_s=0))
        for action in actions(store):
            try:
                action()
            except StorageError as error:
                said += traceback.format_exception(error)
                said.append(repr(error))
    forget_connections()
    logging.getLogger("pipeline").setLevel(logging.NOTSET)
    shown = "".join([*said, caplog.text])
    assert s3.bucket in shown
    secrets = [SECRET, KEY, "abcdef0123"] + ([TOKEN] if variables.get("AWS_SESSION_TOKEN") else [])
    assert [secret for secret in secrets if secret in shown] == []


def test_a_store_whose_address_carries_credentials_never_shows_them(caplog: pytest.LogCaptureFixture) -> None:
    password, signature = "hunter" * 2, "abcdef" * 3
    store = Store(f"memory://me:{password}@host/folder")
    assert store.name("x") == "memory://***@host/folder/x"
    with pytest.raises(StorageError) as caught:
        store.read(f"absent?X-Amz-Signature={signature}")
    shown = "".join(traceback.format_exception(caught.value)) + caplog.text
    assert password not in shown and signature not in shown
