"""What runs on one device: processors on its CPU, models on it, the engine between.

`ask` answers requests in this process; `load_processor` and `load_model` are the two halves that a pipeline
places on different machines. torch is imported only where a model is loaded.

To add a family:
1. A folder beside aria/. config.py reads the checkpoint's JSON files into a `FamilyConfig` (models/config.py);
   processor.py has a `FamilyProcessor` (models/processor.py) and imports no torch; model.py has a `FamilyModel`
   (models/llama.py), whose docstrings say what both are asked for. Parameters are called as in the checkpoint's files,
   and its parts for images are named in `VISION`. A model that sees images keeps what it makes of them in an
   `ImageCache` called `image_cache` (models/tiles.py), by the `image_names` that its processor gives them. If tokens
   do not stand at their places in the prompt, its prompts say where (`positions` in models/engine/decoder.py).
2. Here: a word in `Family`, its `model_type` in `MODEL_TYPES`, its classes in `Model` and `FamilyProcessors`. The type
   checker then names the places where a `case` is missing.
3. An image setting that no family has yet is a field of `ImageSettings` (models/types.py) and, by the same name, of
   `PreprocessSettings` (pipeline/pipeline_settings.py). The wording of its authors' published numbers, if they have
   one, is a preset in jobs/benchmarks/presets.py; without one `preset: auto` takes lmms.
4. In tests/tiny.py a builder of tiny random checkpoints, named in `FAMILIES`; it may borrow the tokenizer of another
   family (`write_files` in training/aria/files.py). Its image settings, at least two, and some that it refuses go into
   the tables of tests/models/test_image_reader.py. Then tests/models/test_contract.py and
   tests/pipeline/test_families.py hold it to what every family promises.

A family that stays outside of the package takes step 1 alone. Whoever has its classes builds the model on the `meta`
device, loads its weights with `fill_model` and asks with models/asking.py; tests/models/qwen2_vl is a whole one, held
to the promises in tests/models/test_fourth_family.py. A run of the pipeline, whose processes are told a path and no
class, needs step 2.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from collections.abc import Sequence as Ordered
from datetime import date
from functools import partial
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple, TypeAlias, TypeVar, assert_never

from models.checkpoint import read_json, refuse_stand_ins
from models.types import (
    TEMPLATE_DATE,
    Answer,
    CheckpointError,
    ImageSettings,
    ImageSettingsError,
    Processor,
    Request,
    Sampling,
    Tokenizer,
)

if TYPE_CHECKING:
    import torch

    from models.aria.model import AriaModel
    from models.aria.processor import AriaProcessor
    from models.emu3.model import Emu3Model
    from models.emu3.processor import Emu3Processor
    from models.llama import FamilyModel
    from models.mllama.model import MllamaModel
    from models.mllama.processor import MllamaProcessor

    Model: TypeAlias = AriaModel | Emu3Model | MllamaModel
    FamilyProcessors: TypeAlias = AriaProcessor | Emu3Processor | MllamaProcessor

__all__ = [
    "TEMPLATE_DATE",
    "Answer",
    "ImageSettings",
    "Request",
    "Sampling",
    "ask",
    "check_weights",
    "empty_model",
    "family",
    "fill_model",
    "image_settings",
    "load_model",
    "load_processor",
]

log = logging.getLogger(__name__)

M = TypeVar("M", bound="FamilyModel")
Family = Literal["aria", "mllama", "emu3"]
# By family, what `model_type` in config.json may be.
MODEL_TYPES: Mapping[Family, tuple[str, ...]] = {
    "aria": ("aria", "aria_text", "aria_moe_lm"),
    "mllama": ("mllama", "mllama_text_model"),
    "emu3": ("emu3", "emu3_text_model"),
}


def load_processor(
    path: str,
    images: ImageSettings | None = None,
    template: str | None = None,
    *,
    today: date = TEMPLATE_DATE,
    text_only: bool = False,
    tokenizer: Tokenizer = "checkpoint",
) -> Processor:
    """Load the CPU half of a checkpoint's family.

    Args:
        path: A local checkpoint folder.
        images: Image settings that go before the checkpoint's own.
        template: A plain text with `{image}` and `{question}` that takes the chat template's place.
        today: The day it is for chat templates that write one into their prompts.
        text_only: Refuse images, as a model loaded so cannot see them.
        tokenizer: Emu3: `baai` cuts texts into words as the original authors' tokenizer does, which tokenizer.json of
            the released checkpoints does not.

    Raises:
        CheckpointError: The folder is not a checkpoint of a family we run.
    """
    from models.processor import ProcessorOptions

    folder, kind = Path(path), family(path)
    if tokenizer != "checkpoint" and kind != "emu3":
        raise ImageSettingsError(f"tokenizer: found {tokenizer!r}, expected 'checkpoint': {folder} is no Emu3")
    options = ProcessorOptions(images or ImageSettings(), template, today, text_only, tokenizer)
    return _processor_class(kind)(folder, options)


def load_model(
    path: str, *, device: str | Ordered[str] = "auto", dtype: str = "auto", text_only: bool = False
) -> Model:
    """Load the weights of a checkpoint.

    Args:
        path: A local checkpoint folder.
        device: `auto` is a GPU where there is one, else the CPU. Over several devices the layers are spread in order.
        dtype: `auto` is the checkpoint's own on a GPU, and float32 on a CPU: no bit of an answer then depends on its
            company, nor its type on the machine. Some CPUs are faster in bfloat16 (AVX512-BF16, AMX); it is said.
        text_only: Leave out the vision encoder and whatever else serves images alone.

    Raises:
        CheckpointError: The folder is not a checkpoint of a family we run, or its weights do not fit.
    """
    return fill_model(empty_model(path, text_only=text_only), path, device=device, dtype=dtype)


def fill_model(model: M, path: str, *, device: str | Ordered[str] = "auto", dtype: str = "auto") -> M:
    """Load the weights of a checkpoint into a model that was built on the `meta` device; see `load_model`."""
    import torch

    from models.devices import find_devices, place_layers
    from models.weights import load_weights

    devices = find_devices(device)
    if any(one.type == "cuda" for one in devices):
        # Where torch prefers cuDNN for attention (Hopper, from 2.11 on), that makes a plan for every new shape, 50 ms
        # to 0.4 s each (FunASR's issue 3704, flashinfer's 5245), and lengths make hundreds of shapes.
        torch.backends.cuda.enable_cudnn_sdp(False)
    on_cpu = devices[0].type == "cpu"
    wanted = computed_dtype(model, path, dtype, on_cpu=on_cpu)
    if dtype == "auto":
        log.info("%s", _why(_own_dtype(model, path), on_cpu=on_cpu))
    load_weights(
        model,
        Path(path),
        model.parameter_slice,
        device=place_layers(model, devices),
        dtype=lambda name: torch.float32 if name.startswith(model.FLOAT32) else wanted,
        tables=model.tables,
    )
    return model.eval()


def computed_dtype(model: FamilyModel, path: str, dtype: str, *, on_cpu: bool) -> torch.dtype:
    """Return what a model's weights are held in, but for those of its `FLOAT32`; `auto` is as in `load_model`.

    Raises:
        CheckpointError: There is no such dtype.
    """
    import torch

    from models.config import COMPUTED

    if dtype not in ("auto", *COMPUTED):
        raise CheckpointError(f"dtype: found {dtype!r}, expected auto, {', '.join(COMPUTED)}")
    if dtype == "auto":
        dtype = "float32" if on_cpu else _own_dtype(model, path)
    found = torch.float32 if dtype == "float64" else getattr(torch, dtype)
    assert isinstance(found, torch.dtype)
    return found


def _own_dtype(model: FamilyModel, path: str) -> str:
    """Return what a checkpoint says that it is held in, or else is saved in."""
    from models.weight_files import stored_dtype

    return model.config.dtype or stored_dtype(Path(path))


def _why(own: str, *, on_cpu: bool) -> str:
    """Say in a sentence what `auto` stands for."""
    from models.batch_invariant import multiplies_bfloat16

    if not on_cpu:
        return f"model.dtype auto is {own}, as the checkpoint has it"
    told = "model.dtype auto is float32 on a CPU, where no bit of an answer then depends on its company"
    if own == "bfloat16" and multiplies_bfloat16():
        return f"{told}; this one has instructions for the checkpoint's bfloat16: model.dtype=bfloat16 may be faster"
    return told


class Weights(NamedTuple):
    """How many values a model's weights hold, and how many tokens they know."""

    num_values: int
    num_tokens: int


