"""How the toy that draws is made: its pictures, its book of codes, its lessons, and what it can in the end."""

import random
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer

from jobs.demo.picture_rule import check_picture
from jobs.demo.prompts import CODES_PER_SIDE, describe, is_held_out
from jobs.demo.shapes import COLORS, OPPOSITE, relation
from models import load_model, load_processor
from models.emu3.config import read_config, read_images
from models.emu3.model import Emu3Model
from models.types import ImageSettings
from training.__main__ import CHECKPOINTS
from training.emu3 import book as books
from training.emu3 import codec as codecs
from training.emu3 import score, train, writer
from training.emu3.book import Book, lay_book
from training.emu3.folder import write_files
from training.questions import vocabulary
from training.scenes import LARGE_GROUND, draw_large_scene

SHIPPED = CHECKPOINTS / "emu3"


@pytest.fixture(scope="module")
def book() -> Book:
    return lay_book(random.Random(0))


@pytest.fixture(scope="module")
def folder(book: Book, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("emu3")
    write_files(path, vocabulary(), book.num_codes)
    return path


@pytest.fixture
def model(folder: Path, book: Book) -> Emu3Model:
    drawn = Emu3Model(read_config(folder), read_images(folder, ImageSettings()))
    codecs.new_codec(drawn.vqmodel, book, torch.Generator().manual_seed(1))
    writer.new_writer(drawn, book, torch.Generator().manual_seed(2))
    return drawn


@pytest.fixture
def copybook(folder: Path, model: Emu3Model, book: Book) -> writer.Copybook:
    return writer.Copybook(load_processor(str(folder)), model, book)


def test_the_rule_finds_every_picture_as_it_is_described() -> None:
    rng = random.Random(3)
    for _ in range(100):
        scene = draw_large_scene(rng)
        found = check_picture(np.asarray(scene.picture), describe(scene.shapes, rng))
        assert found.colors_right
        assert found.kinds_right
        assert found.relation_right is (None if len(scene.shapes) == 1 else True)


def test_either_shape_of_a_picture_may_be_named_first() -> None:
    rng = random.Random(4)
    scene = draw_large_scene(rng, 2)
    (first, second), place = scene.shapes, relation(*scene.shapes)
    texts = {describe(scene.shapes, rng) for _ in range(40)}
    assert texts == {
        f"a {first.name} {place} a {second.name}",
        f"a {second.name} {OPPOSITE[place]} a {first.name}",
    }


def test_codes_say_what_every_part_of_a_picture_shows(book: Book) -> None:
    rng = random.Random(5)
    scenes = [draw_large_scene(rng) for _ in range(50)]
    pattern, color = book.parts(book.codes(scenes))
    for scene, patterns, colors in zip(scenes, pattern, color, strict=True):
        cover, owner = books.cover_of(scene)
        assert np.abs(book.patterns[patterns] - cover).mean() < 0.01
        assert (colors == owner)[patterns > 0].all()
        assert {list(COLORS)[place] for place in np.unique(colors[patterns > 0])} == {s.color for s in scene.shapes}


def test_no_two_codes_have_one_vector(book: Book) -> None:
    vectors = book.vectors()
    assert vectors.shape == (book.num_codes, books.WIDTH)
    assert len(np.unique(vectors.astype(np.float16), axis=0)) == book.num_codes


def test_a_lesson_is_the_picture_behind_the_processors_prompt(copybook: writer.Copybook, folder: Path) -> None:
    rng = random.Random(6)
    scene = draw_large_scene(rng)
    (ids,), (targets,) = copybook.batch(["a red circle"], [scene])
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    text = tokenizer.decode(ids.tolist(), skip_special_tokens=False)
    codes = copybook.book.codes([scene])[0]
    rows = ["".join(f"<|visual token {code:06d}|>" for code in row) + "<|extra_200|>" for row in codes]
    start = "<|extra_203|>a red circle<|image start|>8*8<|image token|>"
    end = "<|extra_201|><|image end|><|extra_204|>"
    assert text == start + "".join(rows) + end
    told = targets >= 0
    assert tokenizer.decode(targets[told].tolist(), skip_special_tokens=False) == "".join(rows) + end
    assert torch.equal(targets[told][:-1], ids[1:][told[:-1]][:-1])


def test_a_shorter_prompt_is_padded_behind_its_picture(copybook: writer.Copybook, model: Emu3Model) -> None:
    rng = random.Random(7)
    scenes = [draw_large_scene(rng) for _ in range(2)]
    texts = ["", describe(scenes[1].shapes, rng)]
    with torch.inference_mode():
        together = writer.writing_loss(model, *copybook.batch(texts, scenes))
        alone = [writer.writing_loss(model, *copybook.batch([t], [s])) for t, s in zip(texts, scenes, strict=True)]
    torch.testing.assert_close(together, torch.stack(alone).mean())


def test_what_is_taught_is_what_the_model_encodes_and_paints(model: Emu3Model, book: Book) -> None:
    pixels, codes = codecs.lesson(book, random.Random(8), 3)
    with torch.inference_mode():
        torch.testing.assert_close(codecs.painted(model.vqmodel, codes), model.vqmodel.decode(codes))
        nearest = model.vqmodel.quantize(codecs.encoded(model.vqmodel, pixels))[:, 0]
        assert torch.equal(nearest, model.vqmodel.encode(pixels))


def test_outlines_weigh_most() -> None:
    ground = torch.tensor(LARGE_GROUND).view(1, 3, 1, 1) / 127.5 - 1
    pixels = ground.expand(1, 3, 64, 64).clone()
    pixels[:, :, 20:40, 20:40] = -1.0
    spoilt = {place: pixels.clone() for place in ((5, 5), (30, 30), (20, 30))}
    for (y, x), one in spoilt.items():
        one[:, :, y, x] += 0.5
    bare, inside, edge = (float(codecs.difference(one, pixels)) for one in spoilt.values())
    assert bare < inside < edge


def test_pairs_kept_for_measuring_are_never_shown() -> None:
    rng = random.Random(9)
    assert not any(is_held_out(writer._shown_scene(rng).shapes) for _ in range(200))
    kept = sum(is_held_out(draw_large_scene(rng, 2).shapes) for _ in range(500))
    assert 20 < kept < 100
    assert all(" a " in caption[2:] for caption in score.new_captions(rng, 5))


def test_a_short_training_writes_the_same_checkpoint_again(tmp_path: Path) -> None:
    for name in ("a", "b"):
        train.train(tmp_path / name, 0.02, seed=3, num_captions=2)
    first, second = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("a", "b"))
    assert first == second


def test_the_shipped_checkpoint_is_the_one_this_code_writes(folder: Path) -> None:
    names = {path.name for path in folder.iterdir()}
    assert names | {"model.safetensors", "MODEL_CARD.md"} == {path.name for path in SHIPPED.iterdir()}
    for name in sorted(names):
        shipped, written = ((path / name).read_text(encoding="utf-8") for path in (SHIPPED, folder))
        assert shipped == written, name


def test_the_shipped_checkpoint_draws_what_it_is_told() -> None:
    captions = score.new_captions(random.Random(11), 40)
    right = score.tally(score.draw(SHIPPED, captions, score.SAMPLING), captions)
    assert right.colors >= 34
    assert right.relations >= 32
    assert right.kinds >= 30


def test_the_shipped_checkpoint_copies_pictures_through_their_codes(book: Book) -> None:
    model = load_model(str(SHIPPED), device="cpu")
    assert isinstance(model, Emu3Model)
    named, ratio = score.copies(model.vqmodel, book, random.Random(12))
    assert named > 0.9
    assert ratio > 25
    assert model.encode([np.full((64, 64, 3), LARGE_GROUND, np.uint8)])[0].tolist() == [0] * CODES_PER_SIDE**2
