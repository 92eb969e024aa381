"""Emu3 on the device: tiles and token ids in, scores of the next token out.

A picture is text to this family: the VQ-VAE turns it into codes, and each code is a token of the vocabulary. So the
decoder is a plain Llama, and what an image changes is which ids stand in the prompt.

Parameters carry the names of the checkpoint's files; `Emu3Model` is what the engine drives, see
models/engine/decoder.py.

Shapes: T tokens, D model width, H x W codes of a picture.
"""

from collections.abc import Mapping, Sequence
from math import isqrt
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from models.emu3.config import Emu3Config, read_config, read_images
from models.emu3.grid import Ends, Grid, PictureGrammar
from models.emu3.vqvae import VqVae
from models.engine.decoder import Prompt
from models.layers import rotary_frequencies
from models.llama import DecoderLayer, FamilyModel, LanguageModel, SwiGLU
from models.tiles import ImageCache, Normalize
from models.types import ImageSettings, ModelInput, Pixels


class Emu3Model(FamilyModel):
    """The GPU half of Emu3; without `vision` in the config, its decoder alone."""

    DECODER: ClassVar[str] = "text_model"
    VISION: ClassVar[tuple[str, ...]] = ("vqmodel",)
    UNUSED: ClassVar[str] = r"\.(inv_freq|num_batches_tracked)$"
    # In half precision the nearest codes are others: 2 in 100 on a small random net.
    FLOAT32: ClassVar[tuple[str, ...]] = ("vqmodel.",)
    config: Emu3Config

    def __init__(self, folder: Path, *, text_only: bool = False) -> None:
        """Build the model of a checkpoint folder, its weights not yet filled; see models.empty_model."""
        super().__init__()
        self.config = config = read_config(folder, text_only=text_only)
        self.image_cache: ImageCache[Tensor] = ImageCache()
        if config.vision is not None:
            self.vqmodel = VqVae(config.vision)
            images = read_images(folder, ImageSettings())
            self._normalize = Normalize(images.mean, images.std)
            self._max_pixels = images.max_pixels
            self._channels = images.mean, images.std
        text, width = config.text, config.text.hidden_size
        layers = {
            i: DecoderLayer(text, i, SwiGLU(width, text.intermediate_size)) for i in range(text.num_hidden_layers)
        }
        frequencies = rotary_frequencies(text.head_dim, text.rope_theta)
        self.text_model = LanguageModel(text, layers, frequencies, text.vocab_size)

    def prompt(self, inputs: Sequence[ModelInput]) -> list[Prompt]:
        """Bring inputs onto the device; each distinct picture is encoded once, and its codes take their places."""
        self.check_ids(inputs)
        tiles = {name: tile for i in inputs for name, tile in zip(i.image_names, i.tiles, strict=True)}
        codes = self.image_cache.find(tiles, lambda names: self.encode([tiles[name] for name in names]))
        return [self._prompt(model_input, codes) for model_input in inputs]

    def _prompt(self, model_input: ModelInput, codes: Mapping[str, Tensor]) -> Prompt:
        ids = torch.tensor(model_input.token_ids, dtype=torch.int64, device=self.device)
        vocabulary = self.config.vocabulary
        if model_input.tiles and vocabulary is not None:
            own = torch.cat([codes[name] for name in model_input.image_names])
            places = own if vocabulary.places is None else torch.tensor(vocabulary.places, device=self.device)[own]
            ids[ids == vocabulary.image_placeholder] = vocabulary.first_visual + places
        negative = None if model_input.negative is None else torch.tensor(model_input.negative, dtype=torch.int64)
        return Prompt(
            self.embed(ids),
            grammar=None if model_input.num_new_tokens is None else self._grammar(Grid(*model_input.layout)),
            negative=None if negative is None else self.embed(negative.to(self.device)),
        )

    def _grammar(self, grid: Grid) -> PictureGrammar:
        vocabulary = self.config.vocabulary
        assert vocabulary is not None
        ends = Ends(
            vocabulary.end_of_line, vocabulary.end_of_frame, vocabulary.image_end, min(self.config.eos_token_ids)
        )
        first = vocabulary.first_visual
        return PictureGrammar(grid, ends, range(first, first + vocabulary.num_visual))

    def rehearse(self, max_length: int, *, is_drawing: bool) -> Sequence[Tensor]:
        """See FamilyModel: paint the largest picture that has room in a sequence, or encode the largest of all."""
        if self.config.vision is None:
            return ()
        if is_drawing:
            side = isqrt(max_length)
            self.vqmodel.decode(torch.zeros(1, side, side, dtype=torch.int64, device=self.device))
            return ()
        factor = self.config.vision.spatial_factor
        side = isqrt(self._max_pixels) // factor * factor
        self.encode([np.zeros((side, side, 3), np.uint8)])
        return ()

    def encode(self, tiles: Sequence[Pixels]) -> list[Tensor]:
        """Return the codes int64 (H * W) of each picture, row by row.

        One by one: a code is the nearest of thousands, so a last bit that depends on company is another code. And a
        picture of 720 x 720 fills the device by itself.
        """
        return [self.vqmodel.encode(self._normalize([tile], self.device, torch.float32)).flatten() for tile in tiles]

    @torch.inference_mode()
    def decode_picture(self, layout: Sequence[int], token_ids: Sequence[int]) -> Pixels:
        """Return a drawn picture uint8 (8 H, 8 W, 3); see models.picture_decoder.PictureModel.

        Args:
            layout: Its rows and columns of codes, (H, W).
            token_ids: All ids of its answer.
        """
        vocabulary = self.config.vocabulary
        assert vocabulary is not None
        codes = vocabulary.codes_of(Grid(*layout).chosen(token_ids))
        picture = self.vqmodel.decode(torch.from_numpy(codes).to(self.device)[None])[0]  # (3, 8 H, 8 W)
        mean, std = (torch.tensor(three, device=self.device)[:, None, None] for three in self._channels)
        # Cut off and not rounded, as the reference does.
        levels = ((picture * std + mean) * 255).clamp(0, 255).to(torch.uint8)
        return levels.permute(1, 2, 0).cpu().numpy()
