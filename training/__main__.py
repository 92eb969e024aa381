"""Train the toy checkpoint of a family: `python -m training FAMILY`."""

import argparse
import logging
from pathlib import Path

from training import trainer
from training.aria.student import RECIPE as ARIA
from training.checkpoint_files import CHECKPOINTS
from training.emu3 import train as emu3
from training.mllama.student import RECIPE as MLLAMA

RECIPES = {"aria": ARIA, "mllama": MLLAMA}  # of those that answer questions; Emu3 draws


def main() -> None:
    """Read the command line and train."""
    parser = argparse.ArgumentParser(prog="python -m training", description=__doc__.splitlines()[0])
    parser.add_argument("family", choices=(*RECIPES, "emu3"))
    parser.add_argument("--minutes", type=float, help="of one 2.5 GHz core; sets the number of steps")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="checkpoint folder to write (the shipped one if left out)")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    folder = arguments.out or CHECKPOINTS / arguments.family
    if arguments.family == "emu3":
        emu3.train(folder, arguments.minutes or emu3.MINUTES, arguments.seed)
        return
    recipe = RECIPES[arguments.family]
    trainer.train(recipe, folder, arguments.minutes or recipe.minutes, arguments.seed)


if __name__ == "__main__":
    main()
