"""The processes of a run: what each actor must know, and how it loads its half of the model or its engine.

The steps themselves are plain callables that know nothing of Ray (pipeline/preprocess.py, generate.py, check.py); here
they get a process each.
"""

import math
import os
from dataclasses import dataclass

import pyarrow as pa

from models.types import PictureFormat, Processor, Sampling
from pipeline.answerer import Answerer
from pipeline.check import CheckAnswers
from pipeline.engine_thread import EngineThread
from pipeline.generate import Generate, GenerateSettings, ModelSettings, sampling_of
from pipeline.job import Job
from pipeline.model_folder import local_copy
from pipeline.preprocess import Preprocess, PreprocessSettings, open_processor
from pipeline.storage import StorageSettings, Store
from pipeline.units import ReadSettings

# A prompt and its answer, where neither the settings nor the checkpoint say less; pictures may take all there is.
MAX_LENGTH = 4096


@dataclass(frozen=True)
class Work:
    """What the actors of a run must know; small, because it travels to each of them.

    Attributes:
        model: Whose `path` and `device` are what the settings' own mean where the actors are.
        model_name: What the parts call it: what the user said.
        check_model: The same of the model that checks, if any.
        unit_rows: Of the largest unit.
    """

    read: ReadSettings
    model: ModelSettings
    model_name: str
    preprocess: PreprocessSettings
    generate: GenerateSettings
    job: Job
    schema: pa.Schema
    store: Store
    unit_rows: int
    check_model: ModelSettings | None = None


class PreprocessActor(Preprocess):
    """Preprocess in a process of its own."""

    def __init__(self, work: Work) -> None:
        processor = _processor(work.model, work.preprocess, work.job.template, work.read.storage)
        super().__init__(processor, work.job, sampling_of(work.generate, work.job.sampling))


class GenerateActor:
    """Generate in a process of its own, with its engine."""

    def __init__(self, work: Work, cpus: float) -> None:
        _use_threads(cpus)
        self._generate: Generate | None = None
        self._fault: Exception | None = None
        try:
            self._generate = _load(work)
        except Exception as error:
            # Raised from here, Ray would print it several times over, and in pages; the first unit raises it instead.
            self._fault = error

    async def __call__(self, block: pa.Table) -> pa.Table:
        """Answer one unit."""
        if self._generate is None:
            raise RuntimeError(f"the model cannot be loaded: {self._fault}") from self._fault
        return await self._generate(block)


class CheckActor:
    """CheckAnswers in a process of its own, with an engine and a processor."""

    def __init__(self, work: Work, cpus: float) -> None:
        _use_threads(cpus)
        self._check: CheckAnswers | None = None
        self._fault: Exception | None = None
        try:
            self._check = _load_check(work)
        except Exception as error:  # see GenerateActor
            self._fault = error

    async def __call__(self, block: pa.Table) -> pa.Table:
        """Check one answered unit."""
        if self._check is None:
            raise RuntimeError(f"the model that checks cannot be loaded: {self._fault}") from self._fault
        return await self._check(block)


def devices(device: str, gpus: float | None) -> str | list[str]:
    """Name the devices of one engine: all of its GPUs. Ray shows an actor no others, and numbers them from 0."""
    return [f"cuda:{number}" for number in range(int(gpus))] if device == "cuda" and gpus and gpus > 1 else device


def _use_threads(cpus: float) -> None:
    # Before torch is imported, because it reads this once; several engines on one machine must not fight.
    os.environ["OMP_NUM_THREADS"] = str(max(1, math.floor(cpus)))


def _load(work: Work) -> Generate:
    processor = _processor(work.model, work.preprocess, work.job.template, work.read.storage)
    answerer = _answerer(work.model, work.generate, processor, work.read.storage, work.job.picture)
    sampling = sampling_of(work.generate, work.job.sampling)
    return Generate(answerer, work.job, sampling, work.model_name, work.schema)


def _load_check(work: Work) -> CheckAnswers:
    check, model = work.job.check, work.check_model
    assert check is not None and model is not None
    processor = _processor(model, check.settings.preprocess, check.template, work.read.storage)
    answerer = _answerer(model, check.settings.generate, processor, work.read.storage, picture=None)
    return CheckAnswers(answerer, check, sampling_of(check.settings.generate, Sampling()), work.job.schema)


def _answerer(
    settings: ModelSettings,
    generate: GenerateSettings,
    processor: Processor,
    storage: StorageSettings,
    picture: PictureFormat | None,
) -> Answerer:
    from models import load_model
    from models.engine.engine import Engine
    from models.engine.scheduler import Sequence as EngineSequence
    from models.painting import Painter, Paints

    path = local_copy(settings.path, storage)
    device = devices(settings.device, generate.gpus)
    model = load_model(path, device=device, dtype=settings.dtype, text_only=settings.text_only)
    longest = model.max_position_embeddings
    max_length = generate.max_length or (longest if picture else min(MAX_LENGTH, longest))
    engine = EngineThread(Engine(model, slots=generate.slots, max_length=max_length), EngineSequence)
    painter = Painter(model) if picture and isinstance(model, Paints) else None
    return Answerer(engine, processor, painter, picture)


def _processor(
    model: ModelSettings, preprocess: PreprocessSettings, template: str | None, storage: StorageSettings
) -> Processor:
    return open_processor(local_copy(model.path, storage), preprocess, template, text_only=model.text_only)
