"""Weights are loaded strictly and tensor by tensor, from every layout, and every fault is listed at once."""

import json
import re
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from models import batch_invariant, check_weights, load_model
from models.aria.model import AriaModel
from models.weight_files import WeightsError
from models.weights import ParameterSlice, load_weights
from tests.tiny import empty, save_tensors, tiny_aria

ROUTER = "language_model.model.layers.0.mlp.router.weight"
EMBEDDINGS = "language_model.model.embed_tokens.weight"
EXPERTS = "language_model.model.layers.1.mlp.experts"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tiny_aria(tmp_path / "tiny")


def change(folder: Path, edit: Callable[[dict[str, Tensor]], object]) -> Path:
    """Rewrite the weights of a folder with some of them changed."""
    tensors = load_file(folder / "model.safetensors")
    edit(tensors)
    save_tensors(folder, tensors)
    return folder


def state(folder: Path) -> dict[str, Tensor]:
    return dict(load_model(str(folder), device="cpu").named_parameters())


def assert_same(left: dict[str, Tensor], right: dict[str, Tensor]) -> None:
    assert left.keys() == right.keys()
    assert all(torch.equal(left[name], right[name]) for name in left)


@pytest.mark.parametrize("layout", [{"names": "memory"}, {"sequential_experts": True}, {"shards": 3},
                                    {"names": "memory", "sequential_experts": True, "shards": 5}], ids=str)  # fmt: skip
def test_every_layout_is_the_same_model(tmp_path: Path, layout: dict[str, str]) -> None:
    assert_same(state(tiny_aria(tmp_path / "a", **layout)), state(tiny_aria(tmp_path / "b")))


def test_experts_as_lists_of_linears_are_the_same_model(folder: Path) -> None:
    expected = state(folder)

    def unstack(tensors: dict[str, Tensor]) -> None:
        for name in [name for name in tensors if ".experts.fc" in name]:
            for expert, matrix in enumerate(tensors.pop(name)):
                tensors[name.replace(".weight", f".{expert}.weight")] = matrix.t().contiguous()

    assert_same(state(change(folder, unstack)), expected)


def test_unused_tensors_that_are_known_are_passed_over(folder: Path) -> None:
    expected = state(folder)
    extra = {"language_model.model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(4)}
    assert_same(state(change(folder, lambda tensors: tensors.update(extra))), expected)


def test_a_wrong_shape_shows_both_shapes(folder: Path) -> None:
    change(folder, lambda tensors: tensors.update({ROUTER: torch.zeros(5, 32)}))
    with pytest.raises(WeightsError, match=re.escape(f"{ROUTER} is (5, 32) on disk but (4, 32) here")):
        load_model(str(folder))


@pytest.mark.parametrize(
    ("name", "shape", "told"),
    [
        ("experts.2.down_proj", (32, 17), "{name} is (32, 17) on disk but (32, 16) here"),
        ("experts.4.down_proj", (32, 16), "no place for {name}"),
        ("fc2", (4, 16, 32), "twice: {name}"),
    ],
    ids=["a wrong shape as it lies on disk", "one more than the configuration has", "in two layouts at once"],
)
def test_a_faulty_one_of_experts_stored_one_by_one_is_named(
    tmp_path: Path, name: str, shape: tuple[int, ...], told: str
) -> None:
    folder, name = tiny_aria(tmp_path, sequential_experts=True), f"{EXPERTS}.{name}.weight"
    change(folder, lambda tensors: tensors.update({name: torch.zeros(shape)}))
    with pytest.raises(WeightsError, match=re.escape(told.format(name=name))):
        load_model(str(folder))


def test_all_faults_are_listed_at_once(folder: Path) -> None:
    def break_it(tensors: dict[str, Tensor]) -> None:
        del tensors["language_model.model.norm.weight"]
        tensors["language_model.model.norms.weight"] = torch.zeros(32)
        tensors[ROUTER] = torch.zeros(4, 31)
        tensors["lm_head.weight"] = tensors["language_model.lm_head.weight"].clone()

    change(folder, break_it)
    with pytest.raises(WeightsError) as caught:
        load_model(str(folder))
    assert all(
        fault in str(caught.value)
        for fault in (
            f"{ROUTER} is (4, 31) on disk but (4, 32) here",
            "no place for language_model.model.norms.weight",
            "nothing or too little for language_model.model.norm.weight",
            "twice: l",
        )
    )


def test_an_expert_given_twice_does_not_make_up_for_one_that_is_missing(tmp_path: Path) -> None:
    folder = tiny_aria(tmp_path, sequential_experts=True)

    def swap(tensors: dict[str, Tensor]) -> None:
        tensors[f"{EXPERTS}.1.up_proj.weight"] = tensors.pop(f"{EXPERTS}.experts.3.up_proj.weight")

    change(folder, swap)
    with pytest.raises(WeightsError, match=re.escape(f"nothing or too little for {EXPERTS}.fc1.weight; twice: ")):
        load_model(str(folder))


def test_a_long_list_of_faults_is_shortened(folder: Path) -> None:
    change(folder, lambda tensors: [tensors.pop(name) for name in list(tensors) if "layers" in name])
    with pytest.raises(WeightsError, match=r"and \d+ more"):
        load_model(str(folder))


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    folder = tiny_aria(tmp_path, shards=3)
    (folder / "model-00002-of-00003.safetensors").unlink()
    with pytest.raises(WeightsError, match=r"names 3 files; missing: model-00002-of-00003\.safetensors"):
        load_model(str(folder))


@pytest.mark.parametrize("left", [0, 5, 100, 0.5, -1])
def test_a_truncated_file_is_named_with_its_size(folder: Path, left: float) -> None:
    path = folder / "model.safetensors"
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * left) if isinstance(left, float) else left])
    with pytest.raises(WeightsError, match=r"model\.safetensors \(\d+ bytes\) is not a whole safetensors file"):
        load_model(str(folder))


