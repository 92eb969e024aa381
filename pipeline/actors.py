"""The processes of a run: what each actor must know, and how it loads its half of the model or its engine.

The steps themselves are plain callables that know nothing of Ray (pipeline/preprocess.py, generate.py, check.py); here
they get a process each.
"""

import math
import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import pyarrow as pa

from models.types import PictureFormat, Processor, Sampling
from pipeline.answerer import Answerer
from pipeline.check import CheckAnswers
from pipeline.engine_thread import EngineThread
from pipeline.generate import Generate, GenerateSettings, ModelSettings, max_length_of, sampling_of
from pipeline.job import Job
from pipeline.model_folder import local_copy
from pipeline.preprocess import Preprocess, PreprocessSettings, open_processor
from pipeline.storage import StorageSettings, Store
from pipeline.units import ReadSettings
from pipeline.write import UNITS

Step = Callable[[pa.Table], Awaitable[pa.Table]]


@dataclass(frozen=True)
class Work:
    """What the actors of a run must know; small, because it travels to each of them.

    Attributes:
        model: Whose `path` and `device` are what the settings' own mean where the actors are.
        model_name: What the parts call it: what the user said.
        check_model: The same of the model that checks, if any.
        unit_rows: Of the largest unit.
        load: Makes the step that answers, in the actor that it will work in.
        units: Where committed units stand below the store.
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
    load: Callable[["Work"], Step]
    check_model: ModelSettings | None = None
    units: str = UNITS


class PreprocessActor(Preprocess):
    """Preprocess in a process of its own."""

    def __init__(self, work: Work) -> None:
        processor = _processor(work.model, work.preprocess, work.job.template, work.read.storage)
        super().__init__(processor, work.job, sampling_of(work.generate, work.job.sampling))


class EngineActor:
    """A step with an engine, Generate or CheckAnswers, in a process of its own."""

    def __init__(self, load: Callable[[Work], Step], work: Work, cpus: float) -> None:
        # Before torch is imported, because it reads this once; several engines on one machine must not fight.
        os.environ["OMP_NUM_THREADS"] = str(max(1, math.floor(cpus)))
        self._step: Step | None = None
        self._fault: Exception | None = None
        try:
            self._step = load(work)
        except Exception as error:
            # Raised from here, Ray would print it several times over, and in pages; the first unit raises it instead.
            self._fault = error

    async def __call__(self, block: pa.Table) -> pa.Table:
        """Do one unit."""
        if self._step is None:
            raise RuntimeError(f"the model cannot be loaded: {self._fault}") from self._fault
        return await self._step(block)


def load_generate(work: Work) -> Generate:
    """Load the model that answers, with all that stands around it."""
    processor = _processor(work.model, work.preprocess, work.job.template, work.read.storage)
    answerer = _answerer(work.model, work.generate, processor, work.read.storage, work.job.picture)
    sampling = sampling_of(work.generate, work.job.sampling)
    return Generate(answerer, work.job, sampling, work.model_name, work.schema)


def load_check(work: Work) -> CheckAnswers:
    """Load the model that checks, with all that stands around it."""
    check, model = work.job.check, work.check_model
    assert check is not None and model is not None
    processor = _processor(model, check.settings.preprocess, check.template, work.read.storage)
    answerer = _answerer(model, check.settings.generate, processor, work.read.storage, picture=None)
    return CheckAnswers(answerer, check, sampling_of(check.settings.generate, Sampling()), work.job.schema)


def devices(device: str, gpus: float | None) -> str | list[str]:
    """Name the devices of one engine: all of its GPUs. Ray shows an actor no others, and numbers them from 0."""
    return [f"cuda:{number}" for number in range(int(gpus))] if device == "cuda" and gpus and gpus > 1 else device


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
    max_length = max_length_of(generate, model.max_position_embeddings, draws=picture is not None)
    engine = EngineThread(Engine(model, slots=generate.slots, max_length=max_length), EngineSequence)
    painter = Painter(model) if picture and isinstance(model, Paints) else None
    return Answerer(engine, processor, painter, picture)


def _processor(
    model: ModelSettings, preprocess: PreprocessSettings, template: str | None, storage: StorageSettings
) -> Processor:
    return open_processor(local_copy(model.path, storage), preprocess, template, text_only=model.text_only)
