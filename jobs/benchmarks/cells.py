"""Read the cells of a data set's row: texts, whole numbers, lists, in any form in which copies hold them.

It knows plain values, no data set. A list may be a list, JSON or a Python literal; nothing is ever evaluated.
"""

import ast
import json
import math
import warnings
from collections.abc import Mapping, Sequence
from string import ascii_uppercase
from typing import Any

from jobs.benchmarks.benchmark import BadRow, Row

_SHOWN = 80


def is_absent(value: Any) -> bool:
    """Whether a cell holds nothing: null, or the NaN that pandas writes for it."""
    return value is None or (isinstance(value, float) and math.isnan(value))


def bad(column: str, value: Any, expected: str) -> BadRow:
    """Return the error that names a column, what it holds and what it should."""
    found = repr(value)
    shown = found if len(found) <= _SHOWN else f"{found[:_SHOWN]}…"
    return BadRow(f"column `{column}`: found {shown}, expected {expected}")


def text(row: Row, column: str) -> str:
    """Return a cell that must hold text; a number is written out.

    Raises:
        BadRow: It holds nothing, or something else.
    """
    value = row.get(column)
    if isinstance(value, str):
        return value
    if isinstance(value, int | float) and not isinstance(value, bool) and not is_absent(value):
        return str(value)
    raise bad(column, value, "text")


def text_or_none(row: Row, column: str) -> str | None:
    """Return a cell that may be empty, or not be there at all.

    Raises:
        BadRow: It holds something that is no text.
    """
    return None if is_absent(row.get(column)) else text(row, column)


def whole(row: Row, column: str) -> int:
    """Return a cell that must hold a whole number, as a number or in digits.

    Raises:
        BadRow: It holds something else.
    """
    value = row.get(column)
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, str) and value.strip().removeprefix("-").isdecimal():
        return int(value)
    raise bad(column, value, "a whole number")


def number(row: Row, column: str) -> float:
    """Return a cell that must hold a finite number.

    Raises:
        BadRow: It holds something else.
    """
    value = row.get(column)
    try:
        found = float(value) if isinstance(value, str | int | float) and not isinstance(value, bool) else math.nan
    except ValueError:
        found = math.nan
    if not math.isfinite(found):
        raise bad(column, value, "a number")
    return found


def decoded(value: Any, column: str, expected: str) -> Any:
    """Return what a text that should be JSON or a Python literal stands for; other values as they are.

    Raises:
        BadRow: The text is neither.
    """
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        pass
    try:
        with warnings.catch_warnings():
            # LaTeX in such texts has backslashes that Python thinks odd.
            warnings.simplefilter("ignore")
            return ast.literal_eval(value.strip())
    except (ValueError, SyntaxError, MemoryError, RecursionError) as error:
        raise bad(column, value, expected) from error


def texts(row: Row, column: str) -> tuple[str, ...]:
    """Return a cell that must hold a list of texts; numbers in it are written out.

    Raises:
        BadRow: It holds something else.
    """
    expected = "a list of texts"
    value = decoded(row.get(column), column, expected)
    if not isinstance(value, list | tuple) or not all(_is_word(one) for one in value):
        raise bad(column, row.get(column), expected)
    return tuple(one if isinstance(one, str) else str(one) for one in value)


def texts_or_none(row: Row, column: str) -> tuple[str, ...] | None:
    """Return a list that may be empty, or not be there at all: then None.

    Raises:
        BadRow: The cell holds something else.
    """
    value = row.get(column)
    if is_absent(value) or (isinstance(value, str) and not value.strip()):
        return None
    return texts(row, column)


def gold(row: Row, column: str) -> tuple[str, ...] | None:
    """Return a list of gold answers; None where they are hidden: nothing, an empty list, or nothing but empty texts.

    Raises:
        BadRow: The cell holds something else.
    """
    found = texts_or_none(row, column)
    return found if found and any(found) else None


def gold_text(row: Row, column: str) -> tuple[str, ...] | None:
    """Return one gold answer as it is stored, brackets included, or those of a list; None where they are hidden.

    Raises:
        BadRow: The cell holds something else.
    """
    value = row.get(column)
    if isinstance(value, list | tuple):
        return gold(row, column)
    return (text(row, column),) if value != "" and not is_absent(value) else None


def gold_text_or_list(row: Row, column: str) -> tuple[str, ...] | None:
    """Return one gold answer, or those of a list, which may be written as a text in brackets.

    Raises:
        BadRow: The cell holds something else, or a text in brackets that is no list.
    """
    value = row.get(column)
    if isinstance(value, str) and value.startswith("[") and value.endswith("]"):
        return gold(row, column)
    return gold_text(row, column)


def fields(row: Row, column: str) -> Mapping[str, Any]:
    """Return a cell that must hold named values, a struct or JSON; nothing gives no values.

    Raises:
        BadRow: It holds something else.
    """
    expected = "named values"
    value = row.get(column)
    found = {} if is_absent(value) else decoded(value, column, expected)
    if not isinstance(found, Mapping):
        raise bad(column, value, expected)
    return found


def letter(index: int, choices: Sequence[str], column: str) -> str:
    """Return the letter of an option that is given by its place from 0.

    Raises:
        BadRow: There is no such option.
    """
    if not 0 <= index < len(choices):
        raise bad(column, index, f"the place of one of {len(choices)} options, from 0")
    return ascii_uppercase[index]


def cells(name: str, values: Sequence[Any]) -> tuple[tuple[str, str], ...]:
    """Return the cells of one breakdown that a row is counted under; nothing for values that are not there."""
    there = [value for value in values if not is_absent(value) and value != ""]
    return tuple((name, str(value)) for value in there)


def cells_of(row: Row, *columns: str) -> tuple[tuple[str, str], ...]:
    """Return the cells that a row's columns of text name, each column being a breakdown.

    Raises:
        BadRow: A column holds something that is no text.
    """
    return tuple(cell for column in columns for cell in cells(column, [text_or_none(row, column)]))


def _is_word(value: Any) -> bool:
    return isinstance(value, str | int | float) and not isinstance(value, bool) and not is_absent(value)
