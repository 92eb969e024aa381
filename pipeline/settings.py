"""Turn a YAML file and `key=value` overrides into checked settings; every fault is listed at once.

This file knows how settings are read, checked and written down. It knows no step: each step's own
settings stand at the top of that step's file.
"""

import copy
import difflib
import re
import reprlib
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError

from pipeline.redaction import refuse_credentials, without_secrets


class Settings(BaseModel):
    """The base of every settings class: unknown keys are faults, values do not change."""

    # A traceback must not show a value that is refused for its password.
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


S = TypeVar("S", bound=BaseModel)

# A path or a uri; one that carries credentials is refused.
Address = Annotated[str, AfterValidator(refuse_credentials)]

# In place of a value where there is none; null is a value.
_ABSENT = object()

# What is left out of a section may show that the section lacks something, and so may what stands in for that.
MOST_LAYERS = 6
PLACEHOLDER = "missing"


class ConfigError(ValueError):
    """Settings that cannot be run, every fault on a line of its own.

    Attributes:
        faults: One sentence per fault, beginning with the setting's path where it has one.
        advice: What to do about all of them; may be empty.
    """

    def __init__(self, source: str, faults: Sequence[str], advice: str = "") -> None:
        self.faults, self.advice = list(faults), advice
        noun = "fault" if len(self.faults) == 1 else "faults"
        super().__init__(
            "\n  ".join([f"{source}: {len(self.faults)} {noun}", *self.faults, *([advice] if advice else [])])
        )


def load_settings(settings_class: type[S], path: str | Path, overrides: Sequence[str] = ()) -> S:
    """Read a YAML file, lay the overrides over it and check the whole.

    Args:
        settings_class: What the file must fit.
        path: The YAML file.
        overrides: `dotted.key=value` each; the value is read as YAML.

    Raises:
        ConfigError: The file cannot be read, is no mapping, or does not fit; all faults are listed.
    """
    values, faults = read_values(path, overrides)
    return check_settings(settings_class, values, str(path), faults)


