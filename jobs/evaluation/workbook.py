"""Excel tables of answers, as MMBench's server takes them. It needs the extra `submit`; it knows no rows of a run.

Equal entries give equal bytes: neither the time nor what writes the file stands in it.
"""

import importlib.util
import io
import re
import zipfile
from collections.abc import Sequence
from typing import Any

from jobs.evaluation.entries import check_types, said
from jobs.evaluation.formats import Entry, Format, SubmissionError

# What a cell of Excel's holds at most, and characters that none can hold.
CELL_CHARACTERS = 32_767
UNWRITABLE = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")
EPOCH = (1980, 1, 1, 0, 0, 0)
_TIME = re.compile(rb"(<dcterms:(?:created|modified)[^>]*>)[^<]*")


def encode(entries: Sequence[Entry], wanted: Format) -> bytes:
    """Return the file of some entries, a line each.

    Raises:
        SubmissionError: A text does not fit into a cell, or openpyxl is missing.
    """
    _need_openpyxl()
    from openpyxl import Workbook
    from openpyxl.cell import WriteOnlyCell

    beside = list(dict.fromkeys(name for entry in entries for name in entry.beside))
    header = [wanted.id_name, *beside, wanted.answer_name]
    # All of them before the file is begun: openpyxl minds being left in the middle of one.
    lines = [
        [
            _writable(value, f"{wanted.id_name} {entry.id}, {name}")
            for name, value in {wanted.id_name: entry.id, **dict.fromkeys(beside), **entry.beside}.items()
        ]
        + [_writable(entry.answer, f"{wanted.id_name} {entry.id}, {wanted.answer_name}")]
        for entry in entries
    ]
    book = Workbook(write_only=True)
    sheet = book.create_sheet("Sheet1")
    sheet.append(header)
    for line in lines:
        cells = [WriteOnlyCell(sheet, value) for value in line]
        for cell in cells:
            if isinstance(cell.value, str):
                cell.data_type = "s"  # or a text that begins with = would be a formula
        sheet.append(cells)
    written = io.BytesIO()
    book.save(written)
    return _timeless(written.getvalue())


def decode(data: bytes, wanted: Format) -> list[Entry]:
    """Read a file.

    Raises:
        SubmissionError: It is none of this format, or openpyxl is missing; every fault is listed.
    """
    header, lines = read_lines(data)
    lacking = [name for name in (wanted.id_name, *wanted.beside, wanted.answer_name) if name not in header]
    if lacking:
        raise SubmissionError(f"found columns {', '.join(header) or 'none'}, expected also {', '.join(lacking)}")
    entries: list[Entry] = []
    faults: list[str] = []
    for number, line in enumerate(lines, start=2):
        beside = {name: value for name, value in line.items() if name not in (wanted.id_name, wanted.answer_name)}
        # An empty cell is an empty answer; numbers are what Excel makes of answers that look like one.
        answer = line[wanted.answer_name]
        entries.append(Entry(line[wanted.id_name], "" if answer is None else str(answer), beside))
        faults += check_types(entries[-1], f"line {number}", wanted)
    if faults:
        raise SubmissionError(said(faults))
    return entries


def read_lines(data: bytes) -> tuple[list[str], list[dict[str, Any]]]:
    """Return the header of a file's first table, and the lines below it by the header's names.

    Raises:
        SubmissionError: It is no Excel file, or openpyxl is missing.
    """
    _need_openpyxl()
    from openpyxl import load_workbook

    try:
        book = load_workbook(io.BytesIO(data), read_only=True)
        lines = list(book[book.sheetnames[0]].iter_rows(values_only=True))
    except (zipfile.BadZipFile, KeyError, ValueError, OSError) as error:
        raise SubmissionError(f"found no Excel file, expected .xlsx: {error}") from error
    names = [str(name) for name in lines[0]] if lines else []
    return names, [dict(zip(names, line, strict=True)) for line in lines[1:]]


def _writable(value: Any, where: str) -> Any:
    if not isinstance(value, str):
        return value
    if len(value) > CELL_CHARACTERS:
        raise SubmissionError(
            f"{where}: found {len(value):,} characters, expected at most {CELL_CHARACTERS:,} in a cell"
        )
    return UNWRITABLE.sub(" ", value)


def _timeless(data: bytes) -> bytes:
    """Return an Excel file with the times in it set back to the first that a zip file can name."""
    packed = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as given, zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as written:
        for name in given.namelist():
            content = given.read(name)
            if name == "docProps/core.xml":
                content = _TIME.sub(rb"\g<1>1980-01-01T00:00:00Z", content)
            written.writestr(zipfile.ZipInfo(name, EPOCH), content, zipfile.ZIP_DEFLATED)
    return packed.getvalue()


def _need_openpyxl() -> None:
    if importlib.util.find_spec("openpyxl") is None:
        raise SubmissionError("found no package openpyxl, which writes Excel files; `pip install triptych[submit]`")
