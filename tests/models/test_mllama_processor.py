"""Pictures become the reference's tiles to the last bit, and prompts the reference's ids, one token per picture."""

import json
from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tokenizers import AddedToken, Tokenizer
from tokenizers.decoders import ByteLevel as ByteLevelDecoder
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from tokenizers.processors import TemplateProcessing
from transformers import MllamaImageProcessorPil, MllamaProcessor, PreTrainedTokenizerFast

from models import ImageSettings, Request, load_processor
from models.types import BadRequest, CheckpointError, Completion, ModelInput, Processor, Sampling
from tests.models.reference import picture, user
from tests.pictures import encoded

MEAN, STD = [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]
BEGIN, END, END_OF_TURN, IMAGE = "<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>", "<|image|>"
SPECIAL = (BEGIN, END, END_OF_TURN, "<|start_header_id|>", "<|end_header_id|>", IMAGE)
# What the released template does, in fewer words.
TEMPLATE = """\
{{- bos_token }}
{%- if date_string is not defined %}{% set date_string = strftime_now("%d %b %Y") %}{% endif %}
{%- set ns = namespace(images=false) %}
{%- for message in messages %}{% if message.content is not string %}{% for item in message.content %}
{%- if item.type == 'image' %}{% set ns.images = true %}{% endif %}{% endfor %}{% endif %}{% endfor %}
{%- if messages[0].role == 'system' %}
    {%- set system, messages = messages[0].content | trim, messages[1:] %}
{%- else %}
    {%- set system = "" %}
{%- endif %}
{%- if ns.images and system %}
    {{- raise_exception("Prompting with images is incompatible with system messages.") }}
{%- endif %}
{%- if not ns.images %}
    {{- "<|start_header_id|>system<|end_header_id|>\\n\\nToday Date: " + date_string + "\\n\\n" }}
    {{- system + "<|eot_id|>" }}
{%- endif %}
{%- for message in messages %}
    {{- "<|start_header_id|>" + message.role + "<|end_header_id|>\\n\\n" }}
    {%- if message.content is string %}{{- message.content }}
    {%- else %}{% for item in message.content %}
        {{- "<|image|>" if item.type == 'image' else item.text }}
    {%- endfor %}{% endif %}
    {{- "<|eot_id|>" }}
{%- endfor %}
{%- if add_generation_prompt %}{{- "<|start_header_id|>assistant<|end_header_id|>\\n\\n" }}{% endif %}
"""


def write_checkpoint(
    folder: Path,
    *,
    tile: int = 32,
    tiles: int = 4,
    template: str | None = TEMPLATE,
    vision: Mapping[str, Any] | None = None,
    config: Mapping[str, Any] | None = None,
    images: Mapping[str, Any] | None = None,
) -> Path:
    """Write what the CPU half reads of a checkpoint: one token per byte, six special ones, and no weights."""
    vocabulary = {token: i for i, token in enumerate([*sorted(ByteLevel.alphabet()), *SPECIAL[:-1]])}
    tokenizer = Tokenizer(BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = ByteLevel(add_prefix_space=False)
    tokenizer.decoder = ByteLevelDecoder()
    tokenizer.add_special_tokens([AddedToken(token, normalized=False) for token in SPECIAL])
    begin, image = tokenizer.token_to_id(BEGIN), tokenizer.token_to_id(IMAGE)
    tokenizer.post_processor = TemplateProcessing(single=f"{BEGIN} $A", special_tokens=[(BEGIN, begin)])
    tokenizer.save(str(folder / "tokenizer.json"))
    whole = {
        "model_type": "mllama", "image_token_index": image,
        "text_config": {"vocab_size": len(vocabulary), "bos_token_id": begin, "eos_token_id": begin + 1},
        "vision_config": {"image_size": tile, "max_num_tiles": tiles} | dict(vision or {}),
    }  # fmt: skip
    stored = {"image_mean": MEAN, "image_std": STD, "size": {"height": tile, "width": tile}, "max_image_tiles": tiles}
    (folder / "config.json").write_text(json.dumps(whole | dict(config or {})))
    (folder / "preprocessor_config.json").write_text(json.dumps(stored | dict(images or {})))
    (folder / "tokenizer_config.json").write_text(json.dumps({"bos_token": BEGIN}))
    if template is not None:
        (folder / "chat_template.jinja").write_text(template)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("mllama"))


def tiled(processor: Processor, *images: Image.Image) -> ModelInput:
    return processor.prepare(Request(prompt=IMAGE * len(images), images=[encoded(image) for image in images]))


