"""Mllama computes what transformers computes, whatever its sizes are, once transformers is told what Mllama is.

Where the two differ by design is shown too: see the last tests here, and Meta's own code in test_mllama_meta.py.
"""

from dataclasses import dataclass
from functools import partial

import pytest
import torch
import transformers
from torch import Tensor

from models.cache.memory import Memory, MemoryView
from models.engine import engine
from models.layers import attend_all
from models.mllama.model import MllamaModel
from tests.models.mllama_ours import generated, logits_of, rows_from_an_image, rows_with_left_context
from tests.models.mllama_reference import Picture, Row, Size, batch, greedy, write_reference
from tests.models.mllama_sizes import SIZES
from tests.models.reference import Pair, pair_of


@pytest.fixture(scope="module", params=list(SIZES.values()), ids=list(SIZES))
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Pair[Size, MllamaModel]:
    return pair_of(write_reference, request.param, tmp_path_factory.mktemp("mllama"))


@torch.inference_mode()
def expected_logits(pair: Pair[Size, MllamaModel], row: Row) -> Tensor:
    scores: Tensor = pair.reference(**batch([row], pair.size), use_cache=False).logits
    return scores[0]


def test_scores_equal_the_references(pair: Pair[Size, MllamaModel]) -> None:
    for row in rows_from_an_image(pair.size):
        found = logits_of(pair.ours, row, pair.size)
        torch.testing.assert_close(found, expected_logits(pair, row), atol=1e-4, rtol=1e-4)


def test_greedy_answers_equal_those_of_the_references_left_padded_batch(pair: Pair[Size, MllamaModel]) -> None:
    rows, num_tokens = rows_from_an_image(pair.size), 40
    expected = greedy(pair.reference, batch(rows, pair.size), num_tokens)
    assert min(len(set(ids)) for ids in expected) > 3  # answers that stand still would show little
    assert generated(pair.ours, rows, pair.size, num_tokens) == expected


@dataclass
class ReferencesRule:
    """What tokens see in transformers: those that see no image of ours see all of them, missing tiles and all.

    Their half behind the attention stays off, as it does there.
    """

    everything: Memory
    ours: MemoryView

    @property
    def attends(self) -> Tensor:
        return self.ours.attends

    def attend(self, layer: int, query: Tensor) -> Tensor:
        keys, values = self.everything.keys[layer], self.everything.values[layer]
        return torch.where(self.ours.attends, self.ours.attend(layer, query), attend_all(query, keys, values))


@torch.inference_mode()
def everything(model: MllamaModel, row: Row, size: Size) -> Memory:
    """Return all of a row's images as one memory, with the tiles that they do not have."""
    features = []
    for picture in row.pictures:
        pixels = torch.from_numpy(picture.pixels(size))[None]
        seen = model.vision_model(pixels, torch.tensor([picture.grid(size)]))
        features.append(model.multi_modal_projector(seen).flatten(1, 2)[0])
    return model.remember(torch.cat(features))


def test_scores_equal_the_references_in_every_row_under_its_own_rule(pair: Pair[Size, MllamaModel]) -> None:
    for row in rows_with_left_context(pair.size):
        if not row.pictures:
            continue
        all_images = everything(pair.ours, row, pair.size)
        found = logits_of(pair.ours, row, pair.size, partial(ReferencesRule, all_images))
        torch.testing.assert_close(found, expected_logits(pair, row), atol=1e-4, rtol=1e-4)
        assert (logits_of(pair.ours, row, pair.size) - found).abs().max() > 0.1  # the rule matters


def test_rows_without_an_image_equal_the_references_whoever_is_beside_them(pair: Pair[Size, MllamaModel]) -> None:
    texts = [row for row in rows_with_left_context(pair.size) if not row.pictures]
    for row in texts:
        found = logits_of(pair.ours, row, pair.size)
        torch.testing.assert_close(found, expected_logits(pair, row), atol=1e-4, rtol=1e-4)
    mixed = [texts[0], *rows_from_an_image(pair.size), texts[1]]
    found_ids = generated(pair.ours, mixed, pair.size, 12)
    assert [found_ids[0], found_ids[-1]] == greedy(pair.reference, batch(texts, pair.size), 12)


def test_images_reach_across_the_chunks_of_a_long_prompt(
    pair: Pair[Size, MllamaModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [*rows_from_an_image(pair.size), *rows_with_left_context(pair.size)]
    whole = generated(pair.ours, rows, pair.size, 6)
    monkeypatch.setattr(engine, "PREFILL_TOKENS", 8)
    assert generated(pair.ours, rows, pair.size, 6) == whole


@torch.inference_mode()
def test_tokens_before_an_image_and_rows_without_one_do_not_depend_on_pixels(pair: Pair[Size, MllamaModel]) -> None:
    size = pair.size
    one, other = (Picture(*size.grids[-1], seed=seed) for seed in (1, 2))
    ids = [60, 61, 62, size.image, 63]
    first, second = (logits_of(pair.ours, Row(ids, [picture]), size) for picture in (one, other))
    assert torch.equal(first[:3], second[:3])
    assert (first[3:] - second[3:]).abs().amax(-1).min() > 1e-3
    torch.testing.assert_close(first[:3], logits_of(pair.ours, Row(ids[:3]), size), atol=1e-5, rtol=1e-5)


@torch.inference_mode()
def test_the_installed_transformers_differs_from_mllama_where_we_say_it_does(pair: Pair[Size, MllamaModel]) -> None:
    version, size = f"transformers {transformers.__version__}", pair.size
    tower = pair.reference.model.vision_model
    outputs: list[Tensor] = []
    hooks = [layer.register_forward_hook(lambda *call: outputs.append(call[2])) for layer in tower.transformer.layers]
    inputs = batch([Row([60, size.image], [Picture(*size.grids[-1])])], size)
    seen = tower(
        *(inputs[name] for name in ("pixel_values", "aspect_ratio_ids", "aspect_ratio_mask"))
    ).last_hidden_state
    for hook in hooks:
        hook.remove()
    for place, layer in enumerate(size.lowered):
        feature = seen[..., size.vision["hidden_size"] :].unflatten(-1, (-1, len(size.lowered)))[0, 0, :, :, :, place]
        output = outputs[layer].view(len(feature), -1, feature.shape[-1])[:, : feature.shape[1]]
        assert torch.equal(feature, output), (
            f"{version} no longer takes the OUTPUT of layer i for intermediate layer i (difference A). If it now takes "
            "the input, give it our own indices in tests/models/mllama_reference.py and change the README's table."
        )
    scores = pair.reference(**inputs, use_cache=False).logits
    inputs["pixel_values"] = -inputs["pixel_values"]
    changed = pair.reference(**inputs, use_cache=False).logits
    assert (scores[0, 0] - changed[0, 0]).abs().max() > 1e-3, (
        f"{version} no longer lets tokens before the first image see it (difference B). Then ReferencesRule in "
        "tests/models/test_mllama.py is not needed any more; change the README's table too."
    )
