"""Load a checkpoint's safetensors into a module: strictly, and one tensor at a time.

A module is built on the `meta` device with the names of the checkpoint's files as its parameter names; a family
says only where its files deviate from that. Every parameter must be filled exactly once with its exact shape and
every stored tensor must have a place; all faults are found before any weight is read. Nothing is unpickled.
"""

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from models.batch_invariant import RepacksWeights
from models.checkpoint import read_json
from models.types import CheckpointError

log = logging.getLogger(__name__)

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
_SHOWN = 8  # names per fault; a wrong checkpoint has thousands


class WeightsError(CheckpointError):
    """The stored tensors are not those that the model needs."""


@dataclass(frozen=True)
class ParameterSlice:
    """Where a stored tensor belongs.

    Attributes:
        name: The parameter.
        index: The part of it that the tensor fills; empty for the whole.
        is_transposed: Whether the tensor is stored as (out, in) for a part kept as (in, out).
    """

    name: str
    index: tuple[int | slice, ...] = ()
    is_transposed: bool = False

    def shape(self, stored: Sequence[int]) -> tuple[int, ...]:
        """Return the shape that a stored shape has once in place."""
        return tuple(stored[::-1]) if self.is_transposed else tuple(stored)

    def turned(self, stored: Tensor) -> Tensor:
        """Return a stored tensor as it lies once in place."""
        return stored.t() if self.is_transposed else stored


Rename = Callable[[str], ParameterSlice | None]


def load_weights(
    module: nn.Module,
    folder: Path,
    rename: Rename,
    *,
    device: Callable[[str], torch.device],
    dtype: Callable[[str], torch.dtype],
) -> None:
    """Fill a module that was built on the `meta` device.

    Args:
        module: Its parameters are replaced by ones that hold numbers.
        folder: Holds model.safetensors, or model.safetensors.index.json and the files it names.
        rename: From a stored name to its place; None for a tensor that is known and not used.
        device: From a parameter's name to where it is put. Host memory holds one tensor at a time.
        dtype: From a parameter's name to what it is cast to.

    Raises:
        WeightsError: A file, tensor or shape is missing, doubled or wrong; every fault is listed.
    """
    files = check_weights(module, folder, rename)
    wanted = dict(module.named_parameters())
    filled: dict[str, Tensor] = {}
    for path in files:
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118 - not a mapping
                place = rename(name)
                if place is None:
                    continue
                if place.name not in filled:
                    shape, kind = wanted[place.name].shape, dtype(place.name)
                    filled[place.name] = torch.empty(shape, dtype=kind, device=device(place.name))
                # Without a name of its own the stored tensor is gone before the next one is read.
                filled[place.name][place.index].copy_(place.turned(file.get_tensor(name)))
    for name, tensor in filled.items():
        _replace(module, name, tensor)
    num_filled = len(filled)
    filled.clear()  # or every weight that is repacked would be held twice
    for part in module.modules():
        if isinstance(part, RepacksWeights):
            part.repack_weights()
    log.info("loaded %d tensors from %d files in %s", num_filled, len(files), folder)


def check_weights(module: nn.Module, folder: Path, rename: Rename) -> list[Path]:
    """Compare names and shapes of the stored tensors with the module's parameters; return the files that hold them.

    Only the files' headers are read.

    Raises:
        WeightsError: A file, tensor or shape is missing, doubled or wrong; every fault is listed.
    """
    files = weight_files(folder)
    _compare(module, dict(module.named_parameters()), _stored_shapes(files), rename)
    return files


def weight_files(folder: Path) -> list[Path]:
    """Return the safetensors files of a checkpoint folder.

    Raises:
        WeightsError: None there, or the index names one that is not.
    """
    index = read_json(folder, INDEX)
    if index is None:
        names = {SINGLE}
        if not (folder / SINGLE).is_file():
            raise WeightsError(f"no weights: {folder} has neither {SINGLE} nor {INDEX}")
    else:
        names = set(index.get("weight_map", {}).values())
    missing = sorted(name for name in names if not (folder / name).is_file())
    if missing:
        raise WeightsError(f"{folder / INDEX} names {len(names)} files; missing: {_listed(missing)}")
    return [folder / name for name in sorted(names)]


def _stored_shapes(files: Iterable[Path]) -> list[tuple[str, tuple[int, ...]]]:
    shapes = []
    for path in files:
        try:
            with safe_open(path, framework="pt") as file:
                shapes += [(name, tuple(file.get_slice(name).get_shape())) for name in file.keys()]  # noqa: SIM118
        except (SafetensorError, OSError) as error:
            raise WeightsError(
                f"{path} ({path.stat().st_size} bytes) is not a whole safetensors file: {error}"
            ) from error
    return shapes


def _compare(
    module: nn.Module,
    wanted: Mapping[str, nn.Parameter],
    stored: Iterable[tuple[str, tuple[int, ...]]],
    rename: Rename,
) -> None:
    """Compare names and shapes; raise with all faults."""
    unplaced, misshapen, doubled = [], [], []
    counts = dict.fromkeys(wanted, 0)
    taken = set()
    for name, shape in stored:
        place = rename(name)
        if place is None:
            continue
        expected = _expected_shape(wanted, place)
        if expected is None:
            unplaced.append(name)
            continue
        if place.shape(shape) != expected:
            misshapen.append(f"{name} is {shape} on disk but {place.shape(expected)} here")
        spot = (place.name, str(place.index))
        if spot in taken:
            doubled.append(name)
            continue
        taken.add(spot)
        counts[place.name] += torch.Size(expected).numel()
    missing = [name for name, count in counts.items() if count < wanted[name].numel()]
    doubled += [name for name, count in counts.items() if count > wanted[name].numel()]
    faults = {"": misshapen, "no place for ": unplaced, "nothing or too little for ": missing, "twice: ": doubled}
    problems = [f"{label}{_listed(names)}" for label, names in faults.items() if names]
    if problems:
        raise WeightsError(f"the checkpoint does not fit {type(module).__name__}: {'; '.join(problems)}")


def _expected_shape(wanted: Mapping[str, nn.Parameter], place: ParameterSlice) -> tuple[int, ...] | None:
    """Return the shape of a place, or None if the module has no such parameter or not that many parts in it."""
    try:
        return tuple(wanted[place.name][place.index].shape)
    except (KeyError, IndexError):
        return None


def _listed(names: Sequence[str]) -> str:
    rest = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + rest


def _replace(module: nn.Module, name: str, tensor: Tensor) -> None:
    owner, _, leaf = name.rpartition(".")
    setattr(module.get_submodule(owner), leaf, nn.Parameter(tensor, requires_grad=False))