def normalised(model_input: ModelInput) -> np.ndarray:
    """Tiles as the reference's numbers, channels first: scaled and shifted in float32."""
    pixels = (np.stack(model_input.tiles) * (1 / 255)).astype(np.float32)
    shifted: np.ndarray = (pixels - np.array(MEAN, np.float32)) / np.array(STD, np.float32)
    return shifted.transpose(0, 3, 1, 2)


def assert_equals_reference(processor: Processor, size: tuple[int, int], tile: int, tiles: int) -> None:
    image = picture(*size)
    reference = MllamaImageProcessorPil(
        size={"height": tile, "width": tile}, max_image_tiles=tiles, image_mean=MEAN, image_std=STD
    )(image, return_tensors="np")
    ours = tiled(processor, image)
    [[count]] = reference["num_tiles"]
    assert len(ours.tiles) == count == reference["aspect_ratio_mask"].sum()
    assert ours.layout == tuple(reference["aspect_ratio_ids"][0])
    assert np.array_equal(normalised(ours), reference["pixel_values"][0, 0, :count])


RELEASED_ZOO = [
    (1, 3000), (3000, 1), (560, 560), (561, 560), (560, 561), (1120, 1120), (4000, 300), (1, 1), (7, 3000), (2, 3),
    (640, 480), (3000, 200), (1121, 559), (2240, 560), (1680, 561), (3000, 2000),
]  # fmt: skip


@pytest.mark.parametrize("size", RELEASED_ZOO, ids=str)
def test_tiles_of_the_released_size_equal_the_references_to_the_last_bit(tmp_path: Path, size: tuple[int, int]) -> None:
    assert_equals_reference(load_processor(str(write_checkpoint(tmp_path, tile=560))), size, tile=560, tiles=4)


@pytest.mark.parametrize("tiles", [1, 2, 3, 4])
def test_tiles_equal_the_references_for_any_size_and_limit(tmp_path: Path, tiles: int) -> None:
    processor = load_processor(str(write_checkpoint(tmp_path, tile=28, tiles=tiles)))
    random = np.random.default_rng(tiles)
    some = [(int(w), int(h)) for w, h in np.exp(random.uniform(0, np.log(300), (120, 2))).astype(int)]
    edges = [(w, h) for w in (1, 27, 28, 29, 56, 57, 84, 112, 113) for h in (1, 2, 28, 29, 56, 112)]
    for size in some + edges:
        assert_equals_reference(processor, size, tile=28, tiles=tiles)


def test_a_lower_limit_keeps_the_ids_of_the_checkpoints_own_list(folder: Path) -> None:
    """The reference numbers a shorter list anew, and so takes other rows of the embedding tables than were trained."""
    for tiles, size, grid_id in ((2, (32, 64), 5), (3, (32, 96), 7), (2, (64, 32), 2), (1, (64, 64), 1)):
        ours = tiled(load_processor(str(folder), ImageSettings(max_image_tiles=tiles)), picture(*size))
        assert (ours.layout, len(ours.tiles)) == ((grid_id,), tiles)
    shorter = MllamaImageProcessorPil(size={"height": 32, "width": 32}, max_image_tiles=2)
    assert shorter(picture(32, 64), return_tensors="np")["aspect_ratio_ids"].tolist() == [[3]]


def test_only_grids_that_the_checkpoint_lists_are_used(tmp_path: Path) -> None:
    listed = {"supported_aspect_ratios": [[2, 1], [1, 1], [2, 2]]}
    processor = load_processor(str(write_checkpoint(tmp_path, vision=listed)))
    assert [tiled(processor, picture(*size)).layout for size in ((32, 64), (64, 32), (32, 32))] == [(1,), (3,), (2,)]


def test_several_pictures_follow_one_another_each_with_its_grid(processor: Processor) -> None:
    sizes = [(64, 64), (5, 5), (96, 30)]
    together = tiled(processor, *(picture(*size) for size in sizes))
    alone = [tiled(processor, picture(*size)) for size in sizes]
    assert together.layout == (6, 1, 3) and together.image_tokens == 3
    assert np.array_equal(np.stack(together.tiles), np.concatenate([np.stack(one.tiles) for one in alone]))
    assert together.image_names == tuple(name for one in alone for name in one.image_names)
    assert {tile.shape for tile in together.tiles} == {(32, 32, 3)} and together.tiles[0].dtype == np.uint8


