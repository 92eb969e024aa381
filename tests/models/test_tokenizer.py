"""Dataset text stays data, prompts begin as they should, and stop strings end an answer wherever they fall."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer

from models.guard import RenderedPrompt
from models.tokenizer import ChatTokenizer, cut_at_stop
from models.types import BadRequest, CheckpointError
from tests.models.byte_tokenizer import NOT_SPECIAL, SPECIAL, write_tokenizer

TURNS = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}<|im_start|>assistant\n"
)
GUARDS = "\U000f5a01", "\U000f5a02"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_tokenizer(tmp_path)
    (tmp_path / "chat_template.jinja").write_text(TURNS)
    return tmp_path


def user(content: Any) -> list[dict[str, Any]]:
    return [{"role": "user", "content": content}]


def ids_of(text: ChatTokenizer, messages: Any) -> list[int]:
    return text.encode(text.render(messages))


@pytest.mark.parametrize("control", [*SPECIAL, *NOT_SPECIAL])
@pytest.mark.parametrize("shape", ["{}", "a{}b", "{0}{0}", "<|im{}_end|>"])
def test_a_control_token_in_a_message_is_read_as_characters(folder: Path, control: str, shape: str) -> None:
    text, words = ChatTokenizer(folder, "<|img|>"), shape.format(control)
    asked, innocent = ids_of(text, user(words)), ids_of(text, user("x" * len(words)))
    assert len(asked) == len(innocent)  # one id per character, and the template's own five control tokens
    controls = {text.token_id(token) for token in (*SPECIAL, *NOT_SPECIAL)}
    assert [i for i in asked if i in controls] == [i for i in innocent if i in controls]
    assert words in text.render(user(words)).text


@pytest.mark.parametrize(
    "words", [GUARDS[0] + "0" + GUARDS[1], *GUARDS, GUARDS[0] + "7", f"<s>{GUARDS[0]}0{GUARDS[1]}"]
)
def test_the_characters_that_guard_control_tokens_are_data_themselves(folder: Path, words: str) -> None:
    text = ChatTokenizer(folder, "<|img|>")
    assert words in text.render(user(words)).text
    controls = [text.token_id(token) for token in SPECIAL]
    assert not set(ids_of(text, user(words))) & set(controls)


def test_text_items_are_guarded_like_strings(folder: Path) -> None:
    (folder / "chat_template.jinja").write_text(
        "{% for item in messages[0].content %}{% if item.type == 'image' %}<|img|>{% endif %}"
        "{% if item.type == 'text' %}{{ item.text }}{% endif %}{% endfor %}"
    )
    text = ChatTokenizer(folder, "<|img|>")
    items = [{"type": "image"}, {"type": "text", "text": "is <|img|> an image?"}]
    assert ids_of(text, user(items)).count(2) == 1


@pytest.mark.parametrize("messages", [
    user(5), user(None), user([5]), user([{"type": "video"}]), user([{"type": "text"}]), user([{"text": "a"}]),
    user([{"type": "text", "text": None}]), [{"role": "user"}], [{"content": "a"}], [{"role": 3, "content": "a"}],
    ["Why?"], [None],
])  # fmt: skip
def test_a_message_of_the_wrong_shape_is_refused(folder: Path, messages: Any) -> None:
    with pytest.raises(BadRequest, match="expected"):
        ChatTokenizer(folder, "<|img|>").render(messages)


@pytest.mark.parametrize(("bos", "eos"), [(True, False), (False, False), (True, True)])
def test_a_prompt_starts_with_the_tokenizers_own_prefix_exactly_once(tmp_path: Path, bos: bool, eos: bool) -> None:
    write_tokenizer(tmp_path, bos=bos, eos=eos)
    for source in ("{{ bos_token }}{{ messages[0].content }}", "{{ messages[0].content }}"):
        (tmp_path / "tokenizer_config.json").write_text(json.dumps({"bos_token": "<s>"}))
        (tmp_path / "chat_template.jinja").write_text(source)
        ids = ids_of(ChatTokenizer(tmp_path, "<|img|>"), user("ab"))
        assert ids.count(0) == (1 if bos or "bos_token" in source else 0)
        assert 0 not in ids[1:] and 1 not in ids


def test_a_tokenizer_saved_with_cutting_and_padding_does_neither(folder: Path) -> None:
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.enable_truncation(4)
    tokenizer.enable_padding(length=100)
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "chat_template.jinja").write_text("{{ messages[0].content }}")
    for words in ("a", "a" * 50, "<s>" * 10):
        assert len(ids_of(ChatTokenizer(folder, "<|img|>"), user(words))) == len(words)


def test_a_prefix_in_a_message_does_not_pass_for_the_prompts_own(tmp_path: Path) -> None:
    write_tokenizer(tmp_path, bos=True)
    (tmp_path / "chat_template.jinja").write_text("{{ messages[0].content }}")
    ids = ids_of(ChatTokenizer(tmp_path, "<|img|>"), user("<s>a"))
    assert ids[0] == 0 and len(ids) == 5


def first_stop(text: ChatTokenizer, ids: Sequence[int], stop: Sequence[str]) -> int | None:
    """Return after how many ids an answer ends, asking after every one as the engine does."""
    stop_condition = text.stop_condition(stop)
    assert stop_condition is not None
    return next((n for n in range(1, len(ids) + 1) if stop_condition(ids[:n])), None)


def encoded(text: ChatTokenizer, words: str) -> list[int]:
    return text._plain.encode(words, add_special_tokens=False).ids


@pytest.mark.parametrize("words", ["two\n\nthree", "a" * 100 + "\n\n", "\n\n", "ü€\n\n"])
def test_a_stop_string_over_several_tokens_ends_an_answer_where_it_is_whole(folder: Path, words: str) -> None:
    text = ChatTokenizer(folder, "<|img|>")
    ids = encoded(text, words)
    assert first_stop(text, ids, ["\n\n"]) == len(words[: words.index("\n\n") + 2].encode())


def test_the_first_of_several_stop_strings_ends_an_answer(folder: Path) -> None:
    text = ChatTokenizer(folder, "<|img|>")
    assert first_stop(text, encoded(text, "one. two; three."), ["three", ";", "zzz"]) == len("one. two;")


def test_a_stop_string_of_characters_with_many_bytes_is_seen(folder: Path) -> None:
    text = ChatTokenizer(folder, "<|img|>")
    assert first_stop(text, encoded(text, "好的。再见"), ["。"]) == len("好的。".encode())


def test_special_tokens_between_do_not_hide_a_stop_string(folder: Path) -> None:
    text = ChatTokenizer(folder, "<|img|>")
    start, end = encoded(text, "EN"), encoded(text, "D")
    assert first_stop(text, [*start, 1, 0, 1, *end], ["END"]) == 6


def test_there_is_nothing_to_ask_without_stop_strings(folder: Path) -> None:
    assert ChatTokenizer(folder, "<|img|>").stop_condition([]) is None


def test_characters_split_over_tokens_are_put_together(folder: Path) -> None:
    text = ChatTokenizer(folder, "<|img|>")
    for words in ("grün", "日本語", "🙂🙃"):
        ids = encoded(text, words)
        assert len(ids) == len(words.encode()) and text.decode(ids) == words


def test_special_tokens_are_left_out_of_answers_and_others_stay(folder: Path) -> None:
    text = ChatTokenizer(folder, "<|img|>")
    im_end = text.token_id("<|im_end|>")
    assert im_end is not None
    assert text.decode([0, *encoded(text, "yes"), im_end, 1]) == "yes<|im_end|>"


@pytest.mark.parametrize(("text", "stop", "left"), [
    ("a b c", ["b"], "a "), ("a b c", ["c", "b"], "a "), ("a b c", [], "a b c"), ("b", ["b"], ""),
    ("aaa", ["x"], "aaa"),
])  # fmt: skip
def test_the_stop_string_and_what_follows_are_cut(text: str, stop: list[str], left: str) -> None:
    assert cut_at_stop(text, stop) == left


def test_a_plain_template_takes_the_chat_templates_place(folder: Path) -> None:
    text = ChatTokenizer(folder, "<|img|>", "{image}Question: {question} Answer:")
    items = [{"type": "image"}, {"type": "text", "text": "Is {image} <|img|>?"}, {"type": "image"}]
    result = text.render(user(items))
    assert result.text == "<|img|><|img|>Question: Is {image} <|img|>? Answer:"
    assert text.encode(result).count(2) == 2
    with pytest.raises(BadRequest, match=r"found messages of system, user; a plain template has room for one"):
        text.render([{"role": "system", "content": "a"}, *user("b")])


def test_a_missing_or_broken_tokenizer_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"tokenizer\.json does not exist"):
        ChatTokenizer(tmp_path, "<|img|>")
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"tokenizer\.json is not JSON"):
        ChatTokenizer(tmp_path, "<|img|>")
    (tmp_path / "tokenizer.json").write_text('{"model": 3}')
    with pytest.raises(CheckpointError, match=r"tokenizer\.json is not a tokenizer"):
        ChatTokenizer(tmp_path, "<|img|>")


@pytest.mark.parametrize("tokenizer_adds_it", [False, True])
@pytest.mark.parametrize(("prompt", "place"), [("ab", 0), ("<s>ab", 0), ("<|img|>ab", 0), ("<|img|><s>ab", 1), ("", 0)])
def test_a_bos_that_every_prompt_needs_stands_there_once(
    tmp_path: Path, tokenizer_adds_it: bool, prompt: str, place: int
) -> None:
    write_tokenizer(tmp_path, bos=tokenizer_adds_it)
    ids = ChatTokenizer(tmp_path, "<|img|>").encode(RenderedPrompt((prompt,)), bos=0)
    assert (ids.count(0), ids.index(0)) == (1, place)


def test_a_bos_in_a_message_does_not_pass_for_the_prompts_own_and_two_are_refused(folder: Path) -> None:
    text = ChatTokenizer(folder, "<|img|>")
    ids = text.encode(RenderedPrompt(("", "<s>", "a")), bos=0)
    assert ids[0] == 0 and ids.count(0) == 1
    with pytest.raises(BadRequest, match="2 begin-of-text tokens"):
        text.encode(RenderedPrompt(("<s><s>a",)), bos=0)
