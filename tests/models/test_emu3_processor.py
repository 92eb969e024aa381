"""Pictures get the reference's sizes and pixels to the last bit, and prompts the reference's ids, line ends put in."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tokenizers import Tokenizer
from transformers import Emu3ImageProcessor, Emu3Processor, PreTrainedTokenizerFast

from jobs.config import RunSettings
from models import ImageSettings, Request, load_processor
from models.types import (
    BadImage,
    BadRequest,
    CheckpointError,
    Completion,
    ImageSettingsError,
    ModelInput,
    Processor,
    Sampling,
)
from pipeline.settings import load_settings
from tests.models.reference import picture, user
from tests.pictures import encoded
from training.emu3 import files as emu3

ROOT = Path(__file__).parents[2]
IMAGE = "<image>"
# What the released folders are expected to say: BAAI's own numbers.
RELEASED = {"min_pixels": 512 * 512, "max_pixels": 1024 * 1024, "spatial_factor": 8}
SMALL = {"min_pixels": 32 * 32, "max_pixels": 64 * 64, "spatial_factor": 8}
TEXTS = ("What is it?", "You are a helpful assistant. USER: ASSISTANT:", "60*80")


def write_checkpoint(folder: Path, images: Mapping[str, Any] = SMALL, **config: Any) -> Path:
    """Write what the CPU half reads of a checkpoint, and no weights."""
    emu3.write_files(folder, TEXTS, num_codes=8)
    change(folder / "config.json", **config)
    change(folder / "preprocessor_config.json", **images)
    return folder


def change(file: Path, **fields: Any) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | fields))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("emu3"))


@pytest.fixture(scope="module")
def released(tmp_path_factory: pytest.TempPathFactory) -> Processor:
    return load_processor(str(write_checkpoint(tmp_path_factory.mktemp("released"), RELEASED)))


def tiled(processor: Processor, *images: Image.Image) -> ModelInput:
    return processor.prepare(Request(prompt=IMAGE * len(images), images=[encoded(image) for image in images]))


def normalised(pixels: np.ndarray) -> np.ndarray:
    """A tile as the reference's numbers, channels first: scaled and shifted in float32."""
    shifted: np.ndarray = ((pixels * (1 / 255)).astype(np.float32) - np.float32(0.5)) / np.float32(0.5)
    return shifted.transpose(2, 0, 1)


def image_reference(images: Mapping[str, Any]) -> Any:
    return Emu3ImageProcessor(**images, image_mean=[0.5] * 3, image_std=[0.5] * 3)


