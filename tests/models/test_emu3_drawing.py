"""What asks for a picture is the authors' prompt, its text read as characters; what comes back is its codes."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer
from transformers import Emu3Processor

from models import Request, load_model, load_processor
from models.emu3.grid import Grid, grid_for
from models.engine import Engine, Sequence, run_all
from models.types import BadRequest, Completion, Processor, Sampling
from tests.models.reference import user
from tests.models.test_emu3_processor import SMALL, image_reference, reference_tokenizer, write_checkpoint
from tests.tiny import keep_decoder_alone, tiny_aria, tiny_emu3, tiny_mllama
from training.emu3 import files as emu3

GUIDED = Sampling(guidance_scale=3.0)
WORDS = "a red circle, left of\n  a blue one."
CONTROLS = (emu3.BEGIN, emu3.END_OF_TEXT, emu3.IMAGE_START, emu3.IMAGE_TOKEN, emu3.PLACEHOLDER, emu3.visual_token(3))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("emu3"))


def drawing(prompt: str = WORDS, grid: tuple[int, int] = (3, 4), **changed: Any) -> Request:
    return Request(prompt=prompt, grid=grid, **{"sampling": GUIDED} | changed)


@pytest.mark.parametrize(("ratio", "area"), [("1:1", 518400), ("16:9", 518400), ("9:16", 262144), ("3:2", 4096)])
def test_a_prompt_for_a_picture_is_the_references(folder: Path, processor: Processor, ratio: str, area: int) -> None:
    reference = Emu3Processor(image_reference(SMALL), reference_tokenizer(folder))
    grid = grid_for(ratio, area)
    ours = processor.prepare(drawing(grid=(grid.rows, grid.columns), negative_prompt="lowres, blurry."))
    for text, ids in ((WORDS, ours.token_ids), ("lowres, blurry.", ours.negative)):
        expected = reference(text=text, return_for_image_generation=True, ratio=ratio, image_area=area)
        assert ids is not None and ids.dtype == np.int32
        assert ids.tolist() == expected["input_ids"][0]
        assert list(ours.layout) == expected["image_sizes"][0]
    assert ours.num_new_tokens == grid.num_tokens
    assert ours.prompt == f"{WORDS}<|image start|>{grid.rows}*{grid.columns}<|image token|>"
    assert (ours.tiles, ours.image_tokens, ours.image_names) == ((), 0, ())


@pytest.mark.parametrize("negative", [None, ""])
def test_without_a_negative_prompt_a_picture_is_guided_away_from_the_empty_text(
    folder: Path, processor: Processor, negative: str | None
) -> None:
    ours = processor.prepare(drawing(negative_prompt=negative)).negative
    theirs = f"{emu3.BEGIN}<|image start|>3*4<|image token|>"
    assert ours is not None
    assert ours.tolist() == Tokenizer.from_file(str(folder / "tokenizer.json")).encode(theirs).ids


def test_at_scale_1_nothing_guides_a_picture(processor: Processor) -> None:
    plain = processor.prepare(drawing(negative_prompt="lowres", sampling=Sampling()))
    assert plain.negative is None
    assert plain.token_ids.tolist() == processor.prepare(drawing()).token_ids.tolist()


@pytest.mark.parametrize("control", CONTROLS)
@pytest.mark.parametrize("shape", ["{}", "{} a cat", "a {0}{0} cat", "a cat {}"])
def test_a_control_token_in_what_shall_be_drawn_stays_text(
    folder: Path, processor: Processor, known: dict[str, int], control: str, shape: str
) -> None:
    words = shape.format(control)
    ours = processor.prepare(drawing(words, negative_prompt=words))
    begin, *text = ours.token_ids.tolist()[:-5]  # without the start, "3", "*", "4" and the image token
    assert begin == known[emu3.BEGIN] and text and not {known[token] for token in CONTROLS} & set(text)
    assert Tokenizer.from_file(str(folder / "tokenizer.json")).decode(text) == words
    assert ours.prompt.startswith(f"{words}<|image start|>")
    assert ours.negative is not None and ours.negative.tolist() == ours.token_ids.tolist()


@pytest.mark.parametrize(
    ("request_", "told"),
    [
        (Request(messages=user("a cat"), grid=(2, 2)), "found `messages` for a picture, expected a `prompt`"),
        (Request(grid=(2, 2)), "found no `prompt` for a picture"),
        (Request(prompt="a cat", images=[b"", b""], grid=(2, 2)), "found 2 images, expected none"),
        (Request(prompt="a cat", grid=(0, 2)), "a picture of 0 x 2 codes: expected at least 1 x 1"),
        (Request(prompt="a cat", negative_prompt="lowres"), "found the negative prompt 'lowres' without a grid"),
        (
            Request(prompt="a cat", sampling=Sampling(guidance_scale=3.0)),
            "found guidance_scale 3 without a grid, expected 1",
        ),
        (Request(messages=user("a cat"), sampling=Sampling(guidance_scale=0.0)), "found guidance_scale 0 without"),
    ],
)
def test_a_request_that_contradicts_itself_is_refused(processor: Processor, request_: Request, told: str) -> None:
    with pytest.raises(BadRequest, match=told):
        processor.prepare(request_)


def test_pictures_need_the_vq_vae_and_the_error_says_who_has_none(tmp_path: Path, folder: Path) -> None:
    told = "found a grid of 3 x 4 codes, but a model loaded with text_only draws no pictures"
    assert load_processor(str(folder)).pixels_per_code
    text_only = load_processor(str(folder), text_only=True)
    assert text_only.pixels_per_code is None
    with pytest.raises(BadRequest, match=told):
        text_only.prepare(drawing())
    decoder = str(keep_decoder_alone(tiny_emu3(tmp_path)))
    with pytest.raises(BadRequest, match="but a checkpoint without a vision encoder draws no pictures"):
        load_processor(decoder).prepare(drawing())


@pytest.mark.parametrize("write", [tiny_aria, tiny_mllama])
@pytest.mark.parametrize("text_only", [False, True])
def test_families_that_draw_nothing_refuse_a_grid(tmp_path: Path, write: Any, text_only: bool) -> None:
    with pytest.raises(BadRequest, match="found a grid of 3 x 4 codes, but this family draws no pictures"):
        load_processor(str(write(tmp_path)), text_only=text_only).prepare(drawing())


@pytest.mark.parametrize("write", [tiny_aria, tiny_mllama])
def test_families_that_draw_nothing_refuse_guidance(tmp_path: Path, write: Any) -> None:
    processor = load_processor(str(write(tmp_path)))
    processor.prepare(Request(prompt="a cat"))
    with pytest.raises(BadRequest, match=r"found guidance_scale 1\.5 without a grid, expected 1"):
        processor.prepare(Request(prompt="a cat", sampling=Sampling(guidance_scale=1.5)))


def test_a_picture_ends_with_its_grid_whatever_the_run_says_of_ends(tmp_path: Path) -> None:
    folder = tiny_emu3(tmp_path)
    processor, model = load_processor(str(folder)), load_model(str(folder), device="cpu")
    sampling = Sampling(max_new_tokens=1, guidance_scale=2.0, stop=("<", "e"))
    asked = processor.prepare(drawing("a cat", sampling=sampling))
    sequence = Sequence("", asked, sampling, frozenset(range(model.config.text.vocab_size)), lambda _: True)
    run_all(Engine(model, slots=2, max_length=128), [sequence])
    completion = sequence.completion
    assert completion is not None
    painted = Completion(completion.token_ids, completion.logprobs, completion.finish_reason, image=b"a picture")
    answer = processor.to_answer(asked, painted, sampling)
    assert (answer.text, answer.image, answer.finish_reason) == ("", b"a picture", "stop")
    assert answer.token_ids == completion.token_ids and len(answer.token_ids) == Grid(3, 4).num_tokens
    assert answer.logprobs == completion.logprobs
    assert (answer.prompt_tokens, answer.image_tokens) == (len(asked.token_ids), 0)
