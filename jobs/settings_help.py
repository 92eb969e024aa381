"""What each setting is: for `triptych settings`, docs/settings.md, editors and shells, all from the settings' classes.

It reads the JSON Schema that pydantic makes of `RunSettings`, so that nothing is written down twice.
"""

import json
import re
import shutil
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any

from jobs.config import RunSettings
from pipeline import ConfigError, near

Schema = Mapping[str, Any]

NEEDED = "needed"
PAGE_HEAD = """# Settings

A run's settings stand in a YAML file; `key=value` on the command line goes before it. This page is made from the
settings' own classes (`triptych settings --markdown`), and a test holds it against them. `triptych settings WORD` shows
those with a word in their name or text; `triptych init caption` (or `vqa`, `synthesize`) writes a commented file to
start from; `triptych list rules` (or `benchmarks`, `presets`, `formats`, `configs`) names what some of them take.
`eval "$(triptych completion)"` completes commands and settings in bash, and in zsh through its bashcompinit.

Editors with a YAML language server complete and check a file that begins with
`# yaml-language-server: $schema=triptych.schema.json`, after `triptych settings --json-schema > triptych.schema.json`.
"""
_WORDS = {"string": "text", "integer": "whole number", "number": "number", "boolean": "true or false", "null": "null"}
_PLURALS = {"text": "texts", "whole number": "whole numbers"}
_PLAIN = re.compile(r"[A-Za-z_][\w./-]*")


@dataclass(frozen=True)
class Setting:
    """One setting.

    Attributes:
        path: Its dotted name, as `key=value` takes it.
        kind: The job that it belongs to; empty for settings of every job.
        type: What it may be.
        default: As YAML; `needed` where there is none.
        text: What it does and trades.
        section: The dotted name of its section, which is empty for `note`.
        about: What its section is.
        like: The first section of the same settings, where this is a second one.
        differs: Whether its default is another one there.
    """

    path: str
    kind: str
    type: str
    default: str
    text: str
    section: str
    about: str
    like: str = ""
    differs: bool = False


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema of a run's YAML."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **RunSettings.model_json_schema()}


def all_settings() -> list[Setting]:
    """List every setting, in the order of the YAML; a section that comes again is listed again, and says so."""
    schema = json_schema()
    return list(_Walk(schema["$defs"]).section(schema, "", "", {}))


def find_settings(word: str) -> list[Setting]:
    """Return the settings of a name, of a job, or else those with a word in their name or text.

    Raises:
        ConfigError: There are none.
    """
    settings, wanted = all_settings(), word.lower()
    named = [replace(one, like="") for one in settings if one.path == word]
    found = named or [one for one in settings if one.kind == word]
    found = found or [one for one in settings if not one.like and wanted in f"{one.path} {one.text}".lower()]
    if not found:
        hint = near(word, [one.path for one in settings]) or "; `triptych settings` lists all"
        raise ConfigError("the command line", [f"settings: no setting has {word!r} in its name or text{hint}"])
    return found


def setting_lines(settings: Sequence[Setting]) -> list[str]:
    """Write settings for a terminal: the name, what it may be and is unless set, and what it trades."""
    width = max(40, min(100, shutil.get_terminal_size().columns))
    lines = []
    for section, members in _sections(settings):
        lines += ["", *textwrap.wrap(f"{section}: {members[0].about}", width)]
        if members[0].like:
            lines += textwrap.wrap(_like_text(members), width, initial_indent="  ", subsequent_indent="  ")
            continue
        for one in members:
            lines.append(f"  {one.path}   {one.type}; {_default_text(one)}")
            lines += textwrap.wrap(one.text, width, initial_indent="      ", subsequent_indent="      ")
    return lines[1:]


def settings_page() -> str:
    """Return docs/settings.md."""
    settings = all_settings()
    lines = [PAGE_HEAD]
    for section, members in _sections(settings):
        lines += [f"## {section}", "", _sentence(members[0].about), ""]
        if members[0].like:
            lines += [_sentence(_like_text(members)), ""]
            continue
        lines += ["| setting | may be | unless set | |", "|---|---|---|---|"]
        lines += [
            f"| {' | '.join(_cell(cell) for cell in (f'`{one.path}`', one.type, _default_cell(one), one.text))} |"
            for one in members
        ]
        lines.append("")
    return "\n".join(lines)