def read_values(path: str | Path, overrides: Sequence[str] = ()) -> tuple[dict[str, Any], list[str]]:
    """Read a YAML file and lay overrides over it; return the plain values, and what is wrong with the overrides.

    Raises:
        ConfigError: The file cannot be read, or is no mapping.
    """
    try:
        values = _parse(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ConfigError(str(path), ["there is no such file; expected a YAML file as in configs/"]) from error
    except IsADirectoryError as error:
        raise ConfigError(str(path), ["is a folder, expected a YAML file"]) from error
    except OSError as error:
        raise ConfigError(str(path), [f"cannot be read: {error.strerror}"]) from error
    except UnicodeDecodeError as error:
        raise ConfigError(str(path), [f"is not UTF-8: {error.reason} at byte {error.start}"]) from error
    except yaml.YAMLError as error:
        raise ConfigError(str(path), [f"is not YAML: {' '.join(str(error).split())}"]) from error
    if not isinstance(values, dict):
        raise ConfigError(str(path), [f"found {_short(values)}, expected sections such as `read:` and `model:`"])
    return values, lay_over(values, overrides)


def lay_over(values: dict[str, Any], overrides: Sequence[str]) -> list[str]:
    """Lay overrides, `dotted.key=value` each, over plain values; return what is wrong with them."""
    return [fault for override in overrides if (fault := _override(values, override))]


def check_settings(
    settings_class: type[S], values: Mapping[str, Any], source: str = "settings", faults: Iterable[str] = ()
) -> S:
    """Check plain values against a settings class.

    Args:
        settings_class: What the values must fit.
        values: Nested mappings as YAML gives them.
        source: Named at the head of the error.
        faults: Faults found earlier, listed together with the ones found here.

    Raises:
        ConfigError: Something does not fit, or `faults` is not empty.
    """
    found = list(faults)
    try:
        settings = settings_class.model_validate(values)
    except ValidationError as error:
        found += [_fault(settings_class, dict(detail)) for detail in error.errors(include_url=False)]
        raise ConfigError(source, found) from error
    if found:
        raise ConfigError(source, found)
    return settings


def stand_in(settings_class: type[S], values: Mapping[str, Any]) -> tuple[S, frozenset[str]] | None:
    """Return settings without what is wrong in the values, for others to be looked at that are well.

    A wrong value gives way to its default, a missing text to a placeholder.

    Returns:
        The settings, and the dotted names of those that are others than were given; None where that does not help.
    """
    left, changed = copy.deepcopy(dict(values)), set[str]()
    for _ in range(MOST_LAYERS):
        try:
            return settings_class.model_validate(left), frozenset(changed)
        except ValidationError as error:
            for detail in error.errors(include_url=False):
                path, holder = _locate(settings_class, detail["loc"])
                changed.add(path)
                field = holder.model_fields.get(str(detail["loc"][-1])) if holder else None
                instead = {} if field and _models(field.annotation) else PLACEHOLDER
                _replace(left, path.split("."), instead if detail["type"] == "missing" else _ABSENT)
    return None


def _replace(values: dict[str, Any], path: Sequence[str], instead: Any) -> None:
    """Put another value into nested ones, or none; one inside a list takes the list with it."""
    for place, key in enumerate(path[:-1]):
        if not isinstance(values.get(key), dict):
            instead, path = _ABSENT, path[: place + 1]
            break
        values = values[key]
    if instead is _ABSENT:
        values.pop(path[-1], None)
    else:
        values[path[-1]] = instead


def dump_settings(settings: BaseModel) -> dict[str, Any]:
    """Return settings as plain JSON values, with passwords and signatures inside addresses blanked out."""
    dumped = without_secrets(settings.model_dump(mode="json"))
    assert isinstance(dumped, dict)
    return dumped


def differences(before: Any, now: Any, path: str = "") -> list[str]:
    """List, as `path: was x, now y`, where two dumped settings differ; a key of one alone is said to be that."""
    if isinstance(before, dict) and isinstance(now, dict):
        keys = [*before, *(key for key in now if key not in before)]
        below = (
            differences(before.get(key, _ABSENT), now.get(key, _ABSENT), f"{path}.{key}" if path else str(key))
            for key in keys
        )
        return [line for lines in below for line in lines]
    if before is _ABSENT:
        return [f"{path}: was not set when the run began (an older version, or another job), now {_short(now)}"]
    if now is _ABSENT:
        return [f"{path}: was {_short(before)}, now there is no such setting (another version, or another job)"]
    return [] if before == now else [f"{path}: was {_short(before)}, now {_short(now)}"]


class _Loader(yaml.SafeLoader):
    """Plain YAML, but a key given twice is an error, and a date, a time and a ratio stay the text that was written."""


def _mapping(loader: _Loader, node: yaml.MappingNode) -> dict[Any, Any]:
    seen: set[Any] = set()
    for key_node, _ in node.value:
        key = loader.construct_object(key_node, deep=True)
        if key in seen:
            raise yaml.constructor.ConstructorError(None, None, f"`{key}` appears twice", key_node.start_mark)
        seen.add(key)
    return yaml.SafeLoader.construct_mapping(loader, node, deep=True)


def _text(loader: _Loader, node: yaml.ScalarNode) -> str:
    return str(loader.construct_scalar(node))


def _number(loader: _Loader, node: yaml.ScalarNode) -> int | float | str:
    """Read a number; YAML 1.1 would take `16:9` for one too, to the base of 60."""
    if ":" in node.value:
        return _text(loader, node)
    read = loader.construct_yaml_int if node.tag.endswith(":int") else loader.construct_yaml_float
    return read(node)


_Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)
_Loader.add_constructor("tag:yaml.org,2002:timestamp", _text)
_Loader.add_constructor("tag:yaml.org,2002:int", _number)
_Loader.add_constructor("tag:yaml.org,2002:float", _number)


def _parse(text: str) -> Any:
    return yaml.load(text, Loader=_Loader)


def _override(values: dict[str, Any], override: str) -> str | None:
    """Lay one override over the values; return the fault, if it has one."""
    path, equals, text = override.partition("=")
    if not equals or not path:
        return f"override {override!r}: expected `dotted.key=value`"
    *above, last = path.split(".")
    place = values
    for key in above:
        if place.get(key) is None:
            place[key] = {}
        if not isinstance(place[key], dict):
            return f"override {override!r}: `{key}` is {_short(place[key])}, not a section"
        place = place[key]
    place[last] = _override_value(text)
    return None


