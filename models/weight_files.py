"""Which files hold a checkpoint's weights, and what their headers say of each tensor. No weight is read here."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from models.checkpoint import read_json
from models.types import CheckpointError

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
# Of the safetensors words for types, those that numbers are stored in as they are.
FLOATS = {"F64": "float64", "F32": "float32", "BF16": "bfloat16", "F16": "float16"}
_SHOWN = 8  # names per fault; a wrong checkpoint has thousands
# What else people keep weights in, by the pattern of the files' names, and what to do with it.
_PICKLED = "pickled weights, which are never opened; save them again as safetensors (save_pretrained)"
_FOREIGN = (
    ("adapter_model.*", "an adapter without its base model; merge the two (peft's merge_and_unload) and save that"),
    ("*.gguf", "llama.cpp's weights; take the checkpoint that they were made from"),
    ("pytorch_model_fsdp*", "FSDP's shards; merge them (accelerate merge-weights)"),
    ("global_step*", "DeepSpeed's shards; merge them (zero_to_fp32.py) and save that as safetensors"),
    ("pytorch_model*.bin", _PICKLED),
    ("consolidated*.pth", _PICKLED),
    ("*.safetensors", f"safetensors under other names; expected {SINGLE}, or {INDEX} that names them"),
)


class WeightsError(CheckpointError):
    """The stored tensors are not those that the model needs."""


@dataclass(frozen=True)
class StoredTensor:
    """A tensor as its file's header has it; `dtype` is a word of safetensors, such as `BF16`."""

    name: str
    shape: tuple[int, ...]
    dtype: str


def weight_files(folder: Path) -> list[Path]:
    """Return the safetensors files of a checkpoint folder.

    Raises:
        WeightsError: None is there, the index names one that is not, or there are two sets of them.
    """
    index = read_json(folder, INDEX)
    if index is None and not (folder / SINGLE).is_file():
        raise WeightsError(f"no weights: {folder} has neither {SINGLE} nor {INDEX}{_foreign(folder)}")
    if (folder / "adapter_config.json").is_file():
        # transformers would lay it over the weights, or over those of the base model that it names.
        raise WeightsError(
            f"{folder} has adapter_config.json beside the weights; if these hold the adapter, remove adapter_*, else "
            "merge the two (peft's merge_and_unload) and save that"
        )
    names = {SINGLE} if index is None else _named(folder / INDEX, index)
    if index is not None and names != {SINGLE} and (folder / SINGLE).is_file():
        raise WeightsError(
            f"{folder} has two sets of weights, {SINGLE} and what {INDEX} names ({listed(sorted(names))}); "
            "transformers reads the first; remove the one that is not meant"
        )
    missing = sorted(name for name in names if not (folder / name).is_file())
    if missing:
        raise WeightsError(f"{folder / INDEX} names {len(names)} files; missing: {listed(missing)}")
    return [folder / name for name in sorted(names)]


def stored_tensors(path: Path) -> list[StoredTensor]:
    """Return the tensors of a safetensors file in its own order.

    Raises:
        WeightsError: It is not one, or not whole.
    """
    try:
        with safe_open(path, framework="np") as file:
            slices = [(name, file.get_slice(name)) for name in file.keys()]  # noqa: SIM118 - not a mapping
            return [StoredTensor(name, tuple(one.get_shape()), one.get_dtype()) for name, one in slices]
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{path} ({path.stat().st_size} bytes) is not a whole safetensors file: {error}") from error


def stored_dtype(folder: Path) -> str:
    """Return the type of the first weight that is a plain number, by torch's name: what a checkpoint is saved in.

    Raises:
        WeightsError: There are no weights, or none of plain numbers.
    """
    for path in weight_files(folder):
        for tensor in stored_tensors(path):
            if tensor.dtype in FLOATS:
                return FLOATS[tensor.dtype]
    raise WeightsError(f"{folder} has no weights in any of {', '.join(FLOATS.values())}")


def listed(names: Sequence[str]) -> str:
    """Return the first few of some names, and how many more there are."""
    rest = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + rest


def _named(path: Path, index: dict[str, Any]) -> set[str]:
    """Return the files that an index names, all of which lie beside it."""
    names = index.get("weight_map")
    if not isinstance(names, dict) or not names or not all(isinstance(name, str) for name in names.values()):
        raise WeightsError(f"{path} does not say where each tensor is: expected `weight_map` with names of files")
    elsewhere = sorted({name for name in names.values() if name != os.path.basename(name)})
    if elsewhere:
        raise WeightsError(f"{path} names {listed(elsewhere)}; expected files that lie beside it")
    return set(names.values())


def _foreign(folder: Path) -> str:
    """Say what a folder without weights has in their place."""
    for pattern, what in _FOREIGN:
        found = sorted(path.name for path in folder.glob(pattern))
        if found:
            return f", but {listed(found)}: {what}"
    return ""
