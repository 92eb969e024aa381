"""Emu3 computes what the reference (transformers 5.23) computes: chats with pictures, texts, and pictures it draws.

Shapes: T tokens, H x W codes of a picture.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers import Emu3Config, Emu3ForCausalLM, Emu3ForConditionalGeneration, Emu3TextConfig

from models import load_model
from models.cache.slots import Cache, prefill_cache_view
from models.emu3.model import Emu3Model
from models.engine import Engine, run_all
from models.engine import Sequence as Answering
from models.types import ModelInput, Pixels, Sampling
from tests.models.emu3_reference import BOS, EOS, PAD, TEXT, tensors_to_fill, vocabulary_map
from tests.models.reference import Pair, greedy, pair_of, random_reference
from tests.pictures import name_of

PLACEHOLDER, LINE, FRAME, IMAGE, START, END = 90, 91, 92, 93, 94, 95
FIRST = 100
MEAN = STD = (0.5, 0.5, 0.5)


@dataclass(frozen=True)
class Size:
    """One tiny configuration: what differs from the reference's defaults."""

    text: Mapping[str, Any]
    vq: Mapping[str, Any]

    @property
    def factor(self) -> int:
        """Pixels along a side of a code."""
        return int(2 ** (len(self.vq["channel_multiplier"]) - 1))

    @property
    def vocabulary(self) -> dict[str, int]:
        """Ids by token, as config.json lists them."""
        return vocabulary_map((PLACEHOLDER, LINE, FRAME, IMAGE, START, END), FIRST, self.vq["codebook_size"])


VQ = {
    "codebook_size": 64, "embed_dim": 4, "latent_channels": 4, "base_channels": 32, "channel_multiplier": [1, 2],
    "num_res_blocks": 1, "attn_resolutions": [1], "hidden_size": 64, "temporal_downsample_factor": 4,
}  # fmt: skip
SIZES = {
    "grouped_heads": Size(TEXT, VQ),
    "one_head_of_keys": Size(
        TEXT | {"num_attention_heads": 6, "num_key_value_heads": 1, "num_hidden_layers": 3, "rms_norm_eps": 1e-3},
        VQ | {"channel_multiplier": [1, 1, 2], "attn_resolutions": [2], "codebook_size": 40},
    ),
    "all_heads": Size(
        TEXT | {"num_key_value_heads": 4, "hidden_size": 64, "rope_parameters": {"rope_theta": 1e4}},
        VQ | {"embed_dim": 6, "latent_channels": 6, "num_res_blocks": 2, "codebook_size": 96},
    ),
}


def write_reference(folder: Path, size: Size) -> Any:
    """Write a checkpoint with random weights; return the reference's model of it."""
    config = Emu3Config(
        text_config=dict(size.text) | {"vocab_size": FIRST + size.vq["codebook_size"]},
        vq_config=dict(size.vq),
        vocabulary_map=size.vocabulary,
    )
    model = random_reference(Emu3ForConditionalGeneration, config, randomise)
    model.save_pretrained(folder)
    images = {"image_mean": MEAN, "image_std": STD, "min_pixels": 16, "max_pixels": 4096}
    (folder / "preprocessor_config.json").write_text(json.dumps(images), encoding="utf-8")
    return model


@torch.no_grad()
def randomise(model: torch.nn.Module) -> None:
    """Make every parameter and statistic random; the decoder's so that words wander."""
    for name, tensor, generator in tensors_to_fill(model):
        if tensor.ndim == 1:
            tensor.uniform_(0.5, 1.5, generator=generator)
        else:
            spread = 1.0 if "embed" in name else 1.5 * tensor[0].numel() ** -0.5
            tensor.normal_(0, spread, generator=generator)


def tile(size: Size, rows: int, columns: int, seed: int) -> Pixels:
    pixels = np.random.default_rng(seed).integers(0, 256, (rows * size.factor, columns * size.factor, 3))
    return pixels.astype(np.uint8)


