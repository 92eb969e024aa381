"""Where a checkpoint keeps its chat template and the tokens that a template calls by name: the reference's places.

Both are found as `transformers` 5.23 finds them (get_processor_dict in processing_utils.py, _from_pretrained in
tokenization_utils_base.py), in its order.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from models.checkpoint import read_json
from models.types import CheckpointError

# The first that has one wins. Of several with names it is the one called `default`.
TEMPLATE_FILES = (
    "processor_config.json",
    "chat_template.json",
    "chat_template.jinja",
    "additional_chat_templates/default.jinja",
    "tokenizer_config.json",
)
FIELD = "chat_template"


def find_template(folder: Path) -> str | None:
    """Return the source of a checkpoint's chat template, or None if it has none.

    Raises:
        CheckpointError: A file cannot be read, or two contradict each other, or there are several templates and none is
            the default.
    """
    in_processor, legacy, jinja, _, in_tokenizer = TEMPLATE_FILES
    more = {path.stem: path for path in sorted((folder / "additional_chat_templates").glob("*.jinja"))}
    old = (read_json(folder, legacy) or {}).get(FIELD)
    if old is not None and more:
        raise CheckpointError(
            f"{folder} has {legacy} and also {_names(path.name for path in more.values())} in "
            f"additional_chat_templates, and nothing says which holds: expected {jinja} in place of {legacy}"
        )
    said = (read_json(folder, in_processor) or {}).get(FIELD)
    if said is not None:
        return _default(folder / in_processor, said)
    if old is not None:
        return _default(folder / legacy, old)
    if (folder / jinja).is_file():
        return _text(folder / jinja)
    if more:
        return _default(folder / "additional_chat_templates", {name: _text(path) for name, path in more.items()})
    found = (read_json(folder, in_tokenizer) or {}).get(FIELD)
    return None if found is None else _default(folder / in_tokenizer, found)


def special_tokens(folder: Path) -> dict[str, str]:
    """Return the tokens that templates may call by name, such as `bos_token`.

    special_tokens_map.json goes before tokenizer_config.json, but where that one lists its added tokens, the older file
    is not read at all.
    """
    config = read_json(folder, "tokenizer_config.json") or {}
    older = {} if "added_tokens_decoder" in config else read_json(folder, "special_tokens_map.json") or {}
    tokens: dict[str, str] = {}
    for fields in (config, older):
        named = {name: value for name, value in fields.items() if name.endswith("_token")}
        for own in ("extra_special_tokens", "model_specific_special_tokens"):
            named |= fields[own] if isinstance(fields.get(own), Mapping) else {}
        texts = {name: value.get("content") if isinstance(value, Mapping) else value for name, value in named.items()}
        tokens |= {name: text for name, text in texts.items() if isinstance(text, str)}
    return tokens


def _default(place: Path, found: Any) -> str:
    """Return the template that a field holds: a text, or the default of several with names."""
    if isinstance(found, str):
        return found
    if isinstance(found, list) and all(isinstance(one, Mapping) for one in found):
        found = {one.get("name"): one.get("template") for one in found}
    if isinstance(found, Mapping) and isinstance(found.get("default"), str):
        return str(found["default"])
    if isinstance(found, Mapping):
        raise CheckpointError(f"{place} has the chat templates {_names(map(str, found))}, expected one called default")
    raise CheckpointError(f"{place}: {FIELD} is a {type(found).__name__}, expected a text or templates with names")


def _names(names: Any) -> str:
    return ", ".join(names) or "none"


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise CheckpointError(f"{path} is not text in UTF-8: {error}") from error
