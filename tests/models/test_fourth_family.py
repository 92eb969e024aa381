"""A family that the package does not know answers by the same engine, as the reference (transformers 5.23) does.

It is a Qwen2-VL (tests/models/qwen2_vl): positions on three axes that are not places in the cache, QKV bias, tied head.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open

from models import TEMPLATE_DATE, Answer, ImageSettings, Request, fill_model
from models.asking import answer
from models.engine import Engine, Sequence, engine, run_all
from models.processor import ProcessorOptions
from models.types import BadRequest
from tests.models.qwen2_vl.model import Qwen2VLModel
from tests.models.qwen2_vl.processor import Qwen2VLProcessor
from tests.models.qwen2_vl.reference import generated, inputs_of, logprobs_of, write_reference
from tests.models.test_contract import about, choosing, photograph, requests, sharing
from tests.promise import answer_faults

NEAR = 1e-4


@dataclass(frozen=True)
class Pair:
    """The same checkpoint twice: run by the reference and by us."""

    folder: Path
    reference: Any

    def processor(self, *, text_only: bool = False) -> Qwen2VLProcessor:
        return Qwen2VLProcessor(
            self.folder, ProcessorOptions(ImageSettings(), None, TEMPLATE_DATE, text_only, "checkpoint")
        )

    def model(self, device: str | list[str] = "cpu", *, text_only: bool = False) -> Qwen2VLModel:
        with torch.device("meta"):
            empty = Qwen2VLModel(self.folder, text_only=text_only)
        return fill_model(empty, str(self.folder), device=device)

    def ask(self, asked: Iterable[Request], *, slots: int = 8, device: str | list[str] = "cpu") -> list[Answer]:
        return answer(list(asked), self.processor(), lambda: self.model(device), slots=slots)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    """Its head is tied to the embeddings, as in the released one of 2 billion parameters."""
    folder = tmp_path_factory.mktemp("checkpoint")
    return Pair(folder, write_reference(folder, is_tied=True))


def long_request() -> Request:
    content = [
        {"type": "text", "text": "What color is it? " * 30},
        *[{"type": "image"}] * 6,
        {"type": "text", "text": "Is it a circle? " * 30},
        {"type": "image"},
    ]
    pictures = [photograph(90 - 10 * i, 40 + 10 * i, seed=i) for i in range(7)]
    return Request("long", [{"role": "user", "content": content}], images=pictures)


def test_a_request_is_read_as_the_reference_reads_it(pair: Pair) -> None:
    processor, model = pair.processor(), pair.model()
    for request in [*requests(), long_request()]:
        ours, theirs = processor.prepare(request), inputs_of(pair.folder, request)
        assert ours.token_ids.tolist() == theirs["input_ids"][0].tolist()
        if not request.images:
            continue
        merged = theirs["image_grid_thw"][:, 1:] // 2
        assert list(ours.layout) == merged.flatten().tolist()
        pixels = [model._normalize([tile], model.device, model.dtype)[0] for tile in ours.tiles]
        patches = torch.cat([model.visual._in_blocks(one, 4) for one in pixels])
        films = theirs["pixel_values"].view(-1, 3, 2, 4, 4)
        for frame in (0, 1):
            assert torch.allclose(films[:, :, frame], patches, atol=1e-6)


def test_a_picture_becomes_the_references_rows(pair: Pair) -> None:
    request = about(photograph(70, 30, seed=1))
    [prompt], theirs = pair.model().prompt([pair.processor().prepare(request)]), inputs_of(pair.folder, request)
    with torch.inference_mode():
        features = pair.reference.model.get_image_features(theirs["pixel_values"], theirs["image_grid_thw"])
    is_image = theirs["input_ids"][0] == pair.processor().config.image_token_id
    assert torch.allclose(prompt.embeddings[is_image], features.pooler_output[0], atol=1e-5)


def test_tokens_stand_where_the_reference_puts_them_and_not_at_their_places(pair: Pair) -> None:
    for request in [one for one in [*requests(), long_request()] if one.images]:
        [prompt] = pair.model().prompt([pair.processor().prepare(request)])
        theirs = inputs_of(pair.folder, request)
        expected, delta = pair.reference.model.get_rope_index(
            theirs["input_ids"], theirs["mm_token_type_ids"], theirs["image_grid_thw"]
        )
        assert prompt.positions is not None
        assert prompt.positions.T.tolist() == expected[:, 0].tolist()
        assert prompt.offset == int(delta) != 0


@pytest.mark.parametrize("is_tied", [True, False])
def test_answers_are_the_references(is_tied: bool, tmp_path: Path) -> None:
    pair = Pair(tmp_path, write_reference(tmp_path, is_tied=is_tied))
    with safe_open(tmp_path / "model.safetensors", "pt") as stored:
        assert ("lm_head.weight" in stored.keys()) is not is_tied  # noqa: SIM118 - not a mapping
    asked = [*requests(), long_request()]
    for request, found in zip(asked, pair.ask(asked, slots=3), strict=True):
        ids, logprobs = generated(pair.reference, inputs_of(pair.folder, request), len(found.token_ids))
        assert list(found.token_ids) == ids
        assert found.logprobs == pytest.approx(logprobs, abs=NEAR)


@pytest.mark.parametrize("chunk", [16, 112])
def test_a_prompt_in_chunks_is_answered_as_in_one_piece(
    pair: Pair, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = [*requests(), long_request()]
    whole = pair.ask(asked)
    monkeypatch.setattr(engine, "PREFILL_TOKENS", chunk)
    for found, expected in zip(pair.ask(asked), whole, strict=True):
        assert found.token_ids == expected.token_ids
        assert found.logprobs == pytest.approx(expected.logprobs, abs=NEAR)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_company_changes_no_answer(pair: Pair, temperature: float) -> None:
    asked = requests(temperature)
    alone = [pair.ask([request])[0] for request in asked]
    assert len({one.token_ids for one in alone}) == len(alone)
    for slots in (1, 3, 64):
        assert answer_faults(pair.ask(asked, slots=slots), alone) == []
    assert answer_faults(pair.ask(asked[::-1], slots=2)[::-1], alone) == []


def test_what_prompts_begin_with_changes_no_answer_wherever_its_tokens_stand(pair: Pair) -> None:
    alone = [pair.ask([request])[0] for request in sharing()]
    for slots in (1, 3, 64):
        assert answer_faults(pair.ask(sharing(), slots=slots), alone) == []
    assert answer_faults(pair.ask([replace(one, shared=None) for one in sharing()]), alone) == []
    processor = pair.processor()
    sequences = [Sequence("", processor.prepare(one), one.sampling) for one in sharing()]
    batching = Engine(pair.model(), slots=4, max_length=512)
    run_all(batching, sequences)
    assert batching.num_prefilled < 0.8 * batching.num_asked


def test_choices_are_as_likely_as_the_reference_has_it_in_any_company(pair: Pair) -> None:
    asked = [one for two in zip(choosing(), requests(), strict=True) for one in two]
    together = pair.ask(asked, slots=64)
    assert answer_faults(together, pair.ask(asked, slots=1)) == []
    processor = pair.processor()
    for request, found in [both for both in zip(asked, together, strict=True) if both[0].choices]:
        given = processor.prepare(request)
        theirs = partial(logprobs_of, pair.reference, inputs_of(pair.folder, request), len(given.token_ids))
        expected = [sum(theirs(choice.tolist())) for choice in given.choices]
        assert found.choice_logprobs == pytest.approx(expected, abs=NEAR)
        assert found.token_ids == tuple(given.choices[int(np.argmax(expected))].tolist())


def test_layers_on_several_devices_answer_as_on_one(pair: Pair) -> None:
    for asked in (choosing(), requests()):
        assert answer_faults(pair.ask(asked, device=["cpu", "cpu"]), pair.ask(asked)) == []


def test_a_picture_is_looked_at_once(pair: Pair) -> None:
    processor, model = pair.processor(), pair.model()
    asked = [about(photograph(40, 60, seed=i % 2), f"Question {i}?") for i in range(6)]
    sequences = [Sequence("", processor.prepare(one), one.sampling, processor.stop_ids) for one in asked]
    run_all(Engine(model, slots=2, max_length=256), sequences)
    assert [one.error for one in sequences] == [None] * 6
    assert model.image_cache.num_encoded == 2


def test_the_decoder_alone_answers_texts_and_refuses_pictures(pair: Pair) -> None:
    processor = pair.processor(text_only=True)
    texts = [one for one in requests() if not one.images]
    bare = answer(texts, processor, lambda: pair.model(text_only=True))
    assert answer_faults(bare, pair.ask(texts)) == []
    with pytest.raises(BadRequest, match="a model loaded with text_only sees none"):
        processor.prepare(about(photograph(9, 9, seed=1)))


def test_its_own_image_settings_hold_and_others_are_refused(pair: Pair) -> None:
    request = about(photograph(80, 80, seed=1))
    processor = pair.processor()
    assert processor.prepare(replace(request, preprocess=ImageSettings(max_pixels=256))).image_tokens == 4
    with pytest.raises(BadRequest, match="preprocess: split_image: found True, but Qwen2-VL has no such image setting"):
        processor.prepare(replace(request, preprocess=ImageSettings(split_image=True)))
