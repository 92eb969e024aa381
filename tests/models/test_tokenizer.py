"""Dataset text stays data, templates stay in their sandbox, and stop strings end an answer wherever they fall."""

import json
import random
import re
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from tokenizers import AddedToken, Tokenizer
from tokenizers.decoders import ByteLevel as ByteLevelDecoder
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from tokenizers.processors import TemplateProcessing

from models.template import TEMPLATE_FILES
from models.tokenizer import ChatTokenizer, RenderedPrompt, _TokenFinder, cut_at_stop
from models.types import BadRequest, CheckpointError

SPECIAL = ("<s>", "</s>", "<|img|>")
NOT_SPECIAL = ("<|im_start|>", "<|im_end|>")
TURNS = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}<|im_start|>assistant\n"
)
GUARDS = "\U000f5a01", "\U000f5a02"


def write_tokenizer(folder: Path, *, bos: bool = False, eos: bool = False) -> None:
    """Write a tokenizer of bytes, control tokens and nothing else: one id per byte of ordinary text."""
    vocabulary = {token: i for i, token in enumerate([*SPECIAL, *NOT_SPECIAL, *sorted(ByteLevel.alphabet())])}
    tokenizer = Tokenizer(BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = ByteLevel(add_prefix_space=False)
    tokenizer.decoder = ByteLevelDecoder()
    tokenizer.add_special_tokens([AddedToken(token, normalized=False) for token in SPECIAL])
    tokenizer.add_tokens([AddedToken(token, normalized=False) for token in NOT_SPECIAL])
    if bos or eos:
        single = f"{'<s> ' if bos else ''}$A{' </s>' if eos else ''}"
        tokenizer.post_processor = TemplateProcessing(single=single, special_tokens=[("<s>", 0), ("</s>", 1)])
    tokenizer.save(str(folder / "tokenizer.json"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_tokenizer(tmp_path)
    (tmp_path / "chat_template.jinja").write_text(TURNS)
    return tmp_path


def user(content: Any) -> list[dict[str, Any]]:
    return [{"role": "user", "content": content}]


def ids_of(text: ChatTokenizer, messages: Any) -> list[int]:
    return text.encode(text.render(messages, "<|img|>"))


def rendered(folder: Path, source: str, messages: Any = None) -> str:
    (folder / "chat_template.jinja").write_text(source)
    return ChatTokenizer(folder).render(messages or user("Why?"), "<|img|>").text


@pytest.mark.parametrize("control", [*SPECIAL, *NOT_SPECIAL])
@pytest.mark.parametrize("shape", ["{}", "a{}b", "{0}{0}", "<|im{}_end|>"])
def test_a_control_token_in_a_message_is_read_as_characters(folder: Path, control: str, shape: str) -> None:
    text, words = ChatTokenizer(folder), shape.format(control)
    asked, innocent = ids_of(text, user(words)), ids_of(text, user("x" * len(words)))
    assert len(asked) == len(innocent)  # one id per character, and the template's own five control tokens
    controls = {text.token_id(token) for token in (*SPECIAL, *NOT_SPECIAL)}
    assert [i for i in asked if i in controls] == [i for i in innocent if i in controls]
    assert words in text.render(user(words), "").text


@pytest.mark.parametrize(
    "words", [GUARDS[0] + "0" + GUARDS[1], *GUARDS, GUARDS[0] + "7", f"<s>{GUARDS[0]}0{GUARDS[1]}"]
)
def test_the_characters_that_guard_control_tokens_are_data_themselves(folder: Path, words: str) -> None:
    text = ChatTokenizer(folder)
    assert words in text.render(user(words), "").text
    controls = [text.token_id(token) for token in SPECIAL]
    assert not set(ids_of(text, user(words))) & set(controls)


def test_text_items_are_guarded_like_strings(folder: Path) -> None:
    (folder / "chat_template.jinja").write_text(
        "{% for item in messages[0].content %}{% if item.type == 'image' %}<|img|>{% endif %}"
        "{% if item.type == 'text' %}{{ item.text }}{% endif %}{% endfor %}"
    )
    text = ChatTokenizer(folder)
    items = [{"type": "image"}, {"type": "text", "text": "is <|img|> an image?"}]
    assert ids_of(text, user(items)).count(2) == 1


@pytest.mark.parametrize("messages", [
    user(5), user(None), user([5]), user([{"type": "video"}]), user([{"type": "text"}]), user([{"text": "a"}]),
    user([{"type": "text", "text": None}]), [{"role": "user"}], [{"content": "a"}], [{"role": 3, "content": "a"}],
    ["Why?"], [None],
])  # fmt: skip
def test_a_message_of_the_wrong_shape_is_refused(folder: Path, messages: Any) -> None:
    with pytest.raises(BadRequest, match="expected"):
        ChatTokenizer(folder).render(messages, "<|img|>")


def test_templates_are_looked_for_in_order(tmp_path: Path) -> None:
    write_tokenizer(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"chat_template": "third"}))
    assert ChatTokenizer(tmp_path).render(user("a"), "").text == "third"
    (tmp_path / "chat_template.json").write_text(json.dumps({"chat_template": "second"}))
    assert ChatTokenizer(tmp_path).render(user("a"), "").text == "second"
    (tmp_path / "chat_template.jinja").write_text("first")
    assert ChatTokenizer(tmp_path).render(user("a"), "").text == "first"


def test_without_a_template_the_three_files_are_named(tmp_path: Path) -> None:
    write_tokenizer(tmp_path)
    text = ChatTokenizer(tmp_path)
    assert not text.can_chat
    with pytest.raises(BadRequest) as caught:
        text.render(user("a"), "")
    assert all(name in str(caught.value) for name in (str(tmp_path), *TEMPLATE_FILES))


@pytest.mark.parametrize("attack", [
    "{{ messages.__class__.__mro__ }}",
    "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "{{ raise_exception.__globals__['json'] }}",
    "{{ (messages|attr('__class__')).mro() }}",
    "{{ '{0.__class__.__mro__}'.format(messages) }}",
    "{{ cycler.__init__.__globals__.os.popen('true').read() }}",
    "{% set _ = messages.append(1) %}{{ messages }}",
    "{{ range(10**9) | length }}",
])  # fmt: skip
def test_a_template_reaches_no_python(folder: Path, attack: str) -> None:
    with pytest.raises(BadRequest, match="the chat template refused the messages"):
        rendered(folder, attack)


def test_a_templates_own_refusal_is_passed_on(folder: Path) -> None:
    with pytest.raises(BadRequest, match="roles must alternate"):
        rendered(folder, "{{ raise_exception('roles must alternate') }}")


@pytest.mark.parametrize(("form", "shown"), [
    ("%d %b %Y", "02 Mar 2031"), ("%Y-%m-%d", "2031-03-02"), ("%A %H:%M:%S", "Sunday 00:00:00"),
])  # fmt: skip
def test_a_template_that_asks_for_the_day_is_told_the_pinned_one(folder: Path, form: str, shown: str) -> None:
    (folder / "chat_template.jinja").write_text(f"{{{{ strftime_now('{form}') }}}}|{{{{ date_string }}}}")
    text = ChatTokenizer(folder, today=date(2031, 3, 2))
    assert text.render(user("a"), "").text == f"{shown}|02 Mar 2031"
    assert ChatTokenizer(folder).render(user("a"), "").text.endswith("|26 Jul 2024")


@pytest.mark.parametrize("source", ["{{ 1 / 0 }}", "{{ 'a' + 1 }}", "{{ nothing.at.all }}"])
def test_a_template_that_breaks_costs_its_row(folder: Path, source: str) -> None:
    with pytest.raises(BadRequest, match="refused"):
        rendered(folder, source)


def test_a_template_that_cannot_be_read_names_its_line(folder: Path) -> None:
    (folder / "chat_template.jinja").write_text("a\n{% for %}")
    with pytest.raises(CheckpointError, match="wrong in line 2"):
        ChatTokenizer(folder)


def test_templates_may_use_what_their_writers_use(folder: Path) -> None:
    source = (
        "{% generation %}a{% endgeneration %}\n"
        "    {% for m in messages %}\n{% if loop.first %}{% continue %}{% endif %}\n{% endfor %}\n"
        "{{ messages[0].content | tojson }}{{ bos_token }}{% if add_generation_prompt %}!{% endif %}"
    )
    (folder / "special_tokens_map.json").write_text(json.dumps({"bos_token": {"content": "<s>", "lstrip": False}}))
    assert rendered(folder, source, user("grün")) == 'a"grün"<s>!'


@pytest.mark.parametrize(("bos", "eos"), [(True, False), (False, False), (True, True)])
def test_a_prompt_starts_with_the_tokenizers_own_prefix_exactly_once(tmp_path: Path, bos: bool, eos: bool) -> None:
    write_tokenizer(tmp_path, bos=bos, eos=eos)
    for source in ("{{ bos_token }}{{ messages[0].content }}", "{{ messages[0].content }}"):
        (tmp_path / "tokenizer_config.json").write_text(json.dumps({"bos_token": "<s>"}))
        (tmp_path / "chat_template.jinja").write_text(source)
        ids = ids_of(ChatTokenizer(tmp_path), user("ab"))
        assert ids.count(0) == (1 if bos or "bos_token" in source else 0)
        assert 0 not in ids[1:] and 1 not in ids


def test_a_tokenizer_saved_with_cutting_and_padding_does_neither(folder: Path) -> None:
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.enable_truncation(4)
    tokenizer.enable_padding(length=100)
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "chat_template.jinja").write_text("{{ messages[0].content }}")
    for words in ("a", "a" * 50, "<s>" * 10):
        assert len(ids_of(ChatTokenizer(folder), user(words))) == len(words)


