"""A row's conversation reaches the model through its own chat template, as transformers renders the same messages."""

import json
from pathlib import Path
from typing import Any

import pytest
from transformers import PreTrainedTokenizerFast

from jobs.caption import CaptionSettings
from jobs.vqa import VqaSettings
from models import load_processor
from models.types import ModelInput, Sampling
from pipeline.input.formats.chats import MESSAGES
from pipeline.input.read import read_unit
from pipeline.input.units import ReadSettings, plan_input
from pipeline.rows import kept_columns, model_inputs
from pipeline.steps.preprocess import Preprocess
from tests.end_to_end.shards import png
from tests.pipeline.inputs import write
from tests.pipeline.test_chats import jsonl, said, talk

CHECKPOINTS = Path(__file__).parents[2] / "jobs/demo/checkpoints"
FAMILIES = ("aria", "mllama", "emu3")
IMAGE = {"type": "image", "image": "a.png"}
OTHER = {"type": "image", "image": "b.png"}
TURNS = [said("user", "Look at", IMAGE, "What is it?"), said("assistant", "A cat."), said("user", OTHER, "And this?")]
SYSTEM = said("system", "Be brief.")


def asked(
    folder: Path, family: str, *rows: Any, template: str | None = None, **settings: Any
) -> list[tuple[dict[str, Any], ModelInput | None]]:
    """The rows of a file, and what a family's model is asked of each."""
    for number, name in enumerate("ab"):
        write(folder / f"{name}.png", png(number))
    job = VqaSettings.model_validate({"kind": "vqa", **settings}).build()
    read = ReadSettings(uri=str(write(folder / "rows.jsonl", jsonl(*rows))))
    (unit,) = plan_input(read, 99, reads=(*job.required, *job.optional)).units
    processor = load_processor(str(CHECKPOINTS / family), template=template)
    block = Preprocess(processor, job, Sampling())(job.adapt("", read_unit(unit, read)))
    found: list[dict[str, Any]] = block.select(["key", "job.item", "error"]).to_pylist()
    return list(zip(found, model_inputs(block), strict=True))


def prompt_of(family: str, messages: list[Any]) -> str:
    """What transformers makes of messages with the checkpoint's template; Mllama's takes a system message as text."""
    files: Any = PreTrainedTokenizerFast
    tokenizer = files.from_pretrained(str(CHECKPOINTS / family))
    stored = CHECKPOINTS / family / "chat_template.json"
    template = json.loads(stored.read_text())["chat_template"] if stored.exists() else None
    plain = [
        {**one, "content": one["content"][0]["text"]} if family == "mllama" and one["role"] == "system" else one
        for one in messages
    ]
    options = {"tokenize": False, "add_generation_prompt": True, "date_string": "26 Jul 2024"}
    text: str = tokenizer.apply_chat_template(plain, chat_template=template, **options)
    return text


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("messages", [
    TURNS,
    [SYSTEM, said("user", "Hi"), said("assistant", "Ho"), said("user", "Well,", "what?")],
    [said("user", "A: ", IMAGE, "B: ", OTHER, "Which?")],
])  # fmt: skip
def test_a_conversation_becomes_the_prompt_that_transformers_makes_of_it(
    tmp_path: Path, family: str, messages: list[Any]
) -> None:
    line = {"custom_id": "r-1", "body": {"messages": messages}}
    answered = {"custom_id": "r-2", "body": {"messages": [*messages, said("assistant", "A dog.")]}}
    (row, given), (known, same) = asked(tmp_path, family, line, answered)
    assert row["error"] is None and given is not None and same is not None
    assert given.prompt == same.prompt == prompt_of(family, messages)
    assert len(given.image_names) == json.dumps(messages).count("png")
    assert (row["job.item"]["answers"], known["job.item"]["answers"]) == (None, ["A dog."])


