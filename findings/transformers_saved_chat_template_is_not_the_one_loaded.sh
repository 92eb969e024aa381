#!/usr/bin/env bash
# transformers 5.23.0: a processor that is loaded from a folder with chat_template.json, given another chat template and
# saved into the same folder writes chat_template.jinja, and is loaded again with the old template: the older file is
# neither replaced nor removed, and goes before the newer one. Saved into an empty folder, the new template is loaded.
#
# One would guess that what `save_pretrained` has just written is what `from_pretrained` reads, as in an empty folder.
# Checkpoints saved before 2025, such as Llama 3.2 Vision, have chat_template.json.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet transformers==5.23.0 tokenizers==0.23.3 jinja2==3.1.6 pillow==12.3.0
TRANSFORMERS_VERBOSITY=error "$folder/venv/bin/python" - "$folder" <<'PY'
import json
import sys
from pathlib import Path

import transformers
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import MllamaImageProcessorPil, MllamaProcessor, PreTrainedTokenizerFast

words = Tokenizer(WordLevel({"<|image|>": 0, "<|python_tag|>": 1, "a": 2}, unk_token="a"))
tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, bos_token="a")
found = {}
for name, has_older_file in (("an empty folder", False), ("a folder with chat_template.json", True)):
    place = Path(sys.argv[1], name)
    place.mkdir()
    if has_older_file:
        (place / "chat_template.json").write_text(json.dumps({"chat_template": "the old template"}))
    MllamaProcessor(MllamaImageProcessorPil(), tokenizer, chat_template="the new template").save_pretrained(place)
    found[name] = MllamaProcessor.from_pretrained(place).chat_template
    print(f"transformers {transformers.__version__}, saved into {name}: loaded with {found[name]!r}")
assert list(found.values()) == ["the new template", "the old template"], f"this has changed: found {found}"
PY
# Output seen:
# transformers 5.23.0, saved into an empty folder: loaded with 'the new template'
# transformers 5.23.0, saved into a folder with chat_template.json: loaded with 'the old template'
