"""llama.cpp as a side of `python -m tests.benchmarks.decoding`: our checkpoint as GGUF in bfloat16, by its C API.

Runs in an environment of its own (README.md beside). The weights are numbers that bfloat16 has, so nothing is lost.
"""

import ctypes
import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

Question = Mapping[str, Any]
Told = dict[str, Any]

NAMES = {
    "input_layernorm": "attn_norm", "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output", "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
}  # fmt: skip
OTHERS = {"embed_tokens": "token_embd", "norm": "output_norm"}
MOST_TOKENS, MOST_ROWS = 2048, 8


def llama_cpp(models: Mapping[str, Any], dtype: str, threads: int) -> Callable[[Question], Told]:
    """Answer with llama.cpp, all rows of a question at once; only decoders as Llama's are known."""
    import llama_cpp as low
    import numpy as np

    low.llama_log_set(_silent, ctypes.c_void_p(0))
    low.llama_backend_init()
    contexts = {name: _context(low, write_gguf(Path(model["folder"])), threads) for name, model in models.items()}

    def step(context: Any, tokens: list[tuple[int, int, int, bool]]) -> list[int]:
        """Feed (id, position, row, whether it is scored); return the likeliest next id of each that is scored."""
        batch = low.llama_batch_init(len(tokens), 0, 1)
        batch.n_tokens = len(tokens)
        for place, (token, position, row, is_scored) in enumerate(tokens):
            batch.token[place], batch.pos[place], batch.n_seq_id[place] = token, position, 1
            batch.seq_id[place][0], batch.logits[place] = row, is_scored
        if low.llama_decode(context, batch):
            raise RuntimeError("llama_decode failed")
        size = low.llama_vocab_n_tokens(low.llama_model_get_vocab(low.llama_get_model(context)))
        scored = [place for place, token in enumerate(tokens) if token[3]]
        pointers = [low.llama_get_logits_ith(context, place) for place in scored]
        found = [int(np.ctypeslib.as_array(pointer, (size,)).argmax()) for pointer in pointers]
        low.llama_batch_free(batch)
        return found

    def answer(question: Question) -> Told:
        context, rows = contexts[question["model"]], [row["ids"] for row in question["rows"]]
        if len(rows) > MOST_ROWS or len(set(question["new"])) > 1:
            raise ValueError(f"found {len(rows)} rows with {question['new']} tokens; llama.cpp's side runs 8 alike")
        low.llama_memory_clear(low.llama_get_memory(context), True)
        ticks = [time.process_time()]
        prompt = [
            (token, place, number, place + 1 == len(row))
            for number, row in enumerate(rows)
            for place, token in enumerate(row)
        ]
        ids = [[token] for token in step(context, prompt)]
        ticks.append(time.process_time())
        for count in range(question["new"][0] - 1):
            newest = [
                (one[-1], len(row) + count, number, True)
                for number, (row, one) in enumerate(zip(rows, ids, strict=True))
            ]
            for one, token in zip(ids, step(context, newest), strict=True):
                one.append(token)
        ticks.append(time.process_time())
        decode = (ticks[2] - ticks[1]) / (question["new"][0] - 1)
        return {"ids": ids, "total": ticks[2] - ticks[0], "prefill": ticks[1] - ticks[0], "decode": decode}

    return answer


def write_gguf(folder: Path) -> Path:
    """Write a checkpoint's model.gguf beside it, matrices in bfloat16."""
    import gguf
    import numpy as np
    from safetensors.numpy import load_file

    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    heads, keys = config["num_attention_heads"], config["num_key_value_heads"]
    writer = gguf.GGUFWriter(folder / "model.gguf", "llama")
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(heads)
    writer.add_head_count_kv(keys)
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_freq_base(config["rope_parameters"]["rope_theta"])
    writer.add_rope_dimension_count(config["hidden_size"] // heads)
    writer.add_vocab_size(config["vocab_size"])
    writer.add_tokenizer_model("none")
    for stored, tensor in load_file(folder / "model.safetensors").items():
        name = stored.removeprefix("model.").removesuffix(".weight")
        if "q_proj" in name or "k_proj" in name:
            # llama.cpp rotates neighbours, the checkpoint halves.
            count = heads if "q_proj" in name else keys
            tensor = tensor.reshape(count, 2, -1, tensor.shape[1]).swapaxes(1, 2).reshape(tensor.shape)
        if name.startswith("layers."):
            _, number, part = name.split(".", 2)
            name = f"blk.{number}.{NAMES[part]}"
        else:
            name = {"lm_head": "output", **OTHERS}[name]
        if tensor.ndim == 1:
            writer.add_tensor(f"{name}.weight", tensor.astype(np.float32))
        else:
            halves = (np.ascontiguousarray(tensor, np.float32).view(np.uint32) >> 16).astype(np.uint16)
            writer.add_tensor(f"{name}.weight", halves.view(np.uint8), raw_dtype=gguf.GGMLQuantizationType.BF16)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return folder / "model.gguf"


def _context(low: Any, path: Path, threads: int) -> Any:
    model = low.llama_model_load_from_file(str(path).encode(), low.llama_model_default_params())
    if not model:
        raise RuntimeError(f"llama.cpp cannot load {path}")
    wanted = low.llama_context_default_params()
    wanted.n_ctx, wanted.n_batch, wanted.n_ubatch, wanted.n_seq_max = (
        MOST_TOKENS * MOST_ROWS,
        MOST_TOKENS,
        512,
        MOST_ROWS,
    )
    wanted.n_threads = wanted.n_threads_batch = threads
    context = low.llama_init_from_model(model, wanted)
    if not context:
        raise RuntimeError(f"llama.cpp cannot run {path}")
    return context


@ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)
def _silent(level: int, text: bytes, data: int) -> None:
    """Say nothing: standard output is the line to whoever asks."""
