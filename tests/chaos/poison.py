"""Rows that take their process with them: a caption job that dies at the keys it is told, started like a run.

`python -m tests.chaos.poison CONFIG`, where CONFIG is a run's with one section more: `poison: {key: [step, way]}`.
"""

import ctypes
import json
import os
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from jobs.caption import CaptionSettings
from jobs.config import RunSettings
from jobs.plain_job import PlainJob
from models.types import Answer, Request, Sampling
from pipeline.run import run
from pipeline.settings import check_settings

HUNGER_BYTES = 6 * 2**30
BITE_BYTES = 64 * 2**20


@dataclass(frozen=True, kw_only=True)
class PoisonedCaptions(PlainJob):
    """Asks like caption, and dies of some rows.

    Attributes:
        settings: Of the caption job.
        poison: A key: the step that dies of it (`preprocess` or `generate`), and how.
    """

    settings: CaptionSettings
    poison: Mapping[str, tuple[str, str]]
    kind: str = "caption"
    text_column: str = "caption"

    @property
    def schema(self) -> pa.Schema:
        return self.settings.build().schema

    def requests(self, row: Mapping[str, Any], sampling: Sampling) -> Sequence[Request]:
        self._die(row, "preprocess")
        return self.settings.build().requests(row, sampling)

    def record(
        self, row: Mapping[str, Any], answer: Answer | None, index: int, sampling: Sampling
    ) -> Mapping[str, Any]:
        if answer is not None:
            self._die(row, "generate")
        return self.settings.build().record(row, answer, index, sampling)

    def _die(self, row: Mapping[str, Any], step: str) -> None:
        where, way = self.poison.get(row["key"], ("", ""))
        if where == step:
            die(way)


def die(way: str) -> None:
    """End this process as a bug in a library would, or as a system without memory would."""
    match way:
        case "exit":
            os._exit(1)
        case "segfault":
            ctypes.string_at(0)
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        case "hunger":
            eat()
        case _:
            raise ValueError(f"found {way!r}, expected exit, segfault, kill or hunger")


def eat() -> None:
    """Take memory until somebody puts an end to it."""
    taken: list[bytes] = []
    while len(taken) * BITE_BYTES < HUNGER_BYTES:
        taken.append(b"x" * BITE_BYTES)
    time.sleep(60)
    raise AssertionError(f"{HUNGER_BYTES} bytes were taken, and nobody minded")


def main(config: Path) -> int:
    """Run, and print what a run ends with."""
    values = json.loads(config.read_text())
    poison = {key: (step, way) for key, (step, way) in values.pop("poison").items()}
    settings = check_settings(RunSettings, values)
    assert isinstance(settings.job, CaptionSettings)
    result = run(settings, PoisonedCaptions(settings=settings.job, poison=poison))
    print(json.dumps({"rows": result.rows, "failed": result.failed}))
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
