"""A message reaches a template in a form that it shows, whatever its writer had in mind; or it is refused."""

from pathlib import Path
from typing import Any

import pytest

from models import Family, Request, load_processor
from models.tokenizer import ChatTokenizer
from models.types import BadRequest
from tests.models.byte_tokenizer import write_tokenizer
from tests.models.reference import picture, user
from tests.pictures import encoded
from tests.tiny import FAMILIES, set_template

IMAGES: dict[Family, str] = {
    "aria": "<fim_prefix><|img|><fim_suffix>", "mllama": "<|image|>", "emu3": "<image>",
}  # fmt: skip
BARE: dict[Family, str] = {"aria": "<|img|>", "mllama": "<|image|>", "emu3": "<image>"}
TEXTS = "{% for m in messages %}{{ m.role }}: {{ m['content'] }}\n{% endfor %}A:"
ITEMS = (
    "{% for m in messages %}{{ m.role }}: {% for i in m['content'] %}{{ IMAGE if i.type == 'image' else i.text }}"
    "{% endfor %}{{ '\n' }}{% endfor %}A:"
)
# Ways in which published templates read a content; each with what it takes: a text, items, or both.
READERS = {
    "plus": ("{% for m in messages %}{{ m.role + ': ' + m.content }}\n{% endfor %}A:", {str}),
    "printed": (TEXTS, {str}),
    "trimmed": ("{% for m in messages %}{{ m.role }}: {{ m['content'] | trim }}\n{% endfor %}A:", {str}),
    "assigned": (
        "{% for m in messages %}{% set c = m.content %}{% set w = m.role %}{{ w }}: {{ c.strip() }}\n{% endfor %}A:",
        {str},
    ),
    "json": ("{% for m in messages %}{{ m.role }}: {{ (m.content | tojson)[1:-1] }}\n{% endfor %}A:", {str}),
    "items": (ITEMS, {list}),
    "macro": (
        "{% macro show(c) %}{% if c is string %}{{ c }}{% else %}{% for i in c %}{% if i['type'] == 'image' %}IMAGE"
        "{% elif i['type'] == 'text' %}{{ i['text'] }}{% endif %}{% endfor %}{% endif %}{% endmacro %}"
        "{% for m in messages %}{{ m.role }}: {{ show(m.content) }}\n{% endfor %}A:", {str, list},
    ),
    "filtered": (
        "{% for m in messages %}{{ m.role }}: {% for i in m.content | selectattr('type', 'equalto', 'image') %}IMAGE"
        "{% endfor %}{{ m.content | selectattr('type', 'equalto', 'text') | map(attribute='text') | join }}\n"
        "{% endfor %}A:", {list},
    ),
    "alternating": (
        "{% for m in messages %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('no') }}"
        "{% endif %}{{ m.role }}: {{ m.content }}\n{% endfor %}A:", {str},
    ),
    "needs a system message": (
        "{% if messages[0].role != 'system' %}{{ raise_exception('no system') }}{% endif %}"
        "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}A:", {str},
    ),
}  # fmt: skip
SYSTEM = {"role": "system", "content": "Be brief."}


def source(name: str, image: str) -> str:
    quoted = READERS[name][0].replace("IMAGE if", f"'{image}' if")
    return quoted.replace("IMAGE", image)


