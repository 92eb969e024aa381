"""What a run can be told about each published data set that it asks: where its rows lie, how they are put and scored.

It knows settings and names, and says what is wrong with them; it reads nothing.
"""

import posixpath
from collections.abc import Collection
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, PositiveInt, model_validator

from jobs.benchmarks.benchmark import Benchmark
from jobs.benchmarks.datasets import BENCHMARKS
from jobs.benchmarks.presets import PRESETS
from jobs.prompt import Prompt
from jobs.scoring.rules import LIKELIHOOD, NAMES, suits
from pipeline import ReadSettings, Settings, Source, near

# What the model's own family is asked with in published numbers.
AUTO = "auto"


def choice_from(names: Collection[str], what: str) -> AfterValidator:
    """Return a check that a text is one of some names."""

    def check(name: str) -> str:
        if name not in names:
            raise ValueError(f"found {name!r}, expected {what}: {', '.join(names)}{near(name, names)}")
        return name

    return AfterValidator(check)


Rule = Annotated[str, choice_from(NAMES, "a rule")]
Preset = Annotated[str, choice_from((AUTO, *PRESETS), "a preset")]


def _below(path: str) -> str:
    if path.startswith("/") or "://" in path or ".." in path.split("/"):
        raise ValueError(f"found {path!r}, expected a file, a folder or a glob below read.uri")
    return path


Below = Annotated[str, AfterValidator(_below)]


class BenchmarkSettings(Settings):
    """One published data set in a run."""

    path: Below = Field(description="its shards: a file, a folder or a glob below read.uri")
    dataset: Annotated[str, choice_from(BENCHMARKS, "a data set")] | None = Field(
        default=None,
        description="which data set it is, as `triptych list benchmarks` names them; null: the one that the entry is "
        "called after",
    )
    format: Literal["auto", "parquet", "jsonl", "csv", "tsv"] = Field(default="auto", description="as read.format")
    columns: dict[str, str] = Field(default={}, description="the data set's column: what this copy calls it")
    limit: PositiveInt | None = Field(
        default=None, description="only so many of its rows, from the start; its score is then that of a sample"
    )
    preset: Preset | None = Field(default=None, description="whose wording it is asked in; null: job.preset")
    prompt: Prompt | None = Field(
        default=None,
        description="a wording of your own instead: {question}, {options} and {context} are filled in; its scores "
        "compare with no published ones",
    )
    rule: Rule | None = Field(default=None, description="how answers are scored; null: the data set's own rule")
    max_new_tokens: PositiveInt | None = Field(
        default=None, description="the longest answer: more costs time, fewer cuts answers off; null: the preset's"
    )
    images: Below | None = Field(
        default=None,
        description="the table of the images, below read.uri, where the questions stand apart from them (GQA)",
    )
    videos: Below | None = Field(default=None, description="the folder of the videos that rows name, below read.uri")
    subtitles: Below | None = Field(default=None, description="the folder of their subtitles, below read.uri")
    num_frames: int = Field(
        default=16, ge=1, le=256, description="frames taken of a video: more see more of it, and cost their tokens"
    )
    frame_size: int = Field(
        default=490, ge=1, le=1120, description="the longer side of a frame in pixels, at most; as read.frame_size"
    )
    meteor: bool = Field(default=False, description="score captions by METEOR too, which takes Java, a minute and 2 GB")

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
        raise ValueError(
            f"job.benchmarks.{name}: found no data set of this name; `dataset` can name one of {known}"
            f"{near(key, BENCHMARKS)}"
        )
    return BENCHMARKS[key]


def source_of(name: str, settings: BenchmarkSettings, read: ReadSettings) -> Source:
    """Return where an entry's rows are read, and how."""
    benchmark = dataset_of(name, settings)

    def called(column: str) -> str:
        return settings.columns.get(column, column)

    def below(paths: dict[str, str | None]) -> dict[str, str]:
        return {setting: posixpath.join(read.uri, path) for setting, path in paths.items() if path is not None}

    ours = {"key": benchmark.key_column, "video": benchmark.video, "subtitles": benchmark.subtitles}
    columns: dict[str, Any] = {our: called(column) for our, column in ours.items() if column is not None}
    if benchmark.images:
        columns["image"] = [called(column) for column in benchmark.images]
    join = None
    if benchmark.join is not None:
        key, image = map(called, benchmark.join)
        join = {"uri": None, "key": key, "image": image, **below({"uri": settings.images})}
    folders = below({"video": settings.videos, "subtitles": settings.subtitles})
    given = read.model_dump() | {
        "uri": posixpath.join(read.uri, settings.path),
        "format": settings.format,
        "columns": columns,
        "limit": settings.limit or read.limit,
        "join": join,
        "folders": read.folders.model_dump(exclude_none=True) | folders,
    }
    if benchmark.video is not None:
        given |= {"num_frames": settings.num_frames, "frame_size": settings.frame_size}
    return Source(name, ReadSettings.model_validate(given), is_raw=True)


def entry_faults(name: str, settings: BenchmarkSettings) -> list[str]:
    """Say what is wrong with an entry beside what each of its settings says by itself."""
    try:
        benchmark = dataset_of(name, settings)
    except ValueError as error:
        return [str(error)]
    key, rule, faults = benchmark.key, settings.rule, []
    if rule in LIKELIHOOD and not benchmark.has_continuations:
        fault = f"expected a rule that reads answers: questions of {key} do not say what may follow them"
        faults.append(f"rule: found {rule}, {fault}")
    elif rule is not None and not suits(rule, benchmark.rule):
        faults.append(f"rule: found {rule}, which cannot score rows of {key}, expected one such as {benchmark.rule}")
    if benchmark.has_image_table and settings.images is None:
        faults.append(f"images: found none, expected the table of the images that rows of {key} name")
    if settings.images is not None and not benchmark.has_image_table:
        faults.append(f"images: found {settings.images!r}, but rows of {key} hold their images")
    if benchmark.video is None:
        faults += [
            f"{setting}: found {value!r}, but rows of {key} name no videos"
            for setting in ("videos", "subtitles", "num_frames", "frame_size")
            if (value := getattr(settings, setting)) != BenchmarkSettings.model_fields[setting].default
        ]
    if settings.meteor and not (benchmark.aggregation and benchmark.aggregation.has_meteor):
        faults.append(f"meteor: found true, but answers to {key} are no captions")
    faults += [
        f"columns: found {column!r}, expected columns of {key}: {', '.join(sorted(benchmark.columns))}"
        for column in settings.columns
        if column not in benchmark.columns
    ]
    return [f"job.benchmarks.{name}.{fault}" for fault in faults]
