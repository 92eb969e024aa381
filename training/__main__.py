"""Train the toy checkpoint of a family: `python -m training FAMILY`."""

import argparse
import logging
from pathlib import Path

from training.emu3 import train as drawing
from training.pupil import Recipe
from training.train import train

CHECKPOINTS = Path(__file__).parent.parent / "jobs" / "demo" / "checkpoints"
FAMILIES = ("aria", "mllama")  # answer questions
DRAWS = "emu3"


def load_recipe(family: str) -> Recipe:
    """Return how the checkpoint of a family that answers questions is made."""
    match family:
        case "aria":
            from training.aria.pupil import RECIPE
        case "mllama":
            from training.mllama.pupil import RECIPE
        case _:
            raise ValueError(f"no recipe for {family!r}; expected one of {', '.join(FAMILIES)}")
    return RECIPE


def main() -> None:
    """Read the command line and train."""
    parser = argparse.ArgumentParser(prog="python -m training", description=__doc__.splitlines()[0])
    parser.add_argument("family", choices=(*FAMILIES, DRAWS))
    parser.add_argument("--minutes", type=float, help="of one 2.5 GHz core; sets the number of steps")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="checkpoint folder to write")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    folder = arguments.out or CHECKPOINTS / arguments.family
    if arguments.family == DRAWS:
        drawing.train(folder, arguments.minutes or drawing.MINUTES, arguments.seed)
        return
    recipe = load_recipe(arguments.family)
    train(recipe, folder, arguments.minutes or recipe.minutes, arguments.seed)


if __name__ == "__main__":
    main()
