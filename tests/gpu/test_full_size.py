"""Models of full size on a GPU that is not there: their shapes alone (FakeTensorMode), and whether they fit a real one.

Whatever has to know a number that was computed raises in that mode: so what passes never waits for the device.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import pytest
import torch
import yaml
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from models import Family, layers
from models.cache import slots as cache_slots
from models.cache.slots import Cache, decode_cache_view
from models.capacity.out_of_memory import OutOfMemory
from models.capacity.room import choose_slots
from models.llama import FamilyModel
from tests.gpu.make_believe import device_guard, draw, experts, pretend_gpu, small_steps
from tests.gpu.meter import Meter
from tests.gpu.released import released_model

CONFIGS = sorted((Path(__file__).parents[2] / "configs").glob("*.yaml"))
FAMILY_OF: dict[str, Family] = {
    "rhymes-ai/Aria": "aria", "meta-llama/Llama-3.2-11B-Vision-Instruct": "mllama", "BAAI/Emu3-Chat-hf": "emu3",
    "BAAI/Emu3-Gen-hf": "emu3",
}  # fmt: skip
GIB = 2**30
# What CUDA shows of a GPU, in GiB, by what the files call it.
MEMORY = {"80 GB GPU": 79.1, "139 GiB (H200)": 139.8}


@contextmanager
def fake_gpu() -> Iterator[None]:
    with device_guard(), pytest.MonkeyPatch.context() as patch, torch.inference_mode():
        pretend_gpu(patch)
        patch.setattr(cache_slots, "reads_in_place", lambda device: False)  # which takes addresses
        for kernels in (draw, experts, small_steps):  # what they are given and give is made, and nothing launched
            patch.setattr(kernels, "launch", lambda *_, **__: None)
        with FakeTensorMode(allow_non_fake_inputs=True):
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


@cache
def slots_on(memory: float, family: Family, asked: int | None, max_length: int, is_drawing: bool) -> tuple[int, str]:
    """Return what an engine with a model of full size finds out about a GPU of so many GiB."""
    model = released_model(family)
    with fake_gpu(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.Tensor, "pin_memory", lambda self: self)
        parameters = list(on_gpu(model).parameters())
        meter = Meter(int(memory * GIB), parameters)
        meter.answer(patch)
        with meter:
            return choose_slots(model, asked, max_length, is_drawing=is_drawing)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_a_config_gets_the_slots_that_it_says_on_the_gpu_that_it_names(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    settings = yaml.safe_load(text)
    family, generate = FAMILY_OF.get(settings["model"]["path"]), settings["generate"]
    if family is None:
        assert settings["model"]["device"] == "cpu", "a config of a released checkpoint says on what it runs"
        return
    [memory] = [gib for name, gib in MEMORY.items() if name in " ".join(text.replace("#", "").split())]
    asked = None if generate["slots"] == "auto" else generate["slots"]
    slots, why = slots_on(memory, family, asked, generate["max_length"], settings["job"]["kind"] == "synthesize")
    said = asked or int(re.findall(r"slots: auto +#.* here (\d+)", text)[0])
    assert slots == said, why


def test_a_gpu_without_room_for_a_slot_says_what_takes_it() -> None:
    said = r"no room for a slot of 1,024 tokens: of 18\.4 GiB to use on cuda:0 the weights take 19\.9, the"
    with pytest.raises(OutOfMemory, match=said):
        slots_on(20, "mllama", None, 1024, False)


def test_more_slots_than_there_is_room_for_are_fewer_and_said_to_be() -> None:
    slots, why = slots_on(79.1, "emu3", 500, 6144, False)
    assert slots == slots_on(79.1, "emu3", None, 6144, False)[0]
    said = f"{slots} slots of 6,144 tokens in place of the 500 asked for: there is room for {slots}, since of 72."
    assert why.startswith(said)
