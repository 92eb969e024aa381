#!/usr/bin/env bash
# transformers 5.23.0: a Mllama whose vocabulary was grown by `resize_token_embeddings` and saved by `save_pretrained` is
# refused by `from_pretrained`; an Aria, grown and saved likewise, loads.
#
# One would guess that what a model saves it loads, all the more as both calls are the library's own and neither warns.
# But a Mllama's embeddings have 8 rows more than its `vocab_size`, the image's among them, and its head has none for
# them. Growing gives both tables the same number of rows and writes that number to `vocab_size`; loading expects 8 more
# rows of the embeddings. (Growing a Mllama of V words to fewer than V + 8 even takes rows away, without a word.)
#
# Where it matters: tokens are added before a fine-tuning, and the hours are over when the checkpoint is first loaded.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 numpy==2.4.6 transformers==5.23.0
"$folder/venv/bin/python" - "$folder" <<'PY'
import sys
import transformers
from transformers import AriaTextConfig, AriaTextForCausalLM, MllamaForCausalLM, MllamaTextConfig

transformers.logging.set_verbosity_error()
transformers.utils.logging.disable_progress_bar()
small = {"vocab_size": 100, "hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
         "num_key_value_heads": 2, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
models = {
    "Aria": AriaTextForCausalLM(AriaTextConfig(**small)),
    "Mllama": MllamaForCausalLM(MllamaTextConfig(**small, cross_attention_layers=[1])),
}
found = {}
for name, model in models.items():
    rows = [len(model.get_input_embeddings().weight)]
    model.resize_token_embeddings(105, mean_resizing=False)
    rows.append(len(model.get_input_embeddings().weight))
    model.save_pretrained(f"{sys.argv[1]}/{name}")
    try:
        type(model).from_pretrained(f"{sys.argv[1]}/{name}")
        loads = True
    except RuntimeError:
        loads = False
    found[name] = rows, model.config.vocab_size, loads
    print(f"transformers {transformers.__version__}: {name} of 100 words, grown to 105: {rows[0]} rows of embeddings become "
          f"{rows[1]}, vocab_size {model.config.vocab_size}, loads again: {loads}")
expected = {"Aria": ([100, 105], 105, True), "Mllama": ([108, 105], 105, False)}
assert found == expected, f"this has changed: found {found}, expected {expected}"
PY
# Output seen, on an Intel CPU:
# transformers 5.23.0: Aria of 100 words, grown to 105: 100 rows of embeddings become 105, vocab_size 105, loads again: True
# transformers 5.23.0: Mllama of 100 words, grown to 105: 108 rows of embeddings become 105, vocab_size 105, loads again: False
