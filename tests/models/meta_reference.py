"""Meta's own Llama 3.2 Vision code (PyPI `llama-models`), run tiny, in one process on a CPU, with given weights.

It is the code that Mllama was trained with and so decides where transformers differs from it. Nothing of it is copied
here: three of its classes hard-code the released sizes and are given others.
"""

import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn
from torch.distributed import HashStore, destroy_process_group, init_process_group
from transformers.models.mllama.processing_mllama import get_cross_attention_token_mask

from tests.models.meta_torchvision import torchvision_by_name
from tests.models.meta_weights import as_meta_names
from tests.models.mllama_reference import Picture, Row, Size

MAX_LENGTH = 160
# Where the Makefile puts it: among the packages its own top-level `models` would hide ours.
ORACLES = Path(sys.prefix) / "oracles"

sys.path.append(str(ORACLES))
with torchvision_by_name():
    from fairscale.nn.model_parallel import initialize as parallel
    from llama_models.llama3.multimodal import model as meta
    from llama_models.llama3.multimodal.image_transform import VariableSizeImageTransform


@contextmanager
def one_process() -> Iterator[None]:
    """Be a group of one: Meta's layers are made for several processes and ask for their group."""
    init_process_group("gloo", store=HashStore(), rank=0, world_size=1)
    parallel.initialize_model_parallel(1)
    try:
        yield
    finally:
        parallel.destroy_model_parallel()
        destroy_process_group()


@contextmanager
def its_own_warnings() -> Iterator[None]:
    """Let Meta's code use what torch has since renamed."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r".*all_gather_tensor` is deprecated", FutureWarning)
        yield


class Vision(meta.CrossAttentionTransformerVision):
    """Meta's encoder and projection; its constructor knows one size only."""

    def __init__(self, size: Size) -> None:
        nn.Module.__init__(self)
        fields = size.vision
        width, layers = fields["hidden_size"], fields["intermediate_layers_indices"]
        self.image_res, self.max_num_chunks = fields["image_size"], fields["max_num_tiles"]
        self.patch_size = fields["patch_size"]
        self.vision_encoder = meta.VisionEncoder(
            max_num_tiles=fields["max_num_tiles"],
            image_size=fields["image_size"],
            patch_size=fields["patch_size"],
            width=width,
            layers=fields["num_hidden_layers"],
            heads=fields["attention_heads"],
            mlp_ratio=fields["intermediate_size"] / width,
            n_global_layers=fields["num_global_layers"],
            global_model=True,
            return_intermediate=layers,
        )
        self.vision_projection = meta.ColumnParallelLinear(
            width * (1 + len(layers)), size.text["hidden_size"], init_method=lambda weight: weight
        )


class Text(meta.CrossAttentionTransformerText):
    """Meta's decoder with its cross-attention layers where a checkpoint has them, beside each other too."""

    def __init__(self, arguments: Any, size: Size) -> None:
        super().__init__(arguments)
        own, cross = iter(self.layers), iter(enumerate(self.cross_attention_layers))
        self.text_and_xattn_layers = []
        for layer in range(size.text["num_hidden_layers"]):
            if layer in size.text["cross_attention_layers"]:
                place, block = next(cross)
                self.text_and_xattn_layers.append((meta.DummySelfAttentionTransformerBlock(), block, place))
            else:
                self.text_and_xattn_layers.append((next(own), meta.DummyCrossAttentionTransformerBlock(), 0))

    def _init_fusion_schedule(self, num_layers: int) -> list[int]:
        return list(range(num_layers))  # that many are made; where they stand follows


def fusion_schedule(num_layers: int, num_cross: int) -> list[int]:
    """Return the self-attention layers before which Meta's own rule puts cross-attention."""
    text = meta.CrossAttentionTransformerText.__new__(meta.CrossAttentionTransformerText)
    text.__dict__["n_llama_layers"] = num_layers
    schedule: list[int] = text._init_fusion_schedule(num_cross)
    return schedule