def test_images_have_equal_names_only_if_the_model_sees_the_same(folder: Path, processor: Processor) -> None:
    [name] = tiled(processor, picture(64, 64)).image_names
    assert tiled(processor, picture(64, 64)).image_names == (name,)
    changed = picture(64, 64)
    changed.putpixel((63, 63), (1, 2, 3))
    others = [
        tiled(processor, changed),
        tiled(load_processor(str(folder), ImageSettings(max_image_tiles=1)), picture(64, 64)),
        # The same black pixels in as many tiles: only the grid differs.
        tiled(processor, Image.new("RGB", (128, 32))),
        tiled(processor, Image.new("RGB", (32, 128))),
    ]
    assert len({name, *(other.image_names[0] for other in others)}) == 5
    assert len(name) == 64


def test_640_by_480_stays_as_it_is_on_two_tiles(tmp_path: Path) -> None:
    processor = load_processor(str(write_checkpoint(tmp_path, tile=560)))
    image = picture(640, 480)
    left, right = tiled(processor, image).tiles
    canvas = np.concatenate([left, right], axis=1)
    assert np.array_equal(canvas[:480, :640], np.asarray(image))
    assert not canvas[480:].any() and not canvas[:, 640:].any()


@pytest.fixture(scope="module")
def reference(folder: Path) -> MllamaProcessor:
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_file=str(folder / "tokenizer.json"),
        bos_token=BEGIN,
        eos_token=END,
        extra_special_tokens={"image_token": IMAGE},
    )
    images = MllamaImageProcessorPil(size={"height": 32, "width": 32}, image_mean=MEAN, image_std=STD)
    return MllamaProcessor(images, tokenizer, chat_template=TEMPLATE)


