"""The released checkpoints without their weights: what their config files say, and models that are built of that."""

import json
from pathlib import Path
from tempfile import TemporaryDirectory

from models import Family, empty_model
from models.emu3.vocabulary import visual_token
from models.llama import FamilyModel
from tests.models import test_geometry as aria
from tests.models import test_mllama_geometry as mllama

EMU3_IDS = {
    "<image>": 151646, "<|extra_200|>": 151846, "<|extra_201|>": 151847, "<|image token|>": 151851,
    "<|image start|>": 151852, "<|image end|>": 151853,
}  # fmt: skip
NUM_CODES = 32768


def write_released(family: Family, folder: Path) -> Path:
    """Write the config files of rhymes-ai/Aria, Llama-3.2-11B-Vision-Instruct or BAAI/Emu3."""
    match family:
        case "aria":
            return aria.write(folder, aria.RELEASED | {"torch_dtype": "bfloat16"})
        case "mllama":
            return mllama.write(folder, "11B", mllama.INSTRUCT)
        case "emu3":
            ids = EMU3_IDS | {visual_token(code): 151854 + code for code in range(NUM_CODES)}
            config = {"model_type": "emu3", "text_config": {}, "vq_config": {}, "vocabulary_map": ids}
            images = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}
            (folder / "config.json").write_text(json.dumps(config | {"torch_dtype": "bfloat16"}))
            (folder / "preprocessor_config.json").write_text(json.dumps(images))
            return folder


def released_model(family: Family) -> FamilyModel:
    """Return a model of full size on the `meta` device."""
    with TemporaryDirectory() as folder:
        return empty_model(write_released(family, Path(folder)))
