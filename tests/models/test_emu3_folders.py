"""Folders of the shapes of Emu3-Chat-hf, Emu3-Gen-hf and a converted Emu3-Stage1 are read; how they sample is not.

Only sizes differ from what the reference's converter writes: config.json, generation_config.json, image settings, the
tokenizer's files, weights in shards.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from models import Answer, Request, Sampling, ask, check_weights, load_processor
from models.emu3.grid import grid_for
from models.template_files import TEMPLATE_FILES
from models.types import BadRequest
from tests.models.reference import picture, user
from tests.models.test_emu3_processor import RELEASED_TEMPLATE
from tests.pictures import encoded
from tests.tiny import tiny_emu3
from training.emu3 import files as emu3

# As the converter writes them for chat and for drawing alike, and what a careless hand could add.
GENERATION = {
    "_from_model_config": True, "do_sample": True, "top_k": 2048, "max_new_tokens": 50000, "max_length": 20,
    "temperature": 0.5, "top_p": 0.1, "guidance_scale": 3.0, "repetition_penalty": 9.0, "suppress_tokens": [5],
    "transformers_version": "4.48.0.dev0",
}  # fmt: skip
# Codes of 8 x 8 pixels, as the released ones.
VQ = {"channel_multiplier": [1, 1, 1, 2], "attn_resolutions": [3]}
AREAS = {"min_pixels": 512 * 512, "max_pixels": 1024 * 1024, "spatial_factor": 8}


def change(file: Path, **fields: Any) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | fields))


def write(folder: Path, positions: int, **images: int) -> Path:
    tiny_emu3(folder, text={"max_position_embeddings": positions}, vq=VQ, images=AREAS | images, shards=3)
    ends = json.loads((folder / "config.json").read_text())["text_config"]
    known = {name: ends[name] for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    (folder / "generation_config.json").write_text(json.dumps(GENERATION | known))
    content = json.loads((folder / "tokenizer.json").read_text())["model"]
    # Older writers keep the pairs as texts, and the reference's tokenizer has both in files of their own.
    merges = [" ".join(pair) for pair in content["merges"]]
    change(folder / "tokenizer.json", model={**content, "merges": merges, "dropout": None, "unk_token": None})
    (folder / "vocab.json").write_text(json.dumps(content["vocab"]))
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges]))
    (folder / "processor_config.json").write_text(json.dumps({"processor_class": "Emu3Processor"}))
    (folder / "chat_template.json").unlink()
    return folder


def chat(folder: Path) -> Path:
    write(folder, positions=131072)
    (folder / "chat_template.json").write_text(json.dumps({"chat_template": RELEASED_TEMPLATE}))
    return folder


def gen(folder: Path) -> Path:
    return write(folder, positions=9216)


def stage1(folder: Path) -> Path:
    return write(folder, positions=5120, max_pixels=512 * 512)


SHAPES = {"Chat-hf": chat, "Gen-hf": gen, "Stage1": stage1}


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_a_folder_of_each_shape_is_whole(tmp_path: Path, shape: Callable[[Path], Path]) -> None:
    folder = shape(tmp_path)
    check_weights(str(folder))
    check_weights(str(folder), text_only=True)
    processor = load_processor(str(folder))
    assert processor.sees_images and processor.pixels_per_code
    vocabulary = json.loads((folder / "config.json").read_text())["vocabulary_map"]
    assert processor.stop_ids == {vocabulary[emu3.END_OF_TEXT]}
    side = 64 if shape is stage1 else 128
    seen = processor.prepare(Request(prompt="<image>What?", images=[encoded(picture(1200, 1200))]))
    assert (seen.layout, seen.image_tokens) == ((side, side), side * side)


def test_a_chat_folder_chats_and_the_others_say_what_they_lack(tmp_path: Path) -> None:
    asked = Request(messages=user("What?", 1), images=[encoded(picture(600, 600))])
    folders = {name: shape(tmp_path / name) for name, shape in SHAPES.items()}
    assert load_processor(str(folders["Chat-hf"])).prepare(asked).prompt == "USER: <image>What? ASSISTANT:"
    for name in ("Gen-hf", "Stage1"):
        with pytest.raises(BadRequest, match=f"has no chat template .looked for {', '.join(TEMPLATE_FILES)}"):
            load_processor(str(folders[name])).prepare(asked)
        templated = load_processor(str(folders[name]), template="USER: {image}{question} ASSISTANT:")
        assert templated.prepare(asked).prompt == "USER: <image>What? ASSISTANT:"


@pytest.mark.parametrize(
    ("shape", "area", "tokens"), [(gen, 720 * 720, 8193), (stage1, 512 * 512, 4163), (chat, 720 * 720, 8193)]
)
def test_each_draws_pictures_of_the_size_it_was_made_for(
    tmp_path: Path, shape: Callable[[Path], Path], area: int, tokens: int
) -> None:
    grid = grid_for("1:1", area)
    asked = load_processor(str(shape(tmp_path))).prepare(Request(prompt="a cat", grid=(grid.rows, grid.columns)))
    assert asked.num_new_tokens == tokens
    limit = json.loads((tmp_path / "config.json").read_text())["text_config"]["max_position_embeddings"]
    assert len(asked.token_ids) + tokens < limit


def answers(folder: Path) -> list[Answer]:
    requests = [
        Request(prompt="What shape is it?", sampling=Sampling(max_new_tokens=30)),
        Request(prompt="What color is it?", sampling=Sampling(max_new_tokens=30, temperature=1.0, seed=3)),
        Request(prompt="red, green", grid=(2, 3)),
        Request(prompt="red, green", grid=(2, 3), sampling=Sampling(temperature=1.0, seed=1, guidance_scale=2.0)),
    ]
    return ask(str(folder), requests, device="cpu")


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_how_a_folder_would_sample_changes_no_answer(tmp_path: Path, shape: Callable[[Path], Path]) -> None:
    folder = shape(tmp_path)
    with_it = answers(folder)
    (folder / "generation_config.json").unlink()
    assert with_it == answers(folder)
    assert len(with_it[0].token_ids) == 30
    assert len({answer.token_ids for answer in with_it}) == len(with_it)
