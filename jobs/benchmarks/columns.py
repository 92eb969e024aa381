"""Read the columns of a data set's row: texts, whole numbers, lists, in any form in which copies hold them.

Each function returns what one column holds, and raises BadRow if it holds something else. A list may be a list, JSON or
a Python literal; nothing is ever evaluated. No data set is known here.
"""

import ast
import json
import math
import warnings
from collections.abc import Callable, Collection, Mapping, Sequence
from string import ascii_uppercase
from typing import Any

from jobs.benchmarks.benchmark import BadRow, Item, Row

_SHOWN = 80
Groups = tuple[tuple[str, str], ...]


def is_absent(value: Any) -> bool:
    """Whether a column holds nothing: null, or the NaN that pandas writes for it."""
    return value is None or (isinstance(value, float) and math.isnan(value))


def bad_column(column: str, value: Any, expected: str) -> BadRow:
    """Return the error that names a column, what it holds and what it should."""
    found = repr(value)
    shown = found if len(found) <= _SHOWN else f"{found[:_SHOWN]}…"
    return BadRow(f"column `{column}`: found {shown}, expected {expected}")


def text(row: Row, column: str) -> str:
    """Return a text; a number is written out."""
    value = row.get(column)
    if not _is_word(value):
        raise bad_column(column, value, "text")
    return str(value)


def text_or_none(row: Row, column: str) -> str | None:
    """Return a text; None if the column is empty or not there."""
    return None if is_absent(row.get(column)) else text(row, column)


def integer(row: Row, column: str) -> int:
    """Return a whole number, given as a number or in digits."""
    value = row.get(column)
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, str) and value.strip().removeprefix("-").isdecimal():
        return int(value)
    raise bad_column(column, value, "a whole number")


def number(row: Row, column: str) -> float:
    """Return a finite number."""
    value = row.get(column)
    try:
        found = float(value) if isinstance(value, str | int | float) and not isinstance(value, bool) else math.nan
    except ValueError:
        found = math.nan
    if not math.isfinite(found):
        raise bad_column(column, value, "a number")
    return found


def decoded(value: Any, column: str, expected: str) -> Any:
    """Return what a text that should be JSON or a Python literal stands for; other values as they are."""
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
        raise bad_column(column, value, expected) from error


def list_of(row: Row, column: str, expected: str) -> Sequence[Any]:
    """Return a list of anything; `expected` says what it should hold."""
    value = decoded(row.get(column), column, expected)
    if not isinstance(value, list | tuple):
        raise bad_column(column, row.get(column), expected)
    return value


def texts(row: Row, column: str) -> tuple[str, ...]:
    """Return a list of texts; numbers in it are written out."""
    expected = "a list of texts"
    values = list_of(row, column, expected)
    if not all(map(_is_word, values)):
        raise bad_column(column, row.get(column), expected)
    return tuple(map(str, values))


def texts_or_none(row: Row, column: str) -> tuple[str, ...] | None:
    """Return a list of texts; None if the column is empty or not there."""
    value = row.get(column)
    if is_absent(value) or (isinstance(value, str) and not value.strip()):
        return None
    return texts(row, column)


def gold_answers(row: Row, column: str) -> tuple[str, ...] | None:
    """Return a list of gold answers; None where they are hidden: nothing, an empty list, or nothing but empty texts."""
    found = texts_or_none(row, column)
    return found if found and any(found) else None


def gold_answer(row: Row, column: str) -> tuple[str, ...] | None:
    """Return one gold answer as it is stored, brackets included, or those of a list; None where they are hidden."""
    value = row.get(column)
    if isinstance(value, list | tuple):
        return gold_answers(row, column)
    return (text(row, column),) if value != "" and not is_absent(value) else None


def gold_answer_or_list(row: Row, column: str) -> tuple[str, ...] | None:
    """Return one gold answer, or those of a list, which may be written as a text in brackets."""
    value = row.get(column)
    if isinstance(value, str) and value.startswith("[") and value.endswith("]"):
        return gold_answers(row, column)
    return gold_answer(row, column)


def gold_letter(row: Row, column: str, choices: Sequence[str], hidden: Collection[Any] = ()) -> tuple[str, ...] | None:
    """Return the letter of the right option, given by its place from 0; None where it is empty or one of `hidden`."""
    if is_absent(row.get(column)) or row[column] in hidden:
        return None
    return (letter(integer(row, column), choices, column),)


def letter(index: int, choices: Sequence[str], column: str) -> str:
    """Return the letter of an option that is given by its place from 0."""
    if not 0 <= index < len(choices):
        raise bad_column(column, index, f"the place of one of {len(choices)} options, from 0")
    return ascii_uppercase[index]


def struct(row: Row, column: str) -> Mapping[str, Any]:
    """Return named values, given as a struct or JSON; an empty column gives none."""
    expected = "named values"
    value = row.get(column)
    found = {} if is_absent(value) else decoded(value, column, expected)
    if not isinstance(found, Mapping):
        raise bad_column(column, value, expected)
    return found


def groups_of(breakdown: str, values: Sequence[Any] | None) -> Groups:
    """Return the groups of one breakdown that a row is counted under; none for values that are not there."""
    return tuple((breakdown, str(value)) for value in values or () if not is_absent(value) and value != "")


def groups_by(row: Row, *columns: str) -> Groups:
    """Return the groups that a row's columns of text name, each column being a breakdown."""
    return tuple(group for column in columns for group in groups_of(column, [text_or_none(row, column)]))


def question_from(
    *,
    answers: Callable[[Row, str], tuple[str, ...] | None] = gold_answers,
    groups: Sequence[str] = (),
    group_lists: Sequence[str] = (),
    cluster: str | None = None,
    facts: Mapping[str, Callable[[Row, str], Any]] = {},
) -> Callable[[Row], Item]:
    """Return what reads a question with gold answers from the columns `question` and `answers`.

    Args:
        answers: Reads the gold answers.
        groups: Columns of text, each of which is a breakdown.
        group_lists: Columns with lists of texts, each of which is a breakdown.
        cluster: The column that names what rows share.
        facts: The columns to keep, and what reads each.
    """

    def to_item(row: Row) -> Item:
        kept = {column: read(row, column) for column, read in facts.items()}
        listed = [group for column in group_lists for group in groups_of(column, texts_or_none(row, column))]
        return Item(
            question=text(row, "question"),
            answers=answers(row, "answers"),
            groups=(*groups_by(row, *groups), *listed),
            cluster=None if cluster is None else str(kept[cluster] if cluster in kept else text(row, cluster)),
            facts=kept,
        )

    return to_item


def _is_word(value: Any) -> bool:
    return isinstance(value, str | int | float) and not isinstance(value, bool) and not is_absent(value)
