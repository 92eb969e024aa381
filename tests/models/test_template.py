"""Templates are rendered as the reference renders them, stay in their sandbox, and know one day."""

import json
from datetime import date, datetime
from pathlib import Path
from typing import Any

import pytest
from transformers import PreTrainedTokenizerFast
from transformers.utils.chat_template_utils import render_jinja_template

from models.template_files import TEMPLATE_FILES
from models.tokenizer import ChatTokenizer
from models.types import BadRequest, CheckpointError
from tests.models.byte_tokenizer import write_tokenizer

CONTENT = "{{ messages[0].content }}"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_tokenizer(tmp_path)
    return tmp_path


def user(content: Any) -> list[dict[str, Any]]:
    return [{"role": "user", "content": content}]


def chat(folder: Path, source: str, **options: Any) -> ChatTokenizer:
    (folder / "chat_template.jinja").write_text(source)
    return ChatTokenizer(folder, "<|img|>", **options)


def rendered(folder: Path, source: str, messages: Any = None) -> str:
    return chat(folder, source).render(messages or user("Why?")).text


# Templates of the kinds that are published, in few words. They use what their originals use.
TEMPLATES = {
    "turns": (
        "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>' + '\n' }}"
        "{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
    ),
    "tools": (
        "{%- if tools %}{{- '# Tools' }}{% for tool in tools %}{{- tool | tojson }}{% endfor %}{%- endif %}"
        "{%- if tools is none %}none;{%- endif %}{%- if tools is defined %}defined;{%- endif %}"
        "{%- if not documents is defined %}no documents;{%- endif %}{{ documents is none }}"
        "{%- for message in messages %}{{- message.content }}\n{%- endfor %}"
    ),
    "function calls": (
        "{%- for m in messages %}{%- if m.tool_calls is defined and m.tool_calls is not none %}"
        "{%- for call in m.tool_calls %}{{- call.function.name + '(' }}"
        "{{- call.function.arguments | tojson(ensure_ascii=True) }}{{- ')' }}{%- endfor %}{%- endif %}"
        "{{- m.content }}{%- endfor %}"
    ),
    "json": (
        "{% for m in messages %}{% if m.tool_calls %}{% for c in m.tool_calls %}{{ c | tojson(indent=2) }}"
        "{{ c | tojson(separators=(',', ':')) }}{{ c | tojson(sort_keys=true) }}{% endfor %}{% endif %}"
        "{{ m.content | tojson(true) }}{{ m.content | tojson(false, 4) }}"
        "{{ m.content }}{% endfor %}"
    ),
    "generation": (
        "{% set who = 'a' %}{% for m in messages %}{% if m.role == 'assistant' %}{% generation %}{% set who = 'b' %}"
        "{{ who }}{{ m.content }}{{ eos_token }}{% endgeneration %}{{ who }}{% else %}{{ m.content }}{% endif %}"
        "{%- generation -%} x {%- endgeneration -%}{% endfor %}"
    ),
    "loops": (
        "{% for m in messages %}{% if loop.index0 == 3 or not m.content %}{% continue %}{% endif %}{{ loop.index }}"
        "{{ m.content }}{% if loop.last %}{% break %}{% endif %}{% endfor %}"
    ),
    "tokens": (
        "{{ bos_token }}{{ eos_token }}{{ image_token }}{{ start }}{{ unk_token }}{{ pad_token is defined }}"
        "{% for m in messages %}{{ m.content }}{% endfor %}"
    ),
    "namespaces": (
        "{% set ns = namespace(found=false, system='') %}{% for m in messages %}{% if m.role == 'system' %}"
        "{% set ns.found = true %}{% set ns.system = m.content %}{% endif %}{% endfor %}{{ ns.found }}{{ ns.system }}"
        "{% for m in messages if m.role != 'system' %}{{ m.content }}{% endfor %}"
        "{{ dict(a=1) }}{{ dict.fromkeys(['a', 'b'], 2) }}{{ range(3) | list }}"
    ),
    "text": (
        "{% macro show(x) %}[{{ x | trim | replace('a', 'e') }}]{% endmacro %}{% for m in messages %}\n"
        "    {{ show(m['content']) }}{{ m.content.split('\n')[-1] }}{{ m.content | upper | lower }}{{ m.content }}\n"
        "    {% if m.content.startswith('W') and 'hy' in m.content %}why{% endif %}\n{% endfor %}"
    ),
    "alternating": (
        "{% for m in messages %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
        "{{ raise_exception('roles must alternate') }}{% endif %}[INST] {{ m.content }} [/INST]{% endfor %}"
    ),
    "items": (
        "{% for m in messages %}{{ m.role }}: {% for item in m.content %}{% if item.type == 'image' %}<|img|>"
        "{% elif 'text' in item %}{{ item['text'] }}{% endif %}{% endfor %}\n{% endfor %}"
    ),
    "either": (
        "{%- for m in messages %}{% if m.content is string %}{{ m.content | trim }}{% elif m.content is iterable %}"
        "{% for item in m.content %}{{ '<|img|>' if item.type == 'image' else item.text }}{% endfor %}"
        "{% endif %}{%- endfor %}{{ 'A:' if add_generation_prompt }}"
    ),
    "reasoning": (
        "{% for m in messages %}{% if m.reasoning_content is string %}<think>{{ m.reasoning_content }}</think>"
        "{% endif %}{{ m.thinking }}{{ m.content }}{% endfor %}"
    ),
}  # fmt: skip
# They print a text more than once, and so would an image be, or an image where there is none.
MORE_IMAGES = [TEMPLATES[name] for name in ("json", "text", "tokens")]
CHATS = {
    "one": user("Why?"),
    "blanks": user("  Why? a\n grün \n"),
    "turns": [*user("Why?"), {"role": "assistant", "content": "So."}, *user("Sure?")],
    "system": [{"role": "system", "content": "Be brief."}, *user("Why?")],
    "items": user([{"type": "text", "text": "Wh"}, {"type": "text", "text": "y?"}]),
    "image": user([{"type": "image", "image": None}, {"type": "text", "text": "Why?"}]),
    "calls": [
        *user("Why?"),
        {
            "role": "assistant", "content": "x", "name": None, "thinking": "hm",
            "tool_calls": [{"type": "function", "function": {"name": "add", "arguments": {"b": "ü", "a": [1, None]}}}],
        },
        {"role": "user", "content": "Sure?"},
    ],
}  # fmt: skip
TOKENS = {
    "tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>", "eos_token": "</s>", "pad_token": None,
    "extra_special_tokens": {"image_token": "<|img|>", "start": "<|im_start|>"}, "added_tokens_decoder": {},
}  # fmt: skip


