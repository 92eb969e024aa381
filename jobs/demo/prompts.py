"""Texts for the demo to draw: descriptions of scenes with pairs of shapes that no training has shown together.

They are drawn from a seed of their own. This file knows nothing of models or runs.
"""

import random
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from jobs.demo.drawn import read_caption
from jobs.demo.training.emu3.pictures import describe, draw_large_scene, is_held_out

NUM_PROMPTS = 64
_SEED = 20_000


def prompts(number: int) -> list[str]:
    """Describe as many scenes of two shapes, each differently; more of them begin with the same ones."""
    rng = random.Random(_SEED)
    texts: dict[str, None] = {}
    while len(texts) < number:
        scene = draw_large_scene(rng, 2)
        if is_held_out(scene):
            texts[describe(scene, rng)] = None
    return list(texts)


def write_prompts(folder: Path, number: int) -> None:
    """Write a Parquet shard: `text`, and of each text the `first` and the `second` shape that it names."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = [{"key": f"{place:02d}", "text": text, **_shapes_of(text)} for place, text in enumerate(prompts(number))]
    pq.write_table(pa.Table.from_pylist(rows), folder / "prompts-000.parquet")


def _shapes_of(text: str) -> dict[str, str]:
    names, _ = read_caption(text)
    return dict(zip(("first", "second"), (" ".join(name) for name in names), strict=True))
