"""Draw pictures from text: the job, its columns and its numbers. A row may ask for several pictures of its own size.

What a row may say of its pictures stands in jobs/pictures.py, what another model is asked about them in jobs/check.py.
"""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, Self

import pyarrow as pa
import pyarrow.compute as pc
from PIL import Image
from pydantic import Field, model_validator

from jobs.check import NAME, PictureCheck, PictureCheckSettings
from jobs.pictures import COLUMNS, MOST_IMAGES, check_fits, read_column
from jobs.plain_job import PlainJob
from jobs.report.job import Lines
from jobs.scoring.summary import score_table, summarize_scores
from models.emu3.grid import grid_for
from models.images import FORMATS, LIMIT_PIXELS
from models.sampling import NUM_SEEDS, GuidanceScale
from models.types import Answer, BadRequest, PictureFormat, Request, Sampling
from pipeline import Settings

SCHEMA = pa.schema(
    [
        ("caption_in", pa.string()),
        ("image", pa.binary()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("image_format", pa.string()),
        ("image_index", pa.int32()),
        ("ratio", pa.string()),
        ("area", pa.int64()),
        ("negative_prompt", pa.string()),
        ("guidance_scale", pa.float64()),
        ("num_images", pa.int32()),
        ("temperature", pa.float64()),
        ("top_k", pa.int32()),
        ("top_p", pa.float64()),
        ("check_answers", pa.list_(pa.string())),
        ("keep", pa.bool_()),
    ]
)

# What Emu3's authors put behind every text, and what they move away from.
QUALITY = " masterpiece, film grained, best quality."
NEGATIVE_PROMPT = (
    "lowres, bad anatomy, bad hands, text, error, missing fingers, extra digit, fewer digits, cropped, worst quality, "
    "low quality, normal quality, jpeg artifacts, signature, watermark, username, blurry."
)

# The settings among the columns that a row may set for itself; its seed is the run's affair.
_SET_BY_ROW = tuple(name for name in COLUMNS if name in SCHEMA.names)
# What the run's sampling says of all pictures.
_SET_BY_RUN = ("temperature", "top_k", "top_p")


class SynthesizeSettings(Settings):
    """What the synthesize job can be told; a row's own columns of the first five names come before it."""

    kind: Literal["synthesize"] = Field(description="pictures drawn from every row's text")
    ratio: str = Field(default="1:1", description="width to height, such as 16:9")
    area: int = Field(
        default=518_400,
        ge=1,
        le=LIMIT_PIXELS,
        description="about how many pixels a picture has: each 64 are a token of the released checkpoints, so a larger "
        "one takes longer and more of the cache",
    )
    negative_prompt: str = Field(default=NEGATIVE_PROMPT, description="what pictures are moved away from")
    guidance_scale: GuidanceScale = Field(
        default=3.0,
        description="how far they are moved away: more keeps closer to the text and varies less; 1 leaves it out and "
        "takes half the work",
    )
    num_images: int = Field(
        default=1,
        ge=1,
        le=MOST_IMAGES,
        description="pictures from each row, seeds counted up from the row's own",
    )
    quality: str = Field(default=QUALITY, description="put behind every text; empty for nothing")
    image_format: Literal["png", "jpeg", "webp"] = Field(
        default="png", description="the pictures' file format: PNG keeps every pixel, the others are smaller"
    )
    image_quality: int = Field(
        default=95, ge=1, le=100, description="of JPEG and WebP: lower makes smaller files and coarser pictures"
    )
    check: PictureCheckSettings | None = Field(
        default=None,
        description="another model that looks at the pictures, and what it is asked; it takes a part of the devices",
    )

    @model_validator(mode="after")
    def _is_a_size(self) -> Self:
        check_fits(grid_for(self.ratio, self.area), self.image_format)
        return self

    def build(self) -> "SynthesizeJob":
        """Return the job that does this."""
        return SynthesizeJob(
            settings=self,
            # As the authors draw.
            sampling=Sampling(temperature=1.0, top_k=2048, guidance_scale=self.guidance_scale),
            picture=PictureFormat(self.image_format, self.image_quality),
            check=None if self.check is None else PictureCheck(self.check),
        )


@dataclass(frozen=True, kw_only=True)
class SynthesizeJob(PlainJob):
    """Pictures drawn from the text of every row, looked at by another model where a check is wanted."""

    settings: SynthesizeSettings
    kind: str = "synthesize"
    text_column: str = "caption_in"
    optional: Sequence[str] = COLUMNS
    has_text_only_rows: bool = True
    check: PictureCheck | None = None

    @property
    def schema(self) -> pa.Schema:
        """The text, the picture, what it was drawn with, and what the check found."""
        return SCHEMA

    @property
    def required(self) -> Sequence[str]:
        """The text, and the columns named in the check's questions that are not the job's own."""
        own = {"text", *SCHEMA.names}
        return ["text", *(name for name in (self.check.columns if self.check else ()) if name not in own)]

    def requests(self, row: Mapping[str, Any], sampling: Sampling) -> Sequence[Request]:
        """Ask for each of the row's pictures; they differ in their seeds, which count up from the first one's.

        Raises:
            BadRequest: There is no text, or a column does not hold what it should.
        """
        text = row.get("text")
        if not isinstance(text, str) or not text.strip():
            raise BadRequest("found no text in column `text`, expected what the picture shows")
        asked = {name: self._setting(row, name) for name in _SET_BY_ROW}
        grid = grid_for(asked["ratio"], asked["area"])
        check_fits(grid, self.settings.image_format)
        seed = read_column(row, "seed", sampling.seed)
        request = Request(
            key=row["key"],
            prompt=text + self.settings.quality,
            negative_prompt=asked["negative_prompt"],
            grid=(grid.rows, grid.columns),
        )
        guided = replace(sampling, guidance_scale=asked["guidance_scale"])
        seeds = ((seed + index) % NUM_SEEDS for index in range(asked["num_images"]))
        return [replace(request, sampling=replace(guided, seed=one)) for one in seeds]

    def record(
        self, row: Mapping[str, Any], answer: Answer | None, index: int, sampling: Sampling
    ) -> Mapping[str, Any]:
        """Keep the picture and what it was drawn with; of a row that failed what can be read of it."""
        record = {"caption_in": row.get("text"), "image_index": index}
        record |= {name: self._setting_or_null(row, name) for name in _SET_BY_ROW}
        record |= {name: getattr(sampling, name) for name in _SET_BY_RUN}
        if answer is None:
            return record
        if answer.image is None:
            raise ValueError("the answer holds no picture")
        width, height = _size_of(answer.image)
        drawn = {"image": answer.image, "width": width, "height": height, "image_format": self.settings.image_format}
        return {**record, **drawn}

    def summarize(self, results: pa.Table) -> Mapping[str, Any]:
        """Count the pictures; with a check, give the share of them that are kept."""
        num_pictures = int(pc.sum(results["is_drawn"]).as_py() or 0)
        if self.check is None:
            return {"pictures": num_pictures}
        return {"pictures": num_pictures, "scores": {"kept": summarize_scores(NAME, results)}}

    @property
    def title(self) -> str:
        """The headline of the report."""
        return "Pictures"

    def card_lines(self, row: Mapping[str, Any]) -> Lines:
        """Show the text, what the row set for itself, and what the check was told."""
        names = [name for name in _SET_BY_ROW if name != "num_images"]  # the page numbers the pictures itself
        changed = [(name, str(row[name])) for name in names if row[name] != getattr(self.settings, name)]
        return [("", row["caption_in"]), *changed, *(self.check.shown(row) if self.check else [])]

    def summary_columns(self, columns: Sequence[str]) -> Sequence[str]:
        """Look at which pictures there are, and which are kept."""
        return ["width", "keep", "error"]

    def summary_rows(self, results: pa.Table) -> pa.Table:
        """Keep whether there is a picture, and what the check says of it."""
        rows = score_table(results["keep"], is_failed=results["error"].is_valid())
        return rows.append_column("is_drawn", results["width"].is_valid())

    def verdicts(self, results: pa.Table) -> Sequence[bool | None]:
        """Say which pictures are kept; None for those that nothing was asked about."""
        verdicts: list[bool | None] = results["keep"].to_pylist()
        return verdicts

    def _setting(self, row: Mapping[str, Any], name: str) -> Any:
        return read_column(row, name, getattr(self.settings, name))

    def _setting_or_null(self, row: Mapping[str, Any], name: str) -> Any:
        try:
            return self._setting(row, name)
        except BadRequest:  # the row's error says what was found
            return None


def _size_of(image: bytes) -> tuple[int, int]:
    """Read width and height off the head of an encoded picture."""
    with Image.open(io.BytesIO(image), formats=FORMATS) as picture:
        return picture.size
