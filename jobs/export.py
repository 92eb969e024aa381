"""Write a run's texts as trainers read them, beside its images or apart: one metadata.jsonl, or a text for each image.

Parts are read one after the other. Who wants tars of images and texts sets `write.webdataset` when the run starts.
"""

import json
import posixpath
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Literal

from jobs.config import frozen_settings
from jobs.report.part_files import OpenPart, open_parts
from jobs.report.results import ReportError, look_for_parts
from pipeline import EXTENSIONS, Store

Form = Literal["metadata", "sidecars"]
Row = dict[str, Any]
METADATA = "metadata.jsonl"
WRITERS = 16
# Why a row is in no file.
FAILED, NO_TEXT, DROPPED = "failed", "have no text", "were dropped by the check"
NO_PATH, SEVERAL = "have no image with a path", "have several images"
SHARED = "would write a text that an earlier row has written"
OUTSIDE = "name an image that is not below the input's folder"
# Formats whose rows name files, from the folder of their shard.
NAMING = ("parquet", "arrow", "jsonl", "json", "csv", "tsv", "text")


@dataclass
class Exported:
    """What an export has come to.

    Attributes:
        place: Where it stands.
        is_finished: Whether the run is; else what it has committed was exported, or of drawn pictures finished parts.
        rows: Rows written.
        left_out: How many others there are, by why.
        differing: Texts that stood there and say something else; they were left as they are.
    """

    place: str
    is_finished: bool
    rows: int = 0
    left_out: Counter[str] = field(default_factory=Counter)
    differing: list[str] = field(default_factory=list)


def export(output: Store, folder: Store, form: Form, *, overwrites: bool = False) -> Exported:
    """Write the texts that a run has made, under the paths of their images; done again it changes nothing.

    Args:
        output: The run's.
        folder: Where to write: the images' own folder, or another.
        form: `metadata` writes one file of lines `{"file_name": ..., "text": ...}`, and beside it the pictures of a run
            that draws; `sidecars` writes `a/b.txt` for `a/b.jpg`.
        overwrites: Whether sidecars that say something else are replaced.

    Raises:
        ReportError: There is no run, no part of it is finished, or it has no row that can be exported so.
        StorageError: The output or the folder cannot be reached.
    """
    settings, (standing, plan) = frozen_settings(output, ()), look_for_parts(output)
    job, unit = settings.job.build(), plan.units[0]
    if job.picture is not None and form == "sidecars":
        raise ReportError("found a run that draws, whose pictures lie in no folder; --as metadata writes both")
    is_from_shard = unit.format in NAMING and unit.shape != "imagefolder" and settings.read.folders.image is None
    columns = _Columns(
        text=job.text_column,
        has_question="question" in job.schema.names,
        is_drawn=job.picture is not None,
        is_from_shard=is_from_shard,
        are_files=bool(unit.paths),
    )
    done = Exported(folder.name(METADATA if form == "metadata" else ""), standing.output.is_done)
    # A drawn picture is called by its place in its part.
    files = [file for file in standing.files if not columns.is_drawn or file.path.startswith("part-")]
    rows = (_of_part(part, columns, folder, done) for part in open_parts(output, files))
    if form == "metadata":
        folder.replace_by_pieces(METADATA, _metadata(rows, done))
    else:
        _write_sidecars(rows, folder, done, overwrites=overwrites)
        _refuse_nothing(done)
    return done


def _metadata(parts: Iterator[list[Row]], done: Exported) -> Iterator[bytes]:
    """Give the lines of metadata.jsonl; if in the end there are none, no file is to be made of them."""
    for rows in parts:
        yield _lines(rows)
    _refuse_nothing(done)


def _refuse_nothing(done: Exported) -> None:
    if not done.rows and not done.differing:
        why = ", ".join(f"{count:,} {reason}" for reason, count in done.left_out.most_common()) or "there are none"
        raise ReportError(f"no row can be exported to {done.place}: {why}")


@dataclass(frozen=True)
class _Columns:
    """Which columns of a part are exported, and from where its images' paths start."""

    text: str
    has_question: bool
    is_drawn: bool
    is_from_shard: bool
    are_files: bool


