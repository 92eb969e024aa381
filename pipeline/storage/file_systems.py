"""Open the file system of a uri: the local disk, S3 with its settings, and whatever else fsspec knows.

Credentials come from the environment or the provider chain. It knows schemes and packages, no files.
"""

import functools
import os
from typing import Any

import fsspec
from fsspec.registry import available_protocols
from pydantic import Field

from pipeline.redaction import redacted
from pipeline.settings import Address, Settings
from pipeline.storage.faults import StorageError

# What one small read of an open file fetches ahead.
BLOCK_BYTES = 8 * 2**20
S3_SCHEMES = ("s3", "s3a")
OBJECT_STORES = (*S3_SCHEMES, "gs", "gcs", "az", "abfs", "abfss")
PACKAGES = {
    "gs": "gcsfs",
    "gcs": "gcsfs",
    "az": "adlfs",
    "abfs": "adlfs",
    "abfss": "adlfs",
    "hf": "huggingface_hub",
    "http": "aiohttp",
    "https": "aiohttp",
    "oci": "ocifs",
    "oss": "ossfs",
    "sftp": "paramiko",
    "ssh": "paramiko",
    "webdav": "webdav4",
}
COMMON = ("s3", "gs", "az", "abfs", "hf", "http", "https", "memory", "sftp")


class StorageSettings(Settings):
    """How to reach a store. There is no place for credentials here."""

    endpoint_url: Address | None = Field(
        default=None, description="an S3 server other than Amazon's; null: what the environment says"
    )
    anon: bool = Field(default=False, description="read a public bucket without credentials")
    region: str | None = Field(
        default=None, description="region of the bucket, where the server insists on it; null: the environment's"
    )
    patience_s: float = Field(
        default=300.0,
        ge=0,
        description="how many seconds a store that does not answer is asked again, before the run ends",
    )


def scheme_of(uri: str) -> str:
    """Return the scheme of a uri; `file` for a local path."""
    return uri.split("://")[0] if "://" in uri else "file"


def absolute(uri: str) -> str:
    """Return a local path as an absolute one, and any other uri as it is."""
    if uri.startswith("file://"):
        uri = uri.removeprefix("file://")
    return uri if "://" in uri else os.path.abspath(os.path.expanduser(uri))


def open_file_system(uri: str, settings: StorageSettings) -> Any:
    """Return the file system of a uri; opening it twice opens nothing twice.

    Raises:
        StorageError: There is no such kind of uri, or its package is not installed.
    """
    scheme = scheme_of(uri)
    try:
        if fsspec.get_filesystem_class(scheme).async_impl:
            return _shared(os.getpid(), scheme, settings)
        return fsspec.filesystem(scheme)
    except (ImportError, ValueError) as error:
        raise StorageError(_unusable(uri, scheme, error)) from error


@functools.lru_cache(maxsize=64)
def _shared(process: int, scheme: str, settings: StorageSettings) -> Any:
    """Return one client for all threads of a process: fsspec would open one for each, at a tenth of a second."""
    return _s3(scheme, settings) if scheme in S3_SCHEMES else fsspec.filesystem(scheme)


def _s3(scheme: str, settings: StorageSettings) -> Any:
    client = {"region_name": settings.region} if settings.region else {}
    opened = fsspec.filesystem(
        scheme,
        endpoint_url=settings.endpoint_url,
        anon=settings.anon,
        client_kwargs=client,
        use_listings_cache=False,
        default_block_size=BLOCK_BYTES,
        config_kwargs={
            "retries": {"mode": "standard", "total_max_attempts": 1},
            "connect_timeout": 5,
            "read_timeout": 30,
        },
    )
    # A try is one try: botocore's attempts times s3fs's times ours would be minutes of silence, and patience with the
    # jitter and the warnings is ours.
    opened.retries = 1
    return opened


def _unusable(uri: str, scheme: str, error: Exception) -> str:
    if package := PACKAGES.get(scheme):
        return f"cannot reach {redacted(uri)}: {scheme}:// needs the package {package}; pip install {package}"
    if scheme in available_protocols():
        return f"cannot reach {redacted(uri)}: {scheme}:// needs a package that is missing ({error})"
    known = ", ".join(f"{name}://" for name in COMMON)
    return f"cannot reach {redacted(uri)}: unknown kind of address {scheme}://, expected a local path, {known}"
