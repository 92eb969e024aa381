"""Load a checkpoint's safetensors into a module: strictly, and one tensor at a time.

A module is built on the `meta` device with the names of the checkpoint's files as its parameter names; a family
says only where its files deviate from that. Every parameter must be filled exactly once with its exact shape and
every stored tensor must have a place; all faults are found before any weight is read. Nothing is unpickled.

Two tables may have other sizes than the module's, see `Tables`. Which files there are, and what their headers say,
models/weight_files.py knows.
"""

import logging
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from models.batch_invariant import RepacksWeights
from models.quantised import refuse_declared, refuse_stored
from models.weight_files import StoredTensor, WeightsError, listed, stored_tensors, weight_files

log = logging.getLogger(__name__)

# What training leaves around a model's own names, and how to save it without.
_WRAPPERS = {
    r"\.(lora_[AB]|lora_embedding_[AB]|base_layer|modules_to_save)\.": "an adapter: save model.merge_and_unload()",
    r"^base_model\.model\.": "peft: save model.merge_and_unload()",
    r"(^|\.)_orig_mod\.": "torch.compile: save model._orig_mod",
    r"(^|\.)_(fsdp|checkpoint)_wrapped_module\.": "FSDP: save its full state dict",
    r"^module\.": "DataParallel: save model.module",
}


class unfilled(TorchFunctionMode):  # noqa: N801  # used as `with unfilled():`
    """Build modules without their first random values, which a checkpoint's weights replace.

    On the `meta` device there is nothing to fill, and yet torch brings its compiler (torch._dynamo, sympy, triton) to
    do it: more than a second of every process that loads or checks a model.
    """

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Give an initialiser's tensor back as it is; call everything else."""
        given = kwargs or {}
        return given["tensor"] if getattr(func, "__module__", "") == nn.init.__name__ else func(*args, **given)


@dataclass(frozen=True)
class Tables:
    """The two tables of a decoder that have a row for each token.

    Vocabularies grow in training, and config.json does not always say so: a row of either is that of the token with its
    number, so there may be more than the module has, and those of the embeddings may be as few as the head's.

    Attributes:
        embeddings: The parameter's name.
        head: The parameter's name.
        least: Rows that either has at least.
        is_tied: Whether the one that is not stored is the other.
    """

    embeddings: str
    head: str
    least: int
    is_tied: bool

    def stands_for(self, name: str) -> str | None:
        """Return the table that is read where this one is not stored, if there is one."""
        return {self.embeddings: self.head, self.head: self.embeddings}.get(name) if self.is_tied else None


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
    tables: Tables | None = None,
) -> None:
    """Fill a module that was built on the `meta` device.

    Args:
        module: Its parameters are replaced by ones that hold numbers.
        folder: Holds model.safetensors, or model.safetensors.index.json and the files it names.
        rename: From a stored name to its place; None for a tensor that is known and not used.
        device: From a parameter's name to where it is put. Host memory holds one tensor at a time.
        dtype: From a parameter's name to what it is cast to.
        tables: Those of the module that may have other numbers of rows; None for none.

    Raises:
        WeightsError: A file, tensor or shape is missing, doubled or wrong, or weights are quantised; every fault is
            listed.
    """
    checked = check_weights(module, folder, rename, tables)
    filled: dict[str, Tensor] = {}
    for path in checked.files:
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118 - not a mapping
                place = rename(name)
                if place is None:
                    continue
                if place.name not in filled:
                    shape, kind = checked.shapes[place.name], dtype(place.name)
                    filled[place.name] = torch.empty(shape, dtype=kind, device=device(place.name))
                # Without a name of its own the stored tensor is gone before the next one is read.
                filled[place.name][place.index].copy_(place.turned(file.get_tensor(name)))
    for name in checked.shapes.keys() - filled.keys():
        stored = tables.stands_for(name) if tables else None
        assert stored is not None  # or check_weights would have missed it
        filled[name] = filled[stored].to(device(name))
    for name, tensor in filled.items():
        _replace(module, name, tensor)
    num_filled = len(filled)
    filled.clear()  # or every weight that is repacked would be held twice
    for part in module.modules():
        if isinstance(part, RepacksWeights):
            part.repack_weights()
    log.info("loaded %d tensors from %d files in %s", num_filled, len(checked.files), folder)


@dataclass(frozen=True)
class CheckedWeights:
    """Stored tensors that fit a module: the files that hold them, and the shape of each of its parameters."""

    files: Sequence[Path]
    shapes: Mapping[str, tuple[int, ...]]


