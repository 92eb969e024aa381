"""From messages and files to words, Aria goes the reference's way: template, tokens, pixels, answers."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AriaImageProcessorPil, AriaProcessor, PreTrainedTokenizerFast

from models import Request, Sampling, ask, load_processor
from tests.models.reference import TEXT, VISION, Size, greedy, picture, user, write_reference
from tests.pictures import encoded
from tests.tiny import TEXTS
from training.aria.files import write_files

SIZE = Size(
    TEXT | {"vocab_size": 600, "max_position_embeddings": 2048, "pad_token_id": 3},
    VISION | {"image_size": 980}, {1225: 128, 4900: 256}, canvas=490, shortest=336,
)  # fmt: skip
QUESTIONS: tuple[tuple[list[tuple[int, int]], str], ...] = (
    ([], "Is it a circle?\n\n  Two  spaces, grün and 日本."),
    ([(640, 480)], "What shape is in the picture?"),
    ([(480, 640), (100, 20)], "Which one is red?"),
)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any, Any]:
    """A checkpoint's folder, and the reference's model and processor of it."""
    folder = tmp_path_factory.mktemp("whole")
    write_files(folder, TEXTS)
    model = write_reference(folder, SIZE)
    fast: Any = PreTrainedTokenizerFast
    tokenizer = fast(
        tokenizer_file=str(folder / "tokenizer.json"),
        pad_token="<pad>",
        extra_special_tokens={"image_token": "<|img|>"},
    )
    tokenizer.padding_side = "left"
    images = AriaImageProcessorPil(max_image_size=490)
    template = (folder / "chat_template.jinja").read_text(encoding="utf-8")
    return folder, model, AriaProcessor(images, tokenizer, chat_template=template)


def request(sizes: list[tuple[int, int]], question: str) -> Request:
    images = [encoded(picture(*size)) for size in sizes]
    return Request(messages=user(question, len(sizes)), images=images, sampling=Sampling(max_new_tokens=10))


def test_prompts_are_the_references_token_by_token(pair: tuple[Path, Any, Any]) -> None:
    folder, _, reference = pair
    ours = load_processor(str(folder))
    for sizes, question in QUESTIONS:
        text = reference.apply_chat_template(user(question, len(sizes)), add_generation_prompt=True)
        pictures = [picture(*size) for size in sizes] or None
        expected = reference(text=text, images=pictures, return_tensors="pt", max_image_size=490)
        model_input = ours.prepare(request(sizes, question))
        assert model_input.prompt == text
        assert model_input.token_ids.tolist() == expected["input_ids"][0].tolist()


def test_a_conversation_is_the_references_token_by_token(pair: tuple[Path, Any, Any]) -> None:
    folder, _, reference = pair
    late = {"role": "user", "content": [{"type": "text", "text": "and"}, {"type": "image"}]}
    chat = [{"role": "system", "content": "is"}, *user("what", 1), {"role": "assistant", "content": "a"}, late]
    text = reference.apply_chat_template(chat, add_generation_prompt=True)
    pictures = [picture(60, 40), picture(30, 80)]
    expected = reference(text=text, images=pictures, return_tensors="pt", max_image_size=490)
    model_input = load_processor(str(folder)).prepare(Request(messages=chat, images=list(map(encoded, pictures))))
    assert model_input.prompt == text
    assert model_input.token_ids.tolist() == expected["input_ids"][0].tolist()


def test_answers_are_the_references_of_one_batch_with_pictures_of_unlike_shapes(pair: tuple[Path, Any, Any]) -> None:
    folder, model, reference = pair
    texts = [
        reference.apply_chat_template(user(question, len(sizes)), add_generation_prompt=True)
        for sizes, question in QUESTIONS
    ]
    pictures = [[picture(*size) for size in sizes] for sizes, _ in QUESTIONS if sizes]
    flat = [one for some in pictures for one in some]
    inputs = reference(text=texts, images=flat, padding=True, return_tensors="pt", max_image_size=490)
    expected = greedy(model, {name: value for name, value in inputs.items() if isinstance(value, torch.Tensor)}, 10)
    answers = ask(str(folder), [request(sizes, question) for sizes, question in QUESTIONS], slots=2)
    for answer, ids in zip(answers, expected, strict=True):
        assert list(answer.token_ids) == ids[: len(answer.token_ids)]  # ours may stop; the reference was told not to
        assert len(answer.token_ids) == 10 or answer.finish_reason == "stop"
