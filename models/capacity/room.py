"""How many slots a GPU has room for: the largest pieces of work are done once, and what they leave is shared out.

Found out before the cache is made: one that is too large would let nothing start.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from models.cache.slots import EXTENT, Cache
from models.capacity.out_of_memory import OutOfMemory, is_out_of_memory
from models.engine.decoder import Decoder, Prompt
from models.engine.engine import PREFILL_TOKENS
from models.engine.prefill import in_blocks, prefill
from models.engine.prefixes import MOST_KEPT_BYTES
from models.sampler import Draws, choose
from models.tiles import KEPT_BYTES
from models.types import CPU_SLOTS, MOST_SLOTS, Sampling

# The part of a GPU's memory that is planned with (vLLM's default too); the rest is for what tears memory into pieces,
# and for recorded steps.
USABLE = 0.92
# What CUDA itself takes. It can be seen where an engine has its GPU to itself, and not where several share one.
CONTEXT_BYTES = 2**30
# Sequences whose next tokens are chosen at once; the engine chooses for fewer at once where that is too much.
SAMPLED_ROWS = 128
GIB = 2**30


class Rehearsing(Decoder, Protocol):
    """A family's model that can show what its largest piece of work with pictures takes."""

    def rehearse(self, max_length: int, *, is_drawing: bool) -> Sequence[Tensor]:
        """Do the most with pictures that is ever done at once; return what a sequence keeps of one beside the cache.

        Args:
            max_length: The longest sequence.
            is_drawing: Whether pictures are drawn, and none are looked at.
        """


@dataclass(frozen=True)
class Room:
    """A device's memory in bytes.

    Attributes:
        device: Which it is.
        usable: What an engine may take.
        weights: What the model takes before anything is done.
        work: What the largest pieces of work take beside.
        slot: What a slot takes, with what its sequence keeps.
    """

    device: torch.device
    usable: int
    weights: int
    work: int
    slot: int

    @property
    def slots(self) -> int:
        """How many slots there is room for."""
        return max(0, self.usable - self.weights - self.work) // max(1, self.slot)

    def __str__(self) -> str:
        return (
            f"of {self.usable / GIB:.1f} GiB to use on {self.device} the weights take {self.weights / GIB:.1f}, the "
            f"largest work {self.work / GIB:.1f} and a slot {self.slot / GIB:.3f}"
        )


def choose_slots(
    model: Rehearsing, asked: int | None, max_length: int, *, share: float = 1.0, is_drawing: bool = False
) -> tuple[int, str]:
    """Return the slots that an engine gets, and on a GPU a sentence with the numbers behind that.

    Args:
        model: With its weights.
        asked: So many at most; None for as many as there is room for, up to MOST_SLOTS, or on a CPU CPU_SLOTS.
        max_length: The longest sequence, prompt and answer together.
        share: The part of a GPU that the engine has; 1 where it has it to itself, or several.
        is_drawing: Whether it draws pictures.

    Raises:
        OutOfMemory: There is room for none, or with pictures for less than the two that guidance takes.
    """
    if model.device.type != "cuda":
        return asked or CPU_SLOTS, ""
    room = min(find_rooms(model, max_length, share, is_drawing), key=lambda one: one.slots)
    together = 2 if is_drawing else 1
    fitting = room.slots // together * together
    if not fitting:
        raise OutOfMemory(
            f"there is no room for {'two slots' if is_drawing else 'a slot'} of {max_length:,} tokens: {room}; "
            "expected a lower generate.max_length, or more (generate.gpus) or larger GPUs"
        )
    slots = min(asked or MOST_SLOTS, fitting)
    wanted = f" in place of the {asked} asked for" if asked and asked > slots else ""
    return slots, f"{slots} slots of {max_length:,} tokens{wanted}: there is room for {fitting}, since {room}"


