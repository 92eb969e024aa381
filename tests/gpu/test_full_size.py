"""Models of full size on a GPU that is not there: their shapes alone (FakeTensorMode), and whether they fit a real one.

Whatever has to know a number that was computed raises in that mode: so what passes never waits for the device.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
import yaml
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from models import Family, layers
from models.engine import cache
from models.engine.cache import Cache, decode_cache_view
from models.llama import FamilyModel
from tests.gpu.make_believe import device_guard, pretend_gpu
from tests.gpu.released import released_model

CONFIGS = sorted((Path(__file__).parents[2] / "configs").glob("*.yaml"))
FAMILY_OF: dict[str, Family] = {
    "rhymes-ai/Aria": "aria", "meta-llama/Llama-3.2-11B-Vision-Instruct": "mllama", "BAAI/Emu3-Chat-hf": "emu3",
    "BAAI/Emu3-Gen-hf": "emu3",
}  # fmt: skip
GIB = 2**30
# What CUDA shows of a GPU, in GiB, by what the files call it; a context and torch's own kernels take one of them.
MEMORY = {"80 GB GPU": 79 - 1, "139 GiB (H200)": 139 - 1}
# What a sequence keeps beside the cache: of an Mllama its picture of four tiles, in eight layers.
BESIDE_A_SLOT: dict[Family, int] = {"aria": 0, "mllama": 4 * 1601 * 8 * 2 * 8 * 128 * 2, "emu3": 0}
# GiB that the largest step takes beside weights and cache.
WORK: dict[Family, float] = {"aria": 4, "mllama": 4, "emu3": 11}


@contextmanager
def fake_gpu() -> Iterator[None]:
    with device_guard(), pytest.MonkeyPatch.context() as patch, torch.inference_mode():
        pretend_gpu(patch)
        patch.setattr(cache, "reads_in_place", lambda device: False)  # kernels of our own need numbers
        patch.setattr(layers, "are_fused", lambda x: False)
        with FakeTensorMode():
            yield


def on_gpu(model: FamilyModel) -> FamilyModel:
    """Give a model of the `meta` device parameters on the GPU, as they are loaded in bfloat16."""
    for name, parameter in list(model.named_parameters()):
        owner, _, leaf = name.rpartition(".")
        there = torch.empty(parameter.shape, dtype=dtype_of(model, name), device="cuda")
        setattr(model.get_submodule(owner), leaf, nn.Parameter(there, requires_grad=False))
    return model


def dtype_of(model: FamilyModel, name: str) -> torch.dtype:
    return torch.float32 if model.FLOAT32 and name.startswith(model.FLOAT32) else torch.bfloat16


LAYERS = 6  # all others are like these


def test_a_step_of_a_full_size_decoder_reads_nothing_back(family: Family) -> None:
    with fake_gpu():
        model = released_model(family)
        for name in list(model.decoder.model.layers)[LAYERS:]:
            del model.decoder.model.layers[name]
        on_gpu(model)
        tokens = places = torch.zeros(32, 1, dtype=torch.int64, device="cuda")
        view = decode_cache_view(Cache(model.cache_shape, 32, 1024), places, places, [1001] * 32)
        scores = model.logits(model.decode(model.embed(tokens), view)[:, -1])
        assert scores.shape == (32, model.config.text.vocab_size) and scores.device.type == "cuda"


def test_a_later_chunk_of_a_long_prompt_is_attended_to_without_a_mask() -> None:
    with fake_gpu():
        query = torch.empty(1, 32, 4096, 128, dtype=torch.bfloat16, device="cuda")
        key, value = torch.empty(2, 1, 8, 8192, 128, dtype=torch.bfloat16, device="cuda")
        assert layers.attend(query, key, value, None).shape == (1, 4096, 4096)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_weights_cache_and_work_fit_the_gpu_that_a_config_names(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    settings = yaml.safe_load(text)
    family, generate = FAMILY_OF.get(settings["model"]["path"]), settings["generate"]
    if family is None:
        assert settings["model"]["device"] == "cpu", "a config of a released checkpoint says on what it runs"
        return
    [memory] = [gib for name, gib in MEMORY.items() if name in " ".join(text.replace("#", "").split())]
    model = released_model(family)
    weights = sum(one.numel() * dtype_of(model, name).itemsize for name, one in model.named_parameters()) / GIB
    shape = model.cache_shape
    token = 2 * len(shape.devices) * shape.num_heads * shape.head_dim * torch.bfloat16.itemsize
    slot = (generate["max_length"] * token + BESIDE_A_SLOT[family]) / GIB
    needed = weights + generate["slots"] * slot + WORK[family]
    assert needed <= memory, f"{weights:.1f} GiB of weights, {generate['slots']} x {slot:.2f} and {WORK[family]}"
