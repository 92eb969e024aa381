"""What an engine holds in its device's memory, by a checkpoint's shapes and by settings alone: no weight is loaded.

What passes through while it works (activations, logits) is not in it: the engine does less at once where that does not
fit, see models/capacity/out_of_memory.py.
"""

from dataclasses import dataclass, replace
from pathlib import Path

from models import computed_dtype, empty_model
from models.engine.prefixes import kept_bytes
from models.tiles import KEPT_BYTES
from models.types import ImageSettings


@dataclass(frozen=True)
class Footprint:
    """Bytes, of all devices of an engine together.

    Attributes:
        weights: All parameters.
        cache: Keys and values of all slots.
        token: What one token leaves there.
        memory: What cross-attention layers keep of an image with the most tiles, for each image that is asked about;
            0 where images stand in the text.
        kept_images: At most so much is kept of images that were looked at lately.
        kept_prefixes: At most so much is kept of what prompts lately began with, where several begin alike.
    """

    weights: int
    cache: int
    token: int
    memory: int
    kept_images: int
    kept_prefixes: int


def footprint(
    path: str,
    *,
    device: str,
    dtype: str,
    slots: int,
    max_length: int,
    images: ImageSettings | None = None,
    text_only: bool = False,
) -> Footprint:
    """Return what an engine holds.

    Args:
        path: A local checkpoint folder.
        device: `cpu` or `cuda`, by which `auto` means another dtype.
        dtype: See `load_model`.
        slots: Sequences answered at once.
        max_length: The longest sequence.
        images: Image settings that go before the checkpoint's own.
        text_only: See `load_model`.

    Raises:
        CheckpointError: The folder is not a checkpoint of a family we run.
    """
    model = empty_model(path, text_only=text_only)
    wanted = computed_dtype(model, path, dtype, on_cpu=device == "cpu")
    shape = replace(model.cache_shape, dtype=wanted)
    weights = sum(
        parameter.numel() * (4 if name.startswith(model.FLOAT32) else wanted.itemsize)
        for name, parameter in model.named_parameters()
    )
    return Footprint(
        weights=weights,
        cache=shape.num_bytes(slots, max_length),
        token=shape.token_bytes,
        memory=model.memory_values(Path(path), images or ImageSettings()) * wanted.itemsize,
        kept_images=KEPT_BYTES if model.config.vision is not None else 0,
        kept_prefixes=kept_bytes(shape, slots, max_length),
    )
