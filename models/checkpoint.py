"""Read the JSON files of a checkpoint folder, and the few shapes that their fields come in. Knows no family."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from models.types import CheckpointError, ImageSettings


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


def stored_images(folder: Path) -> dict[str, Any]:
    """Return a checkpoint's image settings: preprocessor_config.json's, else those inside processor_config.json.

    Raises:
        CheckpointError: Neither file is there.
    """
    stored = read_json(folder, "preprocessor_config.json")
    if stored is None:
        stored = (read_json(folder, "processor_config.json") or {}).get("image_processor")
    if stored is None:
        raise CheckpointError(
            f"{folder} does not say how images are prepared: expected preprocessor_config.json, "
            "or processor_config.json with `image_processor`"
        )
    return stored


def refuse_settings(settings: ImageSettings, family: str, *names: str) -> None:
    """Refuse image settings that a family does not have.

    Raises:
        CheckpointError: One of `names` is set; ignored, it would look as if it worked.
    """
    for name in names:
        if getattr(settings, name) is not None:
            raise CheckpointError(f"{name} is {getattr(settings, name)!r}, but {family} has no such image setting")


def section(raw: Mapping[str, Any], name: str, folder: Path) -> Mapping[str, Any]:
    """Return a part of config.json.

    Raises:
        CheckpointError: It is not there.
    """
    found = raw.get(name)
    if not isinstance(found, Mapping):
        raise CheckpointError(f"{folder / 'config.json'} has no `{name}`; model_type is {raw.get('model_type')!r}")
    return found


def first(*sources: Mapping[str, Any], name: str, default: Any) -> Any:
    """Return a field from the first of several mappings that has it."""
    return next((source[name] for source in sources if source.get(name) is not None), default)


def token_ids(value: int | list[int]) -> frozenset[int]:
    """Return ids that are stored as one number or as a list."""
    return frozenset([value] if isinstance(value, int) else value)


def channels(value: Any) -> tuple[float, float, float]:
    """Return one number for each of red, green and blue."""
    red, green, blue = value
    return float(red), float(green), float(blue)
