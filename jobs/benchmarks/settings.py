"""What a run can be told about each published data set that it asks: where its rows lie, how they are put and scored.

It knows settings and names, and says what is wrong with them; it reads nothing.
"""

import posixpath
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, PositiveInt, model_validator

from jobs.benchmarks.benchmark import Benchmark
from jobs.benchmarks.prompts import PRESETS
from jobs.benchmarks.table import BENCHMARKS
from jobs.prompt import Prompt
from jobs.scoring.rules import NAMES
from pipeline.settings import Settings
from pipeline.sources import Source
from pipeline.units import ReadSettings

# What the model's own family is asked with in published numbers.
AUTO = "auto"


def one_of(names: tuple[str, ...], what: str) -> AfterValidator:
    """Return a check that a text is one of some names."""

    def check(name: str) -> str:
        if name not in names:
            raise ValueError(f"found {name!r}, expected {what}: {', '.join(names)}")
        return name

    return AfterValidator(check)


Rule = Annotated[str, one_of(NAMES, "a rule")]
Preset = Annotated[str, one_of((AUTO, *PRESETS), "a preset")]


def _below(path: str) -> str:
    if path.startswith("/") or "://" in path or ".." in path.split("/"):
        raise ValueError(f"found {path!r}, expected a file, a folder or a glob below read.uri")
    return path


Below = Annotated[str, AfterValidator(_below)]


class BenchmarkSettings(Settings):
    """One published data set in a run.

    Attributes:
        path: Its shards: a file, a folder or a glob below `read.uri`.
        dataset: Which data set it is; null means that the entry is called so.
        format: See `read.format`.
        columns: The data set's column: what this copy calls it.
        limit: Only so many of its rows, from the start; its score is then that of a sample.
        preset: Whose wording it is asked in; null means the job's.
        prompt: A wording of your own instead: `{question}`, `{options}`, `{context}` are filled in.
        rule: How answers are scored; null means the data set's own rule.
        max_new_tokens: The longest answer; null means the preset's.
        images: The table that holds the images, below `read.uri`, where the questions stand apart from them (GQA).
        videos: The folder of the videos that rows name, below `read.uri`.
        subtitles: The folder of their subtitles.
        num_frames: Frames taken of a video.
        frame_size: The longer side of a frame, at most.
        meteor: Score captions by METEOR too, which takes Java, a minute and 2 GB.
    """

    path: Below
    dataset: Annotated[str, one_of(tuple(BENCHMARKS), "a data set")] | None = None
    format: Literal["auto", "parquet", "jsonl", "csv", "tsv"] = "auto"
    columns: dict[str, str] = Field(default={})
    limit: PositiveInt | None = None
    preset: Preset | None = None
    prompt: Prompt | None = None
    rule: Rule | None = None
    max_new_tokens: PositiveInt | None = None
    images: Below | None = None
    videos: Below | None = None
    subtitles: Below | None = None
    num_frames: int = Field(default=16, ge=1, le=256)
    frame_size: int = Field(default=490, ge=1, le=1120)
    meteor: bool = False

    @model_validator(mode="after")
    def _one_wording(self) -> "BenchmarkSettings":
        if self.prompt is not None and self.preset is not None:
            raise ValueError("found prompt and preset, expected one of them")
        return self


# An entry's name stands in results and reports, and is a word.
Benchmarks = dict[Annotated[str, Field(pattern=r"^\w[\w.-]*$")], BenchmarkSettings]


def dataset_of(name: str, settings: BenchmarkSettings) -> Benchmark:
    """Return the data set of an entry.

    Raises:
        ValueError: It is none that is known.
    """
    key = settings.dataset or name
    if key not in BENCHMARKS:
        known = ", ".join(BENCHMARKS)
        raise ValueError(f"job.benchmarks.{name}: found no data set of this name; `dataset` can name one of {known}")
    return BENCHMARKS[key]


def source_of(name: str, settings: BenchmarkSettings, read: ReadSettings) -> Source:
    """Return where an entry's rows are read, and how."""
    benchmark = dataset_of(name, settings)
    renamed = {column: settings.columns.get(column, column) for column in _named(benchmark)}
    columns: dict[str, Any] = {"image": renamed[benchmark.images[0]]} if benchmark.images else {}
    words = {"key": benchmark.key_column, "video": benchmark.video, "subtitles": benchmark.subtitles}
    columns |= {word: renamed[column] for word, column in words.items() if column is not None}
    given = read.model_dump() | {
        "uri": posixpath.join(read.uri, settings.path),
        "format": settings.format,
        "columns": columns,
        "limit": settings.limit or read.limit,
    }
    return Source(name, ReadSettings.model_validate(given), is_raw=True)


def _named(benchmark: Benchmark) -> list[str]:
    return [
        column
        for column in (benchmark.key_column, benchmark.video, benchmark.subtitles, *benchmark.images)
        if column is not None
    ]
