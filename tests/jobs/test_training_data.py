"""What the toy checkpoint learns from: scenes say what they show, questions have one right answer."""

import json
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from jobs.demo import questions, scenes, train_folder
from jobs.demo.questions import Pair, ask, caption
from jobs.demo.scenes import COLORS, Scene, Shape, draw_scene
from models import ask as ask_model
from models import load_processor
from models.images import decode_image

easy_vqa = pytest.importorskip("easy_vqa", reason="the training data are in the extra `train`")
train = pytest.importorskip("jobs.demo.train")
train_data = pytest.importorskip("jobs.demo.train_data")
train_score = pytest.importorskip("jobs.demo.train_score")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("aria")
    train_folder.write_files(path, questions.vocabulary())
    return path


@pytest.fixture(scope="module")
def easy_scenes() -> list[Scene]:
    return train_data.load_scenes()


BLANK = Image.new("RGB", (64, 64))


def scene_of(*shapes: Shape) -> Scene:
    return Scene(BLANK, shapes, np.zeros((64, 64), np.uint8))


def any_shape(rng: random.Random) -> Shape:
    return Shape(rng.choice(scenes.KINDS), rng.choice(list(COLORS)), (0, 0, 1, 1))


RED_CIRCLE = Shape("circle", "red", (0, 0, 10, 10))
BLUE_RECTANGLE = Shape("rectangle", "blue", (30, 0, 40, 20))


def test_a_caption_names_the_left_shape_first() -> None:
    assert caption(scene_of(RED_CIRCLE)).answer == "a red circle"
    assert caption(scene_of(RED_CIRCLE, BLUE_RECTANGLE)).answer == "a red circle left of a blue rectangle"


@pytest.mark.parametrize("num_shapes", [1, 2])
def test_the_same_seed_draws_the_same_scene(num_shapes: int) -> None:
    first, second = (draw_scene(random.Random(7), num_shapes) for _ in range(2))
    assert first.shapes == second.shapes
    assert first.picture.tobytes() == second.picture.tobytes()


def test_every_shape_owns_pixels_of_its_own_colour() -> None:
    rng = random.Random(1)
    for _ in range(50):
        scene = draw_scene(rng, 2)
        pixels = np.asarray(scene.picture)
        for place, shape in enumerate(scene.shapes, start=1):
            owned = pixels[scene.owner == place]
            assert len(owned) > 0
            assert (np.median(owned, axis=0) == COLORS[shape.color]).all()


def test_drawn_pairs_are_named_in_reading_order_and_differ() -> None:
    rng = random.Random(2)
    for _ in range(200):
        first, second = draw_scene(rng, 2).shapes
        assert scenes.relation(first, second) in ("left of", "above")
        assert first.name != second.name


def test_easy_vqa_kinds_are_asked_word_for_word() -> None:
    rng = random.Random(3)
    asked = {ask(scene_of(any_shape(rng)), rng).question for _ in range(8_000)}
    missing = set(easy_vqa.get_train_questions()[0]) - asked
    assert not missing


def test_answers_agree_with_easy_vqas_own() -> None:
    """Ask about train pictures as the training does, and look the same question up in the train split."""
    told = train_data._told_shapes()
    gold = {(text, i): answer for text, answer, i in zip(*easy_vqa.get_train_questions(), strict=True)}
    rng, compared = random.Random(4), 0
    for picture, (kind, color) in list(told.items())[:1_000]:
        scene = scene_of(Shape(kind, color, (0, 0, 1, 1)))
        for question, answer in (ask(scene, rng) for _ in range(20)):
            if (question, picture) in gold:
                compared += 1
                assert gold[question, picture] == answer
    assert compared > 500


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        ("what is left of the blue rectangle?", "a red circle"),
        ("what is right of the red circle?", "a blue rectangle"),
        ("is the red circle left of the blue rectangle?", "yes"),
        ("is the red circle right of the blue rectangle?", "no"),
        ("how many shapes are there?", "two"),
        ("what color is the circle?", "red"),
        ("is there a triangle?", "no"),
        ("is no triangle present?", "yes"),
    ],
)
def test_questions_about_two_shapes_have_their_right_answer(question: str, answer: str) -> None:
    rng = random.Random(5)
    asked = dict(ask(scene_of(RED_CIRCLE, BLUE_RECTANGLE), rng) for _ in range(4_000))
    assert asked[question] == answer


def test_yes_and_no_are_asked_alike() -> None:
    rng = random.Random(6)
    answers = [ask(scene_of(any_shape(rng)), rng).answer for _ in range(4_000)]
    assert 0.9 < answers.count("yes") / answers.count("no") < 1.1


def test_easy_vqa_pictures_know_their_shape_pixels(easy_scenes: list[Scene]) -> None:
    """The shape's own pixels have the colour that the questions tell."""
    for scene in easy_scenes[:200]:
        owned = np.asarray(scene.picture)[scene.owner == 1]
        assert np.abs(np.median(owned, axis=0) - COLORS[scene.shapes[0].color]).max() < 64


def test_training_never_touches_the_held_out_pictures(easy_scenes: list[Scene]) -> None:
    pictures, asked = train_data.load_held_out()
    assert min(pictures) == train_data.FIRST_HELD_OUT
    assert {question.picture for question in asked} <= set(pictures)
    shown = {scene.picture.tobytes() for scene in easy_scenes}
    assert len(shown) > 3_000
    assert not shown & {decode_image(data).tobytes() for data in pictures.values()}


