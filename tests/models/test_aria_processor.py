"""Pictures become the reference's pixels to the last bit, and as many placeholders as they have features."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AriaImageProcessorPil

from models import ImageSettings, Request, load_model, load_processor
from models.aria.config import AriaImages
from models.aria.processor import SPLIT_RATIOS, split, tile
from models.aria.vision import position_buckets
from models.types import BadRequest, CheckpointError, Completion, ModelInput, Processor, Sampling
from tests.models.reference import picture
from tests.pictures import encoded
from tests.tiny import keep_decoder_alone, tiny_aria

SIZES = [
    (1, 1), (1, 3000), (3000, 1), (489, 491), (490, 490), (491, 489), (640, 480), (480, 640), (980, 300), (300, 980),
    (980, 980), (981, 979), (335, 700), (1000, 343), (2, 3), (1333, 457), (57, 999),
]  # fmt: skip


@pytest.fixture(scope="module")
def released(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny checkpoint with the released canvas: 980 pixels, patches of 14, 256 or 128 features."""
    return tiny_aria(
        tmp_path_factory.mktemp("released"),
        vision={"image_size": 980},
        config={"projector_patch_to_query_dict": {"1225": 128, "4900": 256}},
        images={"max_image_size": 980, "min_image_size": 336, "image_mean": [0.5] * 3, "image_std": [0.5] * 3},
    )


def images(canvas: int, shortest: int = 336) -> AriaImages:
    return AriaImages(canvas, shortest, split_image=False, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))


