"""How the demo's toy checkpoints are made: `python -m training FAMILY`, in a checkout; the product never imports this.

Toys that answer (Aria, Mllama) share a trainer, a dataset of easy-VQA's train split and drawn scenes, and the
evaluation; each brings a student model (`student.py`). Emu3 draws, and is trained by itself (`emu3/`). Each family
also writes its checkpoint's files beside the weights (`files.py`).
"""