@pytest.mark.parametrize("messages", CHATS.values(), ids=CHATS)
@pytest.mark.parametrize("source", TEMPLATES.values(), ids=TEMPLATES)
def test_a_chat_is_rendered_as_the_reference_renders_it(folder: Path, source: str, messages: Any) -> None:
    """Where the reference prints a list as Python writes it, or no text at all, ours is in the form that is shown."""
    (folder / "tokenizer_config.json").write_text(json.dumps(TOKENS))
    names = PreTrainedTokenizerFast.from_pretrained(folder).special_tokens_map
    text = chat(folder, source)

    def reference(given: Any) -> str:
        given = [{name: value for name, value in one.items() if value is not None} for one in given]
        [prompt], _ = render_jinja_template([given], chat_template=source, add_generation_prompt=True, **names)
        return str(prompt)

    if messages == CHATS["image"] and source in MORE_IMAGES:
        with pytest.raises(BadRequest, match=r"shows no image in a message of role 'user', expected <\|img\|> once"):
            text.render(messages)
        return
    try:
        expected = reference([suited(source, one) for one in messages])
    except Exception as error:
        with pytest.raises(BadRequest, match="refused") as caught:
            text.render(messages)
        assert str(error) in str(caught.value)
    else:
        assert text.render(messages).text == expected


def suited(source: str, message: dict[str, Any]) -> dict[str, Any]:
    """Return a message in the form that a template of ours is written for."""
    content = message["content"]
    takes = {TEMPLATES["items"]: {list}, TEMPLATES["either"]: {str, list}}.get(source, {str})
    if type(content) in takes:
        return message
    if isinstance(content, str):
        return message | {"content": [{"type": "text", "text": content}]}
    return message | {"content": "".join("<|img|>" if one["type"] == "image" else one["text"] for one in content)}