def check_weights(path: str, *, text_only: bool = False) -> Weights:
    """Compare the stored tensors' names, types and shapes with the model's; only the files' headers are read.

    Raises:
        CheckpointError: They do not fit; every fault is listed.
    """
    from models.weights import check_weights as check

    model = empty_model(path, text_only=text_only)
    shapes = check(model, Path(path), model.parameter_slice, model.tables).shapes
    return Weights(sum(map(prod, shapes.values())), shapes[model.tables.embeddings][0])


def ask(
    path: str,
    requests: Iterable[Request],
    *,
    device: str | Ordered[str] = "auto",
    dtype: str = "auto",
    slots: int = 8,
    preprocess: ImageSettings | None = None,
    today: date = TEMPLATE_DATE,
    tokenizer: Tokenizer = "checkpoint",
) -> list[Answer]:
    """Answer requests in this process, in the order given; pictures that they ask for come as PNG.

    A request with `choices` is not answered freely: they are scored, and the likeliest is its answer.

    If no request has or wants an image, only what text needs of the model is loaded; if several share one, it is looked
    at once.

    Args:
        path: A local checkpoint folder.
        requests: What to ask.
        device: See `load_model`.
        dtype: See `load_model`.
        slots: Requests answered at once, with guidance or without; the answers do not depend on it.
        preprocess: Image settings that go before the checkpoint's own.
        today: The day it is for chat templates that write one into their prompts.
        tokenizer: See `load_processor`.

    Raises:
        BadRequest: A request cannot be turned into a prompt, does not fit or samples by what cannot be; its place and
            key are named.
        RuntimeError: The engine failed on a request.
        CheckpointError: The checkpoint is not one we can run.
    """
    from models.asking import answer

    requests = list(requests)
    text_only = not any(request.images or request.grid for request in requests)
    images = None if text_only else preprocess
    processor = load_processor(path, images, today=today, text_only=text_only, tokenizer=tokenizer)
    load = partial(load_model, path, device=device, dtype=dtype, text_only=text_only)
    return answer(requests, processor, load, slots=slots)