def test_a_prefix_in_a_message_does_not_pass_for_the_prompts_own(tmp_path: Path) -> None:
    write_tokenizer(tmp_path, bos=True)
    (tmp_path / "chat_template.jinja").write_text("{{ messages[0].content }}")
    ids = ids_of(ChatTokenizer(tmp_path), user("<s>a"))
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
    text = ChatTokenizer(folder)
    ids = encoded(text, words)
    assert first_stop(text, ids, ["\n\n"]) == len(words[: words.index("\n\n") + 2].encode())


def test_the_first_of_several_stop_strings_ends_an_answer(folder: Path) -> None:
    text = ChatTokenizer(folder)
    assert first_stop(text, encoded(text, "one. two; three."), ["three", ";", "zzz"]) == len("one. two;")


def test_a_stop_string_of_characters_with_many_bytes_is_seen(folder: Path) -> None:
    text = ChatTokenizer(folder)
    assert first_stop(text, encoded(text, "好的。再见"), ["。"]) == len("好的。".encode())


def test_special_tokens_between_do_not_hide_a_stop_string(folder: Path) -> None:
    text = ChatTokenizer(folder)
    start, end = encoded(text, "EN"), encoded(text, "D")
    assert first_stop(text, [*start, 1, 0, 1, *end], ["END"]) == 6