def test_patches_are_named_by_what_covers_them(folder: Path) -> None:
    rng = random.Random(8)
    processor = load_processor(str(folder))
    seen = 0
    while seen < 10:
        scene = draw_scene(rng, 1)
        if scene.picture.size != (64, 64):
            continue
        seen += 1
        (example,) = train_data.make_examples([scene], processor, train_folder.PATCH)
        x, y = scene.shapes[0].center
        assert example.tile.shape == (112, 112, 3)
        assert example.labels[int(y // 8) * 8 + int(x // 8)] == train_data.LABELS[scene.shapes[0].name]
        assert (example.labels == 0).any()


def test_oblong_pictures_have_labels_for_their_patches_alone(folder: Path) -> None:
    rng = random.Random(9)
    drawn = [draw_scene(rng, 2) for _ in range(200)]
    oblong = [scene for scene in drawn if scene.picture.width != scene.picture.height]
    assert oblong
    for example in train_data.make_examples(oblong, load_processor(str(folder)), train_folder.PATCH):
        height, width, _ = example.tile.shape
        assert len(example.labels) == height * width // train_folder.PATCH**2


def test_the_prompt_is_the_familys_own(folder: Path) -> None:
    processor = load_processor(str(folder))
    picture = next(iter(train_data.load_held_out()[0].values()))
    model_input = processor.prepare(train_data.question_request("is there a circle?", picture))
    assert model_input.prompt == (
        "<|im_start|>user\n<fim_prefix><|img|><fim_suffix>is there a circle?<|im_end|>\n<|im_start|>assistant\n"
    )
    assert model_input.image_tokens == 16


def test_every_word_is_one_token(folder: Path) -> None:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    for word in (*scenes.KINDS, *COLORS, "yes", "no"):
        assert len(tokenizer.encode(word).ids) == 1, word
    assert tokenizer.token_to_id("<|img|>") == 9


def test_the_folder_is_written_in_the_original_layout(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    assert config["model_type"] == "aria"
    assert config["projector_patch_to_query_dict"] == {"64": 16, "16": 8}
    assert config["image_token_index"] == 9


def test_sharing_a_picture_changes_no_score(folder: Path) -> None:
    """The same numbers come from asking alone, through the processor and the model as the jobs use them."""
    processor = load_processor(str(folder))
    model = train_folder.new_model(folder, torch.Generator().manual_seed(1)).eval()
    lines = train_score.Lines(folder, processor)
    picture = next(iter(train_data.load_held_out()[0].values()))
    asked = [
        Pair("is there a circle?", "yes"),
        Pair("what color is the shape?", "teal"),
        Pair("is there a circle?", "no"),
    ]
    with torch.inference_mode():
        rows = model.encode([train_data.make_tile(picture, processor)], lines.num_queries)
        together = lines.batch([asked]).scores(model, rows)[::2]  # every answer is one token and its end
        alone = []
        for pair in asked:
            model_input = processor.prepare(train_data.question_request(pair.question, picture))
            (prompt,) = model.prompt([model_input])
            alone.append(model.logits(model.decode(prompt.embeddings[None])[0, -1]))
    torch.testing.assert_close(together, torch.stack(alone), rtol=1e-4, atol=1e-4)


def test_targets_are_the_answer_and_its_end(folder: Path) -> None:
    lines = train_score.Lines(folder, load_processor(str(folder)))
    batch = lines.batch([[Pair("is there a circle?", "a red circle"), Pair(questions.COUNT, "one")], [Pair("", "no")]])
    said = [lines.spelled(row[row >= 0].tolist()) for row in batch.targets]
    assert said == ["a red circle<|im_end|>one<|im_end|>", "no<|im_end|>"]


def test_negation_is_learnt_after_presence() -> None:
    assert train.negated_share(0.0) == 0.0
    assert train.negated_share(1.0) == 0.5
    rng = random.Random(10)
    negatives = set(questions.NEGATIVES.values())
    assert not any(ask(draw_scene(rng, 1), rng, negated=0.0).question in negatives for _ in range(500))


def test_the_learning_rate_warms_up_and_ends_low() -> None:
    rates = [train.rate_at(step, 1_000) for step in range(1_000)]
    assert rates[0] < 0.05
    assert rates[100] == rates[399] == 1.0
    assert rates[-1] < 0.03


def test_a_short_training_writes_a_checkpoint_that_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train, "NEW_SCENES", 5)
    monkeypatch.setattr(train_data, "FIRST_HELD_OUT", 40)
    monkeypatch.setattr(train_data, "NUM_PICTURES", 50)
    monkeypatch.setattr(train_data, "NUM_DRAWN_SINGLE", 20)
    monkeypatch.setattr(train_data, "NUM_DRAWN_PAIR", 20)
    train.train(tmp_path, minutes=0.005, seed=0)
    picture = next(iter(train_data.load_held_out()[0].values()))
    (answer,) = ask_model(str(tmp_path), [train_data.question_request("is there a circle?", picture)])
    assert answer.image_tokens == 16


def test_the_shipped_checkpoint_is_the_one_this_code_writes(folder: Path) -> None:
    names = {path.name for path in folder.iterdir()}
    assert names | {"model.safetensors", "MODEL_CARD.md"} == {path.name for path in train.OUT.iterdir()}
    for name in sorted(names):
        shipped, written = ((path / name).read_text() for path in (train.OUT, folder))
        assert (json.loads(shipped) == json.loads(written)) if name.endswith("json") else shipped == written, name


def test_the_shipped_checkpoint_knows_shapes_and_colours() -> None:
    pictures, asked = train_data.load_held_out()
    some = asked[:150]
    requests = [train_data.question_request(question.pair.question, pictures[question.picture]) for question in some]
    answers = ask_model(str(train.OUT), requests, slots=32)
    right = sum(answer.text == question.pair.answer for answer, question in zip(answers, some, strict=True))
    assert right / len(some) > 0.95
