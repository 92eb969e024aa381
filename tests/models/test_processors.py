"""What every family's processor promises: which requests, pictures and settings it refuses, and how it reads text."""

from pathlib import Path

import numpy as np
import pytest

from models import Family, ImageSettings, Request, Sampling, load_processor
from models.types import (
    BadImage,
    BadRequest,
    CheckpointError,
    Completion,
    ImageSettingsError,
    ModelInput,
    Processor,
)
from tests.models.reference import picture, user
from tests.pictures import encoded
from tests.tiny import FAMILIES, keep_decoder_alone

PLACEHOLDERS: dict[Family, str] = {"aria": "<|img|>", "mllama": "<|image|>", "emu3": "<image>"}
# Image settings that nobody's checkpoint has, and who can be told them.
SETTINGS = {
    "split_image": (False, "aria"), "max_image_size": (490, "aria"), "max_image_tiles": (4, "mllama"),
    "min_pixels": (4096, "emu3"), "max_pixels": (4096, "emu3"), "pad_to_ratio": (4096, "emu3"),
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(family: Family, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return FAMILIES[family](tmp_path_factory.mktemp(family))


@pytest.fixture
def seeing(family: Family) -> Request:
    return Request(prompt=PLACEHOLDERS[family], images=[encoded(picture(9, 9))])


@pytest.mark.parametrize(("prompt", "count"), [("{}", 0), ("none", 1), ("{}{}", 1), ("{}", 2)])
def test_placeholders_and_pictures_must_agree(processor: Processor, family: Family, prompt: str, count: int) -> None:
    text = prompt.replace("{}", PLACEHOLDERS[family])
    with pytest.raises(BadRequest, match=rf"{prompt.count('{}')} image placeholders .* for {count} images"):
        processor.prepare(Request(prompt=text, images=[encoded(picture(9, 9))] * count))


def test_a_picture_that_cannot_be_read_is_refused(processor: Processor, family: Family) -> None:
    with pytest.raises(BadImage, match="cannot decode"):
        processor.prepare(Request(prompt=PLACEHOLDERS[family], images=[b"not a picture"]))


def test_a_model_that_is_loaded_for_text_alone_sees_no_pictures(folder: Path, seeing: Request) -> None:
    with pytest.raises(BadRequest, match="found 1 image, but a model loaded with text_only sees none"):
        load_processor(str(folder), text_only=True).prepare(seeing)


def test_a_decoder_alone_sees_no_pictures_and_reads_text_alike(
    tmp_path: Path, processor: Processor, family: Family, seeing: Request
) -> None:
    decoder = load_processor(str(keep_decoder_alone(FAMILIES[family](tmp_path))))
    with pytest.raises(BadRequest, match="found 1 image, but a checkpoint without a vision encoder sees none"):
        decoder.prepare(seeing)
    text = Request(messages=user("What is it?"))
    assert decoder.prepare(text).token_ids.tolist() == processor.prepare(text).token_ids.tolist()


def test_text_alone_asks_for_no_image_settings_and_is_read_alike(
    tmp_path: Path, processor: Processor, family: Family
) -> None:
    folder, text = FAMILIES[family](tmp_path), Request(messages=user("What is it?"))
    (folder / "preprocessor_config.json").unlink()
    with pytest.raises(CheckpointError, match=r"preprocessor_config\.json"):
        load_processor(str(folder))
    text_only = load_processor(str(folder), text_only=True)
    assert text_only.prepare(text).token_ids.tolist() == processor.prepare(text).token_ids.tolist()


@pytest.mark.parametrize(
    ("family", "setting"),
    [(family, setting) for family in FAMILIES for setting, (_, owner) in SETTINGS.items() if family != owner],
    indirect=["family"],
)
def test_another_familys_image_setting_is_refused(folder: Path, family: Family, setting: str) -> None:
    value, _ = SETTINGS[setting]
    told = f"^{setting}: found {value}, but {family.capitalize()} has no such image setting"
    with pytest.raises(ImageSettingsError, match=told):
        load_processor(str(folder), ImageSettings(**{setting: value}))


@pytest.mark.parametrize("num_pictures", [0, 1, 2])
def test_what_prompts_begin_with_ends_behind_a_text_and_their_last_picture(
    processor: Processor, num_pictures: int
) -> None:
    examples, pictures = "Is it a circle? yes. ", [encoded(picture(9 + 20 * n, 20)) for n in range(num_pictures)]
    content = [{"type": "image"} for _ in pictures]

    def prepared(question: str, shared: str | None) -> tuple[list[int], int]:
        messages = [{"role": "user", "content": [*content, {"type": "text", "text": f"{examples}{question}"}]}]
        given = processor.prepare(Request(messages=messages, images=pictures, shared=shared))
        return given.token_ids.tolist(), given.shared_length

    def shown(ids: list[int]) -> str:
        completion = Completion(tuple(ids), (), "length")
        return processor.to_answer(ModelInput("", np.array(ids, np.int32)), completion, Sampling()).text

    for shared, is_text_shared in ((examples, True), ("", False), ("nowhere", False)):
        [ids, end], [others, other_end] = (prepared(question, shared) for question in ("a square?", "what?"))
        assert end == other_end and ids[:end] == others[:end]
        assert ("yes" in shown(ids[:end])) == is_text_shared
        assert ("yes" in shown(ids[end:])) != is_text_shared and "a square?" in shown(ids[end:])
        assert (end > 0) == (is_text_shared or num_pictures > 0)
    assert prepared("a square?", None) == (ids, 0)
