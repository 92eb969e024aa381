"""Image settings of a request: they go before the run's, per row, and wrong ones cost that row alone."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from models import ImageSettings, Request, ask, load_model, load_processor
from models.engine import Engine, Sequence, run_all
from models.image_reader import ImageReader
from models.types import BadImage, BadRequest, ImageSettingsError, UnseenImage
from tests.models.test_contract import about, photograph
from tests.promise import answer_faults
from tests.tiny import FAMILIES

PICTURE = photograph(120, 50, seed=3)
# What each family can be asked, most of which the tiny checkpoints' own settings are not.
SETTINGS: dict[str, list[ImageSettings]] = {
    "aria": [
        ImageSettings(max_image_size=28),
        ImageSettings(split_image=True),
        ImageSettings(max_image_size=28, split_image=True),
    ],
    "mllama": [ImageSettings(max_image_tiles=1), ImageSettings(max_image_tiles=2), ImageSettings(max_image_tiles=4)],
    "emu3": [
        ImageSettings(min_pixels=16, max_pixels=32),
        ImageSettings(max_pixels=100),
        ImageSettings(min_pixels=200),
        ImageSettings(pad_to_ratio=2),
    ],
}
FOREIGN = {
    "aria": (ImageSettings(max_image_tiles=2), "preprocess: max_image_tiles: found 2, but Aria has no such"),
    "mllama": (ImageSettings(split_image=True), "preprocess: split_image: found True, but Mllama has no such"),
    "emu3": (ImageSettings(max_image_size=490), "preprocess: max_image_size: found 490, but Emu3 has no such"),
}
UNFIT = {
    "aria": (ImageSettings(max_image_size=42), r"max_image_size: found 42, which makes 9 patches; expected 28 or 56"),
    "mllama": (ImageSettings(max_image_tiles=5), "max_image_tiles: found 5, expected 1 to 4"),
    "emu3": (ImageSettings(max_pixels=0), "max_pixels: found 0, expected 1 or more"),
}


def test_every_familys_settings_are_tried() -> None:
    assert SETTINGS.keys() == FOREIGN.keys() == UNFIT.keys() == FAMILIES.keys()


@pytest.fixture(scope="module")
def checkpoint(family: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(FAMILIES[family](tmp_path_factory.mktemp("checkpoint")))


def asked(settings: ImageSettings | None, question: str = "What is it?") -> Request:
    return replace(about(PICTURE, question), preprocess=settings)


def seen(checkpoint: str, request: Request, run: ImageSettings | None = None) -> Any:
    """Return what of a request's input depends on image settings."""
    given = load_processor(checkpoint, run).prepare(request)
    return [tile.tobytes() for tile in given.tiles], given.layout, given.token_ids.tolist(), given.image_names


def test_a_requests_settings_do_what_the_runs_would(checkpoint: str, family: str) -> None:
    for settings in SETTINGS[family]:
        assert seen(checkpoint, asked(settings)) == seen(checkpoint, asked(None), settings)
    names = {seen(checkpoint, asked(settings))[3] for settings in SETTINGS[family]}
    assert len(names) == len(SETTINGS[family])  # or they would show nothing


def test_a_requests_settings_go_before_the_runs(checkpoint: str, family: str) -> None:
    first, second, *_ = SETTINGS[family]
    over = {name: value for name, value in vars(second).items() if value is not None}
    assert seen(checkpoint, asked(second), first) == seen(checkpoint, asked(None), replace(first, **over))
    assert seen(checkpoint, asked(ImageSettings()), first) == seen(checkpoint, asked(None), first)


def test_rows_of_unlike_settings_are_answered_together_as_one_by_one(checkpoint: str, family: str) -> None:
    requests = [asked(settings, f"Question {n}?") for settings in (*SETTINGS[family], None) for n in range(2)]
    alone = [ask(checkpoint, [request])[0] for request in requests]
    assert answer_faults(ask(checkpoint, requests, slots=16), alone) == []


def test_a_picture_is_encoded_once_for_each_way_of_looking_at_it(checkpoint: str, family: str) -> None:
    processor, model = load_processor(checkpoint), load_model(checkpoint, device="cpu")
    settings = SETTINGS[family][0]
    requests = [asked(own, f"{n}?") for n in range(3) for own in (settings, None, replace(settings))]
    sequences = [Sequence("", processor.prepare(request), request.sampling) for request in requests]
    run_all(Engine(model, slots=2, max_length=512), sequences)
    names = {name for sequence in sequences for name in sequence.model_input.image_names}
    assert model.image_cache.num_encoded == len(names) == 2


