"""What an engine is said to hold is what it then holds, byte by byte."""

from pathlib import Path

import pytest
import torch

from models import Family, ImageSettings, check_weights, empty_model, load_model
from models.capacity.footprint import footprint
from models.engine import Engine
from models.mllama.model import MllamaModel
from models.tiles import KEPT_BYTES
from tests.tiny import FAMILIES


@pytest.fixture(scope="module")
def folder(family: Family, tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(FAMILIES[family](tmp_path_factory.mktemp(family)))


@pytest.mark.parametrize(("dtype", "length"), [("float32", 100), ("bfloat16", 128)])
def test_weights_and_cache_take_what_is_said(folder: str, dtype: str, length: int) -> None:
    said = footprint(folder, device="cpu", dtype=dtype, slots=3, max_length=length)
    model = load_model(folder, device="cpu", dtype=dtype)
    # Not those of the loaded model: some are packed anew for a CPU.
    values = check_weights(folder).num_values
    in_float32 = sum(p.numel() for name, p in empty_model(folder).named_parameters() if name.startswith(model.FLOAT32))
    assert said.weights == values * model.dtype.itemsize + in_float32 * (4 - model.dtype.itemsize)
    engine = Engine(model, slots=3, max_length=length)
    cache = engine._cache
    assert said.cache == sum(tensor.nbytes for tensor in (*cache.keys, *cache.values))
    assert said.cache == 3 * 128 * said.token, "places come in whole extents"
    assert said.kept_images == KEPT_BYTES
    assert said.kept_prefixes == engine._prefixes._kept_bytes == said.cache // 3
    bare = footprint(folder, device="cpu", dtype=dtype, slots=3, max_length=length, text_only=True)
    assert bare.weights < said.weights and (bare.memory, bare.kept_images) == (0, 0)


def test_auto_is_float32_on_a_cpu_and_the_checkpoints_own_elsewhere(tmp_path: Path) -> None:
    path = str(FAMILIES["aria"](tmp_path, config={"torch_dtype": "bfloat16"}))
    on_cpu, on_gpu = (
        footprint(path, device=device, dtype="auto", slots=1, max_length=64) for device in ("cpu", "cuda")
    )
    assert on_cpu.token == 2 * on_gpu.token


def test_memories_of_an_image_take_what_is_said(tmp_path: Path) -> None:
    path = str(FAMILIES["mllama"](tmp_path))
    model = load_model(path, device="cpu")
    assert isinstance(model, MllamaModel) and model.config.vision is not None
    for tiles in (1, 4):
        said = footprint(
            path, device="cpu", dtype="auto", slots=1, max_length=64, images=ImageSettings(max_image_tiles=tiles)
        )
        features = torch.zeros(tiles * model.config.vision.num_tokens, model.config.text.hidden_size)
        assert said.memory == model.remember(features).nbytes
    for family in ("aria", "emu3"):
        other = str(FAMILIES[family](tmp_path / family))
        assert footprint(other, device="cpu", dtype="auto", slots=1, max_length=64).memory == 0
