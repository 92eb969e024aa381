"""Excel files of one table, as MMBench's server takes them and tools leave them. It needs the extra `submit`.

Equal lines give equal bytes: the file holds neither the time nor the name of the program that wrote it.
"""

import importlib.util
import io
import re
import zipfile
from collections.abc import Mapping, Sequence
from itertools import chain, repeat
from typing import Any

from jobs.evaluation.submission_formats import SubmissionError

# The most that an Excel cell holds, and the characters that none can hold.
CELL_CHARACTERS = 32_767
UNWRITABLE = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")
EPOCH = (1980, 1, 1, 0, 0, 0)
_TIME = re.compile(rb"(<dcterms:(?:created|modified)[^>]*>)[^<]*")


def encode(header: Sequence[str], lines: Sequence[Mapping[str, Any]]) -> bytes:
    """Return the file of some lines, which are known by their first column.

    Raises:
        SubmissionError: A text does not fit into a cell, or openpyxl is missing.
    """
    _need_openpyxl()
    from openpyxl import Workbook
    from openpyxl.cell import WriteOnlyCell

    # All of them before the file is begun: openpyxl must not be interrupted within one.
    writable = [
        [_writable(line.get(name), f"{header[0]} {line[header[0]]}, {name}") for name in header] for line in lines
    ]
    book = Workbook(write_only=True)
    sheet = book.create_sheet("Sheet1")
    sheet.append(header)
    for values in writable:
        cells = [WriteOnlyCell(sheet, value) for value in values]
        for cell in cells:
            if isinstance(cell.value, str):
                cell.data_type = "s"  # or a text that begins with = would be a formula
        sheet.append(cells)
    written = io.BytesIO()
    book.save(written)
    return _without_times(written.getvalue())


def decode(data: bytes) -> tuple[list[str], list[dict[str, Any]]]:
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
    # Some writers end a line at its last cell, and a table below its last line: with lines that only have a format.
    filled = [line for line in lines[1:] if any(value is not None for value in line)]
    return names, [dict(zip(names, chain(line, repeat(None)), strict=False)) for line in filled]


def _writable(value: Any, where: str) -> Any:
    if not isinstance(value, str):
        return value
    if len(value) > CELL_CHARACTERS:
        raise SubmissionError(
            f"{where}: found {len(value):,} characters, expected at most {CELL_CHARACTERS:,} in a cell"
        )
    return UNWRITABLE.sub(" ", value)


def _without_times(data: bytes) -> bytes:
    """Return an Excel file with its times set to the first that a zip file can have."""
    packed = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as source, zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as target:
        for name in source.namelist():
            content = source.read(name)
            if name == "docProps/core.xml":
                content = _TIME.sub(rb"\g<1>1980-01-01T00:00:00Z", content)
            target.writestr(zipfile.ZipInfo(name, EPOCH), content, zipfile.ZIP_DEFLATED)
    return packed.getvalue()


def _need_openpyxl() -> None:
    if importlib.util.find_spec("openpyxl") is None:
        raise SubmissionError("found no package openpyxl, which writes Excel files; `pip install triptych[submit]`")
