"""How the toy that draws is made: its pictures, its codebook of codes, its lessons, and what it can in the end."""

import random
from collections import Counter
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer

from jobs.demo.picture_rule import check_picture
from jobs.demo.prompts import CODES_PER_SIDE, describe, held_out_captions, is_held_out
from jobs.demo.shapes import COLORS, OPPOSITE, relation
from models import load_model, load_processor
from models.emu3.model import Emu3Model
from training.checkpoint_files import CHECKPOINTS
from training.emu3 import codebook as codebooks
from training.emu3 import evaluation, language_model, train, vqvae
from training.emu3.codebook import Codebook, build_codebook
from training.emu3.files import write_files
from training.emu3.language_model import DrawingBatcher, next_token_loss
from training.questions import vocabulary
from training.scenes import LARGE_GROUND, draw_large_scene

SHIPPED = CHECKPOINTS / "emu3"


@pytest.fixture(scope="module")
def codebook() -> Codebook:
    return build_codebook(random.Random(0))


@pytest.fixture(scope="module")
def folder(codebook: Codebook, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("emu3")
    write_files(path, vocabulary(), codebook.num_codes)
    return path


@pytest.fixture
def model(folder: Path, codebook: Codebook) -> Emu3Model:
    drawn = Emu3Model(folder)
    vqvae.init_vqvae(drawn.vqmodel, codebook, torch.Generator().manual_seed(1))
    language_model.init_language_model(drawn, codebook, torch.Generator().manual_seed(2))
    return drawn


@pytest.fixture
def batcher(folder: Path, model: Emu3Model, codebook: Codebook) -> DrawingBatcher:
    return DrawingBatcher(load_processor(str(folder)), model, codebook)


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


def test_codes_say_what_every_part_of_a_picture_shows(codebook: Codebook) -> None:
    rng = random.Random(5)
    scenes = [draw_large_scene(rng) for _ in range(50)]
    pattern, color = codebook.parts(codebook.codes(scenes))
    for scene, patterns, colors in zip(scenes, pattern, color, strict=True):
        cover, owner = codebooks.cover_of(scene)
        assert np.abs(codebook.patterns[patterns] - cover).mean() < 0.01
        assert (colors == owner)[patterns > 0].all()
        assert {list(COLORS)[place] for place in np.unique(colors[patterns > 0])} == {s.color for s in scene.shapes}


def test_no_two_codes_have_one_vector(codebook: Codebook) -> None:
    vectors = codebook.vectors()
    assert vectors.shape == (codebook.num_codes, codebooks.WIDTH)
    assert len(np.unique(vectors.astype(np.float16), axis=0)) == codebook.num_codes


def test_a_lesson_is_the_picture_behind_the_processors_prompt(batcher: DrawingBatcher, folder: Path) -> None:
    rng = random.Random(6)
    scene = draw_large_scene(rng)
    (ids,), (targets,) = batcher.batch(["a red circle"], [scene])
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    text = tokenizer.decode(ids.tolist(), skip_special_tokens=False)
    codes = batcher.codebook.codes([scene])[0]
    rows = ["".join(f"<|visual token {code:06d}|>" for code in row) + "<|extra_200|>" for row in codes]
    start = "<|extra_203|>a red circle<|image start|>8*8<|image token|>"
    end = "<|extra_201|><|image end|><|extra_204|>"
    assert text == start + "".join(rows) + end
    told = targets >= 0
    assert tokenizer.decode(targets[told].tolist(), skip_special_tokens=False) == "".join(rows) + end
    assert torch.equal(targets[told][:-1], ids[1:][told[:-1]][:-1])


def test_a_shorter_prompt_is_padded_behind_its_picture(batcher: DrawingBatcher, model: Emu3Model) -> None:
    rng = random.Random(7)
    scenes = [draw_large_scene(rng) for _ in range(2)]
    texts = ["", describe(scenes[1].shapes, rng)]
    with torch.inference_mode():
        together = next_token_loss(model, *batcher.batch(texts, scenes))
        alone = [next_token_loss(model, *batcher.batch([t], [s])) for t, s in zip(texts, scenes, strict=True)]
    torch.testing.assert_close(together, torch.stack(alone).mean())


def test_what_is_taught_is_what_the_model_encodes_and_paints(model: Emu3Model, codebook: Codebook) -> None:
    pixels, codes = vqvae.draw_batch(codebook, random.Random(8), 3)
    with torch.inference_mode():
        torch.testing.assert_close(vqvae.painted(model.vqmodel, codes), model.vqmodel.decode(codes))
        nearest = model.vqmodel.quantize(vqvae.encoded(model.vqmodel, pixels))[:, 0]
        assert torch.equal(nearest, model.vqmodel.encode(pixels))


def test_outlines_weigh_most() -> None:
    ground = torch.tensor(LARGE_GROUND).view(1, 3, 1, 1) / 127.5 - 1
    pixels = ground.expand(1, 3, 64, 64).clone()
    pixels[:, :, 20:40, 20:40] = -1.0
    spoilt = {place: pixels.clone() for place in ((5, 5), (30, 30), (20, 30))}
    for (y, x), one in spoilt.items():
        one[:, :, y, x] += 0.5
    bare, inside, edge = (float(vqvae.difference(one, pixels)) for one in spoilt.values())
    assert bare < inside < edge


def test_pairs_kept_for_measuring_are_never_shown() -> None:
    rng = random.Random(9)
    assert not any(is_held_out(language_model._training_scene(rng).shapes) for _ in range(200))
    kept = sum(is_held_out(draw_large_scene(rng, 2).shapes) for _ in range(500))
    assert 20 < kept < 100
    assert all(" a " in caption[2:] for caption in islice(held_out_captions(rng), 5))


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
    captions = list(islice(held_out_captions(random.Random(11)), 40))
    results = evaluation.score_pictures(evaluation.draw(SHIPPED, captions), captions)
    right = Counter(kind for kind, is_right in results if is_right)
    assert right["colours"] >= 34
    assert right["relation"] >= 32
    assert right["kinds"] >= 30


def test_the_shipped_checkpoint_copies_pictures_through_their_codes(codebook: Codebook) -> None:
    model = load_model(str(SHIPPED), device="cpu")
    assert isinstance(model, Emu3Model)
    named, ratio = evaluation.score_copies(model.vqmodel, codebook, random.Random(12))
    assert named > 0.9
    assert ratio > 25
    assert model.encode([np.full((64, 64, 3), LARGE_GROUND, np.uint8)])[0].tolist() == [0] * CODES_PER_SIDE**2