def _override_value(text: str) -> Any:
    """Read an override's value as YAML; prose such as `Look: what is it?` stays the text that it is."""
    try:
        value = _parse(text)
    except yaml.YAMLError:
        return text
    is_meant = text.lstrip()[:1] in ("{", "[")
    return text if isinstance(value, dict | list) and not is_meant else value


def _fault(settings_class: type[BaseModel], error: dict[str, Any]) -> str:
    """Say one of pydantic's errors as: path, what was found, what was expected."""
    path, holder = _locate(settings_class, error["loc"])
    context = error.get("ctx", {})
    kind, found = error["type"], error.get("input")
    if kind == "extra_forbidden":
        known = list(holder.model_fields) if holder else []
        return f"{path}: unknown setting (found {_short(found)}){_near(str(error['loc'][-1]), known)}"
    if kind == "missing":
        return f"{path}: missing{_wanted(path, holder, str(error['loc'][-1]))}"
    if kind == "literal_error":
        return f"{path}: found {_short(found)}, expected {context['expected']}{_meant(found, context['expected'])}"
    if kind == "union_tag_invalid":
        name, tags = context["discriminator"].strip("'"), context["expected_tags"]
        return f"{path}.{name}: found {_short(context['tag'])}, expected {tags}{_meant(context['tag'], tags)}"
    if kind == "union_tag_not_found":
        return f"{path}.{context['discriminator'].strip(chr(39))}: missing"
    message = error["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
    if kind == "value_error":
        # A check of a whole section may have named the setting below it that is wrong.
        return f"{path}: {message}" if path and not message.startswith(f"{path}.") else message
    if kind in ("dict_type", "model_type"):
        return f"{path}: found {_short(found)}, expected a section of `name: value`"
    return f"{path}: found {_short(found)}, expected {message}"


def _wanted(path: str, holder: type[BaseModel] | None, name: str) -> str:
    """Say what belongs in the place of a missing setting: of a section, what it cannot do without."""
    field = holder.model_fields.get(name) if holder else None
    if field is None:
        return ""
    needed = [
        f"{path}.{below}" for model in _models(field.annotation) for below, one in model.model_fields.items()
        if one.is_required()
    ]  # fmt: skip
    wanted = ", ".join(dict.fromkeys(needed)) or field.description
    return f", expected {wanted}" if wanted else ""


def _locate(settings_class: type[BaseModel], location: Sequence[int | str]) -> tuple[str, type[BaseModel] | None]:
    """Turn pydantic's location into a dotted path, and find the settings class that holds its last key."""
    path: list[str] = []
    holder: type[BaseModel] | None = None
    here: Any = settings_class
    for key in location:
        if typing.get_origin(here) is dict:  # its keys are the user's own words
            holder, here = None, typing.get_args(here)[1]
            path.append(str(key))
            continue
        models = _models(here)
        tagged = [model for model in models if _has_tag(model, key)]
        if len(models) > 1 and tagged:
            here = tagged[0]
            continue  # the word that chose one of several classes is no part of the path
        holder = models[0] if models else None
        field = holder.model_fields.get(str(key)) if holder else None
        here = field.annotation if field else None
        path.append(str(key))
    return ".".join(path), holder


def _models(annotation: Any) -> list[type[BaseModel]]:
    """List the settings classes that an annotation allows."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    if typing.get_origin(annotation) in (typing.Union, types.UnionType, typing.Annotated):
        return [model for argument in typing.get_args(annotation) for model in _models(argument)]
    return []


def _has_tag(model: type[BaseModel], tag: int | str) -> bool:
    literals = (typing.get_args(field.annotation) for field in model.model_fields.values())
    return any(tag in values for values in literals)


def _near(word: str, known: Sequence[str]) -> str:
    hint = near(word, known)
    return f"{hint} Known here: {', '.join(known)}" if hint else f"; known here: {', '.join(known)}"


def near(word: str, known: Iterable[str]) -> str:
    """Return a hint at the known word that is most like an unknown one; nothing where none is."""
    close = difflib.get_close_matches(word, list(known), n=1)
    return f"; did you mean `{close[0]}`?" if close else ""


def _meant(found: Any, expected: str) -> str:
    return near(str(found), re.findall(r"'([^']*)'", expected))


def _short(value: Any) -> str:
    """Write a value for a message: never long, never with a password."""
    brief = reprlib.Repr()
    brief.maxstring = brief.maxother = 80
    return "nothing" if value is None else brief.repr(without_secrets(value))