@pytest.mark.parametrize("faults", [FOREIGN, UNFIT], ids=["another family's", "unfit"])
def test_settings_that_do_not_suit_cost_their_row(
    checkpoint: str, family: str, faults: dict[str, tuple[ImageSettings, str]]
) -> None:
    settings, message = faults[family]
    processor = load_processor(checkpoint)
    for _ in range(2):
        with pytest.raises(BadRequest, match=message):
            processor.prepare(asked(settings))
        with pytest.raises(BadRequest, match=message):
            processor.prepare(Request(prompt="yes", preprocess=settings))
    assert processor.prepare(asked(SETTINGS[family][0])).tiles


def test_text_with_settings_is_answered_by_a_model_that_sees_nothing(checkpoint: str, family: str) -> None:
    plain = Request(prompt="yes")
    [answer] = ask(checkpoint, [replace(plain, preprocess=SETTINGS[family][0])])
    assert [answer] == ask(checkpoint, [plain])
    text_only = load_processor(checkpoint, text_only=True)
    with pytest.raises(UnseenImage, match="found 1 image, but a model loaded with text_only sees none"):
        text_only.prepare(asked(SETTINGS[family][0]))
    with pytest.raises(BadRequest, match=FOREIGN[family][1]):
        text_only.prepare(replace(plain, preprocess=FOREIGN[family][0]))


def toy_reader(made: list[ImageSettings]) -> ImageReader[tuple[int, int]]:
    def make(settings: ImageSettings) -> Callable[[Image.Image], tuple[int, int]]:
        made.append(settings)
        if settings.max_pixels == 0:
            raise ImageSettingsError("max_pixels: found 0")
        return lambda image: image.size

    return ImageReader("Toy", ("max_pixels",), ImageSettings(), None, make)


def test_a_transform_is_made_once_for_each_distinct_settings() -> None:
    made: list[ImageSettings] = []
    reader = toy_reader(made)
    for n in range(12):
        request = asked(ImageSettings(max_pixels=n % 3))
        if n % 3 == 0:
            with pytest.raises(BadRequest, match="preprocess: max_pixels: found 0"):
                reader.read(request)
        else:
            assert [image.seen for image in reader.read(request)] == [(120, 50)]
    assert made == [ImageSettings(), *(ImageSettings(max_pixels=n) for n in range(3))]


def test_no_more_transforms_are_kept_than_a_run_can_want() -> None:
    made: list[ImageSettings] = []
    reader = toy_reader(made)
    for n in range(1000):
        reader.read(Request(prompt="", preprocess=ImageSettings(max_pixels=n + 1)))
    assert reader._request_transform.cache_info().currsize == 64


def test_an_image_that_cannot_be_decoded_is_told_under_any_settings(checkpoint: str, family: str) -> None:
    bad = replace(about(b"not a picture"), preprocess=SETTINGS[family][0])
    with pytest.raises(BadImage, match="cannot decode"):
        load_processor(checkpoint).prepare(bad)


def test_aria_looks_at_frames_on_a_small_canvas_beside_documents_on_a_large_one(tmp_path: Path) -> None:
    # The numbers of the released checkpoints: 490 pixels become 128 rows, 980 become 256.
    folder = FAMILIES["aria"](
        tmp_path,
        vision={"image_size": 980},
        config={"projector_patch_to_query_dict": {"1225": 128, "4900": 256}},
        text={"max_position_embeddings": 8192},
        images={"max_image_size": 980, "min_image_size": 336},
    )
    processor = load_processor(str(folder))
    frame = replace(about(PICTURE), preprocess=ImageSettings(max_image_size=490))
    page = replace(about(PICTURE), preprocess=ImageSettings(split_image=True))
    assert [processor.prepare(request).image_tokens for request in (frame, page, about(PICTURE))] == [128, 768, 256]
    assert {tile.shape for tile in processor.prepare(frame).tiles} == {(336, 490, 3)}
    requests = [frame, page, about(PICTURE), frame]
    alone = [ask(str(folder), [request])[0] for request in requests]
    assert answer_faults(ask(str(folder), requests, slots=4), alone) == []