def find_rooms(model: Rehearsing, max_length: int, share: float, is_drawing: bool) -> list[Room]:
    """Do the largest pieces of work once; return the room on each device of a model.

    Raises:
        OutOfMemory: Even these do not fit, without any slot.
    """
    shape = model.cache_shape
    devices = list(dict.fromkeys((model.device, *shape.devices)))
    weights = _allocated(devices)
    with torch.inference_mode():
        kept, pictures = _most(devices, "pictures", lambda: model.rehearse(max_length, is_drawing=is_drawing))
        _, text = _most(devices, "a prompt", lambda: _prefill(model, max_length))
        _, scores = _most(devices, "scores of all tokens", lambda: _sample(model))
        embedding = model.embed(torch.zeros(1, dtype=torch.int64, device=model.device)).nbytes
    # Of all that start together the embeddings are there at once, and with them what stands in them of images.
    # Texts that pictures are drawn from are short.
    prompt = 0 if is_drawing else 2 * max_length * embedding
    rooms = []
    for i, device in enumerate(devices):
        layers = shape.devices.count(device) / len(shape.devices)
        text[i] -= int(layers * shape.num_bytes(*_prompts(max_length)))  # the cache that they were read into
        # Painting goes on beside all else; pictures are looked at before prompts are read.
        work = pictures[i] + max(text[i], scores[i]) if is_drawing else max(pictures[i], text[i], scores[i])
        if pictures[i] and not is_drawing:
            work += KEPT_BYTES
        of_slot = int(layers * shape.num_bytes(1, max_length + EXTENT))
        work += max(of_slot, int(layers * MOST_KEPT_BYTES))  # what is kept of prompts' beginnings, at most
        of_slot += sum(one.nbytes for one in kept if one.device == device)
        of_slot += prompt if device == model.device else 0
        rooms.append(Room(device, _usable(device, share), weights[i], work, of_slot))
    return rooms


def _most(
    devices: Sequence[torch.device], what: str, work: Callable[[], Sequence[Tensor]]
) -> tuple[Sequence[Tensor], list[int]]:
    """Return what some work returns, and the most bytes that it takes on each device beside what is there before."""
    before = _allocated(devices)
    for device in devices:
        torch.cuda.reset_peak_memory_stats(device)
    try:
        done = work()
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        raise OutOfMemory(f"beside the weights there is no room to work on {what}: {error}") from None
    peaks = [torch.cuda.max_memory_allocated(device) for device in devices]
    torch.cuda.empty_cache()
    return done, [peak - there for peak, there in zip(peaks, before, strict=True)]


def _prompts(max_length: int) -> tuple[int, int]:
    """Return how many of the longest prompts are read at once, and the tokens of each, padded."""
    length = in_blocks(max_length)
    return max(1, PREFILL_TOKENS // length), length


def _prefill(model: Decoder, max_length: int) -> Sequence[Tensor]:
    rows, length = _prompts(max_length)
    token_ids = torch.zeros(max_length, dtype=torch.int64, device=model.device)
    prompts = [Prompt(model.embed(token_ids)) for _ in range(rows)]
    cache = Cache(model.cache_shape, rows, length)
    prefill(model, cache, slice(0, rows), prompts, [None] * rows, PREFILL_TOKENS)
    return ()


def _sample(model: Decoder) -> Sequence[Tensor]:
    ids = torch.zeros(SAMPLED_ROWS, dtype=torch.int64, device=model.device)
    draws = Draws.of([Sampling(temperature=1.0, top_k=1, top_p=0.5)] * SAMPLED_ROWS, model.device)
    choose(model.logits(model.embed(ids)), draws, ids)
    return ()


def _allocated(devices: Sequence[torch.device]) -> list[int]:
    return [torch.cuda.memory_allocated(device) for device in devices]


def _usable(device: torch.device, share: float) -> int:
    free, total = torch.cuda.mem_get_info(device)
    others = total - free - torch.cuda.memory_reserved(device) if share >= 1 else CONTEXT_BYTES
    return int(USABLE * min(share, 1.0) * total) - others
