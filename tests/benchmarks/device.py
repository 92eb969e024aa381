"""Models of full size on one GPU, ten minutes in all: `python -m tests.benchmarks device`.

Weights are drawn at random on the device, so that nothing has to be brought there. Each section is a process of its
own: one that fails or hangs costs itself alone. Each measurement is a line of JSON that is printed as soon as it is
there; one that fails is a line with its error.
"""

import argparse
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial

import torch

from tests.benchmarks.device_layers import attention, experts, line, machine
from tests.benchmarks.device_models import family_section, memory

# By name, with the seconds that each may take.
SECTIONS: dict[str, tuple[Callable[[], None], int]] = {
    "machine": (machine, 60),
    "attention": (attention, 90),
    "emu3": (partial(family_section, "emu3"), 120),
    "aria": (partial(family_section, "aria"), 120),
    "mllama": (partial(family_section, "mllama"), 90),
    "experts": (experts, 60),
    "memory": (memory, 90),
}


def main() -> None:
    """Run all sections, or those that are named, one after the other."""
    parser = argparse.ArgumentParser(description="Measure models of full size on one GPU.")
    parser.add_argument(
        "sections", nargs="*", metavar="section", help=f"of {', '.join(SECTIONS)}; all if none is named"
    )
    parser.add_argument("--seconds", type=float, default=570, help="for all together")
    parser.add_argument("--here", action="store_true", help="in this process, without limits")
    given = parser.parse_args()
    if unknown := set(given.sections) - SECTIONS.keys():
        parser.error(f"found {', '.join(sorted(unknown))}, expected some of {', '.join(SECTIONS)}")
    if not torch.cuda.is_available():
        sys.exit(f"torch {torch.__version__} sees no GPU here: nothing is measured")
    began = time.monotonic()
    for name in given.sections or SECTIONS:
        section, most = SECTIONS[name]
        if given.here:
            section()
            continue
        left = given.seconds - (time.monotonic() - began)
        if left < 20:
            line(name, error=f"left out: of {given.seconds:.0f} seconds {left:.0f} are left")
            continue
        try:
            done = subprocess.run(
                [sys.executable, "-m", "tests.benchmarks", "device", name, "--here"], timeout=min(left, most)
            )
            if done.returncode:
                line(name, error=f"ended with exit code {done.returncode}")
        except subprocess.TimeoutExpired as expired:
            line(name, error=f"not done after {expired.timeout:.0f} seconds")


if __name__ == "__main__":
    main()
