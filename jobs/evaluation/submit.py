"""Write the file that a benchmark's server takes, from an output's answers, and check such files, ours or others'.

submission_formats.py says what servers take.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jobs.evaluation.outputs import (
    benchmarks_of,
    dataset_of,
    first_few,
    read_file,
    read_frozen,
    read_rows,
    rows_of,
    write_file,
)
from jobs.evaluation.submission_entries import COLUMNS, entry_of
from jobs.evaluation.submission_files import decode, encode, id_faults, list_faults, read_ids
from jobs.evaluation.submission_formats import Entry, Format, Id, SubmissionError, format_of
from jobs.scoring.rules.mmbench import ROTATION
from pipeline import StorageSettings, Store, ledger, read_plan


@dataclass(frozen=True)
class Submission:
    """A file that is ready to be handed in.

    Attributes:
        uri: Where it is.
        manifest: The content of FILE.manifest.json beside it.
    """

    uri: str
    manifest: Mapping[str, Any]


def submit(
    output: Store, file: str, *, benchmark: str | None = None, ids: str | None = None, allow_missing: bool = False
) -> Submission:
    """Write the answers of one benchmark as its server takes them, checked, with a manifest beside.

    Args:
        output: A run's output, or that of `triptych score`.
        file: Where to write the file.
        benchmark: Whose answers; None if the output has only one benchmark.
        ids: A list of the ids that the server expects; None for those that the run has planned.
        allow_missing: Hand in "" for rows that failed or are not there, instead of refusing.

    Raises:
        SubmissionError: Rows are missing or failed, or the server would not take the file.
        ReportError: There are no such rows.
        StorageError: The output cannot be read, or the file not written.
    """
    all_rows = read_rows(output, COLUMNS)
    name = benchmark or _only(benchmarks_of(all_rows), output)
    frozen = read_frozen(output)
    dataset = dataset_of(frozen, name)
    file_format = format_of(dataset)
    _refuse_name(file, dataset, file_format)
    rows = rows_of(all_rows, name, output.uri).to_pylist()
    _refuse_unfinished(output, name, rows, may_miss_some=allow_missing and ids is not None)
    if not allow_missing:
        _refuse_sample_or_failures(frozen, name, rows, has_ids=ids is not None)
    entries = [entry_of(row, dataset, file_format) for row in rows]
    answered = {entry.id for entry in entries}
    expected = read_ids(read_file(ids, output.settings), file_format) if ids else [entry.id for entry in entries]
    added = [Entry(missing, "") for missing in expected if missing not in answered] if allow_missing else []
    data = encode([*entries, *added], file_format)
    checked = check(data, dataset, expected)
    manifest = {
        "benchmark": name,
        "dataset": dataset,
        "sha256": hashlib.sha256(data).hexdigest(),
        "rows": len(checked),
        "empty": sum(not entry.answer for entry in checked),
        "failed": sum(row["error"] is not None for row in rows),
        "unread": sum(row["parse_status"] == "failed" for row in rows),
        "added": len(added),
        "normalisation": file_format.normalisation or None,
        **{
            column: sorted({str(row[column]) for row in rows if row[column] is not None})
            for column in ("rule", "preset", "model")
        },
        "weights": frozen.get("weights"),
    }
    uri = write_file(file, data, output.settings)
    write_file(f"{file}.manifest.json", json.dumps(manifest, indent=2, ensure_ascii=False).encode(), output.settings)
    return Submission(uri, manifest)


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
    file_format = format_of(dataset)
    entries = decode(data, file_format)
    faults = id_faults([entry.id for entry in entries], expected)
    if file_format.shape == "workbook" and entries and all(int(entry.id) < ROTATION for entry in entries):
        faults.append(f"found no index of {ROTATION:,} or more, expected the rotations of each question, too")
    if faults:
        raise SubmissionError(list_faults(faults))
    return entries


def _refuse_name(file: str, dataset: str, file_format: Format) -> None:
    """Refuse a name that suggests another kind of file than the server takes."""
    if (file_format.shape == "workbook") != file.endswith(".xlsx"):
        kind, name = ("Excel", "ends") if file_format.shape == "workbook" else ("JSON", "does not end")
        raise SubmissionError(f"found {file}, expected a name that {name} in .xlsx: {dataset}'s server takes {kind}")


def _refuse_unfinished(
    output: Store, benchmark: str, rows: Sequence[Mapping[str, Any]], *, may_miss_some: bool
) -> None:
    """Refuse the rows of a run that has not come to all of them yet."""
    planned = 0
    if ledger.read_output(output).is_planned:  # there is no plan where parts were put together by other means
        # A run without benchmarks has sources without a name.
        planned = sum(unit.num_rows for unit in read_plan(output) if unit.source in (benchmark, ""))
    if len(rows) < planned and not may_miss_some:
        raise SubmissionError(
            f"{benchmark}: found {len(rows):,} of {planned:,} rows in {output.uri}, expected all: `triptych run` "
            "continues the run; with `--ids FILE`, `--allow-missing` adds an empty answer for each other id"
        )


def _refuse_sample_or_failures(
    frozen: Mapping[str, Any], benchmark: str, rows: Sequence[Mapping[str, Any]], *, has_ids: bool
) -> None:
    """Refuse failed rows, and, without a list of ids that it could be checked by, a run over a sample of the set."""
    settings = frozen.get("settings", {})
    entry = (settings.get("job", {}).get("benchmarks") or {}).get(benchmark) or {}
    limit = entry.get("limit") or settings.get("read", {}).get("limit")
    if limit is not None and not has_ids:
        raise SubmissionError(
            f"{benchmark}: found a run over the first {int(limit):,} rows (`limit`), expected the whole set; "
            "`--ids FILE` can list the ids that the server expects"
        )
    if failed := [str(row["key"]) for row in rows if row["response_clean"] is None]:
        raise SubmissionError(
            f"{benchmark}: found {len(failed):,} rows without an answer ({first_few(failed)}), expected none; "
            "`triptych retry` runs them again, `--allow-missing` hands in empty answers"
        )


def _only(benchmarks: Sequence[str], output: Store) -> str:
    if len(benchmarks) != 1:
        raise SubmissionError(f"found {first_few(benchmarks)} in {output.uri}, expected `--benchmark` to name one")
    return benchmarks[0]