def family(path: str) -> Family:
    """Return which family a checkpoint folder is of.

    Raises:
        CheckpointError: The folder is not a checkpoint of a family we run.
    """
    folder = Path(path)
    if folder.is_dir():
        refuse_stand_ins(folder)
    config = read_json(folder, "config.json")
    if config is None:
        raise CheckpointError(f"no checkpoint at {folder}: it {_describe_folder(folder)}")
    found = str(config.get("model_type"))
    name = next((name for name, known in MODEL_TYPES.items() if found in known), None)
    if name is None:
        expected = ", ".join(known for types in MODEL_TYPES.values() for known in types)
        raise CheckpointError(f"{folder / 'config.json'} says model_type {found!r}; expected one of {expected}")
    return name


def empty_model(path: str | Path, *, text_only: bool = False) -> Model:
    """Build the model of a checkpoint folder on the `meta` device, to be filled by models.weights.

    Raises:
        CheckpointError: The folder is not a checkpoint of a family we run.
    """
    import torch

    from models.weights import unfilled

    model_class = _model_class(family(str(path)))
    with torch.device("meta"), unfilled():
        return model_class(Path(path), text_only=text_only)


def image_settings(kind: Family) -> tuple[str, ...]:
    """Return the names of the image settings that a family has."""
    return _processor_class(kind).IMAGE_SETTINGS


def _processor_class(kind: Family) -> type[FamilyProcessors]:
    match kind:
        case "aria":
            from models.aria.processor import AriaProcessor

            return AriaProcessor
        case "mllama":
            from models.mllama.processor import MllamaProcessor

            return MllamaProcessor
        case "emu3":
            from models.emu3.processor import Emu3Processor

            return Emu3Processor
        case unknown:
            assert_never(unknown)


def _model_class(kind: Family) -> type[Model]:
    match kind:
        case "aria":
            from models.aria.model import AriaModel

            return AriaModel
        case "mllama":
            from models.mllama.model import MllamaModel

            return MllamaModel
        case "emu3":
            from models.emu3.model import Emu3Model

            return Emu3Model
        case unknown:
            assert_never(unknown)


def _describe_folder(folder: Path) -> str:
    """Say what is wrong with a folder that has no config.json."""
    if not folder.is_dir():
        return "is not a folder"
    if (folder / "params.json").is_file() or any(folder.glob("consolidated.*.pth")):
        expected = "expected the folder above, with config.json and *.safetensors"
        return f"has no config.json but Meta's own files (params.json, consolidated.*.pth); {expected}"
    if (folder / "snapshots").is_dir():
        return "has no config.json but snapshots/, as a hub's cache; expected one of the folders in there"
    return "has no config.json"