def test_pickled_weights_are_not_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    torch.save({"a": torch.zeros(1)}, folder / "pytorch_model.bin")
    with pytest.raises(WeightsError, match=r"has neither model\.safetensors nor model\.safetensors\.index\.json"):
        load_model(str(folder))


def test_nothing_is_read_when_something_is_wrong(folder: Path) -> None:
    change(folder, lambda tensors: tensors.update({ROUTER: torch.zeros(5, 32)}))
    model = empty(AriaModel, folder)
    with pytest.raises(WeightsError):
        load_weights(
            model,
            folder,
            model.parameter_slice,
            device=lambda _: torch.device("cpu"),
            dtype=lambda _: torch.float32,
        )
    assert all(parameter.is_meta for parameter in model.parameters())


def test_names_and_shapes_are_checked_from_the_headers(folder: Path) -> None:
    check_weights(str(folder))
    change(folder, lambda tensors: tensors.pop(ROUTER))
    with pytest.raises(WeightsError, match=f"nothing or too little for {ROUTER}"):
        check_weights(str(folder))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_weights_are_cast_to_what_is_asked_for(folder: Path, dtype: str) -> None:
    model = load_model(str(folder), device="cpu", dtype=dtype)
    assert {parameter.dtype for parameter in model.parameters()} == {getattr(torch, dtype)}
    stored = load_file(folder / "model.safetensors")[EMBEDDINGS]
    assert torch.equal(model.get_parameter(EMBEDDINGS), stored.to(getattr(torch, dtype)))


def test_an_index_that_is_not_json_is_named(tmp_path: Path) -> None:
    folder = tiny_aria(tmp_path, shards=2)
    (folder / "model.safetensors.index.json").write_text("<html>")
    with pytest.raises(ValueError, match=r"model\.safetensors\.index\.json is not JSON"):
        load_model(str(folder))


class Stack(nn.Module):
    """Sixteen matrices of 4 MiB in half precision."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ParameterList(nn.Parameter(torch.empty(1024, 2048)) for _ in range(16))


def test_loading_holds_the_model_and_little_more_than_one_tensor(tmp_path: Path) -> None:
    names = [name for name, _ in Stack().named_parameters()]
    for half in range(2):
        some = {name: torch.full((1024, 2048), 0.5, dtype=torch.float16) for name in names[half::2]}
        save_file(some, tmp_path / f"{half}.safetensors")
    weight_map = {name: f"{i % 2}.safetensors" for i, name in enumerate(names)}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    with torch.device("meta"):
        module = Stack()
    with Peak() as peak:
        load_weights(
            module, tmp_path, ParameterSlice, device=lambda _: torch.device("cpu"), dtype=lambda _: torch.float32
        )
    model = sum(parameter.nbytes for parameter in module.parameters())
    assert model == 128 * 2**20
    assert peak.grown < model + 16 * 2**20  # a whole file would be 32 MiB more, a second model 128


class Peak:
    """How much anonymous memory of this process grows within a block, seen every millisecond."""

    def __enter__(self) -> "Peak":
        self._start = self._most = _anonymous()
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    @property
    def grown(self) -> int:
        return self._most - self._start

    def _watch(self) -> None:
        while not self._done.is_set():
            self._most = max(self._most, _anonymous())
            time.sleep(0.001)


def _anonymous() -> int:
    [line] = re.findall(r"RssAnon:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return int(line) * 1024


@pytest.mark.parametrize(
    ("stored", "has_instructions", "is_told"),
    [("bfloat16", True, True), ("bfloat16", False, False), ("float16", True, False)],
)
def test_auto_is_float32_on_a_cpu_and_tells_of_a_faster_bfloat16(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    stored: str,
    has_instructions: bool,
    is_told: bool,
) -> None:
    folder = tiny_aria(tmp_path, config={"torch_dtype": stored})
    monkeypatch.setattr(batch_invariant, "multiplies_bfloat16", lambda: has_instructions)
    with caplog.at_level("INFO", logger="models"):
        assert load_model(str(folder), device="cpu").dtype == torch.float32
    [said] = [message for message in caplog.messages if "model.dtype auto is float32" in message]
    assert ("model.dtype=bfloat16 may be faster" in said) is is_told
