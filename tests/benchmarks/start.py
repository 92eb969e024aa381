"""What a short run takes from the command to its end: `python -m tests.benchmarks start --against CHECKOUT`.

Both sides caption the demo's dozen photographs by its toy Aria, a process and a fresh output each time, in turn and in
changing order: this checkout and another one. Prints a JSON line a pair, and the medians and their ratios in the end.
CPU seconds are those of all processes of a side: on a busy machine they say more than the clock.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import pyarrow.parquet as pq

from tests.benchmarks.overhead import CHECKPOINT, Spent

ROOT = Path(__file__).parents[2]
PHOTOGRAPHS = ROOT / "jobs" / "demo" / "data" / "photographs"
# Those of the demo's piece.
ASKED = (
    "model.device=cpu",
    f"model.path={CHECKPOINT}",
    f"read.uri={PHOTOGRAPHS}",
    "generate.slots=64",
    "generate.max_length=256",
    "generate.sampling.max_new_tokens=24",
)
CONFIG = "job: {kind: caption, prompt: Describe this image.}\n"
LOOKS_EVERY_S = 0.05


def measure(checkout: Path) -> tuple[dict[str, float], list[list[int]]]:
    """Run a checkout's command once; return what it took (s, CPU s), and the tokens of its answers in input order."""
    with tempfile.TemporaryDirectory() as folder:
        config, output = Path(folder, "settings.yaml"), Path(folder, "output")
        config.write_text(CONFIG)
        command = [sys.executable, "-P", "-m", "jobs", "run", str(config), *ASKED, f"write.uri={output}"]
        watch, began, first = Spent(), time.monotonic(), None
        spent_before = watch()
        with Path(folder, "said").open("wb") as said:
            environment = {**os.environ, "PYTHONPATH": str(checkout)}
            process = subprocess.Popen(command, cwd=folder, env=environment, stdout=said, stderr=said)
            while process.poll() is None:
                time.sleep(LOOKS_EVERY_S)
                spent = watch()
                if first is None and (any(output.glob("_triptych/units/**/*.parquet")) or any(output.glob("part-*"))):
                    first = time.monotonic() - began
        ended = time.monotonic() - began
        if process.returncode:
            sys.exit(f"the run of {checkout} ended with {process.returncode}: {Path(folder, 'said').read_text()}")
        tokens = pq.read_table(sorted(output.glob("part-*.parquet"))[0])["output_token_ids"].to_pylist()
        return {"s": ended, "first_row_s": first or ended, "cpu_s": spent - spent_before}, tokens


def compare(sides: Sequence[tuple[str, Path]], rounds: int) -> None:
    """Time pairs, in changing order, so that what else the machine does is shared by both."""
    took: defaultdict[str, list[dict[str, float]]] = defaultdict(list)
    for number in range(rounds):
        answers = []
        for name, checkout in sides if number % 2 else reversed(sides):
            numbers, tokens = measure(checkout)
            took[name].append(numbers)
            answers.append(tokens)
        assert answers[0] == answers[1], "both sides' answers"
        _tell({name: took[name][-1] for name, _ in sides}, load=os.getloadavg()[0])
    (ours, _), (theirs, _) = sides
    medians = {
        name: {what: statistics.median(one[what] for one in took[name]) for what in took[name][0]} for name in took
    }
    ratios = {what: medians[ours][what] / medians[theirs][what] for what in medians[ours]}
    _tell({**{f"{name}, median": numbers for name, numbers in medians.items()}, "ratio": ratios})


def _tell(sides: dict[str, dict[str, float]], **more: float) -> None:
    rounded = {name: {what: round(value, 2) for what, value in numbers.items()} for name, numbers in sides.items()}
    print(json.dumps({**rounded, **{what: round(value, 1) for what, value in more.items()}}), flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--against", type=Path, required=True, help="another checkout, of which all is run")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    compare([("this", ROOT), ("other", arguments.against.resolve())], arguments.rounds)
