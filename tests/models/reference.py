"""Tiny Aria checkpoints as the reference implementation (transformers 5.23) writes and runs them.

Also what the parity tests of all families share: pictures, messages, and the same checkpoint run twice.

Shapes: B rows, T tokens, M side of the canvas, V vocabulary.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from transformers import AriaConfig, AriaForConditionalGeneration, AriaTextConfig, AriaTextForCausalLM

from models import load_model
from models.aria.config import read_images
from models.aria.processor import tile
from models.types import ImageSettings, ModelInput
from tests.pictures import name_of

PAD = 0
TEXT = {
    "vocab_size": 120, "hidden_size": 48, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4,
    "moe_num_experts": 8, "moe_topk": 3, "max_position_embeddings": 512, "pad_token_id": 0,
}  # fmt: skip
VISION = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "image_size": 140,
    "patch_size": 14,
}  # fmt: skip

SizeT = TypeVar("SizeT")
ModelT = TypeVar("ModelT")


@dataclass(frozen=True)
class Pair(Generic[SizeT, ModelT]):
    """The same checkpoint twice: run by the reference and by us."""

    size: SizeT
    folder: Path
    reference: Any
    ours: ModelT


def pair_of(write: Callable[[Path, SizeT], Any], size: SizeT, folder: Path) -> Pair[SizeT, Any]:
    """Write a checkpoint with a family's `write_reference`, and load it."""
    return Pair(size, folder, write(folder, size), load_model(str(folder), device="cpu"))


def random_reference(model_class: Any, config: Any, randomise: Callable[[Any], None]) -> Any:
    """Return the reference's model of a configuration with random weights, to be run in its plainest way."""
    config._attn_implementation = "eager"
    config._experts_implementation = "eager"
    model = model_class(config)
    model.eval()
    randomise(model)
    return model


@dataclass(frozen=True)
class Size:
    """One tiny configuration: what differs from the reference's defaults, and its canvas."""

    text: Mapping[str, Any]
    vision: Mapping[str, Any]
    queries: Mapping[int, int]
    canvas: int
    shortest: int
    image_token: int = 9
    feature_layer: int = -1


def write_reference(folder: Path, size: Size, **save: Any) -> Any:
    """Write a checkpoint with random weights; return the reference's model of it."""
    config = AriaConfig(
        text_config=dict(size.text),
        vision_config={"model_type": "idefics3_vision", **size.vision},
        projector_patch_to_query_dict=dict(size.queries),
        image_token_index=size.image_token,
        vision_feature_layer=size.feature_layer,
    )
    model = random_reference(AriaForConditionalGeneration, config, randomise)
    model.save_pretrained(folder, **save)
    images = {"max_image_size": size.canvas, "min_image_size": size.shortest}
    (folder / "preprocessor_config.json").write_text(json.dumps(images), encoding="utf-8")
    return model


def write_text_reference(folder: Path, **text: Any) -> Any:
    """Write a decoder without vision tower; return the reference's model of it."""
    model = random_reference(AriaTextForCausalLM, AriaTextConfig(**text), randomise)
    model.save_pretrained(folder)
    return model


def randomise(model: torch.nn.Module) -> None:
    """Make every parameter random: what starts as ones or zeros would hide that it is left out."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim == 1:
                parameter.uniform_(0.5, 1.5, generator=generator)
            else:
                # Experts are stored (expert, in, out), everything else (out, in, ...).
                width = parameter.shape[1] if ".experts." in name and parameter.ndim == 3 else parameter[0].numel()
                parameter.normal_(0, width**-0.5, generator=generator)


def picture(width: int, height: int, seed: int = 0) -> Image.Image:
    """Return noise over a slope, so that no two patches are alike."""
    noise = np.random.default_rng(seed).integers(0, 128, (height, width, 3))
    slope = np.linspace(0, 127, width)[None, :, None] * np.linspace(0, 1, height)[:, None, None]
    return Image.fromarray((noise + slope).astype(np.uint8))


def user(text: str, num_images: int = 0) -> list[dict[str, Any]]:
    """Return a user's message: images, then a text."""
    return [{"role": "user", "content": [{"type": "image"}] * num_images + [{"type": "text", "text": text}]}]


def canvas(image: Image.Image, size: Size) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Return pixel values (3, M, M) and mask (M, M), as the reference's image processor makes them at any size."""
    M, scale = size.canvas, size.canvas / max(image.size)
    width, height = (max(int(side * scale), size.shortest) if side < max(image.size) else M for side in image.size)
    pixels = np.zeros((M, M, 3), np.uint8)
    pixels[:height, :width] = np.asarray(image.resize((width, height), Image.Resampling.BICUBIC))
    mask = np.zeros((M, M), bool)
    mask[:height, :width] = True
    return ((pixels / np.float32(255) - 0.5) / np.float32(0.5)).astype(np.float32).transpose(2, 0, 1), mask


@dataclass(frozen=True)
class Row:
    """Token ids with one placeholder per image, and the images."""

    ids: Sequence[int]
    images: Sequence[Image.Image] = ()

    def expanded(self, size: Size) -> list[int]:
        """Return the ids with as many placeholders as an image has features."""
        queries = size.queries[(size.canvas // size.vision["patch_size"]) ** 2]
        return [i for id_ in self.ids for i in [id_] * (queries if id_ == size.image_token else 1)]

    def ours(self, folder: Path, size: Size) -> ModelInput:
        """Return the row as our processor hands it on."""
        settings = read_images(folder, ImageSettings())
        tiles = tuple(tile(image, settings, size.vision["patch_size"]) for image in self.images)
        queries = size.queries[(size.canvas // size.vision["patch_size"]) ** 2]
        names = tuple(name_of([one], queries) for one in tiles)
        ids = np.array(self.expanded(size), np.int32)
        return ModelInput("", ids, tiles, (queries,) * len(tiles), image_names=names)


def batch(rows: Sequence[Row], size: Size) -> dict[str, Tensor]:
    """Return the reference's inputs for rows, padded on the left."""
    expanded = [row.expanded(size) for row in rows]
    longest = max(map(len, expanded))
    ids = torch.tensor([[PAD] * (longest - len(one)) + one for one in expanded])
    mask = torch.tensor([[0] * (longest - len(one)) + [1] * len(one) for one in expanded])
    made = [canvas(image, size) for row in rows for image in row.images]
    inputs: dict[str, Tensor] = {"input_ids": ids, "attention_mask": mask}
    if made:
        inputs["pixel_values"] = torch.from_numpy(np.stack([pixels for pixels, _ in made]))
        inputs["pixel_mask"] = torch.from_numpy(np.stack([valid for _, valid in made]))
    return inputs


@torch.inference_mode()
def greedy(model: Any, inputs: Mapping[str, Tensor], num_tokens: int) -> list[list[int]]:
    """Return the likeliest tokens that the reference goes on with, never stopping."""
    out = model.generate(**inputs, do_sample=False, max_new_tokens=num_tokens, eos_token_id=None, pad_token_id=PAD)
    answers: list[list[int]] = out[:, inputs["input_ids"].shape[1] :].tolist()
    return answers
