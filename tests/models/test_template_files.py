"""A chat template is found where the reference finds it, in each place and for each pair of places."""

import itertools
import json
from pathlib import Path
from typing import Any

import pytest
from transformers import AriaImageProcessorPil, AriaProcessor, PreTrainedTokenizerFast

from models.template_files import TEMPLATE_FILES, find_template, special_tokens
from models.types import CheckpointError
from tests.models.byte_tokenizer import write_tokenizer

NAMED = [{"name": "tool_use", "template": "tools"}, {"name": "default", "template": "the default"}]


def places(folder: Path) -> dict[str, Any]:
    """Return what to put where; each place says its own name."""
    more = folder / "additional_chat_templates"
    return {
        "processor_config.json": {"chat_template": "processor", "image_processor": None},
        "chat_template.json": {"chat_template": "legacy"},
        "chat_template.jinja": "jinja",
        f"{more.name}/default.jinja": "more",
        f"{more.name}/tool_use.jinja": "tools",
        "tokenizer_config.json": {"chat_template": "tokenizer"},
        "tokenizer_config.json, named": {"chat_template": NAMED},
    }


def write(folder: Path, *chosen: str) -> Path:
    folder.mkdir(exist_ok=True)
    write_tokenizer(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps({"image_processor_type": "AriaImageProcessor"}))
    config: dict[str, Any] = {"tokenizer_class": "PreTrainedTokenizerFast", "image_token": "<|img|>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    for place in chosen:
        content, path = places(folder)[place], folder / place.split(",")[0]
        path.parent.mkdir(exist_ok=True)
        if path.name == "tokenizer_config.json":
            content = config | content
        path.write_text(content if isinstance(content, str) else json.dumps(content))
    return folder


def the_references(folder: Path) -> str | None:
    """Return the template of the reference's processor, else of its tokenizer; None where it refuses or has none."""
    try:
        dictionary, _ = AriaProcessor.get_processor_dict(folder)
        tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
        template = dictionary.get("chat_template")
        if template is None:
            return None if tokenizer.chat_template is None else str(tokenizer.get_chat_template())
        processor = AriaProcessor(AriaImageProcessorPil(), tokenizer, chat_template=template)
        return str(processor._resolve_chat_template(None))
    except ValueError:
        return None


def ours(folder: Path) -> str | None:
    try:
        return find_template(folder)
    except CheckpointError:
        return None


# The reference leaves the files open that it reads.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.mark.parametrize("count", [0, 1, 2, 3])
def test_each_place_and_each_pair_and_triple_are_read_in_the_references_order(tmp_path: Path, count: int) -> None:
    found = set()
    for number, chosen in enumerate(itertools.combinations(places(tmp_path), count)):
        folder = write(tmp_path / str(number), *chosen)
        assert ours(folder) == the_references(folder), chosen
        found.add(ours(folder))
    assert len(found) == (1, 7, 6, 5)[count] or found >= {"processor", "legacy", "jinja"}


@pytest.mark.parametrize("place", TEMPLATE_FILES)
def test_each_place_alone_is_enough(tmp_path: Path, place: str) -> None:
    assert find_template(write(tmp_path, place)) in ("processor", "legacy", "jinja", "more", "tokenizer")


def test_of_named_templates_the_default_is_taken(tmp_path: Path) -> None:
    assert find_template(write(tmp_path, "tokenizer_config.json, named")) == "the default"
    for name in ("processor_config.json", "chat_template.json"):
        for named in (NAMED, {"default": "the default", "rag": "other"}):
            (tmp_path / name).write_text(json.dumps({"chat_template": named}))
            assert find_template(tmp_path) == "the default"
        (tmp_path / name).unlink()


@pytest.mark.parametrize(("place", "content", "said"), [
    ("tokenizer_config.json", [{"name": "rag", "template": "a"}], "has the chat templates rag, expected one called"),
    ("tokenizer_config.json", [], "has the chat templates none, expected one called default"),
    ("tokenizer_config.json", ["a"], "chat_template is a list, expected a text"),
    ("processor_config.json", {"rag": "a", "tool_use": "b"}, "has the chat templates rag, tool_use, expected"),
    ("chat_template.json", 3, "chat_template is a int, expected a text"),
])  # fmt: skip
def test_templates_without_a_default_are_refused(tmp_path: Path, place: str, content: Any, said: str) -> None:
    (tmp_path / place).write_text(json.dumps({"chat_template": content}))
    with pytest.raises(CheckpointError, match=rf"{place}(:| )? ?{said}"):
        find_template(tmp_path)


def test_an_old_file_beside_new_ones_is_refused_as_the_reference_refuses_it(tmp_path: Path) -> None:
    folder = write(tmp_path, "chat_template.json", "additional_chat_templates/tool_use.jinja")
    with pytest.raises(CheckpointError, match=r"chat_template\.json and also tool_use\.jinja in additional_chat"):
        find_template(folder)
    with pytest.raises(ValueError, match="conflicting files"):
        AriaProcessor.get_processor_dict(folder)


def test_a_file_that_is_no_text_is_named(tmp_path: Path) -> None:
    (tmp_path / "chat_template.jinja").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(CheckpointError, match=r"chat_template\.jinja is not text in UTF-8"):
        find_template(tmp_path)


TOKEN = {"content": "<s>", "lstrip": False, "normalized": False, "rstrip": False, "single_word": False}
ADDED = {"added_tokens_decoder": {"0": TOKEN | {"special": True}}}


@pytest.mark.parametrize(("config", "older"), [
    ({"bos_token": "<s>"}, None), ({"bos_token": TOKEN | {"__type": "AddedToken"}, "eos_token": None}, None),
    ({"bos_token": "<s>", "image_token": "<|img|>"}, {"bos_token": "</s>", "boi_token": "<|im_start|>"}),
    ({"bos_token": "<s>"} | ADDED, {"bos_token": "</s>", "eos_token": "</s>"}), ({}, {"bos_token": TOKEN}),
    ({"extra_special_tokens": {"image_token": "<|img|>", "start": "<|im_start|>"}} | ADDED, None),
    ({"extra_special_tokens": ["<|img|>"], "eos_token": "</s>"}, None),
    ({"model_specific_special_tokens": {"image_token": "<|img|>"}, "bos_token": "<s>"} | ADDED, None),
    ({"additional_special_tokens": ["<|img|>"], "pad_token": "<s>", "add_bos_token": True}, None),
    ({"bos_token": "<s>"}, {"extra_special_tokens": {"image_token": "<|img|>"}}),
], ids=range(10))  # fmt: skip
def test_the_tokens_that_a_template_may_call_are_the_references(
    tmp_path: Path, config: dict[str, Any], older: dict[str, Any] | None
) -> None:
    write_tokenizer(tmp_path)
    config = {"tokenizer_class": "PreTrainedTokenizerFast", **config}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    if older is not None:
        (tmp_path / "special_tokens_map.json").write_text(json.dumps(older))
    reference = PreTrainedTokenizerFast.from_pretrained(tmp_path)
    assert special_tokens(tmp_path) == reference.special_tokens_map