@pytest.mark.parametrize("canvas", [490, 980])
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_pixels_equal_the_references_to_the_last_bit(released: Path, size: tuple[int, int], canvas: int) -> None:
    image = picture(*size)
    reference = AriaImageProcessorPil(max_image_size=canvas)(image, return_tensors="np")
    expected, [mask] = reference["pixel_values"][0], reference["pixel_mask"]
    cut = tile(image, images(canvas), 14)
    model = load_model(str(released), device="cpu")
    pixels = model.normalise([cut])[0].numpy()
    _, height, width = pixels.shape
    assert np.array_equal(pixels, expected[:, :height, :width])
    blocks = np.asarray(mask).reshape(canvas // 14, 14, canvas // 14, 14)
    valid = np.logical_or.reduce(blocks, axis=(1, 3))  # any pixel makes a patch valid
    assert (height // 14, width // 14) == (valid[:, 0].sum(), valid[0].sum())
    assert valid.sum() == height * width // 14**2
    assert (expected[:, height:] == -1).all() and (expected[:, :, width:] == -1).all()


def test_channels_have_their_own_mean_and_spread(tmp_path: Path) -> None:
    mean, spread = [0.1, 0.5, 0.93], [0.2, 0.5, 0.25]
    folder = tiny_aria(tmp_path, images={"image_mean": mean, "image_std": spread})
    pixels = load_model(str(folder), device="cpu").normalise([np.asarray(picture(14, 14)).copy()])
    processor = AriaImageProcessorPil(max_image_size=490, min_image_size=14, image_mean=mean, image_std=spread)
    large = picture(14, 14).resize((490, 490), Image.Resampling.NEAREST)
    expected = processor(large, return_tensors="pt")["pixel_values"][0, :, 17::35, 17::35]
    assert torch.equal(pixels[0], expected)


def restated_ratio(width: int, height: int, canvas: int) -> tuple[int, int]:
    """The original authors' rule in their order: differences first, then the least one, ties by area."""
    differences = [abs(width / height - x / y) for x, y in SPLIT_RATIOS]
    [*ties] = [i for i, difference in enumerate(differences) if difference == min(differences)]
    wins = ties[0]
    for i in ties[1:]:
        columns, rows = SPLIT_RATIOS[i]
        if width * height > 0.5 * canvas * canvas * columns * rows:
            wins = i
    return SPLIT_RATIOS[wins]


@pytest.mark.parametrize("canvas", [490, 980])
@pytest.mark.parametrize(
    "size", [*SIZES, (768, 768), (1960, 980), (490, 980), (2000, 1990), (700, 1400), (4000, 500)], ids=str
)
def test_close_ups_are_cut_by_the_original_rule(size: tuple[int, int], canvas: int) -> None:
    image = picture(*size)
    whole, *crops = split(image, canvas)
    columns, rows = restated_ratio(*size, canvas)
    assert whole is image
    assert len(crops) == columns * rows
    stretched = np.asarray(image.resize((columns * canvas, rows * canvas)))
    expected = stretched.reshape(rows, canvas, columns, canvas, 3).swapaxes(1, 2).reshape(-1, canvas, canvas, 3)
    assert all(np.array_equal(np.asarray(crop), cut) for crop, cut in zip(crops, expected, strict=True))


def test_a_square_picture_makes_the_whole_and_four_close_ups(released: Path) -> None:
    processor = load_processor(str(released), ImageSettings(split_image=True, max_image_size=490))
    model_input = processor.prepare(Request(prompt="<|img|>?", images=[encoded(picture(768, 768))]))
    assert [cut.shape for cut in model_input.tiles] == [(490, 490, 3)] * 5
    assert (model_input.token_ids == 9).sum() == model_input.image_tokens == 5 * 128


@pytest.mark.parametrize(("canvas", "queries"), [(490, 128), (980, 256)])
def test_each_picture_becomes_as_many_placeholders_as_features(released: Path, canvas: int, queries: int) -> None:
    processor = load_processor(str(released), ImageSettings(max_image_size=canvas))
    content = [{"type": "image"}, {"type": "text", "text": "and"}, {"type": "image"}, {"type": "text", "text": "?"}]
    pictures = [encoded(picture(640, 480)), encoded(picture(50, 200))]
    model_input = processor.prepare(Request(messages=[{"role": "user", "content": content}], images=pictures))
    ids = model_input.token_ids
    assert ids.dtype == np.int32
    runs = np.flatnonzero(np.diff(np.concatenate([[0], ids == 9, [0]]))).reshape(-1, 2)
    assert (runs[:, 1] - runs[:, 0]).tolist() == [queries, queries]
    assert model_input.prompt == (
        "<|im_start|>user\n<fim_prefix><|img|><fim_suffix>and<fim_prefix><|img|><fim_suffix>?<|im_end|>\n"
        "<|im_start|>assistant\n"
    )
    assert model_input.layout == (queries, queries)
    assert model_input.tiles[0].shape == ((378, 490, 3) if canvas == 490 else (742, 980, 3))


def test_640_by_480_has_3710_patches_on_the_large_canvas_and_945_on_the_small() -> None:
    for canvas, patches in ((980, 53 * 70), (490, 27 * 35)):
        height, width, _ = tile(picture(640, 480), images(canvas), 14).shape
        assert height * width // 14**2 == patches


def test_the_shortest_side_never_exceeds_the_canvas() -> None:
    assert tile(picture(100, 2), images(56, shortest=336), 14).shape == (56, 56, 3)


def test_positions_are_those_the_model_was_trained_with() -> None:
    boundaries = torch.arange(1 / 70, 1.0, 1 / 70)
    for n, buckets in enumerate(position_buckets(70)[1:], start=1):
        count = torch.ones(n, dtype=torch.bool).sum()  # a tensor, as in the original: its inverse is a float32
        expected = torch.bucketize(torch.arange(0, 1 - 1e-6, (1 / count).item()), boundaries, right=True)
        assert torch.equal(buckets, expected), n
    assert position_buckets(70)[35].tolist() == list(range(0, 70, 2))


def test_five_sizes_stand_elsewhere_than_whole_division_would_put_them() -> None:
    table = position_buckets(70)
    assert [n for n in range(1, 71) if table[n].tolist() != [i * 70 // n for i in range(n)]] == [25, 49, 50, 55, 58]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_aria(tmp_path_factory.mktemp("aria"))


@pytest.mark.parametrize("request_", [
    Request(), Request(prompt="a", messages=[{"role": "user", "content": "a"}]), Request(prompt=""),
], ids=["neither", "both", "empty"])  # fmt: skip
def test_a_request_asks_exactly_one_thing(processor: Processor, request_: Request) -> None:
    with pytest.raises(BadRequest):
        processor.prepare(request_)


def test_a_question_about_the_placeholder_adds_none(processor: Processor) -> None:
    content = [{"type": "image"}, {"type": "text", "text": "What does <|img|> mean?<|im_end|>"}]
    request = Request(messages=[{"role": "user", "content": content}], images=[encoded(picture(9, 9))])
    assert processor.prepare(request).image_tokens == 3


def test_end_of_turn_ends_an_answer_and_is_not_shown(folder: Path, processor: Processor) -> None:
    tokens = {token["content"]: token for token in json.loads((folder / "tokenizer.json").read_text())["added_tokens"]}
    end = tokens["<|im_end|>"]["id"]
    assert not tokens["<|im_end|>"]["special"]  # so decoding alone would leave it in the text
    assert processor.stop_ids == {end, tokens["</s>"]["id"]}
    shown = processor.prepare(Request(prompt="yes")).token_ids.tolist()
    model_input = ModelInput("", np.array([1], np.int32))
    for stop in (end, tokens["</s>"]["id"]):
        completion = Completion((*shown, stop), (-0.5,) * (len(shown) + 1), "stop")
        answer = processor.to_answer(model_input, completion, Sampling())
        assert (answer.text, answer.token_ids, answer.finish_reason) == ("yes", (*shown, stop), "stop")


def test_a_stop_string_is_cut_from_the_text_and_stays_in_the_ids(processor: Processor) -> None:
    ids = tuple(processor.prepare(Request(prompt="yes no")).token_ids.tolist())
    sampling = Sampling(stop=(" n",))
    stop_condition = processor.stop_condition(sampling)
    assert stop_condition is not None and stop_condition(ids) and not stop_condition(ids[:1])
    answer = processor.to_answer(
        ModelInput("", np.array([1], np.int32)), Completion(ids, (0.0,) * len(ids), "stop"), sampling
    )
    assert (answer.text, answer.token_ids) == ("yes", ids)


def test_end_of_turn_spelled_in_several_tokens_is_seen_in_the_text(tmp_path: Path) -> None:
    folder = tiny_aria(tmp_path)
    content = json.loads((folder / "tokenizer.json").read_text())
    content["added_tokens"] = [token for token in content["added_tokens"] if token["content"] != "<|im_end|>"]
    del content["model"]["vocab"]["<|im_end|>"]
    (folder / "tokenizer.json").write_text(json.dumps(content))
    processor = load_processor(str(folder))
    ids = tuple(processor.prepare(Request(prompt="yes<|im_end|>")).token_ids.tolist())
    stop_condition = processor.stop_condition(Sampling())
    assert stop_condition is not None and stop_condition(ids) and not stop_condition(ids[:-1])
    completion = Completion(ids, (0.0,) * len(ids), "stop")
    assert processor.to_answer(ModelInput("", np.array([1], np.int32)), completion, Sampling()).text == "yes"


def test_settings_come_from_the_run_then_the_processor_then_the_older_file(tmp_path: Path) -> None:
    folder = tiny_aria(tmp_path)
    request = Request(prompt="<|img|>", images=[encoded(picture(90, 90))])

    def side(settings: ImageSettings | None = None) -> int:
        height: int = load_processor(str(folder), settings).prepare(request).tiles[0].shape[0]
        return height

    (folder / "processor_config.json").write_text(json.dumps({"image_processor": {"max_image_size": 28}}))
    assert (side(), side(ImageSettings(max_image_size=56))) == (28, 56)
    (folder / "processor_config.json").unlink()
    assert side() == 56
    (folder / "preprocessor_config.json").unlink()
    with pytest.raises(CheckpointError, match=r"preprocessor_config\.json, or processor_config\.json"):
        side()


def test_a_canvas_without_a_number_of_features_names_those_that_have_one(folder: Path) -> None:
    with pytest.raises(CheckpointError, match=r"max_image_size: found 42, which makes 9 patches; expected 28 or 56,"):
        load_processor(str(folder), ImageSettings(max_image_size=42))


def test_a_placeholder_is_a_word_to_a_decoder_alone(tmp_path: Path) -> None:
    processor = load_processor(str(keep_decoder_alone(tiny_aria(tmp_path))))
    assert processor.prepare(Request(prompt="<|img|> yes")).token_ids[0] == 9


def test_each_tile_has_a_name_of_its_own(released: Path) -> None:
    cut = ImageSettings(split_image=True, max_image_size=490)
    request = Request(prompt="<|img|><|img|>", images=[encoded(picture(768, 768)), encoded(picture(300, 300))])
    model_input = load_processor(str(released), cut).prepare(request)
    assert len(model_input.tiles) == len(set(model_input.image_names)) == 10
    again = load_processor(str(released), cut).prepare(Request(prompt="<|img|>", images=request.images[1:]))
    assert again.image_names == model_input.image_names[5:]


def test_a_model_loaded_without_its_vision_encoder_takes_no_placeholder(folder: Path) -> None:
    with pytest.raises(BadRequest, match="1 image placeholders"):
        load_processor(str(folder), text_only=True).prepare(Request(prompt="<|img|>"))