@pytest.mark.parametrize("attack", [
    "{{ messages.__class__.__mro__ }}",
    "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "{{ raise_exception.__globals__['json'] }}",
    "{{ (messages|attr('__class__')).mro() }}",
    "{{ '{0.__class__.__mro__}'.format(messages) }}",
    "{{ cycler.__init__.__globals__.os.popen('true').read() }}",
    "{% set _ = messages.append(1) %}{{ messages }}",
    "{{ range(10**9) | length }}",
    "{{ namespace(_a=1)._a }}",
    "{% set ns = namespace() %}{% set ns.__class__ = 1 %}",
    "{{ namespace({'__init__': 1}) }}",
    "{{ dict.__init__.__globals__ }}", "{{ dict.mro() }}", "{{ tojson.__globals__ }}",
    "{% generation %}{{ caller.__globals__ }}{% endgeneration %}",
])  # fmt: skip
def test_a_template_reaches_no_python(folder: Path, attack: str) -> None:
    with pytest.raises(BadRequest, match="refuses a user's message"):
        rendered(folder, attack + CONTENT)
    with pytest.raises(Exception, match=r"."):
        render_jinja_template([user("Why?")], chat_template=attack + CONTENT)


def test_a_templates_own_refusal_is_passed_on(folder: Path) -> None:
    source = f"{{% if messages | length > 2 %}}{{{{ raise_exception('too long') }}}}{{% endif %}}{CONTENT}"
    assert rendered(folder, source) == "Why?"
    with pytest.raises(BadRequest, match="the chat template refused the messages: too long"):
        rendered(folder, source, user("Why?") * 3)


@pytest.mark.parametrize("source", ["{{ 1 / messages[0].n }}", "{{ 'a' + messages[0].n }}", "{{ messages[0].m.m }}"])
def test_a_template_that_breaks_costs_its_row(folder: Path, source: str) -> None:
    source = f"{CONTENT}{{% if messages[0].n is defined %}}{source}{{% endif %}}"
    assert rendered(folder, source) == "Why?"
    with pytest.raises(BadRequest, match="refused"):
        rendered(folder, source, [{"role": "user", "content": "Why?", "n": 0}])


@pytest.mark.parametrize(("form", "shown"), [
    ("%d %b %Y", "02 Mar 2031"), ("%Y-%m-%d", "2031-03-02"), ("%A %H:%M:%S", "Sunday 00:00:00"),
])  # fmt: skip
def test_a_template_that_asks_for_the_day_is_told_the_pinned_one(folder: Path, form: str, shown: str) -> None:
    source = f"{{{{ strftime_now('{form}') }}}}|{{{{ strftime_now(format='{form}') }}}}|{{{{ date_string }}}}{CONTENT}"
    text = chat(folder, source, today=date(2031, 3, 2))
    assert text.render(user("a")).text == f"{shown}|{shown}|02 Mar 2031a"
    assert chat(folder, source).render(user("a")).text.endswith("|26 Jul 2024a")
    [now], _ = render_jinja_template([user("a")], chat_template=f"{{{{ strftime_now('{form}') }}}}")
    assert "%H" in form or now == datetime.now().strftime(form)


def test_a_template_that_cannot_be_read_names_its_line(folder: Path) -> None:
    with pytest.raises(CheckpointError, match="wrong in line 2"):
        chat(folder, "a\n{% for %}")


def test_without_a_template_the_places_and_the_way_out_are_named(folder: Path) -> None:
    text = ChatTokenizer(folder, "<|img|>")
    assert text.chat_fault is not None
    assert all(name in text.chat_fault for name in (str(folder), *TEMPLATE_FILES, "template: '{image}{question}'"))
    with pytest.raises(BadRequest) as caught:
        text.render(user("a"))
    assert str(caught.value) == text.chat_fault
    assert ChatTokenizer(folder, "<|img|>", "{image}{question}").chat_fault is None


def test_a_plain_template_needs_nothing_of_a_checkpoints_own(folder: Path) -> None:
    assert chat(folder, "{% for %}", template="Q: {question}").render(user("Why?")).text == "Q: Why?"
    (folder / "chat_template.json").write_text("3")
    assert ChatTokenizer(folder, "<|img|>", "Q: {question}").render(user("Why?")).text == "Q: Why?"
