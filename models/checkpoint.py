"""Read the JSON files of a checkpoint folder, and the few shapes that their fields come in. Knows no family."""

import json
import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from models.types import CheckpointError, ImageSettings, ImageSettingsError

# How the names of files end that a checkpoint is read from.
READ = (".json", ".jinja", ".safetensors")
_LFS_NOTE, _MOST_NOTE_BYTES = b"version https://git-lfs.github.com/spec/", 1024
# Steps that every family takes with an image; files may say so, but they cannot leave one out.
STEPS = ("do_convert_rgb", "do_resize", "do_pad", "do_rescale", "do_normalize")
# Writers of numbers like 1 / 255 keep 8 digits or more.
ROUNDING = 1e-9


class Fields:
    """An object in a checkpoint's JSON file. It knows where it stands, so that a wrong field is named with its place.

    In all of them a field that is null counts as absent, and the first of several names that is there wins.
    """

    def __init__(self, file: Path, values: Mapping[str, Any], prefix: str = "") -> None:
        """Keep an object and its place.

        Args:
            file: Named in errors.
            values: The object.
            prefix: Its own name in the file and a dot, if it is not the whole.
        """
        self.file = file
        self._values = values
        self._prefix = prefix

    @property
    def names(self) -> tuple[str, ...]:
        """The fields that are there."""
        return tuple(self._values)

    def get(self, *names: str) -> Any:
        """Return a field as it is, or None."""
        return self._values.get(self._name(names))

    def section(self, *names: str, default: Mapping[str, Any] | None = None) -> "Fields":
        """Return a field that is an object itself."""
        values = self._checked(names, default, lambda value: isinstance(value, Mapping), "an object")
        return Fields(self.file, values, f"{self._prefix}{self._name(names)}.")

    def integer(self, *names: str, default: int | None = None, least: int = 0) -> int:
        """Return a field that is a whole number."""
        expected = f"a whole number from {least} on"
        return int(self._checked(names, default, lambda value: _is_whole(value) and value >= least, expected))

    def number(self, *names: str, default: float | None = None) -> float:
        """Return a field that is a finite number."""
        return float(self._checked(names, default, _is_number, "a number"))

    def flag(self, *names: str, default: bool) -> bool:
        """Return a field that is true or false."""
        return bool(self._checked(names, default, lambda value: isinstance(value, bool), "true or false"))

    def word(self, *names: str, default: str | None = None) -> str:
        """Return a field that is a text."""
        return str(self._checked(names, default, lambda value: isinstance(value, str), "a text"))

    def places(self, *names: str, default: tuple[int, ...], count: int) -> tuple[int, ...]:
        """Return a field that lists some of `count` things by their numbers, each at most once."""
        value = self._value(names, default)
        if not isinstance(value, list | tuple) or not all(_is_whole(one) and 0 <= one < count for one in value):
            raise self.fault(*names, expected=f"whole numbers from 0 to {count - 1}")
        if len(set(value)) < len(value):
            raise self.fault(*names, expected="each number once")
        return tuple(map(int, value))

    def ids(self, *names: str, default: int) -> frozenset[int]:
        """Return a field that is one token id or a list of them."""
        value = self._value(names, default)
        listed = value if isinstance(value, list) else [value]
        if not all(map(_is_whole, listed)):
            raise self.fault(*names, expected="one whole number or a list of them")
        return frozenset(map(int, listed))

    def channels(self, *names: str, default: tuple[float, float, float] | None = None) -> tuple[float, float, float]:
        """Return a field that has one number for each of red, green and blue."""
        value = self._value(names, default)
        if not isinstance(value, list | tuple) or len(value) != 3 or not all(map(_is_number, value)):
            raise self.fault(*names, expected="three numbers")
        red, green, blue = value
        return float(red), float(green), float(blue)

    def expect(self, name: str, expected: Any) -> None:
        """Refuse a field that is there and says something else than what we do."""
        found: Any = self._values.get(name)
        is_near = isinstance(expected, float) and _is_number(found) and abs(found - expected) <= ROUNDING
        if found is not None and found != expected and not is_near:
            raise self.fault(name, expected=repr(expected))

    def fault(self, *names: str, expected: str) -> CheckpointError:
        """Return the error that a field is not what was expected."""
        name = self._name(names)
        return CheckpointError(f"{self.file}: {self._prefix}{name} is {self._values.get(name)!r}, expected {expected}")

    def _name(self, names: tuple[str, ...]) -> str:
        return next((name for name in names if self._values.get(name) is not None), names[0])

    def _checked(self, names: tuple[str, ...], default: Any, is_right: Callable[[Any], bool], expected: str) -> Any:
        value = self._value(names, default)
        if not is_right(value):
            raise self.fault(*names, expected=expected)
        return value

    def _value(self, names: tuple[str, ...], default: Any) -> Any:
        found = self.get(*names)
        if found is None and default is None:
            kind = self._values.get("model_type")
            hint = "" if kind is None else f"; model_type is {kind!r}"
            raise CheckpointError(f"{self.file} has no {self._prefix}{names[0]}{hint}")
        return default if found is None else found