class Meta(meta.CrossAttentionTransformer):
    """The whole model, one row at a time, as Meta's generation loop calls it."""

    def __init__(self, size: Size, stored: Mapping[str, Tensor], *, takes_tiles: bool = True) -> None:
        """Take the weights that a checkpoint's files hold under the names there.

        Args:
            size: The configuration.
            stored: The weights.
            takes_tiles: Whether a row's pictures are tiles; else they are Pillow's and go through Meta's transform.
        """
        nn.Module.__init__(self)
        self.params = _arguments(size)
        self.size = size
        self.model_dim = self.params.dim
        self.vision_model, self.text_model = Vision(size), Text(self.params, size)
        self.image_res, self.max_num_chunks = size.vision["image_size"], size.vision["max_num_tiles"]
        self.image_transform = self._as_transformed if takes_tiles else self.transform
        self.setup_cache(1, torch.device("cpu"), torch.float32)
        own = dict(self.named_parameters())
        given = as_meta_names(size, stored)
        assert own.keys() == given.keys(), own.keys() ^ given.keys()
        with torch.no_grad():
            for name, parameter in own.items():
                assert parameter.shape == given[name].shape, name
                parameter.copy_(given[name])
        self.eval()

    def _as_transformed(self, picture: Picture) -> tuple[Tensor, tuple[int, int]]:
        return torch.from_numpy(picture.pixels(self.size)), (picture.rows, picture.columns)

    def transform(self, image: Image.Image) -> tuple[Tensor, tuple[int, int]]:
        """Return an image's tiles (N, 3, t, t), normalised, and its grid, as Meta's own code has them."""
        transformed: tuple[Tensor, tuple[int, int]] = VariableSizeImageTransform(self.image_res)(
            image, self.max_num_chunks
        )
        return transformed

    @torch.inference_mode()
    def logits(self, row: Row) -> Tensor:
        """Return the scores (T, V) after every token."""
        caches, masks, sees = self._images(row, len(row.ids))
        return self._step(row.ids, 0, len(row.ids), caches, masks, sees)

    @torch.inference_mode()
    def greedy(self, row: Row, num_tokens: int) -> list[int]:
        """Return the likeliest tokens, each computed from the cache of those before it."""
        total = len(row.ids) + num_tokens
        images = self._images(row, total)
        ids, done = list(row.ids), 0
        while len(ids) < total:
            scores = self._step(ids, done, len(ids), *images)
            done = len(ids)
            ids.append(int(scores[-1].argmax()))
        return ids[len(row.ids) :]

    def see(self, pixels: Tensor, grid: tuple[int, int]) -> Tensor:
        """Return an image's features (N, P, D) from all its tiles (N, 3, t, t), missing ones too."""
        with its_own_warnings():
            seen: Tensor = self.vision_model(pixels[None, None], torch.tensor([[grid]]))
        return seen[0, 0]

    def _images(self, row: Row, total: int) -> tuple[Any, Tensor, Tensor]:
        if not row.pictures:
            return (
                [None] * len(self.text_model.cross_attention_layers),
                torch.zeros(1, 1, total, 1),
                torch.zeros(1, 1, total, 1),
            )
        # The ranges of the whole sequence. Meta's loop makes them from the prompt alone, so that what it
        # generates after several images sees none of them; after one image the two are the same.
        rest = [0] * (total - len(row.ids))
        ranges = get_cross_attention_token_mask([*row.ids, *rest], self.size.image)
        with its_own_warnings():
            caches, masks, sees = self.compute_vision_tokens_masks(
                batch_images=[list(row.pictures)], batch_masks=[ranges], total_len=total, device=torch.device("cpu")
            )
        return caches, masks, sees

    def _step(self, ids: Sequence[int], start: int, stop: int, caches: Any, masks: Tensor, sees: Tensor) -> Tensor:
        with its_own_warnings():
            scores: Tensor = self(
                torch.arange(start, stop),
                torch.tensor([ids]),
                masks,
                sees,
                caches,
                text_only_inference=caches[0] is None,
            )
        return scores[0]


def _arguments(size: Size) -> Any:
    text = size.text
    width, hidden, num_cross = text["hidden_size"], text["intermediate_size"], len(text["cross_attention_layers"])
    return meta.ModelArgs(
        dim=width,
        n_layers=text["num_hidden_layers"] - num_cross,
        n_heads=text["num_attention_heads"],
        n_kv_heads=text["num_key_value_heads"],
        vocab_size=text["vocab_size"],
        multiple_of=hidden,  # with a multiplier that stays below it: the width is exactly this
        ffn_dim_multiplier=0.5 * hidden / (8 * width / 3),
        norm_eps=text["rms_norm_eps"],
        rope_theta=text["rope_parameters"]["rope_theta"],
        use_scaled_rope=text["rope_parameters"]["rope_type"] == "llama3",
        max_batch_size=1,
        max_seq_len=MAX_LENGTH,
        vision_chunk_size=size.vision["image_size"],
        vision_max_num_chunks=size.vision["max_num_tiles"],
        vision_num_cross_attention_layers=num_cross,
    )
