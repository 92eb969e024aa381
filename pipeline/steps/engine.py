"""One model of a run, the one that answers or the one that checks: what the settings ask of it, and how it is loaded.

It knows settings and `models`; where the model's files lie, and in which process it is loaded, its callers know.
"""

from dataclasses import dataclass, replace

from models.stopwatch import Stopwatch
from models.types import CPU_SLOTS, MOST_SLOTS, PictureFormat, Processor, Sampling
from pipeline.job import Job
from pipeline.pipeline_settings import GenerateSettings, ModelSettings, PipelineSettings, PreprocessSettings
from pipeline.steps.answerer import Answerer, Slots
from pipeline.steps.engine_thread import EngineThread

# What stands before the names of the settings of the model that checks.
CHECK = "job.check."
# A prompt and its answer in text, where neither the settings nor the checkpoint say less.
MAX_LENGTH = 4096


@dataclass(frozen=True)
class EngineSpec:
    """What a run asks of one of its models.

    Attributes:
        model: Which checkpoint, on which device.
        preprocess: How prompts and images are made ready for it.
        generate: How many engines there are, and how they answer.
        usual: How answers are chosen where the settings do not say.
        template: See `Job.template`.
        picture: How the pictures that it draws are encoded; None where it answers in text.
        where: What stands before the names of its settings: nothing, or `job.check.`.
    """

    model: ModelSettings
    preprocess: PreprocessSettings
    generate: GenerateSettings
    usual: Sampling
    template: str | None = None
    picture: PictureFormat | None = None
    where: str = ""

    @property
    def sampling(self) -> Sampling:
        """How it answers; the seed in it is not yet a row's."""
        return replace(self.usual, **self.generate.sampling.model_dump(exclude_none=True))

    def max_length(self, limit: int) -> int:
        """Return the longest sequence, prompt and answer together, of a checkpoint whose positions end at `limit`."""
        return self.generate.max_length or (limit if self.picture else min(MAX_LENGTH, limit))

    def most_slots(self, gpus: float) -> int:
        """Return how many sequences an engine answers at once at most; how many on a GPU, is known once it is loaded.

        Args:
            gpus: That each engine has.
        """
        slots = self.generate.slots
        return slots if slots != "auto" else MOST_SLOTS if gpus else CPU_SLOTS

    def with_model(self, **changes: str) -> "EngineSpec":
        """Return the same with another `path` or `device` of its model."""
        return replace(self, model=self.model.model_copy(update=changes))

    def without_settings(self) -> "EngineSpec":
        """Return the same with nothing of the checkpoint's overridden but its chat template, which it may lack."""
        return replace(self, preprocess=PreprocessSettings())

    def open_processor(self, folder: str) -> Processor:
        """Load the processor of the checkpoint that lies in a local folder.

        Raises:
            CheckpointError: The checkpoint is not one we can run, or the settings do not suit it.
        """
        from models import load_processor

        return load_processor(
            folder,
            self.preprocess.images,
            self.template,
            today=self.preprocess.today,
            text_only=self.model.text_only,
            tokenizer=self.preprocess.tokenizer,
        )

    def load(self, folder: str, stopwatch: Stopwatch) -> Answerer:
        """Load the checkpoint that lies in a local folder, and start an engine with all that stands around it."""
        from models import load_model
        from models.capacity.room import choose_slots
        from models.engine.engine import Engine
        from models.engine.scheduler import Sequence
        from models.picture_decoder import PictureDecoder, PictureModel

        processor = self.open_processor(folder)
        device = devices(self.model.device, self.generate.gpus)
        model = load_model(folder, device=device, dtype=self.model.dtype, text_only=self.model.text_only)
        max_length, is_drawing = self.max_length(model.max_position_embeddings), self.picture is not None
        asked = None if self.generate.slots == "auto" else self.generate.slots
        share = self.generate.gpus or 1.0
        slots, why = choose_slots(model, asked, max_length, share=share, is_drawing=is_drawing)
        engine = Engine(
            model, slots=slots, max_length=max_length, speculate=self.generate.speculate, stopwatch=stopwatch
        )
        picture_decoder = PictureDecoder(model, stopwatch) if is_drawing and isinstance(model, PictureModel) else None
        thread = EngineThread(engine, Sequence, stopwatch)
        return Answerer(thread, processor, picture_decoder, self.picture, Slots(slots, why))


def answering_engine(settings: PipelineSettings, job: Job) -> EngineSpec:
    """Return what a run asks of the model that answers."""
    return EngineSpec(settings.model, settings.preprocess, settings.generate, job.sampling, job.template, job.picture)


def checking_engine(job: Job) -> EngineSpec | None:
    """Return what a run asks of the model that checks; None where none does."""
    if job.check is None:
        return None
    settings = job.check.settings
    return EngineSpec(
        settings.model, settings.preprocess, settings.generate, Sampling(), job.check.template, where=CHECK
    )


def devices(device: str, gpus: float | None) -> str | list[str]:
    """Name the devices of one engine: all of its GPUs. Ray shows an actor no others, and numbers them from 0."""
    return [f"cuda:{number}" for number in range(int(gpus))] if device == "cuda" and gpus and gpus > 1 else device