@dataclass(frozen=True)
class Row:
    """Words before, pictures by their grids, words after."""

    before: Sequence[int]
    grids: Sequence[tuple[int, int]]
    after: Sequence[int]

    def ids(self, *, is_ours: bool) -> list[int]:
        """Return the token ids: an end of line is a placeholder to the reference, and itself to us."""
        ids = list(self.before)
        for rows, columns in self.grids:
            line = [PLACEHOLDER] * columns + [LINE if is_ours else PLACEHOLDER]
            ids += [START, 7, 8, IMAGE, *(line * rows), FRAME, END]
        return ids + list(self.after)

    def tiles(self, size: Size) -> tuple[Pixels, ...]:
        return tuple(tile(size, *grid, seed) for seed, grid in enumerate(self.grids))

    def ours(self, size: Size) -> ModelInput:
        tiles = self.tiles(size)
        names = tuple(name_of([one], 0) for one in tiles)
        layout = tuple(side for grid in self.grids for side in grid)
        return ModelInput("", np.array(self.ids(is_ours=True), np.int32), tiles, layout, image_names=names)

    def theirs(self, size: Size) -> dict[str, Tensor]:
        inputs = {"input_ids": torch.tensor([self.ids(is_ours=False)])}
        inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
        if self.grids:
            scaled = [((one / np.float32(255) - 0.5) / np.float32(0.5)).transpose(2, 0, 1) for one in self.tiles(size)]
            inputs["pixel_values"] = torch.from_numpy(np.stack(scaled).astype(np.float32))
            inputs["image_sizes"] = torch.tensor([one.shape[1:] for one in scaled])
        return inputs


ROWS = [
    Row([BOS, 10, 11], [(3, 4)], [12, 13]),
    Row([BOS], [(2, 2), (2, 2)], [14]),
    Row([BOS, 20, 21, 22], [], []),
    Row([BOS, 30], [(1, 5)], [31, 32, 33, 34]),
]


@torch.inference_mode()
def logits_of(model: Emu3Model, row: ModelInput) -> Tensor:
    [prompt] = model.prompt([row])
    T = len(row.token_ids)
    cache_view = prefill_cache_view(Cache(model.cache_shape, 1, T), slice(0, 1), range(T), model.device)
    return model.logits(model.decode(prompt.embeddings[None], cache_view))[0]


def loaded(folder: Path, **options: Any) -> Emu3Model:
    model = load_model(str(folder), device="cpu", **options)
    assert isinstance(model, Emu3Model)
    return model


@pytest.fixture(scope="module", params=list(SIZES.values()), ids=list(SIZES))
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Pair[Size, Emu3Model]:
    return pair_of(write_reference, request.param, tmp_path_factory.mktemp("emu3"))


def test_scores_and_greedy_answers_are_the_references(pair: Pair[Size, Emu3Model]) -> None:
    sequences = [Answering("", row.ours(pair.size), Sampling(max_new_tokens=20)) for row in ROWS]
    run_all(Engine(pair.ours, slots=3, max_length=128), sequences)
    for row, sequence in zip(ROWS, sequences, strict=True):
        inputs, scores = row.theirs(pair.size), logits_of(pair.ours, row.ours(pair.size))
        with torch.inference_mode():
            torch.testing.assert_close(scores, pair.reference(**inputs).logits[0], atol=1e-4, rtol=1e-4)
        assert [sequence.token_ids] == greedy(pair.reference, inputs, 20)


def test_each_picture_is_encoded_once_however_many_ask(tmp_path: Path) -> None:
    size = SIZES["grouped_heads"]
    write_reference(tmp_path, size)
    ours = loaded(tmp_path)
    ours.prompt([row.ours(size) for row in (*ROWS, *ROWS)])
    assert ours.image_cache.num_encoded == 4  # those of (2, 2) differ, that of (1, 5) and of (3, 4)


def negative_of(grid: tuple[int, int]) -> list[int]:
    return [BOS, 40, 41, START, *grid, IMAGE]


def drawing(prompt: list[int], grid: tuple[int, int], scale: float) -> Answering:
    rows, columns = grid
    given = ModelInput(
        "",
        np.array([BOS, *prompt, START, *grid, IMAGE], np.int32),
        layout=grid,
        negative=np.array(negative_of(grid), np.int32),
        num_new_tokens=rows * (columns + 1) + 3,
    )
    return Answering("", given, Sampling(guidance_scale=scale))


