"""Tables of text are taken apart as their writers mean it, or not at all: no cell swallows a row."""

from pathlib import Path
from typing import Any

import pytest

from pipeline.input.formats.rows import ReadError
from pipeline.input.read import read_unit
from pipeline.input.units import ReadSettings, plan_input


def cells_of_rows(tmp_path: Path, name: str, text: str, **read: Any) -> list[str]:
    (tmp_path / name).write_bytes(text.encode())
    settings = ReadSettings(uri=str(tmp_path / name), **read)
    rows: list[str] = []
    for unit in plan_input(settings, 2).units:
        rows += read_unit(unit, settings)["caption"].to_pylist()
    return rows


GLUED = 'n\tcaption\n1\tone\n2\t"two starts\n3\tthree\n4\tfour ends"\n5\tfive\n'


def test_quotes_that_swallow_rows_of_a_tsv_stop_the_plan_and_a_setting_says_what_they_are(tmp_path: Path) -> None:
    with pytest.raises(ReadError, match=r"byte 16 on holds what look like whole rows; set read.quotes=false if"):
        cells_of_rows(tmp_path, "x.tsv", GLUED)
    as_letters = cells_of_rows(tmp_path, "x.tsv", GLUED, quotes=False)
    assert as_letters == ["one", '"two starts', "three", 'four ends"', "five"]
    assert cells_of_rows(tmp_path, "x.tsv", GLUED, quotes=True) == ["one", "two starts\n3\tthree\n4\tfour ends", "five"]


def test_a_quote_that_closes_amid_a_cell_stops_the_plan(tmp_path: Path) -> None:
    for name in ("x.tsv", "x.csv"):
        text = 'n\tcaption\n1\tone\n2\t"two" starts\n'.replace("\t", "," if name == "x.csv" else "\t")
        with pytest.raises(ReadError, match=r"cannot take the row from byte 16 on apart: .* set read.quotes=false"):
            cells_of_rows(tmp_path, name, text)
        assert cells_of_rows(tmp_path, name, text, quotes=False) == ["one", '"two" starts']


def test_cells_in_quotes_hold_newlines_in_both_formats(tmp_path: Path) -> None:
    for name, between in (("x.csv", ","), ("x.tsv", "\t")):
        text = f'n{between}caption\n1{between}"one\nmore ""so"""\n2{between}two\n'
        assert cells_of_rows(tmp_path, name, text) == ['one\nmore "so"', "two"]


def test_lines_of_blanks_are_no_rows(tmp_path: Path) -> None:
    assert cells_of_rows(tmp_path, "x.csv", "n,caption\n1,one\n   \n\n2,two\n \t \n") == ["one", "two"]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("x.txt", "one|two|three|"),
        ("x.csv", 'n,caption|1,one|2,"two"|3,three|'),
        ("x.jsonl", '{"caption": "one"}|{"caption": "two"}|{"caption": "three"}|'),
    ],
)
def test_lines_end_as_on_any_system(
    tmp_path: Path, name: str, text: str, end: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for chunk in (2**20, 1, 3):
        monkeypatch.setattr("pipeline.input.formats.cells.CHUNK_BYTES", chunk)
        column = "text" if name == "x.txt" else "caption"
        (tmp_path / name).write_bytes(text.replace("|", end).encode())
        settings = ReadSettings(uri=str(tmp_path / name))
        found = [row for unit in plan_input(settings, 2).units for row in read_unit(unit, settings)[column].to_pylist()]
        assert found == ["one", "two", "three"]


def test_excels_line_about_its_separator_is_no_header(tmp_path: Path) -> None:
    assert cells_of_rows(tmp_path, "x.csv", "sep=,\r\nn,caption\r\n1,one\r\n") == ["one"]
    with pytest.raises(ReadError, match=r"says that ';' stands between cells, expected ','; set read.delimiter=';'"):
        cells_of_rows(tmp_path, "x.csv", "sep=;\nn;caption\n1;one\n")
    assert cells_of_rows(tmp_path, "x.csv", "\ufeffsep=;\nn;caption\n1;one\n", delimiter=";") == ["one"]
    assert cells_of_rows(tmp_path, "x.csv", "n;caption\n1;one\n", delimiter=";") == ["one"]


def test_settings_of_cells_are_refused_where_there_are_none(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_text('{"caption": "one"}\n')
    for read in ({"delimiter": ";"}, {"quotes": False}):
        with pytest.raises(ReadError, match=r"read.delimiter and read\.quotes are for CSV and TSV; found jsonl"):
            plan_input(ReadSettings(uri=str(tmp_path / "x.jsonl"), **read), 2)