class _Walk:
    """Goes through a JSON Schema once, and remembers which classes it has met."""

    def __init__(self, classes: Schema) -> None:
        self._classes = classes
        self._first: dict[str, str] = {}
        self._defaults: dict[str, str] = {}

    def section(self, schema: Schema, path: str, kind: str, defaults: Any, like: str = "") -> Iterator[Setting]:
        """Give the settings of a class, those of sections in it behind its own."""
        about = str(schema.get("description", "")).split("\n")[0]
        below: list[tuple[str, str, Any]] = []
        for name, field in schema["properties"].items():
            where = f"{path}.{name}" if path else name
            field = {**field, "default": defaults[name]} if isinstance(defaults, dict) and name in defaults else field
            inner = list(self._inner(field, where))
            if not inner or "anyOf" in field or "type" in field:
                default = _yaml(field["default"]) if "default" in field else NEEDED
                differs = self._defaults.setdefault(f"{like or path}.{name}", default) != default
                text = field.get("description", "")
                yield Setting(where, kind, self._type(field), default, text, path, about, like, differs)
            below += [(one, place, field.get("default")) for one, place in inner]
        for reference, place, given in below:
            yield from self._known(reference, place, kind, given)

    def _known(self, reference: str, path: str, kind: str, default: Any) -> Iterator[Setting]:
        schema = self._classes[reference.rpartition("/")[2]]
        kind = kind or schema["properties"].get("kind", {}).get("const", "")
        first = self._first.setdefault(reference, path)
        yield from self.section(schema, path, kind, default, like="" if first == path else first)

    def _inner(self, field: Schema, path: str) -> Iterator[tuple[str, str]]:
        """Give the classes that a field holds, and what their settings' names begin with."""
        if "$ref" in field:
            yield field["$ref"], path
        for one in (*field.get("anyOf", ()), *field.get("oneOf", ())):
            yield from self._inner(one, path)
        for one in field.get("patternProperties", {}).values():
            yield from self._inner(one, f"{path}.<name>")
        if "items" in field:
            yield from self._inner(field["items"], f"{path}.<number>")

    def _type(self, field: Schema) -> str:
        if "anyOf" in field:
            return " or ".join(self._type(one) for one in field["anyOf"])
        if "enum" in field:
            return _listed([str(one) for one in field["enum"]])
        if "const" in field:
            return str(field["const"])
        if "$ref" in field:
            return "a section"
        if field["type"] == "array":
            return self._array(field)
        if field["type"] == "object":
            return "a section of name: value"
        word = "day" if field.get("format") == "date" else _WORDS[field["type"]]
        return word + _bounds(field)

    def _array(self, field: Schema) -> str:
        if "prefixItems" in field:
            return f"[{', '.join(self._type(one) for one in field['prefixItems'])}]"
        if "$ref" in field["items"]:
            return "a list of sections"
        of = self._type(field["items"])
        return f"a list of {_PLURALS.get(of, of)}"


def _sections(settings: Sequence[Setting]) -> Iterator[tuple[str, list[Setting]]]:
    """Give the settings of one section after the other; of a job's, its kind stands behind the name."""
    for (section, kind), members in groupby(settings, lambda one: (one.section, one.kind)):
        name = section or "the whole run"
        yield f"{name} ({kind})" if section == "job" else name, list(members)


def _like_text(members: Sequence[Setting]) -> str:
    """Say which section a second one is like, and in what it differs."""
    others = [f"; {one.path} is {one.default} unless set" for one in members if one.differs]
    return f"the same settings as {members[0].like}{''.join(others)}"


def _default_text(one: Setting) -> str:
    return NEEDED if one.default == NEEDED else f"unless set {one.default}"


def _default_cell(one: Setting) -> str:
    return NEEDED if one.default == NEEDED else f"`{one.default}`"


def _bounds(field: Schema) -> str:
    text = f" from {field['minimum']:,}" if "minimum" in field else ""
    text += f" above {field['exclusiveMinimum']:g}" if "exclusiveMinimum" in field else ""
    text += f" to {field['maximum']:,}" if "maximum" in field else ""
    text += " below 2^63" if field.get("exclusiveMaximum") == 2**63 else ""
    return text + (" of one letter" if field.get("maxLength") == 1 else "")


def _yaml(value: Any) -> str:
    """Write a default as YAML; a class' own settings, as those of a list, in braces."""
    if isinstance(value, str) and _PLAIN.fullmatch(value):
        return value
    return json.dumps(value, ensure_ascii=False)


def _listed(words: Sequence[str]) -> str:
    return f"{', '.join(words[:-1])} or {words[-1]}"


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:].rstrip('.')}."


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
