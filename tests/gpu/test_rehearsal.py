"""What is to run on a real GPU at the first try runs here in small on a make-believe one. Its numbers mean nothing."""

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch

from models import Family
from models.llama import FamilyModel
from tests.benchmarks import device, device_layers, device_models
from tests.gpu import test_device
from tests.gpu.make_believe import make_believe
from tests.gpu.questions import DRAWING, tiny_model

ROOT = Path(__file__).parents[2]


@pytest.fixture
def cuda() -> Iterator[None]:
    with make_believe():
        yield


@pytest.mark.parametrize(
    "test",
    [
        partial(test_device.test_tokens_in_float32_are_those_of_a_cpu, "aria"),
        partial(test_device.test_half_precision_is_near, "aria", "float16"),
        partial(test_device.test_choices_are_as_likely_as_on_a_cpu, "aria"),
        test_device.test_pictures_become_the_same_codes_and_codes_nearly_the_same_pixels,
        partial(test_device.test_a_step_waits_no_more_than_the_make_believe_counts, "emu3", DRAWING),
        partial(test_device.test_slots_are_found_out_and_their_cache_has_room, True),
        partial(test_device.test_cudnn_is_left_out_of_attention, "emu3"),
    ],
)
def test_a_test_for_gpus_passes(cuda: None, test: Callable[[], None]) -> None:
    test()


def test_attention_by_hand_is_attention() -> None:
    query, (key, value) = torch.randn(1, 4, 9, 16), torch.randn(2, 1, 2, 30, 16)
    by_hand = test_device.by_hand(query, key, value)
    torch.testing.assert_close(by_hand, test_device.attend(query, key, value, None), atol=1e-5, rtol=1e-5)


class Properties:
    name, total_memory = "a make-believe GPU", 2**37


@pytest.mark.parametrize("name", device.SECTIONS)
def test_a_section_of_the_benchmark_measures_all_that_it_means_to(
    cuda: None, name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def small(family: Family) -> FamilyModel:
        return tiny_model(family, "cuda", "bfloat16")

    def small_zeros(*shape: int, dtype: torch.dtype = torch.bfloat16) -> torch.Tensor:
        return torch.zeros([min(size, 512) for size in shape], dtype=dtype, device="cuda:0")

    few = {"B": 2, "H": 4, "K": 2, "C": 16}
    for changed, value in {
        "drawn": small_zeros,
        "ATTENTIONS": [replace(one, **few, T=min(one.T, 8), S=min(one.S, 16)) for one in device_layers.ATTENTIONS],
        "NEW_SHAPES": 2,
        "EXPERT_ROWS": (4, 300),
        "own_lengths": lambda case: None,  # a kernel that no CPU has
        "captured": lambda call: call,
        "kernels_of": lambda work: (Counter(), float(work() is None)),
        "released_model": small,
        "random_model": small,
        "DECODINGS": {
            one: [replace(case, rows=2, length=9) for case in some[:2]] for one, some in device_models.DECODINGS.items()
        },
        "choose_slots": lambda model, asked, max_length, share: (3, "three"),
        "GRID": (5, 6),
        "PICTURE": (2, 3),
        "LENGTH": 300,
    }.items():
        found = [module for module in (device_layers, device_models) if hasattr(module, changed)]
        assert found, changed
        for module in found:
            monkeypatch.setattr(module, changed, value)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: Properties)
    monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", lambda _: None)
    section, _ = device.SECTIONS[name]
    section()
    said = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert said and [one for one in said if "error" in one or one.get("errors")] == []


def test_a_machine_without_what_the_pipeline_needs_can_run_both_and_without_a_gpu_nothing_is_measured() -> None:
    code = """
import sys
for name in ("ray", "pydantic", "s3fs", "botocore", "rapidfuzz", "annotated_types", "prometheus_client"):
    sys.modules[name] = None  # importing it fails
import tests.conftest, tests.gpu.conftest, tests.gpu.test_device
from tests.benchmarks import device
device.main()
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and done.stderr.endswith("sees no GPU here: nothing is measured\n")
