"""The settings of a run but for its job: a section for each thing that can be set, in the order of the YAML.

What `read` may say stands beside the readers, in pipeline/input/read_settings.py.
"""

from dataclasses import fields
from datetime import date
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, ValidationInfo, field_validator, model_validator

from models.sampling import NewTokens, Seed, Temperature, TopK, TopP, sampling_fault
from models.types import TEMPLATE_DATE, ImageSettings, Tokenizer
from pipeline.input.read_settings import ReadSettings
from pipeline.settings import Address, Settings
from pipeline.storage.store import StorageSettings


def least_and_most(count: int | tuple[int, int]) -> tuple[int, int]:
    """Return what a setting of actors means: at least and at most so many; equal where the number is fixed."""
    return count if isinstance(count, tuple) else (count, count)


def _checked_count(count: Any) -> Any:
    if count is None or _is_number(count):
        return count
    if isinstance(count, list | tuple) and len(count) == 2 and all(map(_is_number, count)) and count[0] <= count[1]:
        return tuple(count)
    raise ValueError(f"found {count!r}, expected a whole number of at least 1, or two of them: [min, max]")


def _is_number(count: Any) -> bool:
    return isinstance(count, int) and not isinstance(count, bool) and count >= 1


# Checked as a whole and not by pydantic's union, which would name every kind of value it is not.
ActorCount = Annotated[int | tuple[int, int] | None, BeforeValidator(_checked_count)]


def _checked_auto(count: Any) -> Any:
    if count == "auto" or _is_number(count):
        return count
    raise ValueError(f"found {count!r}, expected `auto` or a whole number of at least 1")


Count = Annotated[Literal["auto"] | Annotated[int, Field(ge=1)], BeforeValidator(_checked_auto)]


class ModelSettings(Settings):
    """Which checkpoint, and how it lies on the device."""

    path: Address = Field(
        min_length=1,
        description="the checkpoint: a local folder, an address such as s3://bucket/weights, or a name on the hub",
    )
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        default="auto",
        description="how weights are held: half precision takes half the memory and is fast on a GPU, slow on most "
        "CPUs; auto: the checkpoint's own on a GPU, float32 on a CPU",
    )
    device: Literal["auto", "cpu", "cuda"] = Field(
        default="auto", description="where the model runs; auto: on GPUs where Ray has any, else on the CPU"
    )
    text_only: bool = Field(
        default=False,
        description="leave out what only images need, which saves memory; rows with an image become error rows",
    )


class PreprocessSettings(Settings):
    """How prompts and images are made ready, and by how many actors."""

    actors: ActorCount = Field(
        default=None,
        description="CPU actors, or [min, max] of them: more if the GPU waits for them, at some 60 MB each; null: as "
        "many as generation leaves CPUs free",
    )
    split_image: bool | None = Field(
        default=None,
        description="Aria: cut large images into crops beside the overview, for small print, at up to nine times the "
        "tokens; null: as the checkpoint says",
    )
    max_image_size: int | None = Field(
        default=None,
        ge=1,
        description="Aria: side of the canvas in pixels; of the released weights 490 costs half the tokens of 980 and "
        "loses small print; null: as the checkpoint says",
    )
    max_image_tiles: int | None = Field(
        default=None,
        ge=1,
        le=4,
        description="Mllama: the most tiles a picture is cut into; fewer take less memory and lose small print; null: "
        "as the checkpoint says",
    )
    min_pixels: int | None = Field(
        default=None, ge=1, description="Emu3: smaller pictures are enlarged to this area; null: as the checkpoint says"
    )
    max_pixels: int | None = Field(
        default=None,
        ge=1,
        description="Emu3: larger pictures are shrunk to this area, a token for every 64 pixels; null: as the "
        "checkpoint says",
    )
    pad_to_ratio: int | None = Field(
        default=None,
        ge=1,
        le=200,
        description="Emu3: pictures with one side more than so many times the other get black edges, which cost "
        "tokens; null: none do",
    )
    tokenizer: Tokenizer = Field(
        default="checkpoint",
        description="Emu3: `baai` cuts texts into tokens as its authors' code does, `checkpoint` as the folder's "
        "files do",
    )
    today: date = Field(
        default=TEMPLATE_DATE,
        description="the day that chat templates write into prompts; another day may change answers",
    )

    @property
    def images(self) -> ImageSettings:
        """What overrides the checkpoint's own image settings."""
        return ImageSettings(**{field.name: getattr(self, field.name) for field in fields(ImageSettings)})

    @field_validator("today", mode="before")
    @classmethod
    def _is_a_day(cls, today: Any) -> date:
        # Not left to pydantic, which takes a bare number for seconds since 1970.
        try:
            return today if isinstance(today, date) else date.fromisoformat(today)
        except (TypeError, ValueError) as error:
            raise ValueError(f"found {today!r}, expected a day such as 2024-07-26") from error


