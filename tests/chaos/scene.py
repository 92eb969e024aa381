"""What every kind of trouble has in common: one input, one checkpoint, one store, and one undisturbed run.

It knows settings and files; it does not know what will be killed.
"""

import contextlib
import random
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from pipeline.storage.store import StorageSettings, Store
from tests.chaos.server import Server, running_server
from tests.end_to_end.shards import tar_bytes
from tests.pictures import encoded
from tests.proxy import Proxy, proxy
from tests.tiny import tiny_aria

SHARD_ROWS, UNIT_ROWS, PART_ROWS = 80, 8, 40
BROKEN = 13  # the one row of the input that is no image
SIDE = 100  # of an image of noise: about 30 kB that no compression makes less


@dataclass
class Scene:
    """Where the runs of one suite take place.

    Attributes:
        folder: For everything that they leave, beside the input and the model.
        rows: Of the input.
        server: An S3 server that holds the input too, in the bucket `chaos`; None where there is none.
        proxy: Stands before that server, for what is read, and counts.
        write_proxy: Another one, for what is written.
        parts: The undisturbed run's parts, by name.
        seconds: How long that run took.
        bytes_read: What came through the proxy during it.
    """

    folder: Path
    rows: int
    server: Server | None = None
    proxy: Proxy | None = None
    write_proxy: Proxy | None = None
    parts: dict[str, bytes] = field(default_factory=dict)
    seconds: float = 0.0
    bytes_read: int = 0

    @property
    def model(self) -> Path:
        """A tiny Aria with random weights."""
        return self.folder / "model"

    @property
    def shards(self) -> Path:
        """The input on the local disk."""
        return self.folder / "in"

    @property
    def keys(self) -> list[str]:
        """Every key of the input, in its order."""
        return [_key(number) for number in range(self.rows)]

    @property
    def input_bytes(self) -> int:
        """The size of the input."""
        return sum(path.stat().st_size for path in self.shards.iterdir())

    def settings(self, output: Store, **sections: Mapping[str, Any]) -> dict[str, Any]:
        """Return the settings of a run from the local disk; sections are laid over them."""
        values: dict[str, Any] = {
            "read": {"uri": str(self.shards)},
            "model": {"path": str(self.model), "device": "cpu"},
            "preprocess": {"actors": 1},
            "generate": {
                "actors": 1,
                "gpus": 0,
                "slots": 4,
                "sampling": {"max_new_tokens": 8, "temperature": 1.0, "seed": 11},
            },
            "write": {
                "uri": output.uri,
                "unit_rows": UNIT_ROWS,
                "rows_per_part": PART_ROWS,
                "storage": output.settings.model_dump(exclude_defaults=True),
            },
            "ray": {"object_store_bytes": 200 * 2**20},
            "job": {"kind": "caption", "prompt": "Describe this image."},
        }
        for name, section in sections.items():
            values[name] = {**values[name], **section}
        return values

    def local_output(self, name: str) -> Store:
        """Return a folder for results on the local disk."""
        return Store(str(self.folder / name / "out"))

    def s3_output(self, name: str, storage: StorageSettings | None = None) -> Store:
        """Return a folder for results on the S3 server."""
        assert self.server is not None
        return Store(f"s3://chaos/{name}", storage or StorageSettings(endpoint_url=self.server.endpoint))

    def through_proxy(self) -> dict[str, Any]:
        """Return settings that read the input from the S3 server, counted."""
        assert self.proxy is not None
        return {"uri": "s3://chaos/in", "storage": {"endpoint_url": self.proxy.url}}


@contextlib.contextmanager
def scene(rows: int, *, has_server: bool, parent: Path | None = None) -> Iterator[Scene]:
    """Make the input, the checkpoint and, if wanted, the server; everything is gone when the block ends."""
    assert rows % SHARD_ROWS == 0, f"found {rows} rows, expected a multiple of {SHARD_ROWS}"
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="chaos-", dir=parent)))
        made = Scene(folder, rows)
        tiny_aria(made.model)
        _write_shards(made.shards, rows)
        if has_server:
            made.server = stack.enter_context(running_server(folder / "s3"))
            made.proxy = stack.enter_context(proxy(made.server.endpoint))
            made.write_proxy = stack.enter_context(proxy(made.server.endpoint))
            _upload(made.shards, made.server)
        yield made


def _write_shards(folder: Path, rows: int) -> None:
    folder.mkdir()
    for shard in range(rows // SHARD_ROWS):
        numbers = range(shard * SHARD_ROWS, (shard + 1) * SHARD_ROWS)
        members = {f"{_key(number)}.png": _image(number) for number in numbers}
        (folder / f"{shard:04d}.tar").write_bytes(tar_bytes(members))


def _image(number: int) -> bytes:
    noise = random.Random(number).randbytes(SIDE * SIDE * 3)
    if number == BROKEN:
        return b"<html>" + noise
    return encoded(Image.frombytes("RGB", (SIDE, SIDE), noise), compress_level=1)


def _upload(shards: Path, server: Server) -> None:
    store = Store("s3://chaos/in", StorageSettings(endpoint_url=server.endpoint))
    for path in sorted(shards.iterdir()):
        store.publish(path.name, path.read_bytes())


def _key(number: int) -> str:
    return f"{number:06d}"
