#!/usr/bin/env bash
# torch 2.13.0, CPU: with torch.device("meta"): nn.Embedding(2, 2) imports torch's compiler, i.e. torch._dynamo, sympy and,
# where it is installed, triton: 800 modules and more than a second, in each process, before any model is compiled.
#
# One would guess that a module on the meta device, which has shapes and no values, costs next to nothing: that is what
# the device is for. nn.Linear does (its weights begin uniform, which has a kernel there). An embedding begins normal,
# which has none: torch takes its decomposition in Python, and that is wrapped in torch._compile's guard, which imports
# torch._dynamo to say that it shall not be compiled.
#
# Where it matters: whoever builds a model on meta to load a checkpoint into it, or to look whether one fits, in many short
# processes. Under a TorchFunctionMode that gives the tensors of nn.init's functions back as they are, nothing is imported
# (models/weights.py: unfilled).
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 numpy==2.4.6
"$folder/venv/bin/python" - <<'PY'
import sys
import time

import torch
from torch import nn

for make in (nn.Linear, nn.Embedding):
    before, began = set(sys.modules), time.process_time()
    with torch.device("meta"):
        make(2, 2)
    new, spent = set(sys.modules) - before, time.process_time() - began
    compiler = [name for name in ("torch._dynamo", "sympy") if name in new]
    print(f"torch {torch.__version__}: {make.__name__} on meta imports {len(new)} modules, {compiler}; {spent:.1f} CPU s")
    assert bool(compiler) == (make is nn.Embedding), "this has changed"
PY
# Output seen:
# torch 2.13.0+cpu: Linear on meta imports 1 modules, []; 0.0 CPU s
# torch 2.13.0+cpu: Embedding on meta imports 822 modules, ['torch._dynamo', 'sympy']; 1.3 CPU s