def assert_equals_reference(processor: Processor, images: Mapping[str, Any], size: tuple[int, int]) -> None:
    image = picture(*size)
    # Told where the channels are, for it takes a picture of three rows for three channels.
    expected = image_reference(images)(image, input_data_format="channels_last", return_tensors="np")
    ours = tiled(processor, image)
    [tile] = ours.tiles
    assert tile.dtype == np.uint8 and tile.shape[2] == 3
    assert tile.shape[:2] == expected["pixel_values"].shape[2:]
    assert ours.layout == (tile.shape[0] // 8, tile.shape[1] // 8)
    assert np.array_equal(normalised(tile), expected["pixel_values"][0])


RELEASED_ZOO = [
    (1, 1), (1, 200), (200, 1), (3, 2), (200, 200), (512, 512), (508, 516), (516, 524), (524, 516), (511, 513),
    (640, 480), (480, 640), (1024, 1024), (1028, 1020), (1024, 1032), (3000, 2000), (2000, 3000), (1280, 720),
    (4000, 20), (33, 999), (2047, 513),
]  # fmt: skip


@pytest.mark.parametrize("size", RELEASED_ZOO, ids=str)
def test_a_picture_equals_the_references_to_the_last_bit(released: Processor, size: tuple[int, int]) -> None:
    assert_equals_reference(released, RELEASED, size)


def test_any_size_equals_the_references_halves_rounded_to_even(processor: Processor) -> None:
    random = np.random.default_rng(0)
    some = [(int(w), int(h)) for w, h in np.exp(random.uniform(0, np.log(180), (150, 2))).astype(int)]
    halves = [(w, h) for w in (4, 12, 20, 28, 36, 44, 60, 68) for h in (4, 28, 36, 52, 60)]
    thin = [(900, 8), (8, 900), (1000, 12)]  # they would shrink to nothing
    for size in some + halves + thin:
        assert_equals_reference(processor, SMALL, size)


@pytest.mark.parametrize(
    ("size", "grid"),
    [((640, 480), (60, 80)), ((200, 200), (64, 64)), ((3000, 2000), (104, 156)), ((508, 532), (66, 64))],
)
def test_a_size_is_the_nearest_that_whole_codes_cover(
    released: Processor, size: tuple[int, int], grid: tuple[int, int]
) -> None:
    assert tiled(released, picture(*size)).layout == grid


@pytest.mark.parametrize(("size", "is_refused"), [((400, 2), False), ((401, 2), True), ((2, 401), True)])
def test_a_picture_too_narrow_is_refused_as_the_reference_refuses_it(
    processor: Processor, size: tuple[int, int], is_refused: bool
) -> None:
    if not is_refused:
        tiled(processor, picture(*size))
        return
    with pytest.raises(ValueError, match="aspect ratio must be smaller than 200"):
        image_reference(SMALL)(picture(*size))
    with pytest.raises(BadImage, match=rf"refused {size[0]} x {size[1]} pixels: one side is more than 200 times"):
        tiled(processor, picture(*size))


def test_a_picture_is_its_size_its_rows_with_their_ends_and_its_end(released: Processor, known: dict[str, int]) -> None:
    model_input = tiled(released, picture(640, 480))
    begin, start, *rest = model_input.token_ids.tolist()
    digits, rest = rest[: rest.index(known[emu3.IMAGE_TOKEN])], rest[rest.index(known[emu3.IMAGE_TOKEN]) + 1 :]
    assert (begin, start) == (known[emu3.BEGIN], known[emu3.IMAGE_START])
    plain = released.prepare(Request(prompt="60*80")).token_ids.tolist()[1:]
    assert digits == plain
    assert rest == [
        *([known[IMAGE]] * 80 + [known[emu3.END_OF_LINE]]) * 60, known[emu3.END_OF_FRAME], known[emu3.IMAGE_END],
    ]  # fmt: skip
    assert model_input.image_tokens == 60 * 80
    assert model_input.prompt == IMAGE and model_input.token_ids.dtype == np.int32


def test_several_pictures_follow_one_another_each_in_its_size(processor: Processor, known: dict[str, int]) -> None:
    sizes = [(64, 64), (5, 5), (96, 30)]
    together = tiled(processor, *(picture(*size) for size in sizes))
    alone = [tiled(processor, picture(*size)) for size in sizes]
    assert together.layout == tuple(side for one in alone for side in one.layout)
    assert [tile.shape for tile in together.tiles] == [(64, 64, 3), (32, 32, 3), (32, 96, 3)]
    for tile, one in zip(together.tiles, alone, strict=True):
        assert np.array_equal(tile, one.tiles[0])
    assert together.image_names == tuple(name for one in alone for name in one.image_names)
    bare = [one.token_ids.tolist()[1:] for one in alone]
    assert together.token_ids.tolist() == [known[emu3.BEGIN], *bare[0], *bare[1], *bare[2]]
    assert together.image_tokens == sum(one.image_tokens for one in alone) == 8 * 8 + 4 * 4 + 4 * 12


def test_images_have_equal_names_only_if_the_model_sees_the_same(folder: Path, processor: Processor) -> None:
    [name] = tiled(processor, picture(64, 64)).image_names
    assert tiled(processor, picture(64, 64)).image_names == (name,)
    changed = picture(64, 64)
    changed.putpixel((63, 63), (1, 2, 3))
    others = [tiled(processor, Image.new("RGB", (64, 32))), tiled(processor, Image.new("RGB", (32, 64)))]
    assert len({name, *(other.image_names[0] for other in (*others, tiled(processor, changed)))}) == 4


def reference_tokenizer(folder: Path) -> Any:
    """Return the reference's tokenizer; by the names of tokenizer_config.json its processor knows picture tokens."""
    stored = json.loads((folder / "tokenizer_config.json").read_text())
    names = {name: token for name, token in stored.items() if name.endswith("_token")}
    own = {name: names.pop(name) for name in ("bos_token", "eos_token", "pad_token")}
    return PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"), **own, extra_special_tokens=names)


@pytest.fixture(scope="module")
def reference(folder: Path) -> Any:
    return Emu3Processor(image_reference(SMALL), reference_tokenizer(folder), chat_template=RELEASED_TEMPLATE)


# As transformers' converter writes it into the released folders.
RELEASED_TEMPLATE = (
    "{% for message in messages %}{% if message['role'] != 'system' %}{{ message['role'].upper() + ': '}}{% endif %}"
    "{# Render all images first #}"
    "{% for content in message['content'] | selectattr('type', 'equalto', 'image') %}{{ '<image>' }}{% endfor %}"
    "{# Render all text next #}"
    "{% if message['role'] != 'assistant' %}"
    "{% for content in message['content'] | selectattr('type', 'equalto', 'text') %}{{ content['text'] + ' '}}"
    "{% endfor %}{% else %}"
    "{% for content in message['content'] | selectattr('type', 'equalto', 'text') %}"
    "{% generation %}{{ content['text'] + ' '}}{% endgeneration %}{% endfor %}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
)
SYSTEM = {"role": "system", "content": [{"type": "text", "text": "You are a helpful assistant."}]}
ANSWER = {"role": "assistant", "content": [{"type": "text", "text": "A cat."}]}
LATE_IMAGE = {"role": "user", "content": [{"type": "text", "text": "Grün?"}, {"type": "image"}]}
CHATS = [
    user("What is it?"),
    user("What is it?", 1),
    user("Which is larger?", 2),
    [SYSTEM, *user("What is it?", 1)],
    [LATE_IMAGE],
    [*user("What is it?", 1), ANSWER, LATE_IMAGE],
]


@pytest.mark.parametrize("template", ["ours", "released"])
@pytest.mark.parametrize("messages", CHATS, ids=range(len(CHATS)))
def test_a_chat_becomes_the_references_ids(
    tmp_path: Path, reference: Any, known: dict[str, int], messages: list[dict[str, Any]], template: str
) -> None:
    folder = write_checkpoint(tmp_path)
    if template == "released":
        (folder / "chat_template.json").write_text(json.dumps({"chat_template": RELEASED_TEMPLATE}))
    expected = reference.apply_chat_template(messages, add_generation_prompt=True)
    pictures = [picture(70, 50), picture(33, 60)][: expected.count(IMAGE)]
    model_input = load_processor(str(folder)).prepare(Request(messages=messages, images=list(map(encoded, pictures))))
    assert model_input.prompt == expected
    [ids] = reference(text=expected, images=pictures or None)["input_ids"]
    assert model_input.token_ids.tolist() == with_line_ends(ids, model_input.layout, known)


def with_line_ends(ids: Sequence[int], layout: Sequence[int], known: Mapping[str, int]) -> list[int]:
    """Put the ends of lines into the reference's prompt; it does so only inside its model."""
    ends = np.array(ids)
    placeholders = np.flatnonzero(ends == known[IMAGE])
    done = 0
    for rows, columns in zip(layout[::2], layout[1::2], strict=True):
        own = placeholders[done : done + rows * (columns + 1)].reshape(rows, columns + 1)
        ends[own[:, -1]] = known[emu3.END_OF_LINE]
        done += own.size
    assert done == placeholders.size
    listed: list[int] = ends.tolist()
    return listed


def test_the_reference_reads_the_files_of_a_toy_as_it_reads_released_ones(folder: Path, reference: Any) -> None:
    loaded: Any = Emu3Processor.from_pretrained(folder)
    messages = user("What is it?", 1)
    prompt = loaded.apply_chat_template(messages, add_generation_prompt=True)
    both = [one(text=prompt, images=[picture(70, 50)], return_tensors="np") for one in (loaded, reference)]
    assert np.array_equal(both[0]["input_ids"], both[1]["input_ids"])
    assert np.array_equal(both[0]["pixel_values"], both[1]["pixel_values"])


@pytest.mark.parametrize("text", ["What is it?", ""])
def test_a_plain_string_is_read_like_a_list_of_one_text(processor: Processor, text: str) -> None:
    plain = processor.prepare(Request(messages=[{"role": "user", "content": text}]))
    assert plain.prompt == f"USER: {text} ASSISTANT:"
    assert plain.token_ids.tolist() == processor.prepare(Request(messages=user(text))).token_ids.tolist()


@pytest.mark.parametrize("content", [None, 5, [5], [{"type": "video"}], [{"type": "text"}]])
def test_content_that_would_render_to_nothing_is_refused(processor: Processor, content: Any) -> None:
    with pytest.raises(BadRequest):
        processor.prepare(Request(messages=[{"role": "user", "content": content}]))


@pytest.mark.parametrize("text", [IMAGE, emu3.BEGIN, emu3.END_OF_TEXT, emu3.IMAGE_START, emu3.visual_token(3)])
def test_a_control_token_in_a_text_stays_text(processor: Processor, known: dict[str, int], text: str) -> None:
    asked = f"Is {text} one?"
    model_input = processor.prepare(Request(messages=user(asked, 1), images=[encoded(picture(32, 32))]))
    assert model_input.prompt == f"USER: {IMAGE}{asked} ASSISTANT:"
    ids = model_input.token_ids.tolist()
    expected = {IMAGE: 16, emu3.BEGIN: 1, emu3.IMAGE_START: 1}.get(text, 0)
    assert ids.count(known[text]) == expected


@pytest.mark.parametrize("prompt", ["ab", f"{emu3.BEGIN}ab", f"{IMAGE}ab", f"a{IMAGE}b", f"{IMAGE}{IMAGE}"])
def test_a_prompt_starts_with_one_begin_of_text(processor: Processor, known: dict[str, int], prompt: str) -> None:
    images = [encoded(picture(9, 9))] * prompt.count(IMAGE)
    model_input = processor.prepare(Request(prompt=prompt, images=images))
    ids = model_input.token_ids.tolist()
    assert ids[0] == known[emu3.BEGIN] and ids.count(known[emu3.BEGIN]) == 1
    assert ids.count(known[IMAGE]) == model_input.image_tokens == 16 * len(images)
    assert model_input.prompt == prompt


def test_two_begin_of_text_are_refused(processor: Processor) -> None:
    with pytest.raises(BadRequest, match="2 begin-of-text tokens"):
        processor.prepare(Request(prompt=emu3.BEGIN * 2 + "ab"))


def test_the_vqa_run_asks_as_the_original_authors_do(folder: Path, known: dict[str, int]) -> None:
    """Their processor writes the whole prompt, codes included, as one text; it makes the ids that the decoder sees."""
    template = load_settings(RunSettings, ROOT / "configs" / "vqa_emu3.yaml").job.build().template
    asked = load_processor(str(folder), template=template).prepare(
        Request(messages=user("What is it?", 1), images=[encoded(picture(40, 32))])
    )
    codes = np.random.default_rng(0).integers(0, 8, (4, 5))
    ids = asked.token_ids.copy()
    ids[ids == known[IMAGE]] = known[emu3.visual_token(0)] + codes.ravel()
    lines = ["".join(map(emu3.visual_token, row)) for row in codes.tolist()]
    image = f"<|image start|>4*5<|image token|>{'<|extra_200|>'.join(lines)}<|extra_200|><|extra_201|><|image end|>"
    theirs = f"<|extra_203|>You are a helpful assistant. USER: {image}What is it?. ASSISTANT:"
    assert ids.tolist() == Tokenizer.from_file(str(folder / "tokenizer.json")).encode(theirs).ids


def test_text_in_a_plain_template_stays_text(folder: Path, known: dict[str, int]) -> None:
    processor = load_processor(str(folder), template="{question}: {image}")
    asked = processor.prepare(Request(messages=user("What is <image> {image}?", 1), images=[encoded(picture(32, 32))]))
    assert asked.prompt == f"What is <image> {{image}}?: {IMAGE}"
    assert (asked.token_ids == known[IMAGE]).sum() == asked.image_tokens == 16


@pytest.mark.parametrize("field", ["image_mean", "image_std"])
def test_colours_are_never_shifted_by_a_guess(tmp_path: Path, field: str) -> None:
    folder = write_checkpoint(tmp_path, {**SMALL, field: None})
    with pytest.raises(CheckpointError, match=rf"preprocessor_config\.json has no {field}"):
        load_processor(str(folder))


def test_sizes_that_codes_do_not_cover_are_refused(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path, {**SMALL, "spatial_factor": 12})
    with pytest.raises(CheckpointError, match="spatial_factor is 12, expected a multiple of 8"):
        load_processor(str(folder))


def test_a_tokenizer_that_contradicts_the_vocabulary_map_is_refused(tmp_path: Path, known: dict[str, int]) -> None:
    moved = known | {IMAGE: known[emu3.PAD], emu3.PAD: known[IMAGE]}
    folder = write_checkpoint(tmp_path, vocabulary_map=moved)
    with pytest.raises(CheckpointError, match=r"tokenizer\.json reads '<\|image start\|>.* as in config\.json"):
        load_processor(str(folder))


def test_an_answer_ends_at_the_end_of_text_whatever_else_the_file_says(
    processor: Processor, known: dict[str, int]
) -> None:
    end = known[emu3.END_OF_TEXT]
    assert processor.stop_ids == {end}
    shown = tuple(processor.prepare(Request(prompt="yes")).token_ids[1:].tolist())
    completion = Completion((*shown, end), (0.0,) * (len(shown) + 1), "stop")
    answer = processor.to_answer(ModelInput("", np.array([1], np.int32)), completion, Sampling())
    assert (answer.text, answer.token_ids, answer.image) == ("yes", (*shown, end), None)


@pytest.mark.parametrize("areas", [(16 * 16, 24 * 24), (48 * 48, 48 * 48), (100 * 100, 4000 * 4000)])
def test_a_runs_own_areas_give_the_references_pictures(folder: Path, areas: tuple[int, int]) -> None:
    least, most = areas
    processor = load_processor(str(folder), ImageSettings(min_pixels=least, max_pixels=most))
    for size in [(70, 50), (5, 9), (130, 40), (400, 2)]:
        assert_equals_reference(processor, SMALL | {"min_pixels": least, "max_pixels": most}, size)


def test_areas_are_refused_where_nothing_is_seen(folder: Path) -> None:
    with pytest.raises(ImageSettingsError, match="max_pixels: found 4096, but a model loaded with text_only sees no"):
        load_processor(str(folder), ImageSettings(max_pixels=4096), text_only=True)
