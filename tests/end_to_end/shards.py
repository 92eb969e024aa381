"""Small inputs with known content, and a job that says where it was done."""

import io
import os
import tarfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from jobs.caption import CaptionSettings
from jobs.plain_job import PlainJob
from models.types import Answer, Request, Sampling
from pipeline.job import Job
from pipeline.pipeline_settings import PipelineSettings
from pipeline.run import RunResult, run
from pipeline.settings import check_settings
from pipeline.storage.store import Store
from tests.pictures import plain


def png(number: int) -> bytes:
    """An image of its own for every number."""
    return plain((number * 37 % 256, number * 91 % 256, 60), (20 + number % 30, 30))


def tar_bytes(members: Mapping[str, bytes]) -> bytes:
    """A tar of these members, in this order."""
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w") as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return sink.getvalue()


def write_shards(folder: Path, shards: int, rows: int, broken: int | None = None) -> Path:
    """Write tars of `rows` images each; image number `broken` of all is none."""
    folder.mkdir(parents=True, exist_ok=True)
    for shard in range(shards):
        numbers = range(shard * rows, (shard + 1) * rows)
        members = {f"{n:05d}.png": b"<html>gone</html>" if n == broken else png(n) for n in numbers}
        (folder / f"{shard:03d}.tar").write_bytes(tar_bytes(members))
    return folder


def settings_of(uri: Path | str, checkpoint: Path, out: Path | str, **sections: Mapping[str, Any]) -> PipelineSettings:
    """Settings of a small run on the CPU; sections are laid over the defaults."""
    values: dict[str, dict[str, Any]] = {
        "read": {"uri": str(uri)},
        "model": {"path": str(checkpoint), "device": "cpu"},
        "generate": {"slots": 4, "gpus": 0, "sampling": {"max_new_tokens": 4, "temperature": 1.0, "seed": 11}},
        "write": {"uri": str(out), "unit_rows": 8, "rows_per_part": 20},
    }
    for name, section in sections.items():
        values[name] = {**values.get(name, {}), **section}
    return check_settings(PipelineSettings, values)


def caption_job() -> Job:
    """The real job."""
    return CaptionSettings(kind="caption", prompt="Describe this image.").build()


def caption(uri: Path | str, checkpoint: Path, out: Path | str, **sections: Mapping[str, Any]) -> RunResult:
    """Run the caption job."""
    return run(settings_of(uri, checkpoint, out, **sections), caption_job())


def results(out: Path | str, store: Store | None = None) -> pa.Table:
    """All rows as a plain reader sees them."""
    if store is None:
        return pq.read_table(str(out))
    names = [entry.path for entry in store.list() if entry.path.startswith("part-")]
    return pa.concat_tables([pq.read_table(io.BytesIO(store.read(name))) for name in names])


@dataclass(frozen=True, kw_only=True)
class WhereJob(PlainJob):
    """Asks like caption, and keeps the device ids that the process which answered was given."""

    kind: str = "where"
    text_column: str = "devices"

    @property
    def schema(self) -> pa.Schema:
        return pa.schema([("process", pa.int64()), ("devices", pa.string())])

    def requests(self, row: Mapping[str, Any], sampling: Sampling) -> Sequence[Request]:
        return caption_job().requests(row, sampling)

    def record(
        self, row: Mapping[str, Any], answer: Answer | None, index: int, sampling: Sampling
    ) -> Mapping[str, Any]:
        time.sleep(0.3)  # long enough that one engine cannot have done all before the other has started
        return {"process": os.getpid(), "devices": os.environ.get("CUDA_VISIBLE_DEVICES", "")}
