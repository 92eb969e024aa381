"""Every job on data and toy checkpoints that come with the package: `triptych demo`.

`pieces.py` lists what is run: per piece its shards, job, family and texts. `run.py` writes the shards (`data.py`,
`prompts.py`), runs each piece like any other run, and writes the page that links them. The drawn pictures are also
measured by rule (`picture_rule.py`, `drawn_pictures.py`). `checkpoints/` holds the toys, which are made by `training/`
in a checkout; `data/` holds easy-VQA's test split and a dozen photographs.

To add a piece, add an entry to PIECES in `pieces.py`. If it needs other shards, write them in `run_demo`; if it needs
another toy, put its folder into `checkpoints/` and its name into FAMILIES. What trains one is a folder in `training/`
with its files and tokenizer (`files.py`) and its `RECIPE`, named in RECIPES of training/__main__.py. Tests name the
three toys: tests/test_rooms.py those in the wheel.
"""