def test_there_is_nothing_to_ask_without_stop_strings(folder: Path) -> None:
    assert ChatTokenizer(folder).stop_condition([]) is None


def test_characters_split_over_tokens_are_put_together(folder: Path) -> None:
    text = ChatTokenizer(folder)
    for words in ("grün", "日本語", "🙂🙃"):
        ids = encoded(text, words)
        assert len(ids) == len(words.encode()) and text.decode(ids) == words


def test_special_tokens_are_left_out_of_answers_and_others_stay(folder: Path) -> None:
    text = ChatTokenizer(folder)
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
    text = ChatTokenizer(folder, "{image}Question: {question} Answer:")
    items = [{"type": "image"}, {"type": "text", "text": "Is {image} <|img|>?"}, {"type": "image"}]
    result = text.render(user(items), "<|img|>")
    assert result.text == "<|img|><|img|>Question: Is {image} <|img|>? Answer:"
    assert text.encode(result).count(2) == 2
    with pytest.raises(BadRequest, match=r"found messages of system, user; a plain template has room for one"):
        text.render([{"role": "system", "content": "a"}, *user("b")], "<|img|>")


def test_a_missing_or_broken_tokenizer_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"tokenizer\.json does not exist"):
        ChatTokenizer(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"tokenizer\.json is not JSON"):
        ChatTokenizer(tmp_path)
    (tmp_path / "tokenizer.json").write_text('{"model": 3}')
    with pytest.raises(CheckpointError, match=r"tokenizer\.json is not a tokenizer"):
        ChatTokenizer(tmp_path)


def test_a_default_template_serves_only_where_there_is_none(folder: Path) -> None:
    assert ChatTokenizer(folder, default="{question}").render(user("a"), "").text.startswith("<|im_start|>")
    (folder / "chat_template.jinja").unlink()
    text = ChatTokenizer(folder, default="{image}{question}")
    assert text.can_chat and text.render(user([{"type": "image"}, {"type": "text", "text": "a"}]), "[]").text == "[]a"
    assert ChatTokenizer(folder, "!{question}", default="{question}").render(user("a"), "").text == "!a"


@pytest.mark.parametrize("tokenizer_adds_it", [False, True])
@pytest.mark.parametrize(("prompt", "place"), [("ab", 0), ("<s>ab", 0), ("<|img|>ab", 0), ("<|img|><s>ab", 1), ("", 0)])
def test_a_bos_that_every_prompt_needs_stands_there_once(
    tmp_path: Path, tokenizer_adds_it: bool, prompt: str, place: int
) -> None:
    write_tokenizer(tmp_path, bos=tokenizer_adds_it)
    ids = ChatTokenizer(tmp_path).encode(RenderedPrompt((prompt,)), bos=0)
    assert (ids.count(0), ids.index(0)) == (1, place)


def test_a_bos_in_a_message_does_not_pass_for_the_prompts_own_and_two_are_refused(folder: Path) -> None:
    text = ChatTokenizer(folder)
    ids = text.encode(RenderedPrompt(("", "<s>", "a")), bos=0)
    assert ids[0] == 0 and ids.count(0) == 1
    with pytest.raises(BadRequest, match="2 begin-of-text tokens"):
        text.encode(RenderedPrompt(("<s><s>a",)), bos=0)


def test_words_are_found_as_a_regular_expression_of_them_all_finds_them() -> None:
    words = ["<a>", "<a>b", "<<", "<|x|>", "b", "<|x|><|y|>"]
    pattern = re.compile("|".join(map(re.escape, sorted(words, key=len, reverse=True))))
    choose = random.Random(0)
    for _ in range(500):
        text = "".join(choose.choices(["<", "a", ">", "b", "|", "x", "y", "<a>", "<|x|>", "<|y|>"], k=20))
        assert _TokenFinder(words).replace(text, lambda word: f"[{word}]") == pattern.sub(
            lambda m: f"[{m.group()}]", text
        )
