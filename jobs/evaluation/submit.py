"""Write the file that a benchmark's server takes, from an output's answers, and check such files, ours or others'.

What servers take stands in formats.py. It decides what is complete; it prints nothing.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jobs.evaluation import entries as json_files
from jobs.evaluation import workbook
from jobs.evaluation.files import read_file, write_file
from jobs.evaluation.formats import Entry, Format, Id, SubmissionError, format_of
from jobs.evaluation.given import COLUMNS, entry_of, refuse_incomplete
from jobs.evaluation.ids import compare_ids, read_ids
from jobs.evaluation.rows import benchmarks_of, dataset_of, named, of_benchmark, origin, read_rows
from jobs.scoring.rules.mmbench import ROTATION
from pipeline import StorageSettings, Store


@dataclass(frozen=True)
class Submission:
    """A file that is ready to be handed in.

    Attributes:
        place: Where it stands.
        manifest: What stands beside it in FILE.manifest.json.
    """

    place: str
    manifest: Mapping[str, Any]


def submit(
    output: Store, file: str, *, benchmark: str | None = None, ids: str | None = None, allow_missing: bool = False
) -> Submission:
    """Write the answers of one benchmark as its server takes them, checked, with a manifest beside.

    Args:
        output: A run's output, or that of `triptych score`.
        file: Where the file is to stand.
        benchmark: Whose answers; null if the output has only one.
        ids: A list of the ids that the server expects; null means those that the run has planned.
        allow_missing: Hand in nothing ("") for rows that failed or are not there, instead of refusing.

    Raises:
        SubmissionError: Rows are missing or failed, or the file would not be taken.
        ReportError: There are no such rows.
        StorageError: The output cannot be read, or the file not written.
    """
    rows = read_rows(output, COLUMNS)
    name = benchmark or _only(benchmarks_of(rows), output)
    known = origin(output)
    dataset = dataset_of(known, name)
    wanted = format_of(dataset)
    _refuse_name(file, dataset, wanted)
    found = of_benchmark(rows, name, output.uri).to_pylist()
    refuse_incomplete(output, known, name, found, has_ids=ids is not None, allow_missing=allow_missing)
    given = [entry_of(row, dataset, wanted) for row in found]
    expected = read_ids(read_file(ids, output.settings), wanted) if ids else [entry.id for entry in given]
    added = _added(given, expected) if allow_missing else []
    data = _encode([*given, *added], wanted)
    checked = check(data, dataset, expected)
    manifest = {
        "benchmark": name,
        "dataset": dataset,
        "sha256": hashlib.sha256(data).hexdigest(),
        "rows": len(checked),
        "empty": sum(not entry.answer for entry in checked),
        "failed": sum(row["error"] is not None for row in found),
        "unread": sum(row["parse_status"] == "failed" for row in found),
        "added": len(added),
        "normalisation": wanted.normalisation or None,
        "rule": _words(found, "rule"),
        "preset": _words(found, "preset"),
        "model": _words(found, "model"),
        "weights": known.get("weights"),
    }
    place = write_file(file, data, output.settings)
    write_file(f"{file}.manifest.json", json.dumps(manifest, indent=2, ensure_ascii=False).encode(), output.settings)
    return Submission(place, manifest)


def check_file(file: str, dataset: str, ids: str) -> int:
    """Check a file that somebody has written; return how many answers it has.

    Raises:
        SubmissionError: The server would not take it; every fault is listed.
        StorageError: The file or the list of ids cannot be read.
    """
    storage = StorageSettings()
    expected = read_ids(read_file(ids, storage), format_of(dataset))
    return len(check(read_file(file, storage), dataset, expected))


def check(data: bytes, dataset: str, expected: Sequence[Id]) -> list[Entry]:
    """Check the bytes of a submission file against the ids that it must have; return its entries.

    Raises:
        SubmissionError: The server would not take it; every fault is listed.
    """
    wanted = format_of(dataset)
    decode = workbook.decode if wanted.shape == "workbook" else json_files.decode
    found = decode(data, wanted)
    faults = compare_ids([entry.id for entry in found], expected)
    if wanted.shape == "workbook" and found and all(int(entry.id) < ROTATION for entry in found):
        faults.append(f"found no index of {ROTATION:,} or more, expected the rotations of each question, too")
    if faults:
        raise SubmissionError(json_files.said(faults))
    return found


def _refuse_name(file: str, dataset: str, wanted: Format) -> None:
    """Refuse a name that says another kind of file than the server takes."""
    if (wanted.shape == "workbook") != file.endswith(".xlsx"):
        kind = "an Excel table, a name that ends in .xlsx" if wanted.shape == "workbook" else "JSON, another name"
        raise SubmissionError(f"found {file} for {dataset}, expected for {kind}")


def _encode(given: Sequence[Entry], wanted: Format) -> bytes:
    return workbook.encode(given, wanted) if wanted.shape == "workbook" else json_files.encode(given, wanted)


def _added(given: Sequence[Entry], expected: Sequence[Id]) -> list[Entry]:
    there = {entry.id for entry in given}
    return [Entry(one, "") for one in expected if one not in there]


def _only(benchmarks: Sequence[str], output: Store) -> str:
    if len(benchmarks) != 1:
        raise SubmissionError(f"found {named(benchmarks)} in {output.uri}, expected `--benchmark` to name one")
    return benchmarks[0]


def _words(rows: Sequence[Mapping[str, Any]], column: str) -> list[str]:
    return sorted({str(row[column]) for row in rows if row[column] is not None})