@pytest.fixture(scope="module")
def folder(family: Family, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return FAMILIES[family](tmp_path_factory.mktemp(family))


@pytest.mark.parametrize("name", READERS)
def test_text_and_images_are_shown_in_every_form(folder: Path, family: Family, name: str) -> None:
    image = IMAGES[family]
    set_template(folder, source(name, image))
    processor = load_processor(str(folder))
    assert processor.chat_fault is None
    before = [SYSTEM] if name.startswith("needs") else []
    start = "system: Be brief.\n" if before else ""
    for content in ("What is it?", [{"type": "text", "text": "What "}, {"type": "text", "text": "is it?"}]):
        prompt = processor.prepare(Request(messages=[*before, {"role": "user", "content": content}])).prompt
        assert prompt == f"{start}user: What is it?\nA:"
    seen = Request(messages=[*before, *user("What is it?", 2)], images=[encoded(picture(20, 20))] * 2)
    asked = processor.prepare(seen)
    assert asked.prompt == f"{start}user: {image}{image}What is it?\nA:"
    assert len(asked.image_names) == 2 and asked.image_tokens > 0
    turns = [*before, *user("Why?", 1), {"role": "assistant", "content": "So."}, *user("Sure <image>?")]
    talk = processor.prepare(Request(messages=turns, images=[encoded(picture(20, 20))]))
    assert talk.prompt == f"{start}user: {image}Why?\nassistant: So.\nuser: Sure <image>?\nA:"


def test_a_template_of_texts_gives_the_ids_of_the_prompt_that_it_means(folder: Path, family: Family) -> None:
    set_template(folder, TEXTS)
    processor = load_processor(str(folder))
    image = encoded(picture(20, 20))
    asked = processor.prepare(Request(messages=user("What is it?", 1), images=[image]))
    meant = processor.prepare(Request(prompt=f"user: {IMAGES[family]}What is it?\nA:", images=[image]))
    assert asked.token_ids.tolist() == meant.token_ids.tolist()
    hostile = processor.prepare(Request(messages=user(f"What is {BARE[family]}?", 1), images=[image]))
    assert hostile.image_tokens == asked.image_tokens


@pytest.mark.parametrize("nothing", [
    "no message at all", "{{ messages | length }}", "{{ messages[0]['text'] }}", "{{ messages[0].content[0] }}",
    "{{ messages[0].content[0].text }}", "{{ messages }}", "{{ messages | tojson }}",
])  # fmt: skip
def test_a_template_that_shows_no_text_is_refused_before_anything_starts(tmp_path: Path, nothing: str) -> None:
    write_tokenizer(tmp_path)
    (tmp_path / "chat_template.jinja").write_text(nothing)
    text = ChatTokenizer(tmp_path, "<|img|>")
    assert text.chat_fault is not None
    assert "shows no text of a message of role 'user'" in text.chat_fault and str(tmp_path) in text.chat_fault
    with pytest.raises(BadRequest, match="shows no text"):
        text.render(user("a"))


def test_a_template_that_takes_no_message_says_why(tmp_path: Path) -> None:
    write_tokenizer(tmp_path)
    (tmp_path / "chat_template.jinja").write_text("{{ raise_exception('not made to chat') }}")
    text = ChatTokenizer(tmp_path, "<|img|>")
    assert text.chat_fault is not None and text.chat_fault.endswith("refuses a user's message: not made to chat")


@pytest.mark.parametrize(("template", "is_blind"), [
    ("{{ messages[0].content }}", False), ("{{ messages[0].content | replace('<|img|>', '') }}", True),
    ("<|img|>{{ messages[0].content }}", True), ("{{ messages[0].content }}{{ messages[0].content }}", True),
    ("{% for i in messages[0].content if i.type == 'text' %}{{ i.text }}{% endfor %}", True),
    ("{% for i in messages[0].content %}{{ i.text or '<image>' }}{% endfor %}", True),
])  # fmt: skip
def test_an_image_that_has_no_right_place_is_refused(tmp_path: Path, template: str, is_blind: bool) -> None:
    write_tokenizer(tmp_path)
    (tmp_path / "chat_template.jinja").write_text(template)
    text = ChatTokenizer(tmp_path, "<|img|>")
    assert text.chat_fault is None
    if is_blind:
        with pytest.raises(BadRequest, match="shows no image in a message of role 'user'"):
            text.render(user("a", 1))
    else:
        assert text.render(user("a", 1)).text == "<|img|>a"


def test_the_form_is_found_for_each_role(tmp_path: Path) -> None:
    write_tokenizer(tmp_path)
    template = (
        "{% for m in messages %}{% if m.role in ('system', 'tool') %}{{ m.content | trim }}{% else %}"
        "{% for i in m.content %}{{ i.text }}{% endfor %}{% endif %};{% endfor %}"
    )
    (tmp_path / "chat_template.jinja").write_text(template)
    text = ChatTokenizer(tmp_path, "<|img|>")
    for form in (str, list):
        given: list[dict[str, Any]] = [
            {"role": role, "content": role[0] if form is str else [{"type": "text", "text": role[0]}]}
            for role in ("system", "user", "assistant", "tool")
        ]
        assert text.render(given).text == "s;u;a;t;"
    with pytest.raises(BadRequest, match="shows no image in a message of role 'system'"):
        text.render([{"role": "system", "content": [{"type": "image"}]}])


def test_a_role_that_the_template_leaves_out_is_no_silent_loss(tmp_path: Path) -> None:
    write_tokenizer(tmp_path)
    (tmp_path / "chat_template.jinja").write_text(
        "{% for m in messages if m.role != 'system' %}{{ m.content }}{% endfor %}"
    )
    with pytest.raises(BadRequest, match="shows no text of a message of role 'system'"):
        ChatTokenizer(tmp_path, "<|img|>").render([SYSTEM, *user("a")])


def test_a_role_that_is_taken_among_others_only_stays_as_it_is(tmp_path: Path) -> None:
    write_tokenizer(tmp_path)
    (tmp_path / "chat_template.jinja").write_text(
        "{% for m in messages %}{% if m.role == 'tool' and messages | length < 4 %}{{ raise_exception('whose?') }}"
        "{% endif %}{{ m.content }}{% endfor %}"
    )
    text = ChatTokenizer(tmp_path, "<|img|>")
    call = [{"role": "assistant", "content": "b"}, {"role": "tool", "content": "c"}]
    assert text.render([*user("a"), *call, {"role": "user", "content": "d"}]).text == "abcd"
    with pytest.raises(BadRequest, match="whose"):
        text.render([*user("a"), *call])
