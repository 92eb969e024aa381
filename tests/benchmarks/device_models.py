"""What a GPU does with a family's model of full size: decoding, pictures, and the slots that it has room for."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from math import isqrt
from typing import Any

import numpy as np
import torch

from models import Family, Sampling
from models.capacity.room import choose_slots
from models.engine import Engine, Sequence
from models.llama import FamilyModel
from models.types import ModelInput
from tests.benchmarks.device_layers import kernels_of, line, measuring, randomise, seconds_of
from tests.gpu.released import released_model


def random_model(family: Family) -> FamilyModel:
    """Return a model of full size on the device, as `load_model` leaves one."""
    model = released_model(family)
    torch.backends.cuda.enable_cudnn_sdp(False)
    randomise(model, lambda name: torch.float32 if name.startswith(model.FLOAT32) else torch.bfloat16)
    return model.eval()


@dataclass(frozen=True)
class Decoding:
    """So many sequences with prompts of so many tokens, that are decoded side by side."""

    rows: int
    length: int
    sampling: Sampling


TEXT = Sampling(max_new_tokens=200)
DRAWING = Sampling(temperature=1.0, top_k=2048, guidance_scale=3.0)
DECODINGS: dict[Family, tuple[Decoding, ...]] = {
    "aria": (Decoding(64, 400, TEXT), Decoding(256, 400, TEXT), Decoding(64, 2000, TEXT)),
    "mllama": (Decoding(64, 60, TEXT), Decoding(64, 500, TEXT)),
    "emu3": (Decoding(64, 500, TEXT), Decoding(32, 4000, DRAWING), Decoding(48, 4000, DRAWING)),
}
GRID, PICTURE = (60, 60), (90, 90)  # codes of a picture that is drawn behind a long prompt; of 720 x 720 pixels
LENGTH = 2048


def question(family: Family, model: Any, case: Decoding, number: int) -> Sequence:
    """Return one question of a case; an Mllama's has a picture of its own with the most tiles."""
    random, text = np.random.default_rng(number), model.config.text
    ids = random.integers(text.vocab_size // 100, text.vocab_size // 4, case.length).astype(np.int32)
    if case.sampling.guidance_scale != 1:
        num_tokens = GRID[0] * (GRID[1] + 1) + 3
        given = ModelInput("", ids, layout=GRID, negative=ids[:100], num_new_tokens=num_tokens)
    elif family == "mllama":
        ids[0] = model.config.image_token_index
        tiles, ratio_id = largest_picture(model, number)
        given = ModelInput("", ids, tuple(tiles), (ratio_id,), 1, (str(number),))
    else:
        given = ModelInput("", ids)
    return Sequence(str(number), given, case.sampling)


def drawn_tiles(count: int, side: int, seed: int = 0) -> list[Any]:
    """Return tiles of random pixels."""
    random = np.random.default_rng(seed)
    return [random.integers(0, 255, (side, side, 3), dtype=np.uint8) for _ in range(count)]


def largest_picture(model: Any, seed: int) -> tuple[list[Any], int]:
    """Return the tiles of an Mllama's largest picture, and the id of its grid."""
    vision = model.config.vision
    grids = [rows * columns for rows, columns in vision.aspect_ratios]
    return drawn_tiles(max(grids), vision.image_size, seed), 1 + grids.index(max(grids))


def decode(family: Family, model: FamilyModel, case: Decoding, num_steps: int = 20) -> None:
    """Time the first step of an engine, with all prompts and pictures, then its decoding and what that leaves idle."""
    branches = case.rows * (2 if case.sampling is DRAWING else 1)
    max_length = min(
        model.max_position_embeddings, case.length + 3800 if case.sampling is DRAWING else case.length + 256
    )
    engine = Engine(model, slots=branches, max_length=max_length)
    sequences = [question(family, model, case, number) for number in range(case.rows)]
    for sequence in sequences:
        engine.submit(sequence)
    torch.cuda.synchronize()
    started = time.perf_counter()
    engine.step()
    torch.cuda.synchronize()
    first = time.perf_counter() - started
    for _ in range(5):
        engine.step()
    torch.cuda.synchronize()
    started = time.perf_counter()
    for _ in range(num_steps):
        engine.step()
    torch.cuda.synchronize()
    step = (time.perf_counter() - started) / num_steps
    kernels, busy = kernels_of(engine.step)
    errors = [str(one.error) for one in sequences if one.error]
    line(f"{family}: decode of {branches} branches behind {case.length} tokens", ms=step * 1e3,
         tokens_s=case.rows / step, launches=kernels.total(), idle=max(0.0, 1 - busy / step),
         first_step_s=first, prompt_tokens_s=case.rows * case.length / first,
         out_of_memory=engine.num_out_of_memory, errors=errors[:1])  # fmt: skip


def family_section(family: Family) -> None:
    """A family's decoding, and what it does with one picture at a time."""
    with torch.inference_mode():
        model = random_model(family)
        line(f"{family}: weights", gib=sum(one.nbytes for one in model.parameters()) / 2**30)
        for case in DECODINGS[family]:
            with measuring(f"{family}: {case}"):
                decode(family, model, case)
            torch.cuda.empty_cache()
        for name, work in pictures(family, model).items():
            with measuring(f"{family}: {name}"):
                line(f"{family}: {name}", ms=seconds_of(work, 3) * 1e3)


def pictures(family: Family, model: Any) -> dict[str, Callable[[], Any]]:
    """Return what a family does with pictures, by what it is."""
    if family == "aria":
        large, small = sorted(model.config.patch_to_query, reverse=True)[:2]
        patch = model.config.vision.patch_size
        return {
            f"encode of {count} x {isqrt(patches) * patch}": partial(
                model.encode, drawn_tiles(count, isqrt(patches) * patch), model.config.patch_to_query[patches]
            )
            for count, patches in ((4, large), (16, small))
        }
    if family == "mllama":
        return {"encode of 4 of the largest pictures": partial(model.encode, [largest_picture(model, 0)] * 4)}
    vocabulary, factor, (rows, columns) = model.config.vocabulary, model.config.vision.spatial_factor, PICTURE
    codes = np.random.default_rng(0).integers(0, model.config.vision.codebook_size, PICTURE) + vocabulary.first_visual
    ids = [*np.pad(codes, ((0, 0), (0, 1))).flatten().tolist(), 0, 0, 0]
    return {
        f"encode of {rows * factor}": partial(model.encode, drawn_tiles(1, rows * factor)),
        f"paint of {rows * factor}": partial(model.decode_picture, (rows, columns), ids),
    }


def memory() -> None:
    """Start the engine of caption_aria.yaml as on 80 GB: how many slots it gets, and whether they hold."""
    torch.cuda.set_per_process_memory_fraction(min(1.0, 79.1 * 2**30 / torch.cuda.mem_get_info()[1]))
    with measuring("slots of Aria on 80 GB"), torch.inference_mode():
        model: Any = random_model("aria")
        share = min(1.0, 79.1 * 2**30 / torch.cuda.mem_get_info()[1])
        slots, why = choose_slots(model, None, LENGTH, share=share)
        line("slots of Aria on 80 GB", slots=slots, why=why)
        decode("aria", model, Decoding(slots, min(1800, LENGTH - 256), TEXT))
