"""What the processes of a run must know, and how each loads its half of a model or its engine.

The steps themselves are plain callables (pipeline/steps/). It knows nothing of Ray.
"""

import platform
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import pyarrow as pa

from models.stopwatch import Stopwatch
from pipeline.execution.guard import Step
from pipeline.input.units import ReadSettings
from pipeline.job import Job
from pipeline.steps.check import CheckAnswers
from pipeline.steps.engine import EngineSpec
from pipeline.steps.generate import Generate
from pipeline.steps.preprocess import Preprocess
from pipeline.steps.write import UNITS
from pipeline.storage.model_folder import local_copy, weights_digest
from pipeline.storage.store import Store


@dataclass(frozen=True)
class Work:
    """What the actors of a run must know; small, because it travels to each of them.

    Attributes:
        read: The run's; the job makes of it what each of its sources is read by.
        job: What is asked and kept.
        answering: The model that answers, with the path and device that it has where the actors are.
        model_name: What the parts call it: what the user said.
        schema: The columns of the rows as the job has adapted them.
        store: The output.
        unit_rows: Rows of the largest unit, in the source whose units are smallest.
        load: Makes the step that answers, in the actor that it will work in.
        checking: The model that checks, if any, like the one that answers.
        units: Where committed units stand below the store.
        keeps_images: Whether compressed images go with their rows, into the units and from there into tars.
        crashes: Name of the actor that keeps the crash ledger; without one, whatever kills an actor ends the run.
        weights: Fingerprints of the models' files by their paths; no actor loads others.
    """

    read: ReadSettings
    job: Job
    answering: EngineSpec
    model_name: str
    schema: pa.Schema
    store: Store
    unit_rows: int
    load: Callable[["Work", Stopwatch], Step]
    checking: EngineSpec | None = None
    units: str = UNITS
    keeps_images: bool = False
    crashes: str | None = None
    weights: Mapping[str, str] = field(default_factory=dict)


class OtherWeights(RuntimeError):
    """Where an actor works, the model's files are not those that the run began with."""


def load_preprocess(work: Work, stopwatch: Stopwatch) -> Step:
    """Load the processor of the model that answers."""
    processor = work.answering.open_processor(model_folder(work, work.answering))
    preprocess = Preprocess(processor, work.job, work.answering.sampling, keeps_images=work.keeps_images)

    async def step(block: pa.Table) -> pa.Table:
        with stopwatch.measure("preprocess"):
            return preprocess(block)

    return step


def load_generate(work: Work, stopwatch: Stopwatch) -> Generate:
    """Load the model that answers."""
    answerer = work.answering.load(model_folder(work, work.answering), stopwatch)
    return Generate(answerer, work.job, work.answering.sampling, work.model_name, work.schema)


def load_check(work: Work, stopwatch: Stopwatch) -> CheckAnswers:
    """Load the model that checks."""
    check, engine = work.job.check, work.checking
    assert check is not None and engine is not None
    return CheckAnswers(engine.load(model_folder(work, engine), stopwatch), check, engine.sampling, work.job.schema)


def model_folder(work: Work, engine: EngineSpec) -> str:
    """Bring a model's files to this machine and see that they are those that the run began with.

    Raises:
        OtherWeights: They are others: another copy on this node, a hub's newer revision, files written over meanwhile.
        StorageError: They cannot be brought here.
    """
    folder = local_copy(engine.model.path, work.read.storage)
    if expected := work.weights.get(engine.model.path):
        found = weights_digest([folder])
        if found != expected:
            raise OtherWeights(
                f"on node {platform.node()} the model's files in {folder} are not those that the run began with: "
                f"found {found}, expected {expected}; copy the same files to every node, or start a new run with these"
            )
    return folder
