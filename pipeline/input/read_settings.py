"""What a run's settings say of its input: where it lies, what its columns are called, and where its images are.

It knows names, and opens nothing.
"""

from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, PlainValidator, PositiveInt, model_validator

from pipeline.input.columns import Names, Word
from pipeline.input.formats.cells import Dialect, dialect_of
from pipeline.input.formats.table import Format
from pipeline.settings import Address, Settings
from pipeline.storage.store import StorageSettings, absolute

# Aria was trained on videos at this side, and sees a frame as 128 tokens: 8,192 for so many.
NUM_FRAMES, FRAME_SIZE = 64, 490

# Made absolute, for workers run in other folders than the user does.
InputAddress = Annotated[Address, AfterValidator(absolute)]


def _names(value: Any) -> Names:
    if isinstance(value, list | tuple) and value and all(isinstance(name, str) for name in value):
        return tuple(value)
    if not isinstance(value, str):
        raise ValueError(f"found {value!r}, expected the name of a column, or for images a list of names")
    return value


class JoinSettings(Settings):
    """The table in which rows' images lie, where their own column holds nothing but an id of each."""

    uri: InputAddress | None = Field(
        default=None, description="Parquet, JSONL, CSV or TSV: a file, a folder or a glob; null: the row's own shard"
    )
    key: str = Field(default="id", description="the column there that holds the id; no two rows have the same")
    image: str = Field(default="image", description="the column there that holds the image: its bytes, or base64")
    quotes: bool | None = Field(default=None, description="as read.quotes, of a CSV or TSV table")


class FolderSettings(Settings):
    """Where the files lie that rows name by relative paths."""

    image: InputAddress | None = Field(default=None, description="of images; null: the shard's own folder")
    video: InputAddress | None = Field(default=None, description="of videos; null: the shard's own folder")
    subtitles: InputAddress | None = Field(default=None, description="of subtitles; null: the shard's own folder")


class ReadSettings(Settings):
    """Which rows a run reads, and what its input calls the columns that we have words for."""

    uri: InputAddress = Field(description="a file, a folder or a glob, local or on any store: s3://bucket/photos/*.tar")
    format: Literal["auto", Format] = Field(
        default="auto", description="which of several formats in one folder is read; auto: what the extensions tell"
    )
    columns: dict[Word, Annotated[Names, PlainValidator(_names)]] = Field(
        default={},
        description="our name (key, image, text, question, answers, video, subtitles): the input's column, or for "
        "images several; a name left out: the column of the same name",
    )
    images: Literal["expected", "optional"] = Field(
        default="expected",
        description="optional: rows without images are meant; else a job about images stops where the first have none",
    )
    split: str | None = Field(
        default=None, description="train, validation, test: which of several in one folder; `all` reads all of them"
    )
    join: JoinSettings | None = Field(
        default=None, description="look up images by the ids in their column; null: the column holds them"
    )
    folders: FolderSettings = Field(default=FolderSettings(), description="where the files lie that rows name")
    delimiter: str | None = Field(
        default=None, min_length=1, max_length=1, description="CSV, TSV: what stands between cells; null: comma or tab"
    )
    quotes: bool | None = Field(
        default=None,
        description="CSV, TSV: whether a cell in quotes is one cell whatever it holds; false: quotes are letters of "
        "the text; null: it is one cell, but a TSV is refused in which one holds what look like whole rows",
    )
    on_changed: Literal["refuse", "accept"] = Field(
        default="refuse",
        description="on resuming: what to do if a file's time or tag has changed since the plan, but not its size",
    )
    limit: PositiveInt | None = Field(default=None, description="read only so many rows, from the start")
    num_frames: int = Field(
        default=NUM_FRAMES, ge=1, le=256, description="video: frames taken, evenly over its time; each costs its tokens"
    )
    frame_size: int = Field(
        default=FRAME_SIZE,
        ge=1,
        le=1120,
        description="video: the longer side of a frame, at most; larger frames keep small print and cost memory",
    )
    storage: StorageSettings = StorageSettings()

    def dialect(self, format: Format) -> Dialect:
        """Return how the cells of a CSV or TSV shard stand in their lines."""
        return dialect_of(format, self.delimiter, self.quotes)

    @property
    def elsewhere(self) -> dict[str, str]:
        """Where files lie beside the shards, by the settings that say so."""
        named = {"read.join.uri": self.join and self.join.uri}
        named |= {f"read.folders.{name}": uri for name, uri in self.folders}
        return {setting: uri for setting, uri in named.items() if uri}

    @model_validator(mode="after")
    def _one_kind_of_image(self) -> Self:
        several = [word for word, name in self.columns.items() if word != "image" and not isinstance(name, str)]
        if several:
            raise ValueError(f"columns.{several[0]} names several columns, expected one")
        if "video" in self.columns and ("image" in self.columns or self.join):
            raise ValueError("found columns.video beside columns.image or join; a row's images are its video's frames")
        return self
