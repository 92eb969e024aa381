"""Say which columns reading gives: ours first, then the input's others under names that do not clash with ours.

It knows names and types, not values.
"""

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Literal

import pyarrow as pa

from pipeline.input.formats.chats import MESSAGES
from pipeline.input.formats.fields import is_key_type, kept_type, raw_type
from pipeline.input.formats.parquet import image_type_fault
from pipeline.input.formats.rows import IMAGE_EXTENSIONS, ReadError, Shape
from pipeline.input.formats.samples import is_image, wanted_image
from pipeline.input.formats.shapes import DEFAULTS
from pipeline.input.formats.table import FORMATS, Format

Word = Literal["key", "image", "text", "question", "answers", "video", "subtitles"]
# A column's name, or those of several that hold images.
Names = str | tuple[str, ...]
ERROR = pa.struct([("stage", pa.string()), ("type", pa.string()), ("message", pa.string())])
OUR_COLUMNS = pa.schema(
    [
        ("key", pa.string()),
        ("shard", pa.string()),
        ("index", pa.int64()),
        ("images", pa.list_(pa.large_binary())),
    ]
)
# In the place of a column with keys: rows are named by their place, where the ids that a layout has are not unique.
BY_PLACE = "#"
# An input column of such a name is kept as `input_<name>`.
TAKEN = (*OUR_COLUMNS.names, "image", "error")
# What a video's row has beside its frames: seconds, and for each frame when it is shown.
OF_VIDEOS: Mapping[str, pa.DataType] = {"duration": pa.float64(), "frame_times": pa.list_(pa.float64())}
# The text of a row's subtitles.
OF_SUBTITLES: Mapping[str, pa.DataType] = {"subtitles": pa.string()}
# What a row's images are called where they lie (image_paths.py).
IMAGE_PATH = "image_path"
# Words for what becomes columns of ours; the others are names for the input's.
OF_OURS: tuple[Word, ...] = ("key", "image", "video", "subtitles")
# Marks a column that the job does not read: a value that does not fit is null, and does not cost its row.
UNREAD = {"triptych.unread": "true"}
# Marks our own column IMAGE_PATH: plans of older versions have none, and there an input's may be called so.
OURS = {"triptych.ours": "true"}
# Columns that begin so are ours between two steps (pipeline/rows.py).
BETWEEN_STEPS = ("input.", "job.")


@dataclass(frozen=True)
class Layout:
    """What a source's settings say of its columns.

    Attributes:
        columns: Our word: the input's column, or for images several.
        format: How the shards are read.
        is_raw: Whether other columns keep their own names and types (see `pipeline.input.sources.Source`).
        join: Where images are looked up by an id: in another table, whose ids are data like any other, or in the shard
            itself, where the same column holds them.
        shape: What the rows are beyond their format: which columns hold keys and images where settings name none.
        image_path: The type of the column that says what images are called; None: there is none.
    """

    columns: Mapping[Word, Names] = field(default_factory=dict)
    format: Format = "parquet"
    is_raw: bool = False
    join: Literal["", "table", "shard"] = ""
    shape: Shape = ""
    image_path: pa.DataType | None = None

    @property
    def key(self) -> str:
        """The column with the rows' keys."""
        return str(self.columns.get("key") or DEFAULTS.get(self.shape, {}).get("key", "key"))

    @property
    def images(self) -> tuple[str, ...]:
        """The columns with a row's images, in their order; none where these are the frames of a video."""
        names = self.columns.get("image") or DEFAULTS.get(self.shape, {}).get("image", "image")
        return () if self.video else (names,) if isinstance(names, str) else names

    @property
    def wanted_image(self) -> str | None:
        """What images are called in a tar, where that was said."""
        return wanted_image(str(self.columns["image"])) if "image" in self.columns else None

    @property
    def video(self) -> str | None:
        """The column that names a row's video."""
        return self._named("video")

    @property
    def subtitles(self) -> str | None:
        """The column that names a row's subtitles."""
        return self._named("subtitles")

    @property
    def taken_out(self) -> tuple[str, ...]:
        """The columns of which nothing stays but what becomes a key or an image."""
        beside = ("images",) if self.shape == "chat" and "image" not in self.columns else ()
        return (self.key, *(self.images if self.join != "table" else ()), *beside)

    @property
    def added(self) -> dict[str, pa.DataType]:
        """Columns that files bring which a row names, and the one that says what its images are called."""
        names = {} if self.image_path is None else {IMAGE_PATH: self.image_path}
        return {**(OF_VIDEOS if self.video else {}), **(OF_SUBTITLES if self.subtitles else {}), **names}

    @property
    def named(self) -> dict[Word, tuple[str, ...]]:
        """What is said of columns that must be there: of a raw source only what becomes columns of ours."""
        named = {word: names for word, names in self.columns.items() if word in OF_OURS or not self.is_raw}
        if named.get("key") == BY_PLACE:
            named.pop("key")
        return {word: (names,) if isinstance(names, str) else names for word, names in named.items()}

    def output_name(self, column: str) -> str | None:
        """Return what an input column is called in our tables; None for those that are taken out."""
        if not FORMATS[self.format].has_members and not FORMATS[self.format].is_file and column in self.taken_out:
            return None
        if column == MESSAGES and self.shape == "chat":
            return column
        words = self.named
        for word, names in words.items():
            if column in names and word not in OF_OURS:
                return word
        is_taken = column in TAKEN or column in self.added or column in words.keys() - {"video"}
        return f"input_{column}" if is_taken or column.startswith(BETWEEN_STEPS) else column

    def _named(self, word: Word) -> str | None:
        name = self.columns.get(word)
        return None if name is None else str(name)


