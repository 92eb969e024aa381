"""Tiny Mllama checkpoints as transformers 5.23 writes and runs them, set up so that it computes what Mllama is.

Two things it does otherwise than the code that Mllama was trained with (shown in test_mllama.py, test_mllama_meta.py):
it takes every intermediate feature one layer late, so it is given the layers one lower; and its tokens before the
first image see every image, so prompts begin with an image wherever answers are compared as they are.

Shapes: B rows, T tokens, N tiles of an image at most, t side of a tile.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import MllamaConfig, MllamaForCausalLM, MllamaForConditionalGeneration, MllamaTextConfig
from transformers.models.mllama.processing_mllama import (
    convert_sparse_cross_attention_mask_to_dense,
    get_cross_attention_token_mask,
)

from models.types import ModelInput
from tests.models.reference import random_reference
from tests.pictures import name_of

PAD = 0
TABLES = ("tile_positional_embedding.embedding.weight", "tile_embedding.weight")
MEAN, STD = (0.48, 0.45, 0.40), (0.27, 0.26, 0.28)


@dataclass(frozen=True)
class Size:
    """One tiny configuration, in our counting: `intermediate_layers_indices` are layers whose inputs are features.

    Attributes:
        text: What differs from the reference's defaults.
        vision: Likewise; the widths of a feature and the tile grids follow from it.
        image_token: Which of the eight rows behind the vocabulary is an image.
    """

    text: Mapping[str, Any]
    vision: Mapping[str, Any]
    image_token: int = 0

    @property
    def image(self) -> int:
        """The id of `<|image|>`."""
        return int(self.text["vocab_size"]) + self.image_token

    @property
    def lowered(self) -> list[int]:
        """The layers whose outputs are our layers' inputs, which is how the reference counts."""
        return [layer - 1 for layer in self.vision["intermediate_layers_indices"]]

    @property
    def grids(self) -> list[tuple[int, int]]:
        """(rows, columns) of the tile grids, in the order of their ids."""
        most = self.vision["max_num_tiles"]
        return [(h, w) for h in range(1, most + 1) for w in range(1, most + 1) if h * w <= most]

    @property
    def vision_fields(self) -> dict[str, Any]:
        """The vision encoder's fields as a config.json has them."""
        width = self.vision["hidden_size"] * (1 + len(self.vision["intermediate_layers_indices"]))
        return dict(self.vision) | {
            "supported_aspect_ratios": [list(grid) for grid in self.grids],
            "vision_output_dim": width,
        }


def write_reference(folder: Path, size: Size, *, alike: bool = False, **save: Any) -> Any:
    """Write a checkpoint with random weights; return the reference's model of it.

    Args:
        folder: Where to.
        size: The configuration, which config.json then holds; the reference's is one lower in its layers.
        alike: Give a tile one embedding for its place, whatever its image's grid is, as in the released weights.
        save: Handed on to `save_pretrained`.
    """
    config = MllamaConfig(
        text_config=dict(size.text),
        vision_config=size.vision_fields | {"intermediate_layers_indices": size.lowered},
        image_token_index=size.image,
    )
    model = random_reference(MllamaForConditionalGeneration, config, randomise)
    if alike:
        share_tile_embeddings([table.data for name, table in model.named_parameters() if name.endswith(TABLES)], size)
    model.save_pretrained(folder, **save)
    change(
        folder / "config.json", "vision_config", intermediate_layers_indices=size.vision["intermediate_layers_indices"]
    )
    t = size.vision["image_size"]
    images = {"image_mean": MEAN, "image_std": STD, "size": {"height": t, "width": t}}
    images |= {"max_image_tiles": size.vision["max_num_tiles"]}
    (folder / "preprocessor_config.json").write_text(json.dumps(images), encoding="utf-8")
    return model


def write_text_reference(folder: Path, text: Mapping[str, Any]) -> Any:
    """Write a decoder without vision encoder; return the reference's model of it."""
    model = random_reference(MllamaForCausalLM, MllamaTextConfig(**text), randomise)
    model.save_pretrained(folder)
    return model


def change(path: Path, section: str, **fields: Any) -> None:
    """Set fields in a section of a checkpoint's JSON file."""
    content = json.loads(path.read_text(encoding="utf-8"))
    content[section] |= fields
    path.write_text(json.dumps(content), encoding="utf-8")


def randomise(model: Any) -> None:
    """Make every parameter random, gates too: what starts as ones or zeros would hide that it is left out.

    With these widths a word is likeliest followed by another one, which one depends on the images and on all words
    before: greedy answers wander, as a trained model's do.
    """
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "embed" in name and not name.endswith(("patch_embedding.weight", "gate")):
                parameter.normal_(0, 2 if "embed_tokens" in name else 1, generator=generator)
            elif parameter.ndim == 1:
                parameter.uniform_(0.5, 1.5, generator=generator)
            else:
                width = 3 if "q_proj" in name or "k_proj" in name else 0.85
                parameter.normal_(0, width * parameter[0].numel() ** -0.5, generator=generator)
        words, head = model.get_input_embeddings().weight, model.lm_head.weight
        head[(torch.arange(len(head)) + 31) % len(head)] += 1.5 * words[: len(head)] * words.shape[1] ** -0.5