class SamplingSettings(Settings):
    """How the next token is chosen and when an answer ends."""

    max_new_tokens: NewTokens | None = Field(
        default=None,
        description="the longest answer: more costs time, fewer cuts answers off; null: what the job says, 128 or what "
        "is usual for a benchmark",
    )
    temperature: Temperature | None = Field(
        default=None,
        description="0 takes the likeliest token, always the same; more makes answers more varied and less sure; null: "
        "0 for text, 1 for pictures",
    )
    top_k: TopK | None = Field(
        default=None,
        description="draw among so many of the likeliest tokens, 0: all; null: all for text, 2048 for pictures",
    )
    top_p: TopP = Field(
        default=1.0,
        description="draw among the likeliest tokens that hold this much probability; 1: all",
    )
    seed: Seed = Field(
        default=0,
        description="each row's own seed is made of this and its key: another one draws other answers, the same one "
        "the same; nothing is drawn at temperature 0",
    )
    stop: tuple[str, ...] = Field(
        default=(), description="an answer ends before the first of these texts; short answers cost less time"
    )

    @field_validator("*")
    @classmethod
    def _is_possible(cls, value: Any, info: ValidationInfo) -> Any:
        fault = None if value is None else sampling_fault(str(info.field_name), value)
        if fault is not None:
            raise ValueError(fault)
        return value


class GenerateSettings(Settings):
    """How many engines answer, on what, and how."""

    actors: ActorCount = Field(
        default=None,
        description="engines, each with weights of its own, or [min, max] of them, which grow with work and cluster; "
        "null: one for every GPU, or one on the CPU",
    )
    gpus: float | None = Field(
        default=None,
        ge=0,
        description="GPUs of each engine: several hold weights that are too large for one, a part lets engines share "
        "one; null: 1 where there are any",
    )
    slots: Count = Field(
        default="auto",
        description="sequences answered at once by each engine: more use the device better, until its memory is full; "
        "on a GPU no more than there is room for; auto: so many, at most 256, or 32 on a CPU",
    )
    max_length: int | None = Field(
        default=None,
        ge=2,
        description="longest prompt and answer together, in tokens: every slot's cache holds so many; null: 4096, or "
        "for pictures the model's limit",
    )
    speculate: int = Field(
        default=1,
        ge=1,
        le=8,
        description="most tokens of a drawn picture that one step may bring, by guesses that are checked (Jacobi "
        "decoding): the picture is the same; worth trying where slots are few; 1: no guesses",
    )
    sampling: SamplingSettings = SamplingSettings()

    @field_validator("gpus")
    @classmethod
    def _whole_above_one(cls, gpus: float | None) -> float | None:
        if gpus is not None and gpus > 1 and gpus != int(gpus):
            raise ValueError(f"found {gpus:g}, expected a part of one GPU or a whole number of them")
        return gpus


class CheckSettings(Settings):
    """Which model looks at the finished rows, on what, and how it answers."""

    model: ModelSettings
    preprocess: PreprocessSettings = PreprocessSettings()
    generate: GenerateSettings = Field(default=GenerateSettings(slots=8))


class WriteSettings(Settings):
    """Where the results go and in what pieces."""

    uri: Address = Field(min_length=1, description="folder of the results: a local path or an fsspec URL")
    rows_per_part: Count = Field(
        default="auto",
        description="a part holds whole units up to this many rows: larger parts are fewer files, and there later; "
        "auto: 10,000, or about 256 pictures, or with tars of images that were read eight of the largest units",
    )
    unit_rows: Count = Field(
        default="auto",
        description="rows read, answered and committed together, and repeated together when a machine dies; auto: as "
        "many as take 120 MB ready for the model, or 60 MB as image files that rows name, or eight pictures drawn",
    )
    webdataset: bool = Field(
        default=False,
        description="write tar shards for training loaders too: each row's image, drawn or read, with its text. Images "
        "that were read travel with their rows, and parts are smaller",
    )
    on_existing: Literal["resume", "fail", "replace"] = Field(
        default="resume",
        description="what if a run stands there: go on with it, refuse, or remove it, even if it is the same, finished "
        "or not, and start over",
    )
    storage: StorageSettings = StorageSettings()


class RaySettings(Settings):
    """Which Ray to use."""

    address: str | None = Field(
        default=None, description="`auto` or the host:port of a cluster to join; null: a Ray of its own on this machine"
    )
    object_store_bytes: int | None = Field(
        default=None,
        ge=100 * 2**20,
        description="memory of a local Ray in which units lie between two steps: more holds larger units; null: "
        "2 GiB, or less where the machine has little",
    )

    @model_validator(mode="after")
    def _fits_together(self) -> "RaySettings":
        if self.address is not None and self.object_store_bytes is not None:
            raise ValueError("object_store_bytes is for a local Ray; the cluster at `address` has its own")
        if self.address is not None and self.address.startswith("ray://"):
            raise ValueError(f"address: found '{self.address}', expected host:port; start the run on the cluster")
        return self


class LimitsSettings(Settings):
    """How much may go wrong: in a finished run that does not count as failed, and with one row that kills processes."""

    max_failed_share: float = Field(
        default=0.05,
        ge=0,
        le=1,
        description="failed rows / rows; a run stops as soon as this can no longer be kept, and a higher limit lets it "
        "go on",
    )
    judge_after_rows: int | None = Field(
        default=None, ge=1, description="stop, too, if of so many rows, or more, a larger share than that has failed"
    )
    attempts: int = Field(
        default=4,
        ge=3,
        description="tries of a row whose process dies, the last two on it alone; then it is an error row",
    )


class PipelineSettings(Settings):
    """Everything about a run but its job."""

    read: ReadSettings
    model: ModelSettings
    preprocess: PreprocessSettings = PreprocessSettings()
    generate: GenerateSettings = GenerateSettings()
    write: WriteSettings
    limits: LimitsSettings = LimitsSettings()
    ray: RaySettings = RaySettings()