def check_weights(module: nn.Module, folder: Path, rename: Rename, tables: Tables | None = None) -> CheckedWeights:
    """Compare names, types and shapes of the stored tensors with the module's parameters.

    Only the files' headers are read.

    Raises:
        WeightsError: A file, tensor or shape is missing, doubled or wrong, or weights are quantised; every fault is
            listed.
    """
    refuse_declared(folder)
    files = weight_files(folder)
    comparison = _Comparison(dict(module.named_parameters()), tables)
    for path in files:
        for tensor in stored_tensors(path):
            comparison.add(tensor, rename(tensor.name))
    refuse_stored(folder, comparison.placed, comparison.unplaced)
    problems = comparison.problems()
    if problems:
        raise WeightsError(f"the checkpoint does not fit {type(module).__name__}: {'; '.join(problems)}")
    return CheckedWeights(files, comparison.shapes)


class _Comparison:
    """What is found of stored tensors beside a module's parameters."""

    def __init__(self, wanted: Mapping[str, nn.Parameter], tables: Tables | None) -> None:
        self.shapes = {name: tuple(parameter.shape) for name, parameter in wanted.items()}
        self.placed: list[StoredTensor] = []
        self.unplaced: list[StoredTensor] = []
        self._wanted, self._tables = wanted, tables
        self._counts = dict.fromkeys(wanted, 0)
        self._taken: set[tuple[str, str]] = set()
        self._misshapen: list[str] = []
        self._doubled: list[str] = []

    def add(self, tensor: StoredTensor, place: ParameterSlice | None) -> None:
        """Take one tensor into account."""
        if place is None:
            return
        expected = _expected_shape(self._wanted, place)
        if expected is None:
            self.unplaced.append(tensor)
            return
        self.placed.append(tensor)
        spot = (place.name, str(place.index))
        if spot in self._taken:
            self._doubled.append(tensor.name)
            return
        self._taken.add(spot)
        if self._is_table(place.name, tensor.shape, expected):
            expected = self.shapes[place.name] = tensor.shape
        if place.shape(tensor.shape) != expected:
            self._misshapen.append(f"{tensor.name} is {tensor.shape} on disk but {place.shape(expected)} here")
        self._counts[place.name] += torch.Size(expected).numel()

    def problems(self) -> list[str]:
        """Say what is wrong, a phrase for each kind of it."""
        sizes = {name: torch.Size(shape).numel() for name, shape in self.shapes.items()}
        missing = [name for name, count in self._counts.items() if count < sizes[name] and not self._is_tied(name)]
        doubled = self._doubled + [name for name, count in self._counts.items() if count > sizes[name]]
        unplaced = [tensor.name for tensor in self.unplaced]
        faults = {
            "": self._misshapen,
            "no place for ": unplaced,
            "nothing or too little for ": missing,
            "twice: ": doubled,
        }
        found = [f"{label}{listed(names)}" for label, names in faults.items() if names]
        return [*_wrapped(unplaced), *found, *self._table_problems(missing)]

    def _is_table(self, name: str, stored: tuple[int, ...], expected: tuple[int, ...]) -> bool:
        """Whether a parameter may have as many rows as are stored."""
        tables = self._tables
        if tables is None or name not in (tables.embeddings, tables.head) or len(stored) != 2:
            return False
        return stored[1:] == expected[1:] and stored[0] >= tables.least

    def _is_tied(self, name: str) -> bool:
        """Whether a parameter of which nothing is stored is another one, which then gives it its shape too."""
        stored = self._tables.stands_for(name) if self._tables else None
        if stored is None or self._counts[name] or not self._counts[stored]:
            return False
        self.shapes[name] = self.shapes[stored]
        return True

    def _table_problems(self, missing: Sequence[str]) -> list[str]:
        tables = self._tables
        if tables is None:
            return []
        rows, read = (self.shapes[name][0] for name in (tables.head, tables.embeddings))
        if tables.head in missing and not tables.is_tied:
            return [f"{tables.head} is not stored, and config.json does not say `tie_word_embeddings: true`"]
        if rows > read:
            return [f"{tables.head} has {rows} rows and {tables.embeddings} {read}, expected one for each of them"]
        return []


def _expected_shape(wanted: Mapping[str, nn.Parameter], place: ParameterSlice) -> tuple[int, ...] | None:
    """Return the shape of a place, or None if the module has no such parameter or not that many parts in it."""
    try:
        return tuple(wanted[place.name][place.index].shape)
    except (KeyError, IndexError):
        return None


def _wrapped(names: Sequence[str]) -> list[str]:
    """Say what a name shows of the training that it comes from, if one does."""
    found = ((name, what) for pattern, what in _WRAPPERS.items() for name in names if re.search(pattern, name))
    return [f"{name} is a name of {what}" for name, what in list(found)[:1]]


def _replace(module: nn.Module, name: str, tensor: Tensor) -> None:
    owner, _, leaf = name.rpartition(".")
    setattr(module.get_submodule(owner), leaf, nn.Parameter(tensor, requires_grad=False))