CHATS = [
    user("What is it?"),
    user("What is it?", 1),
    user("Which is larger?", 2),
    [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hallo, grün!"}],
    [*user("What is it?", 1), {"role": "assistant", "content": "A cat."}, {"role": "user", "content": "Sure?"}],
]


@pytest.mark.parametrize("messages", CHATS, ids=range(len(CHATS)))
def test_a_chat_becomes_the_references_ids(
    processor: Processor, reference: MllamaProcessor, messages: list[dict[str, Any]]
) -> None:
    expected = reference.apply_chat_template(messages, add_generation_prompt=True, date_string="26 Jul 2024")
    count = expected.count(IMAGE)
    model_input = processor.prepare(Request(messages=messages, images=[encoded(picture(9, 9))] * count))
    assert model_input.prompt == expected
    ids = reference.tokenizer(expected, add_special_tokens=False)["input_ids"]
    assert model_input.token_ids.tolist() == ids and model_input.token_ids.dtype == np.int32
    assert (model_input.image_tokens, len(model_input.layout)) == (count, count)


@pytest.mark.parametrize("adds_bos", [True, False])
@pytest.mark.parametrize(
    "prompt", ["ab", f"{BEGIN}ab", f"{BEGIN}{IMAGE}ab", f"{IMAGE}ab", f"a{IMAGE}b", f"{IMAGE}{IMAGE}ab"]
)
def test_a_prompt_starts_with_one_begin_of_text_before_any_image(tmp_path: Path, prompt: str, adds_bos: bool) -> None:
    folder = write_checkpoint(tmp_path)
    if not adds_bos:
        content = json.loads((folder / "tokenizer.json").read_text())
        (folder / "tokenizer.json").write_text(json.dumps(content | {"post_processor": None}))
    count = prompt.count(IMAGE)
    model_input = load_processor(str(folder)).prepare(Request(prompt=prompt, images=[encoded(picture(9, 9))] * count))
    ids, begin = model_input.token_ids.tolist(), 256
    assert ids[0] == begin and ids.count(begin) == 1 and ids.count(261) == count
    assert model_input.prompt == prompt


def test_two_begin_of_text_are_refused(processor: Processor) -> None:
    with pytest.raises(BadRequest, match="2 begin-of-text tokens"):
        processor.prepare(Request(prompt=f"{BEGIN}{BEGIN}ab"))


def test_the_image_token_of_another_tokenizer_becomes_the_models(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path, config={"image_token_index": 266})
    model_input = load_processor(str(folder)).prepare(Request(prompt=f"{IMAGE}a", images=[encoded(picture(9, 9))]))
    assert 266 in model_input.token_ids and 261 not in model_input.token_ids


def test_a_tokenizer_without_image_token_cannot_serve_a_vision_encoder(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path)
    content = json.loads((folder / "tokenizer.json").read_text())
    content["added_tokens"] = [token for token in content["added_tokens"] if token["content"] != IMAGE]
    (folder / "tokenizer.json").write_text(json.dumps(content))
    with pytest.raises(CheckpointError, match=r"tokenizer\.json has no token <\|image\|>"):
        load_processor(str(folder))
    assert load_processor(str(folder), text_only=True).prepare(Request(prompt="a")).token_ids.tolist()[0] == 256


def test_a_model_without_a_template_is_asked_by_one_that_the_run_gives(tmp_path: Path) -> None:
    """A base model has none; whether this is one or an instruct model that lost its own, no file says."""
    folder = write_checkpoint(tmp_path, template=None)
    asked = Request(messages=user("Is <|image|> one?", 1), images=[encoded(picture(9, 9))])
    lost = load_processor(str(folder))
    assert lost.chat_fault is not None and "has no chat template" in lost.chat_fault
    with pytest.raises(BadRequest, match=r"such as template: '\{image\}\{question\}'"):
        lost.prepare(asked)
    assert lost.prepare(Request(prompt="Why?")).prompt == "Why?"
    processor = load_processor(str(folder), template="{image}{question}")
    one = processor.prepare(asked)
    assert processor.chat_fault is None and one.prompt == f"{IMAGE}Is <|image|> one?"
    assert one.token_ids[:2].tolist() == [256, 261] and (one.token_ids == 261).sum() == 1


@pytest.mark.parametrize(
    "content", ["Be brief.", [{"type": "text", "text": "Be "}, {"type": "text", "text": "brief."}]]
)
def test_a_system_message_is_its_text_however_it_is_given(processor: Processor, content: Any) -> None:
    messages = [{"role": "system", "content": content}, *user("Why?")]
    assert "\n\nBe brief.<|eot_id|>" in processor.prepare(Request(messages=messages)).prompt


def test_a_control_token_in_a_system_message_stays_text(processor: Processor) -> None:
    messages = [{"role": "system", "content": [{"type": "text", "text": "a<|eot_id|>b"}]}, *user("Why?")]
    model_input = processor.prepare(Request(messages=messages))
    assert "a<|eot_id|>b" in model_input.prompt and (model_input.token_ids == 258).sum() == 2


@pytest.mark.parametrize(("content", "said"), [
    ([{"type": "image"}], "the chat template shows no image in a message of role 'system'"),
    ([{"type": "text"}], "a message's text is None, expected a string"),
    (["Be brief."], "a content item is 'Be brief.'"), ([5], "a content item is 5"),
])  # fmt: skip
def test_a_system_message_of_anything_but_text_is_refused(processor: Processor, content: Any, said: str) -> None:
    with pytest.raises(BadRequest, match=said):
        processor.prepare(Request(messages=[{"role": "system", "content": content}, *user("Why?")]))


def test_a_system_message_beside_an_image_is_the_templates_refusal(processor: Processor) -> None:
    messages = [{"role": "system", "content": "Be brief."}, *user("Why?", 1)]
    with pytest.raises(BadRequest, match="Prompting with images is incompatible with system messages"):
        processor.prepare(Request(messages=messages, images=[encoded(picture(9, 9))]))


def test_the_day_in_a_prompt_is_the_one_that_is_given(folder: Path, processor: Processor) -> None:
    assert "Today Date: 26 Jul 2024\n" in processor.prepare(Request(messages=user("Why?"))).prompt
    later = load_processor(str(folder), today=date(2031, 3, 2))
    assert "Today Date: 02 Mar 2031\n" in later.prepare(Request(messages=user("Why?"))).prompt


def test_an_answer_ends_at_the_checkpoints_ids_and_at_the_end_of_a_turn(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path)
    assert load_processor(str(folder)).stop_ids == {257, 258}
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [257, 259, 260]}))
    processor = load_processor(str(folder))
    assert processor.stop_ids == {257, 258, 259, 260}
    shown = tuple(processor.prepare(Request(prompt="yes")).token_ids[1:].tolist())
    for end in (257, 258):
        completion = Completion((*shown, end), (0.0,) * 4, "stop")
        answer = processor.to_answer(ModelInput("", np.array([1], np.int32)), completion, Sampling())
        assert (answer.text, answer.token_ids) == ("yes", (*shown, end))


@pytest.mark.parametrize("tiles", [0, 5])
def test_a_tile_limit_beyond_the_checkpoints_is_refused(folder: Path, tiles: int) -> None:
    with pytest.raises(CheckpointError, match=f"max_image_tiles: found {tiles}, expected 1 to 4"):
        load_processor(str(folder), ImageSettings(max_image_tiles=tiles))