def input_schema(
    fields: Mapping[str, pa.DataType],
    layout: Layout,
    where: str,
    extensions: frozenset[str] = frozenset(),
    reads: Collection[str] | None = None,
) -> pa.Schema:
    """Return the columns of every table of a source; those that the job does not read are marked `UNREAD`.

    Args:
        fields: The input's columns and their types.
        layout: What the settings say of them.
        where: What to call the input in a message.
        extensions: Of a tar's members.
        reads: The columns that the job reads, as our tables call them; None: all.

    Raises:
        ReadError: A column that was named does not exist, or one of ours cannot be made from what is there.
    """
    _check_named(fields, layout, where, extensions)
    for image in layout.images if FORMATS[layout.format].is_typed and not layout.join else ():
        if fault := image_type_fault(fields[image]) if image in fields else None:
            raise ReadError(f"{where}: image column {image!r} holds {fields[image]}, expected {fault}")
    key_type = fields.get(layout.key) if FORMATS[layout.format].is_typed else None
    if key_type is not None and not is_key_type(key_type):
        raise ReadError(f"{where}: key column {layout.key!r} holds {key_type}, expected text or whole numbers")
    kept = [(layout.output_name(name), kind) for name, kind in fields.items()]
    others = []
    for name, kind in kept:
        if name is None:
            continue
        is_read = layout.is_raw or reads is None or name in reads
        type_ = raw_type(kind) if layout.is_raw else kept_type(name, kind, where, is_read=is_read)
        others.append(pa.field(name, type_, metadata=None if is_read else UNREAD))
    marks = {IMAGE_PATH: OURS}
    others += [pa.field(name, kind, metadata=marks.get(name)) for name, kind in layout.added.items()]
    names = [field.name for field in others]
    twice = sorted(name for name, count in Counter(names).items() if count > 1)
    if twice:
        raise ReadError(f"{where}: several input columns would get the name {', '.join(twice)}; rename one of them")
    return pa.schema([*OUR_COLUMNS, *others, pa.field("error", ERROR)])


def _check_named(fields: Mapping[str, pa.DataType], layout: Layout, where: str, extensions: frozenset[str]) -> None:
    for word, names in layout.named.items():
        listed = " and ".join(map(repr, names))
        if FORMATS[layout.format].is_file and (word in OF_OURS or not fields):
            raise ReadError(
                f"{where}: read.columns.{word} names {listed}, but a folder of {layout.format} has no columns"
            )
        if FORMATS[layout.format].has_members and word in OF_OURS:
            _check_extension(word, names, where, extensions)
        elif missing := [name for name in names if name not in fields]:
            there = ", ".join(fields) or "none"
            if layout.is_raw:  # nobody has named it but the job, by its data set's own name
                raise ReadError(
                    f"{where}: found no column {missing[0]!r} for the {word}; the columns are: {there}; if it has "
                    "another name there, say so in `columns` of the data set's entry"
                )
            raise ReadError(f"{where}: read.columns.{word} names {missing[0]!r}, but the columns are: {there}")
    if layout.join and not FORMATS[layout.format].has_columns:
        raise ReadError(f"{where}: read.join looks up ids that stand in a column, but {layout.format} has none")
    if layout.join and not any(image in fields for image in layout.images):
        there = ", ".join(fields) or "none"
        raise ReadError(
            f"{where}: read.join looks up the ids in column {layout.images[0]!r}, but the columns are: {there}"
        )


def _check_extension(word: Word, names: tuple[str, ...], where: str, extensions: frozenset[str]) -> None:
    """Check what is said of a tar, where images are known by their extension and keys by their names."""
    listed = " and ".join(map(repr, names))
    if word == "key":
        raise ReadError(f"{where}: read.columns.key names {listed}, but a tar's keys are its members' base names")
    if word != "image" or len(names) > 1:
        raise ReadError(
            f"{where}: read.columns.{word} names {listed}; of a tar only read.columns.image can be set, to the images' "
            "extension"
        )
    if not any(is_image(extension, wanted_image(names[0])) for extension in extensions):
        images = [extension for extension in extensions if extension.split(".")[-1] in IMAGE_EXTENSIONS]
        found = ", ".join(sorted(images)) or "no image members"
        raise ReadError(f"{where}: read.columns.image names extension {listed}; found {found}")
