"""What config.json leaves out, says twice or says in a dialect is read as transformers 5.23 reads it."""

import json
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoConfig, GenerationConfig

from models import Family
from models.aria import config as aria
from models.emu3 import config as emu3
from models.mllama import config as mllama
from models.types import CheckpointError
from tests.models.emu3_reference import vocabulary_map
from tests.tiny import (
    ARIA,
    ARIA_TEXT,
    ARIA_VISION,
    EMU3,
    EMU3_TEXT,
    EMU3_VQ,
    MLLAMA,
    MLLAMA_TEXT,
    MLLAMA_VISION,
)

READ = {"aria": aria.read_config, "mllama": mllama.read_config, "emu3": emu3.read_config}
IDS = {"vocab_size": 120, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
WHOLE: dict[str, dict[str, Any]] = {
    "aria": ARIA | {"text_config": ARIA_TEXT | IDS, "vision_config": ARIA_VISION},
    "mllama": MLLAMA | {"text_config": MLLAMA_TEXT | IDS, "vision_config": MLLAMA_VISION, "image_token_index": 9},
    "emu3": EMU3
    | {"text_config": EMU3_TEXT | IDS, "vq_config": EMU3_VQ,
       "vocabulary_map": vocabulary_map((3, 4, 5, 6, 7, 8), 20, EMU3_VQ["codebook_size"])},
}  # fmt: skip
VISION = {"aria": "vision_config", "mllama": "vision_config", "emu3": "vq_config"}
LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
# Fields of the decoder that stand in no other's place: changed, added, or (None) left out.
TEXTS: dict[str, dict[str, Any]] = {
    "theta in parameters": {
        "rope_scaling": None, "rope_theta": 1e4, "rope_parameters": {"rope_type": "default", "rope_theta": 5e4}
    },
    "theta beside parameters": {"rope_scaling": None, "rope_theta": 3e4, "rope_parameters": {"rope_type": "default"}},
    "scaling before parameters": {
        "rope_scaling": {"rope_type": "default", "rope_theta": 7e4},
        "rope_parameters": {"rope_type": "default", "rope_theta": 5e4},
    },
    "scaling without theta before parameters with one": {
        "rope_theta": 3e4, "rope_scaling": {"rope_type": "default"},
        "rope_parameters": {"rope_type": "default", "rope_theta": 5e4},
    },
    "empty scaling": {"rope_scaling": {}, "rope_parameters": {"rope_type": "default", "rope_theta": 5e4}},
    "older word for the type": {"rope_scaling": {"type": "default"}},
    "no theta": {"rope_theta": None, "rope_scaling": None},
    "several ends": {"eos_token_id": [3, 4]},
    "heads of their own size": {"head_dim": 8},
}  # fmt: skip
WHOLES: dict[str, dict[str, Any]] = {
    "both dtypes": {"torch_dtype": "bfloat16", "dtype": "float16"},
    "newer dtype": {"torch_dtype": None, "dtype": "float16"},
    "no dtype": {"torch_dtype": None},
    "dtype of the decoder": {"torch_dtype": None, "text_config.torch_dtype": "float16"},
    "dtypes of both": {"torch_dtype": "bfloat16", "text_config.torch_dtype": "float16"},
    "ends of the whole": {"eos_token_id": 7},
    "two names of the image's token": {"image_token_index": 5, "image_token_id": 6},
    "a name of their own": {"architectures": ["OurOwnModel"], "vocab_size": 999, "use_cache": False},
}


def write(folder: Path, family: Family, fields: dict[str, Any], section: str = "") -> Path:
    """Write a configuration with changed fields; what is None is left out."""
    whole: dict[str, Any] = json.loads(json.dumps(WHOLE[family]))
    for name, value in fields.items():
        *above, last = f"{section}{name}".split(".")
        part = whole[above[0]] if above else whole
        part.pop(last, None)
        if value is not None:
            part[last] = value
    (folder / "config.json").write_text(json.dumps(whole))
    return folder


def assert_as_the_reference(family: Family, folder: Path) -> None:
    """Compare every number that both have by one name, and those that they call otherwise."""
    ours, theirs = READ[family](folder), AutoConfig.from_pretrained(folder)
    text, rope = theirs.get_text_config(), theirs.get_text_config().rope_parameters
    expected = {name: value for name, value in vars(text).items() if name in vars(ours.text)}
    expected["rope_theta"] = rope["rope_theta"]
    expected["head_dim"] = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    if family == "mllama":
        layers = text.cross_attention_layers
        expected["cross_attention_layers"] = tuple(layer for layer in layers if layer < text.num_hidden_layers)
        scaling = ours.text.rope_scaling
        assert (rope["rope_type"] == "llama3") == (scaling is not None)
        assert scaling is None or vars(scaling).items() <= rope.items()
    assert vars(ours.text) | expected == vars(ours.text)
    if family != "emu3":  # which has it in its vocabulary
        assert ours.image_token_index == theirs.image_token_index
    seen = getattr(theirs, VISION[family])
    same = {name: getattr(seen, name) for name in vars(ours.vision) if hasattr(seen, name)}
    same = {name: tuple(value) if isinstance(value, list) else value for name, value in same.items()}
    same["attn_resolutions"] = getattr(ours.vision, "attn_resolutions", None)  # ours are those that there are
    assert {"attn_resolutions": None} | vars(ours.vision) | same == {"attn_resolutions": None} | vars(ours.vision)
    assert ours.dtype == (None if theirs.dtype is None else str(theirs.dtype).removeprefix("torch."))
    ends = GenerationConfig.from_model_config(theirs).eos_token_id
    assert ours.eos_token_ids == frozenset(ends if isinstance(ends, list) else [ends])


# Fields that are worth nothing in a tiny model without the others of the released one; these are refused.
NEEDED = {
    "vision_config.intermediate_layers_indices", "vq_config.codebook_size", "vq_config.base_channels",
    "vq_config.channel_multiplier", "vq_config.hidden_size",
}  # fmt: skip
LEFT_OUT = [
    (family, f"{section}.{name}")
    for family, whole in WHOLE.items()
    for section in ("text_config", VISION[family])
    for name in whole[section]
    if f"{section}.{name}" not in NEEDED
]


@pytest.mark.parametrize(("named", "name"), LEFT_OUT)
def test_a_field_that_is_left_out_has_the_references_default(tmp_path: Path, named: Family, name: str) -> None:
    assert_as_the_reference(named, write(tmp_path, named, {name: None}))


@pytest.mark.parametrize("fields", TEXTS.values(), ids=TEXTS)
def test_dialects_of_the_decoder_are_read_as_the_reference_reads_them(
    family: Family, tmp_path: Path, fields: dict[str, Any]
) -> None:
    assert_as_the_reference(family, write(tmp_path, family, fields, "text_config."))


@pytest.mark.parametrize("fields", WHOLES.values(), ids=WHOLES)
def test_dialects_of_the_whole_are_read_as_the_reference_reads_them(
    family: Family, tmp_path: Path, fields: dict[str, Any]
) -> None:
    assert_as_the_reference(family, write(tmp_path, family, fields))


@pytest.mark.parametrize("original", [None, 32])
def test_the_length_that_llama3_stretches_is_by_default_the_longest(tmp_path: Path, original: int | None) -> None:
    scaling = LLAMA3 | ({} if original is None else {"original_max_position_embeddings": original})
    assert_as_the_reference("mllama", write(tmp_path, "mllama", {"rope_scaling": scaling}, "text_config."))


@pytest.mark.parametrize(("said", "expected"), [("auto", None), ("torch.bfloat16", "bfloat16"), ("float64", "float64"),
                                                ({"": "float16", "text_config": "float32"}, "float16"),
                                                ({"text_config": "float16"}, "float32")], ids=str)  # fmt: skip
def test_what_the_reference_stumbles_over_or_says_in_parts_is_read(
    family: Family, tmp_path: Path, said: Any, expected: str | None
) -> None:
    assert READ[family](write(tmp_path, family, {"torch_dtype": said})).dtype == expected


@pytest.mark.parametrize("said", ["float8_e4m3fn", "int8", "half", 16])
def test_a_dtype_that_nothing_is_computed_in_is_refused(family: Family, tmp_path: Path, said: Any) -> None:
    with pytest.raises(
        CheckpointError, match=r"torch_dtype is .*, expected one of float32, bfloat16, float16, float64"
    ):
        READ[family](write(tmp_path, family, {"torch_dtype": said}))
