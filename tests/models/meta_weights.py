"""A checkpoint's tensors as Meta's own files have them: other names, neighbouring rotary pairs, tables by place."""

from collections.abc import Mapping
from itertools import count

from torch import Tensor

from tests.models.mllama_reference import Size

_TEXT = {
    "input_layernorm.weight": "attention_norm.weight",
    "post_attention_layernorm.weight": "ffn_norm.weight",
    "mlp.gate_proj.weight": "feed_forward.w1.weight",
    "mlp.down_proj.weight": "feed_forward.w2.weight",
    "mlp.up_proj.weight": "feed_forward.w3.weight",
    "cross_attn_attn_gate": "gate_attn",
    "cross_attn_mlp_gate": "gate_ffwd",
    "cross_attn.q_norm.weight": "attention.q_norm.weight",
    "cross_attn.k_norm.weight": "attention.k_norm.weight",
} | {f"{kind}.{p}_proj.weight": f"attention.w{p}.weight" for kind in ("self_attn", "cross_attn") for p in "qkvo"}
_BIASED = {
    "input_layernorm": "ln_1",
    "post_attention_layernorm": "ln_2",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
}
_VISION = {
    **{f"self_attn.{p}_proj.weight": f"attn.w{p}.weight" for p in "qkvo"},
    **{f"{ours}.{leaf}": f"{theirs}.{leaf}" for ours, theirs in _BIASED.items() for leaf in ("weight", "bias")},
    "gate_attn": "gate_attn",
    "gate_ffn": "gate_ffn",
}


def as_meta_names(size: Size, stored: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return a checkpoint's tensors under the names and in the layout of Meta's files."""
    return _text(size, stored) | _vision(size, stored)


def _text(size: Size, stored: Mapping[str, Tensor]) -> dict[str, Tensor]:
    text, at = size.text, "language_model.model"
    words, extra = stored[f"{at}.embed_tokens.weight"].split([text["vocab_size"], 8])
    out = {
        "tok_embeddings.weight": words,
        "learnable_embedding.weight": extra,
        "norm.weight": stored[f"{at}.norm.weight"],
        "output.weight": stored["language_model.lm_head.weight"],
    }
    numbers = {True: count(), False: count()}
    for layer in range(text["num_hidden_layers"]):
        is_cross = layer in text["cross_attention_layers"]
        here = f"{'cross_attention_layers' if is_cross else 'layers'}.{next(numbers[is_cross])}"
        prefix = f"{at}.layers.{layer}."
        part = {name.removeprefix(prefix): tensor for name, tensor in stored.items() if name.startswith(prefix)}
        out |= {f"{here}.{_TEXT[name]}": tensor for name, tensor in part.items()}
        if not is_cross:
            heads = (("wq", text["num_attention_heads"]), ("wk", text["num_key_value_heads"]))
            for matrix, num_heads in heads:
                out[f"{here}.attention.{matrix}.weight"] = _paired(out[f"{here}.attention.{matrix}.weight"], num_heads)
    return {f"text_model.{name}": tensor for name, tensor in out.items()}


def _paired(weight: Tensor, num_heads: int) -> Tensor:
    """Undo the permutation of released weights: Meta turns neighbours (2i, 2i + 1), the files have (i, i + C/2)."""
    return weight.unflatten(0, (num_heads, 2, -1)).transpose(1, 2).flatten(0, 2)


def _vision(size: Size, stored: Mapping[str, Tensor]) -> dict[str, Tensor]:
    part = {name.removeprefix("vision_model."): tensor for name, tensor in stored.items()}
    most, width = size.vision["max_num_tiles"], size.vision["hidden_size"]
    place = "gated_positional_embedding"
    out = {
        "conv1._linear.weight": part["patch_embedding.weight"].flatten(1),
        "class_embedding": part["class_embedding"],
        "positional_embedding": part[f"{place}.embedding"],
        f"{place}_gate": part[f"{place}.gate"],
        place: _of_place(part[f"{place}.tile_embedding.weight"], size).unflatten(-1, (-1, width)),
    }
    for when in ("pre", "post"):
        table = part[f"{when}_tile_positional_embedding.embedding.weight"]
        out[f"{when}_tile_pos_embed.embedding"] = _of_place(table, size).view(most, most, 1, width)
        out[f"{when}_tile_pos_embed.gate"] = part[f"{when}_tile_positional_embedding.gate"]
        out |= {f"ln_{when}.{leaf}": part[f"layernorm_{when}.{leaf}"] for leaf in ("weight", "bias")}
    for name, tensor in part.items():
        stage, _, rest = name.partition(".layers.")
        layer, _, leaf = rest.partition(".")
        if stage in ("transformer", "global_transformer"):
            out[f"{stage}.resblocks.{layer}.{_VISION[leaf]}"] = tensor
    projection = {leaf: stored[f"multi_modal_projector.{leaf}"] for leaf in ("weight", "bias")}
    return {f"vision_model.vision_encoder.{name}": tensor for name, tensor in out.items()} | {
        f"vision_model.vision_projection.{leaf}": tensor for leaf, tensor in projection.items()
    }


def _of_place(table: Tensor, size: Size) -> Tensor:
    """Return (N, N, …): a tile's embedding by (row, column); it is the last tile of the grid that ends there."""
    most = size.vision["max_num_tiles"]
    tiles = table.unflatten(1, (most, -1))
    out = tiles.new_zeros(most, most, tiles.shape[-1])
    for grid, (rows, columns) in enumerate(size.grids, start=1):
        out[rows - 1, columns - 1] = tiles[grid, rows * columns - 1]
    return out