@pytest.mark.parametrize("family", ["aria", "emu3"])
def test_a_system_message_stands_before_images_where_the_template_takes_it(tmp_path: Path, family: str) -> None:
    (_, given), (_, llava) = asked(
        tmp_path,
        family,
        {"messages": [SYSTEM, *TURNS]},
        {
            "image": ["a.png", "b.png"],
            "conversations": [
                {"from": "system", "value": "Be brief."},
                *talk("Look at<image>What is it?", "A cat.", "<image>\nAnd this?"),
            ],
        },
    )
    assert given is not None and llava is not None
    assert given.prompt == llava.prompt == prompt_of(family, [SYSTEM, *TURNS])


def test_a_template_without_room_for_a_turn_says_so(tmp_path: Path) -> None:
    ((row, _),) = asked(tmp_path, "mllama", {"messages": [SYSTEM, *TURNS]})
    assert row["error"]["stage"] == "template"
    assert "the chat template refused the messages: a system message cannot stand beside" in row["error"]["message"]
    ((row, _),) = asked(tmp_path, "mllama", {"messages": TURNS}, template="{image}{question}")
    assert row["error"]["message"] == (
        "found messages of user, assistant, user; a plain template has room for one of the user alone"
    )


@pytest.mark.parametrize(("prompt", "last"), [
    ("{question}", [OTHER, "And", "this?"]),
    ("Q: {question}\nA:", [OTHER, "Q: And", "this?\nA:"]),
    ("{question} ({key})", [OTHER, "And", "this? (r-1)"]),
    ("Describe.", [OTHER, "Describe."]),
])  # fmt: skip
def test_a_prompt_stands_around_the_last_turns_text(tmp_path: Path, prompt: str, last: list[Any]) -> None:
    row = {"id": "r-1", "messages": [*TURNS[:2], said("user", OTHER, "And", "this?")]}
    ((_, given),) = asked(tmp_path, "aria", row, prompt=prompt)
    assert given is not None and given.prompt == prompt_of("aria", [*TURNS[:2], said("user", *last)])


def test_a_turn_of_images_alone_is_asked_and_an_empty_one_is_not(tmp_path: Path) -> None:
    rows = [{"messages": [SYSTEM, said("user", part)]} for part in (IMAGE, " ")]
    (_, given), (empty, nothing) = asked(tmp_path, "aria", *rows)
    assert given is not None and given.prompt == prompt_of("aria", rows[0]["messages"])
    assert nothing is None and empty["error"]["message"] == (
        "found nothing in the conversation's last turn, expected a question"
    )


def test_images_without_a_place_come_first_and_as_many_as_have_places_are_needed(tmp_path: Path) -> None:
    row = {"image": "a.png", "conversations": talk("What?", "It.", "Sure?")}
    few = {"image": ["a.png", "b.png"], "conversations": talk("<image>\nWhat?")}
    (_, given), (bad, _) = asked(tmp_path, "aria", row, few)
    messages = [said("user", IMAGE, "What?"), said("assistant", "It."), said("user", "Sure?")]
    assert given is not None and given.prompt == prompt_of("aria", messages)
    assert bad["error"]["message"] == "the conversation has places for 1 images, and the row has 2"


def test_what_came_before_the_question_is_kept_beside_it(tmp_path: Path) -> None:
    (first, _), (second, _) = asked(tmp_path, "aria", {"messages": TURNS}, {"messages": TURNS[2:]})
    assert first["job.item"]["context"] == "user: Look at [image] What is it?\nassistant: A cat."
    assert (first["job.item"]["question"], second["job.item"]["context"]) == ("And this?", "")
    assert first["job.item"]["row_hash"] != second["job.item"]["row_hash"]


def test_turns_go_to_the_job_and_into_no_part(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.jsonl", jsonl({"messages": [said("user", "Hi")]}))
    for job in (VqaSettings(kind="vqa").build(), CaptionSettings(kind="caption").build()):
        schema = plan_input(ReadSettings(uri=str(path)), 9, reads=(*job.required, *job.optional)).units[0].table_schema
        assert MESSAGES in schema.names
        kept = [name for name, _ in kept_columns(job.adapt("", schema.empty_table()).schema, job)]
        assert "messages" in kept and MESSAGES not in kept
