"""How the toy checkpoints are made, of every family: their files, their lessons, and what they know in the end."""

import importlib
import json
import random
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer

from jobs.demo.shapes import COLORS, KINDS
from models import ask as ask_model
from models import load_processor
from models.types import Request
from training import questions
from training.questions import Pair, ask
from training.scenes import draw_scene

pytest.importorskip("easy_vqa", reason="the training data are in the extra `train`")
dataset = importlib.import_module("training.dataset")
batches = importlib.import_module("training.batches")
optimizer = importlib.import_module("training.optimizer")
trainer = importlib.import_module("training.trainer")
command = importlib.import_module("training.__main__")

IMAGE_TOKENS = {"aria": 16, "mllama": 1}


@pytest.fixture(scope="module", params=command.RECIPES)
def family(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def folder(family: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp(family)
    command.RECIPES[family].write_files(path, questions.vocabulary())
    return path


@pytest.fixture
def student(family: str, folder: Path):
    return command.RECIPES[family].new_student(folder, torch.Generator().manual_seed(1))


@pytest.fixture
def batcher(family: str, folder: Path):
    recipe = command.RECIPES[family]
    return batches.QuestionBatcher(folder, load_processor(str(folder)), recipe.picture_end, recipe.answer_end)


def test_patches_are_named_by_what_covers_them(family: str, folder: Path, student) -> None:
    rng = random.Random(8)
    processor = load_processor(str(folder))
    drawn = [scene for scene in (draw_scene(rng, 1) for _ in range(30)) if scene.picture.size == (64, 64)]
    for example in dataset.make_examples(drawn, processor, student.labels):
        (shape,) = example.scene.shapes
        x, y = (int(middle // 8) for middle in shape.center)
        # A Mllama tells of its tiles one after the other, each 4 patches wide.
        place = y * 8 + x if family == "aria" else (y // 4 * 2 + x // 4) * 16 + y % 4 * 4 + x % 4
        assert len(example.labels) == 64
        assert example.labels[place] == dataset.LABELS[shape.name]
        assert (example.labels == 0).any()


def test_a_label_goes_with_every_patch_of_any_size(folder: Path, student) -> None:
    rng = random.Random(9)
    drawn = [draw_scene(rng, 2) for _ in range(200)]
    odd = [scene for scene in drawn if scene.picture.size != (64, 64)]
    assert len(odd) > 10
    for example in dataset.make_examples(odd, load_processor(str(folder)), student.labels):
        with torch.inference_mode():
            seen = student.patches(student.features([example.model_input]))
        assert seen.shape == (1, len(example.labels), student.num_features)
        named = {dataset.LABELS[shape.name] for shape in example.scene.shapes}
        assert set(example.labels.tolist()) <= {0, *named}
        assert named & set(example.labels.tolist())


def test_the_prompt_is_the_familys_own(family: str, folder: Path) -> None:
    processor = load_processor(str(folder))
    picture = next(iter(dataset.load_held_out()[0].values()))
    model_input = processor.prepare(dataset.question_request("is there a circle?", picture))
    prompts = {
        "aria": "<|im_start|>user\n<fim_prefix><|img|><fim_suffix>is there a circle?<|im_end|>\n"
        "<|im_start|>assistant\n",
        "mllama": "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\n<|image|>"
        "is there a circle?<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n",
    }
    assert model_input.prompt == prompts[family]
    assert model_input.image_tokens == IMAGE_TOKENS[family]
    assert len(model_input.tiles) == {"aria": 1, "mllama": 4}[family]


def test_every_word_is_one_token(folder: Path) -> None:
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    for word in (*KINDS, *COLORS, "yes", "no"):
        assert len(tokenizer.encode(word, add_special_tokens=False).ids) == 1, word


def test_the_folder_is_written_in_the_original_layout(family: str, folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    assert config["model_type"] == family
    if family == "aria":
        assert config["projector_patch_to_query_dict"] == {"64": 16, "16": 8}
        assert config["image_token_index"] == tokenizer.token_to_id("<|img|>") == 9
        return
    # The image token lies in the extra rows of the embedding table: the head has none for it.
    assert config["image_token_index"] == tokenizer.token_to_id("<|image|>") == config["text_config"]["vocab_size"]
    assert tokenizer.get_vocab_size() == config["text_config"]["vocab_size"] + 1
    assert tokenizer.encode("yes").ids[0] == tokenizer.token_to_id("<|begin_of_text|>")


def test_a_mllama_without_a_picture_is_told_the_day(tmp_path: Path) -> None:
    command.RECIPES["mllama"].write_files(tmp_path, questions.vocabulary())
    processor = load_processor(str(tmp_path))
    text = processor.prepare(Request(messages=[{"role": "user", "content": "is there a circle?"}])).prompt
    assert text.startswith(
        "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nCutting Knowledge Date: December 2023\n"
        "Today Date: 26 Jul 2024\n\n<|eot_id|>"
    )


def test_sharing_a_picture_changes_no_score(folder: Path, student, batcher) -> None:
    """The same numbers come from asking alone, through the processor and the engine's way into the model."""
    processor = load_processor(str(folder))
    picture = next(iter(dataset.load_held_out()[0].values()))
    asked = [
        Pair("is there a circle?", "yes"),
        Pair("what color is the shape?", "teal"),
        Pair("is there a circle?", "no"),
    ]
    with torch.inference_mode():
        inputs = [processor.prepare(dataset.question_request("", picture))]
        # An answer is a token and an end.
        together = student.scores(student.features(inputs), batcher.batch([asked]))[::2]
    requests = [dataset.question_request(pair.question, picture) for pair in asked]
    alone = [first_scores(student.model, processor.prepare(request)) for request in requests]
    torch.testing.assert_close(together, torch.stack(alone), rtol=1e-4, atol=1e-4)


@torch.inference_mode()
def first_scores(model, model_input):
    """Return the scores of an answer's first token, as the engine gets them."""
    from models.cache.memory import prefill_memory_view
    from models.cache.slots import Cache, prefill_cache_view

    (prompt,) = model.prompt([model_input])
    length = len(prompt.embeddings)
    view = prefill_memory_view([prompt.spans], range(length), model.device)
    cache_view = prefill_cache_view(Cache(model.cache_shape, 1, length), slice(0, 1), range(length), model.device, view)
    return model.logits(model.decode(prompt.embeddings[None], cache_view)[0, -1])


def test_answers_depend_on_the_picture(folder: Path, student, batcher) -> None:
    processor = load_processor(str(folder))
    pictures = list(dataset.load_held_out()[0].values())[:2]
    with torch.inference_mode():
        features = student.features([processor.prepare(dataset.question_request("", picture)) for picture in pictures])
        first, second = student.scores(features, batcher.batch([[Pair("is there a circle?", "yes")]] * 2)).chunk(2)
    assert not torch.allclose(first, second, atol=1e-3)


def test_targets_are_the_answer_and_its_end(family: str, folder: Path, batcher) -> None:
    end = command.RECIPES[family].answer_end
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    asked = [[Pair("is there a circle?", "a red circle"), Pair(questions.COUNT, "one")], [Pair("", "no")]]
    targets = [row[row >= 0].tolist() for row in batcher.batch(asked).targets]
    answers = [tokenizer.decode(ids, skip_special_tokens=False) for ids in targets]
    assert answers == [f"a red circle{end}one{end}", f"no{end}"]


def test_negation_is_learnt_after_presence() -> None:
    assert trainer.negated_share(0.0) == 0.0
    assert trainer.negated_share(1.0) == 0.5
    rng = random.Random(10)
    negatives = set(questions.NEGATIVES.values())
    assert not any(ask(draw_scene(rng, 1), rng, negated=0.0).question in negatives for _ in range(500))


def test_the_learning_rate_warms_up_and_ends_low() -> None:
    rates = [optimizer.rate_at(step, 1_000) for step in range(1_000)]
    assert rates[0] < 0.05
    assert rates[100] == rates[399] == 1.0
    assert rates[-1] < 0.03


@pytest.fixture
def few_data(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trainer, "NEW_SCENES", 5)
    monkeypatch.setattr(dataset, "FIRST_HELD_OUT", 40)
    monkeypatch.setattr(dataset, "NUM_PICTURES", 50)
    monkeypatch.setattr(dataset, "NUM_DRAWN_SINGLE", 20)
    monkeypatch.setattr(dataset, "NUM_DRAWN_PAIR", 20)


def test_a_short_training_writes_a_checkpoint_that_answers(family: str, few_data: None, tmp_path: Path) -> None:
    trainer.train(command.RECIPES[family], tmp_path, minutes=0.005, seed=0)
    picture = next(iter(dataset.load_held_out()[0].values()))
    (answer,) = ask_model(str(tmp_path), [dataset.question_request("is there a circle?", picture)])
    assert answer.image_tokens == IMAGE_TOKENS[family]


def test_a_seed_gives_the_same_weights_again(family: str, few_data: None, tmp_path: Path) -> None:
    for name in ("a", "b"):
        trainer.train(command.RECIPES[family], tmp_path / name, minutes=0.003, seed=3)
    first, second = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("a", "b"))
    assert first == second


def test_the_shipped_checkpoint_is_the_one_this_code_writes(family: str, folder: Path) -> None:
    shipped_folder = command.CHECKPOINTS / family
    names = {path.name for path in folder.iterdir()}
    assert names | {"model.safetensors", "MODEL_CARD.md"} == {path.name for path in shipped_folder.iterdir()}
    for name in sorted(names):
        shipped, written = ((path / name).read_text() for path in (shipped_folder, folder))
        assert (json.loads(shipped) == json.loads(written)) if name.endswith("json") else shipped == written, name


def test_the_shipped_checkpoint_knows_shapes_and_colours(family: str) -> None:
    pictures, asked = dataset.load_held_out()
    some = asked[:150]
    requests = [dataset.question_request(question.pair.question, pictures[question.picture]) for question in some]
    answers = ask_model(str(command.CHECKPOINTS / family), requests, slots=32)
    right = sum(answer.text == question.pair.answer for answer, question in zip(answers, some, strict=True))
    assert right / len(some) > 0.95