def share_tile_embeddings(tables: Iterable[Tensor], size: Size) -> None:
    """Give a tile one embedding for its place, whatever its image's grid is, in tables (grids + 1, N * width)."""
    most = size.vision["max_num_tiles"]
    generator = torch.Generator().manual_seed(2)
    for table in tables:
        of_place = torch.randn(most, most, table.shape[1] // most, generator=generator)
        tiles = table.unflatten(1, (most, -1)).zero_()
        for grid, (rows, columns) in enumerate(size.grids, start=1):
            tiles[grid, : rows * columns] = of_place[:rows, :columns].flatten(0, 1)


@dataclass(frozen=True)
class Picture:
    """An image as its tiles, all noise."""

    rows: int
    columns: int
    seed: int = 0

    def tiles(self, size: Size) -> NDArray[np.uint8]:
        """Return the tiles (rows * columns, t, t, 3), row by row."""
        t = size.vision["image_size"]
        noise = np.random.default_rng([self.seed, self.rows, self.columns])
        return noise.integers(0, 256, (self.rows * self.columns, t, t, 3), dtype=np.uint8)

    def pixels(self, size: Size) -> NDArray[np.float32]:
        """Return the tiles (rows * columns, 3, t, t) as numbers, rounded as the reference rounds."""
        scaled = (self.tiles(size) * (1 / 255)).astype(np.float32)
        normal = (scaled - np.array(MEAN, np.float32)) / np.array(STD, np.float32)
        return normal.astype(np.float32).transpose(0, 3, 1, 2)

    def grid(self, size: Size) -> int:
        """Return the id of its grid."""
        return size.grids.index((self.rows, self.columns)) + 1


@dataclass(frozen=True)
class Row:
    """Token ids with one placeholder per image, and the images."""

    ids: Sequence[int]
    pictures: Sequence[Picture] = ()

    def then(self, ids: Sequence[int]) -> "Row":
        """Return the row with more tokens."""
        return Row([*self.ids, *ids], self.pictures)

    def ours(self, size: Size) -> ModelInput:
        """Return the row as our processor hands it on."""
        tiles = [picture.tiles(size) for picture in self.pictures]
        layout = tuple(picture.grid(size) for picture in self.pictures)
        return ModelInput(
            prompt="",
            token_ids=np.array(self.ids, np.int32),
            tiles=tuple(tile for image in tiles for tile in image),
            layout=layout,
            image_tokens=len(tiles),
            image_names=tuple(name_of(list(image), grid) for image, grid in zip(tiles, layout, strict=True)),
        )


def batch(rows: Sequence[Row], size: Size) -> dict[str, Tensor]:
    """Return the reference's inputs for rows, padded on the left; the mask over images is always there."""
    longest = max(len(row.ids) for row in rows)
    padded = [[PAD] * (longest - len(row.ids)) + list(row.ids) for row in rows]
    inputs = {
        "input_ids": torch.tensor(padded),
        "attention_mask": torch.tensor([[0] * (longest - len(row.ids)) + [1] * len(row.ids) for row in rows]),
    }
    if not any(row.pictures for row in rows):
        return inputs
    B, most = len(rows), max(len(row.pictures) for row in rows)
    N, t = size.vision["max_num_tiles"], size.vision["image_size"]
    pixels, grids = torch.zeros(B, most, N, 3, t, t), torch.zeros(B, most, dtype=torch.long)
    real = torch.zeros(B, most, N, dtype=torch.long)
    real[:, :, 0] = 1  # also of a place without image, as the reference's processor has it
    for b, row in enumerate(rows):
        for i, picture in enumerate(row.pictures):
            count = picture.rows * picture.columns
            pixels[b, i, :count] = torch.from_numpy(picture.pixels(size))
            grids[b, i], real[b, i, :count] = picture.grid(size), 1
    return inputs | {
        "pixel_values": pixels, "aspect_ratio_ids": grids, "aspect_ratio_mask": real,
        "cross_attention_mask": _cross_mask(padded, rows, size),
    }  # fmt: skip


def _cross_mask(padded: list[list[int]], rows: Sequence[Row], size: Size) -> Tensor:
    ranges = [get_cross_attention_token_mask(ids, size.image) for ids in padded]
    counts = [[picture.rows * picture.columns for picture in row.pictures] for row in rows]
    most = size.vision["max_num_tiles"]
    return torch.from_numpy(convert_sparse_cross_attention_mask_to_dense(ranges, counts, most, len(padded[0])))


@torch.inference_mode()
def greedy(model: Any, inputs: Mapping[str, Tensor], num_tokens: int) -> list[list[int]]:
    """Return the likeliest tokens that the reference goes on with, never stopping."""
    inputs = dict(inputs)
    # It takes the length of its cache from the first layer, which a cross-attention layer fills with the image's.
    use_cache = 0 not in model.config.get_text_config().cross_attention_layers
    if not use_cache and "pixel_values" in inputs:
        images = (inputs.pop(name) for name in ("pixel_values", "aspect_ratio_ids", "aspect_ratio_mask"))
        seen = model.model.multi_modal_projector(model.model.vision_model(*images).last_hidden_state)
        inputs["cross_attention_states"] = seen.flatten(0, 2)  # not again for every token
    out = model.generate(
        **inputs, do_sample=False, max_new_tokens=num_tokens, use_cache=use_cache, eos_token_id=None, pad_token_id=PAD
    )
    answers: list[list[int]] = out[:, inputs["input_ids"].shape[1] :].tolist()
    return answers