def _of_part(part: OpenPart, columns: _Columns, folder: Store, done: Exported) -> list[Row]:
    """Return a part's rows as lines of metadata, and write its pictures if they were drawn; count the others."""
    names = ("shard", "error", "image_path", "keep", columns.text, *(("question",) if columns.has_question else ()))
    table = part.read(names)
    rows: list[Row] = []
    for place, row in enumerate(table.to_pylist()):
        reason = _fault_of(row, columns)
        if reason:
            done.left_out[reason] += 1
            continue
        asked = {"question": row["question"]} if columns.has_question else {}
        rows.append({"place": place, **_named(row, columns), **asked, "text": row[columns.text]})
    if columns.is_drawn:
        _write_pictures(part, rows, folder)
    done.rows += len(rows)
    return rows


def _fault_of(row: Mapping[str, Any], columns: _Columns) -> str | None:
    if row["error"] is not None:
        return FAILED
    if row[columns.text] is None:
        return NO_TEXT
    if columns.is_drawn:
        return DROPPED if row.get("keep") is False else None
    path = _path_of(row, columns)
    if isinstance(path, str) and path.startswith('["'):  # where the plan did not expect several
        return SEVERAL
    return None if path else NO_PATH


def _path_of(row: Mapping[str, Any], columns: _Columns) -> Any:
    """Return what a row's images are called; older runs say it only of files that are rows."""
    return row["shard"] if columns.are_files else row.get("image_path")


def _named(row: Mapping[str, Any], columns: _Columns) -> Row:
    """Return what ImageFolders call a row's images; where rows may have several, all rows have lists."""
    if columns.is_drawn:
        return {}
    path = _path_of(row, columns)
    folder = posixpath.dirname(row["shard"]) if columns.is_from_shard else ""
    if isinstance(path, str):
        return {"file_name": _below(folder, path)}
    return {"image_file_names": [_below(folder, one) for one in path]}


def _below(folder: str, path: str) -> str:
    return path if "://" in path else posixpath.join(folder, path)


def _write_pictures(part: OpenPart, rows: Sequence[Row], folder: Store) -> None:
    """Write a part's pictures, as its tar calls them."""
    pictures = part.read(("image", "image_format"))
    number = part.path.removeprefix("part-").removesuffix(".parquet")
    for row in rows:
        kind = pictures["image_format"][row["place"]].as_py()
        row["file_name"] = f"{number}-{row['place']:06d}.{EXTENSIONS.get(kind, kind)}"

    def write(row: Row) -> None:
        folder.publish(row["file_name"], pictures["image"][row["place"]].as_py())

    with ThreadPoolExecutor(WRITERS) as writers:
        list(writers.map(write, rows))


def _lines(rows: Sequence[Row]) -> bytes:
    first = ("file_name", "image_file_names")
    lines = ({name: row[name] for name in (*first, *row) if name in row and name != "place"} for row in rows)
    return "".join(f"{json.dumps(line, ensure_ascii=False)}\n" for line in lines).encode("utf-8", "backslashreplace")


def _write_sidecars(parts: Iterator[list[Row]], folder: Store, done: Exported, *, overwrites: bool) -> None:
    """Write a text beside each image; one that stands there and says something else is only told of."""
    seen: set[int] = set()  # hashes of paths: those of ten million take 600 MB less than the paths

    def write(file: tuple[str, bytes]) -> str | None:
        path, text = file
        if folder.publish(path, text) or folder.read(path) == text:
            return None
        if not overwrites:
            return path
        folder.replace(path, text)
        return None

    with ThreadPoolExecutor(WRITERS) as writers:
        for rows in parts:
            files: dict[str, bytes] = {}
            for row in rows:
                reason = _unplaced(row)
                path = "" if reason else f"{posixpath.splitext(row['file_name'])[0]}.txt"
                if not reason and hash(path) in seen:
                    reason = SHARED
                if reason:
                    done.left_out[reason] += 1
                else:
                    seen.add(hash(path))
                    files[path] = row["text"].encode("utf-8", "backslashreplace")
            differing = [path for path in writers.map(write, files.items()) if path is not None]
            done.rows -= len(rows) - len(files) + len(differing)
            done.differing += differing


def _unplaced(row: Row) -> str | None:
    """Say why a row's image has no place below a folder, if it has none."""
    if "file_name" not in row:
        return SEVERAL
    path = row["file_name"]
    return OUTSIDE if path.startswith("/") or "://" in path or ".." in path.split("/") else None