def drawn_by_reference(reference: Any, size: Size, one: Answering) -> list[int]:
    """Draw by the documented recipe: generate with a negative prompt, guidance, and a function of allowed tokens."""
    rows, columns = one.model_input.layout
    prompt = torch.from_numpy(one.model_input.token_ids).long()[None]
    visual = list(range(FIRST, FIRST + size.vq["codebook_size"]))

    def allowed(_: int, ids: Tensor) -> list[int]:
        k = len(ids) - prompt.shape[1] + 1
        if k % (columns + 1) == 0 and k <= rows * (columns + 1):
            return [LINE]
        closing = {1: FRAME, 2: END, 3: EOS}.get(k - rows * (columns + 1))
        return visual if closing is None else [closing]

    assert one.model_input.negative is not None
    negative = torch.from_numpy(one.model_input.negative).long()[None]
    out = reference.generate(
        input_ids=prompt,
        attention_mask=torch.ones_like(prompt),
        negative_prompt_ids=negative,
        negative_prompt_attention_mask=torch.ones_like(negative),
        guidance_scale=one.sampling.guidance_scale,
        prefix_allowed_tokens_fn=allowed,
        do_sample=False,
        max_new_tokens=one.model_input.num_new_tokens,
        eos_token_id=EOS,
        pad_token_id=PAD,
    )
    ids: list[int] = out[0, prompt.shape[1] :].tolist()
    return ids


def test_guided_pictures_are_token_for_token_the_references(pair: Pair[Size, Emu3Model]) -> None:
    ours, reference = pair.ours, pair.reference
    mixed = [drawing([10, 11], (3, 4), 3.0), drawing([12], (2, 1), 3.0), drawing([13, 14, 15], (5, 3), 1.5)]
    run_all(Engine(ours, slots=6, max_length=128), mixed)
    for one in mixed:
        assert one.token_ids == drawn_by_reference(reference, pair.size, one)
    codes = torch.from_numpy(np.array(mixed[0].token_ids[:15]).reshape(3, 5)[:, :4] - FIRST)[None]
    with torch.inference_mode():
        expected = reference.model.decode_image_tokens(torch.tensor([mixed[0].token_ids]), height=3, width=4)
        difference = (ours.vqmodel.decode(codes)[0] - expected[0]).abs().max()
    assert difference < 1e-5 * expected.abs().max()  # these weights draw far beyond -1 to 1


def test_text_alone_needs_no_vq_vae(tmp_path: Path) -> None:
    size = SIZES["grouped_heads"]
    write_reference(tmp_path, size)
    row = ROWS[2].ours(size)
    whole, text = loaded(tmp_path), loaded(tmp_path, text_only=True)
    assert not any(name.startswith("vqmodel") for name, _ in text.named_parameters())
    torch.testing.assert_close(logits_of(text, row), logits_of(whole, row), atol=0, rtol=0)


def test_a_decoder_alone_answers_as_the_references(tmp_path: Path) -> None:
    reference = random_reference(Emu3ForCausalLM, Emu3TextConfig(**TEXT, vocab_size=120), randomise)
    reference.save_pretrained(tmp_path)
    ids = [BOS, 20, 21, PLACEHOLDER, 22]
    with torch.inference_mode():
        expected = reference(torch.tensor([ids])).logits[0]
    ours = logits_of(loaded(tmp_path), ModelInput("", np.array(ids, np.int32)))
    torch.testing.assert_close(ours, expected, atol=1e-4, rtol=1e-4)


def test_names_as_they_are_in_memory_are_the_same_model(tmp_path: Path) -> None:
    size = SIZES["all_heads"]
    reference = write_reference(tmp_path, size)
    row = ROWS[0].ours(size)
    expected = logits_of(loaded(tmp_path), row)
    names = {name: tensor.clone().contiguous() for name, tensor in reference.state_dict().items()}
    assert "model.text_model.layers.0.self_attn.q_proj.weight" in names
    save_file(names, tmp_path / "model.safetensors")
    torch.testing.assert_close(logits_of(loaded(tmp_path), row), expected, atol=0, rtol=0)


def test_the_vq_vae_stays_in_float32_beside_a_decoder_in_half_precision(tmp_path: Path) -> None:
    size = SIZES["grouped_heads"]
    write_reference(tmp_path, size)
    whole, half = loaded(tmp_path), loaded(tmp_path, dtype="bfloat16")
    assert half.dtype == torch.bfloat16
    assert {parameter.dtype for parameter in half.vqmodel.parameters()} == {torch.float32}
    tiles = ROWS[0].tiles(size)
    assert torch.equal(half.encode(tiles)[0], whole.encode(tiles)[0])
