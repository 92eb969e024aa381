"""Tell quantised weights from plain ones, by config.json and by the headers of the weights' files.

Nothing here reads such weights: taken for plain numbers they would be noise. A scheme that is to be read has its place
in models/weights.py, where stored tensors become parameters.
"""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from models.checkpoint import read_json
from models.weight_files import FLOATS, StoredTensor, WeightsError

PLAIN = "numbers as they are, in float32, bfloat16 or float16"
# By scheme, how the tensors end that it stores beside or in place of a weight. Sources: the quantizers of transformers
# 5.23, and the files of bitsandbytes, AutoGPTQ, AutoAWQ, compressed-tensors, torchao, quanto, HQQ and MLX.
_COMPANIONS = {
    "bitsandbytes": r"\.(nested_)?(absmax|quant_map)$|\.quant_state\.bitsandbytes__\w+$|\.SCB$|\.weight_format$",
    "gptq": r"\.g_idx$",
    "awq or gptq": r"\.(qweight|qzeros)$",
    "compressed-tensors": r"\.weight_(packed|shape|zero_point|global_scale)$",
    "fp8": r"\.(weight_scale(_inv|_2)?|input_scale(_ub)?|activation_scale)$",
    "torchao": r":(qdata|scale|zero_point|scale_and_zero|per_tensor_scale|act_pre_scale)$",
    "quanto": r"\.weight\._(data|scale|shift)$",
    "eetq": r"\.weight_scales$",
    "hqq": r"\.W_q$",
    "aqlm": r"\.(codes|codebooks)$",
    "mxfp4": r"_(blocks|scales)$",
    "mlx": r"\.(scales|biases)$",
}
# By a word in a scheme's name, what reads it.
_READERS = {
    "mlx": "mlx-vlm",
    "gguf": "llama.cpp",
    "fp8": "vLLM, or transformers",
    "compressed-tensors": "vLLM, or transformers with compressed-tensors",
    "awq": "vLLM, or transformers with gptqmodel",
    "gptq": "vLLM, or transformers with gptqmodel",
    "modelopt": "vLLM or TensorRT-LLM",
}
# Where config.json says it, and how the section calls the scheme.
_SECTIONS = ("quantization_config", "compression_config", "quantization")
_PARTS = ("text_config", "vision_config", "vq_config")


def refuse_declared(folder: Path) -> None:
    """Refuse a checkpoint that calls itself quantised.

    Raises:
        WeightsError: Names the scheme, where it is written, and what reads it.
    """
    config = read_json(folder, "config.json") or {}
    parts = {"": config, **{f"{part}.": config[part] for part in _PARTS if isinstance(config.get(part), Mapping)}}
    for prefix, part in parts.items():
        for name in _SECTIONS:
            if part.get(name):
                found = f"config.json has {prefix}{name}, expected none where weights are plain"
                raise _quantised(folder, _declared(name, part[name]), found)
    if (folder / "hf_quant_config.json").is_file():
        raise _quantised(folder, "modelopt", "it has hf_quant_config.json, expected none where weights are plain")


def refuse_stored(folder: Path, placed: Iterable[StoredTensor], unplaced: Iterable[StoredTensor]) -> None:
    """Refuse tensors that are not plain numbers.

    Args:
        folder: For the message.
        placed: Those that have a place in the model.
        unplaced: Those that have none; of these only what a scheme adds to weights counts.

    Raises:
        WeightsError: Names a tensor with its type, the scheme where it shows, and what reads it.
    """
    coded = [tensor for tensor in placed if tensor.dtype not in FLOATS]
    added = [(tensor, scheme) for tensor in unplaced if (scheme := _scheme_of(tensor.name)) is not None]
    if not coded and not added:
        return
    schemes = {scheme for _, scheme in added}
    scheme = next((known for known in _COMPANIONS if known in schemes), None) or _by_type(coded[0].dtype)
    shown = coded[0] if coded else added[0][0]
    raise _quantised(folder, scheme, f"{shown.name} is {shown.dtype}, expected {PLAIN}")


def _quantised(folder: Path, scheme: str, found: str) -> WeightsError:
    reader = next((reader for word, reader in _READERS.items() if word in scheme), f"transformers with {scheme}")
    return WeightsError(
        f"{folder} holds quantised weights ({scheme}): {found}; {reader} reads them, and here the model that they were "
        "made from can be run"
    )


def _declared(name: str, section: Any) -> str:
    """Return what a section of config.json calls the scheme."""
    if not isinstance(section, Mapping):
        return str(section)
    if method := section.get("quant_method"):
        return str(method)
    if section.get("load_in_4bit") or section.get("load_in_8bit"):
        return "bitsandbytes"
    if name == "quantization":
        return "mlx"
    return "compressed-tensors" if name == "compression_config" else "a scheme without a name"


def _scheme_of(name: str) -> str | None:
    return next((scheme for scheme, pattern in _COMPANIONS.items() if re.search(pattern, name)), None)


def _by_type(dtype: str) -> str:
    return "fp8" if dtype.startswith("F8") else "of no scheme that their names show"
