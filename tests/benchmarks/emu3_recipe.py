"""An Emu3 of random weights, and how transformers' documentation says to draw with it.

Knows neither our engine nor a clock. Shapes: B pictures, T tokens, H x W codes of a picture.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import Emu3Config, Emu3ForConditionalGeneration

from tests.models.emu3_reference import BOS, EOS, PAD, TEXT, spread_codes, vocabulary_map

PLACEHOLDER, LINE, FRAME, IMAGE, START, END = 3, 4, 5, 6, 7, 8
FIRST_WORD, WORDS = 9, 1000
SCALE, TOP_K = 3.0, 2048
MEAN = (0.5, 0.5, 0.5)

LARGER_TEXT = TEXT | {
    "hidden_size": 512, "intermediate_size": 1792, "num_hidden_layers": 8, "num_attention_heads": 8,
    "max_position_embeddings": 1024,
}  # fmt: skip
# The released one with a quarter of its channels.
VQ = {
    "embed_dim": 4, "latent_channels": 4, "base_channels": 64, "channel_multiplier": [1, 2, 2, 4], "num_res_blocks": 2,
    "attn_resolutions": [3], "hidden_size": 256, "temporal_downsample_factor": 4,
}  # fmt: skip


@dataclass(frozen=True)
class Vocabulary:
    """Its size, and how many of the last ids are codes."""

    size: int
    num_visual: int

    @property
    def first_visual(self) -> int:
        """The id of code 0."""
        return self.size - self.num_visual

    def ids(self) -> dict[str, int]:
        """Return ids by token, as config.json lists them."""
        return vocabulary_map((PLACEHOLDER, LINE, FRAME, IMAGE, START, END), self.first_visual, self.num_visual)


@dataclass(frozen=True)
class Drawing:
    """A batch of prompts of unlike lengths for pictures of one size, and the negative prompt of all."""

    prompts: Sequence[NDArray[np.int32]]
    negative: NDArray[np.int32]
    grid: tuple[int, int]

    @property
    def num_tokens(self) -> int:
        """Tokens of a picture, the closing ones included."""
        rows, columns = self.grid
        return rows * (columns + 1) + 3


def drawing(pictures: int, grid: tuple[int, int]) -> Drawing:
    """Return a batch; its words are random."""
    words = np.random.default_rng(0)

    def prompt(length: int) -> NDArray[np.int32]:
        ids = words.integers(FIRST_WORD, WORDS, length)
        return np.array([BOS, *ids, START, *(FIRST_WORD + side for side in grid), IMAGE], np.int32)

    return Drawing([prompt(8 + 3 * number % 8) for number in range(pictures)], prompt(20), grid)


def write_checkpoint(folder: Path, vocabulary: Vocabulary) -> Any:
    """Write a checkpoint with random weights; return transformers' model of it."""
    config = Emu3Config(
        text_config=LARGER_TEXT | {"vocab_size": vocabulary.size},
        vq_config=VQ | {"codebook_size": vocabulary.num_visual},
        vocabulary_map=vocabulary.ids(),
    )
    config._attn_implementation = "sdpa"
    torch.manual_seed(0)
    model: Any = Emu3ForConditionalGeneration(config)
    model.eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim > 1:
                parameter.normal_(0, 1.0 if "embed" in name else parameter[0].numel() ** -0.5)
    spread_codes(model.model.vqmodel)
    model.save_pretrained(folder)
    images = {"image_mean": MEAN, "image_std": MEAN}
    (folder / "preprocessor_config.json").write_text(json.dumps(images), encoding="utf-8")
    return model


def allowed_tokens(model: Any, grid: tuple[int, int]) -> Callable[[int, Tensor], Sequence[Any]]:
    """Return the documentation's `prefix_allowed_tokens_fn`, ids in place of its tokenizer's attributes.

    Its call of the tokenizer at every step and row is left out, which makes it faster.
    """
    height, width = grid
    visual_tokens: Sequence[int] = model.vocabulary_mapping.image_tokens

    def prefix_allowed_tokens_fn(batch_id: int, input_ids: Tensor) -> Sequence[Any]:
        image_wrapper_token_id = torch.tensor([IMAGE], device=model.device)
        eoi_token_id = torch.tensor([END], device=model.device)
        eos_token_id = torch.tensor([EOS], device=model.device)
        pad_token_id = torch.tensor([PAD], device=model.device)
        eof_token_id = torch.tensor([FRAME], device=model.device)
        eol_token_id = torch.tensor([LINE])
        position = torch.nonzero(input_ids == image_wrapper_token_id, as_tuple=True)[0][0]
        offset = input_ids.shape[0] - position
        if offset % (width + 1) == 0:
            return (eol_token_id,)
        if offset == (width + 1) * height + 1:
            return (eof_token_id,)
        if offset == (width + 1) * height + 2:
            return (eoi_token_id,)
        if offset == (width + 1) * height + 3:
            return (eos_token_id,)
        if offset > (width + 1) * height + 3:
            return (pad_token_id,)
        return visual_tokens

    return prefix_allowed_tokens_fn


@torch.inference_mode()
def draw(model: Any, what: Drawing, *, greedy: bool = False) -> Tensor:
    """Return the tokens (B, T) of a batch of pictures."""
    longest = max(map(len, what.prompts))
    B = len(what.prompts)
    padded = [[PAD] * (longest - len(ids)) + ids.tolist() for ids in what.prompts]
    seen = [[0] * (longest - len(ids)) + [1] * len(ids) for ids in what.prompts]
    negative = torch.from_numpy(what.negative).long().expand(B, -1)
    options: Mapping[str, Any] = {"do_sample": False} if greedy else {"do_sample": True, "top_k": TOP_K}
    out = model.generate(
        input_ids=torch.tensor(padded),
        attention_mask=torch.tensor(seen),
        negative_prompt_ids=negative,
        negative_prompt_attention_mask=torch.ones_like(negative),
        guidance_scale=SCALE,
        prefix_allowed_tokens_fn=allowed_tokens(model, what.grid),
        max_new_tokens=what.num_tokens,
        eos_token_id=EOS,
        pad_token_id=PAD,
        **options,
    )
    tokens: Tensor = out[:, longest:]
    return tokens


def paint(model: Any, tokens: Tensor, grid: tuple[int, int]) -> Tensor:
    """Return the pictures (B, C, h, w) that tokens (B, T) stand for: the first of four frames that are decoded."""
    rows, columns = grid
    pictures: Tensor = model.decode_image_tokens(image_tokens=tokens, height=rows, width=columns)
    return pictures