def read_json(folder: Path, name: str) -> dict[str, Any] | None:
    """Return a checkpoint's JSON file, or None if the folder has none of that name."""
    path = folder / name
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{path} is not JSON: {error}") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} holds a {type(content).__name__}, expected an object")
    return content


def refuse_stand_ins(folder: Path) -> None:
    """Refuse a folder in which something stands for a file that is elsewhere, or gone.

    Raises:
        CheckpointError: A file is a link to nothing, as in a hub's cache that was cleared, and would be missed in
            silence; or it is a note of Git LFS, which fetches large files only when told to.
    """
    for path in sorted(path for path in folder.iterdir() if path.suffix in READ):
        if path.is_symlink() and not path.exists():
            link = path.readlink()
            raise CheckpointError(f"{path} is a link to {link}, which is not there; fetch the checkpoint again")
        if path.is_file() and path.stat().st_size < _MOST_NOTE_BYTES and path.read_bytes().startswith(_LFS_NOTE):
            raise CheckpointError(f"{path} is a note of Git LFS and not the file; type `git lfs pull` in {folder}")


def read_fields(folder: Path, name: str) -> Fields | None:
    """Return a checkpoint's JSON file as fields, or None if the folder has none of that name."""
    content = read_json(folder, name)
    return None if content is None else Fields(folder / name, content)


# Fields of image settings that say who wrote them.
WRITERS = ("auto_map", "feature_extractor_type", "image_processor_type", "processor_class")


def superseded_images(folder: Path) -> dict[str, tuple[Any, Any]]:
    """Return the fields of preprocessor_config.json that are not read, because processor_config.json has others.

    Returns:
        By name, what processor_config.json says (None for nothing, which is the family's default) and what the older
        file says.
    """
    nested, older = _nested_images(folder), read_json(folder, "preprocessor_config.json") or {}
    if nested is None:
        return {}
    return {
        name: (nested.get(name), value)
        for name, value in older.items()
        if name not in WRITERS and nested.get(name) != value
    }


def _nested_images(folder: Path) -> Fields | None:
    outer = read_fields(folder, "processor_config.json")
    return outer.section("image_processor") if outer and outer.get("image_processor") is not None else None


def stored_images(folder: Path, resample: int) -> Fields:
    """Return a checkpoint's image settings: those inside processor_config.json, else preprocessor_config.json's.

    Newer writers nest them and leave the older file where it is; `transformers` 5.23 then reads the nested ones alone
    (get_image_processor_dict in image_processing_base.py).

    Args:
        folder: The checkpoint.
        resample: How the family resizes, by Pillow's number.

    Raises:
        CheckpointError: Neither file is there, or they ask for other steps than every family takes.
    """
    stored = _nested_images(folder)
    stored = read_fields(folder, "preprocessor_config.json") if stored is None else stored
    if stored is None:
        raise CheckpointError(
            f"{folder} does not say how images are prepared: expected preprocessor_config.json, "
            "or processor_config.json with `image_processor`"
        )
    stored.expect("resample", resample)
    stored.expect("rescale_factor", 1 / 255)
    for step in STEPS:
        stored.expect(step, True)
    return stored


def refuse_settings(settings: ImageSettings, family: str, known: Collection[str], without_vision: str | None) -> None:
    """Refuse image settings that do nothing.

    Args:
        settings: The run's.
        family: Its name.
        known: The settings that it has.
        without_vision: What has no vision encoder, for the message; then no setting does anything.

    Raises:
        ImageSettingsError: Some are set; ignored, they would look as if they worked.
    """
    found = {name: value for name, value in asdict(settings).items() if value is not None}
    useless = [name for name in found if without_vision or name not in known]
    if useless:
        why = f"{without_vision} sees no images" if without_vision else f"{family} has no such image setting"
        raise ImageSettingsError(*(f"{name}: found {found[name]!r}, but {why}; leave it out" for name in useless))


def first(name: str, *sources: Fields) -> Fields:
    """Return the first of several sources that has a field, or the last of all."""
    return next((source for source in sources if source.get(name) is not None), sources[-1])


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_whole(value: Any) -> bool:
    return _is_number(value) and value == int(value)
