"""A data set's row: texts, whole numbers, lists, in any form in which copies hold them. No data set is known here."""

import ast
import json
import math
import warnings
from collections.abc import Collection, Mapping, Sequence
from string import ascii_uppercase
from typing import Any, TypeGuard

_SHOWN = 80
Groups = tuple[tuple[str, str], ...]


class BadRow(ValueError):
    """A row of a data set is not as expected: the message has the column, what was found and what was expected."""


class Row(dict[str, Any]):
    """The values of a row by the data set's own column names.

    Each method returns what one column holds, and raises BadRow if it holds something else. A list may be a list, JSON
    or a Python literal; nothing is ever evaluated.
    """

    def is_empty(self, column: str) -> bool:
        """Whether a column holds nothing, or is not there."""
        return is_absent(self.get(column))

    def text(self, column: str) -> str:
        """Return a text; a number is written out."""
        value = self.get(column)
        if not _is_word(value):
            raise bad_column(column, value, "text")
        return str(value)

    def text_or_none(self, column: str) -> str | None:
        """Return a text; None if the column is empty or not there."""
        return None if self.is_empty(column) else self.text(column)

    def integer(self, column: str) -> int:
        """Return a whole number, given as a number or in digits."""
        value = self.get(column)
        if isinstance(value, int) and not isinstance(value, bool):
            return value
        if isinstance(value, float) and value.is_integer():
            return int(value)
        if isinstance(value, str) and value.strip().removeprefix("-").isdecimal():
            return int(value)
        raise bad_column(column, value, "a whole number")

    def number(self, column: str) -> float:
        """Return a finite number."""
        value = self.get(column)
        try:
            converted = float(value) if _is_word(value) else math.nan
        except ValueError:
            converted = math.nan
        if not math.isfinite(converted):
            raise bad_column(column, value, "a number")
        return converted

    def list_of(self, column: str, expected: str) -> Sequence[Any]:
        """Return a list of anything; `expected` says what it should hold."""
        value = decoded(self.get(column), column, expected)
        if not isinstance(value, list | tuple):
            raise bad_column(column, self.get(column), expected)
        return value

    def texts(self, column: str) -> tuple[str, ...]:
        """Return a list of texts; numbers in it are written out."""
        expected = "a list of texts"
        values = self.list_of(column, expected)
        if not all(map(_is_word, values)):
            raise bad_column(column, self.get(column), expected)
        return tuple(map(str, values))

    def texts_or_none(self, column: str) -> tuple[str, ...] | None:
        """Return a list of texts; None if the column is empty or not there."""
        value = self.get(column)
        if is_absent(value) or (isinstance(value, str) and not value.strip()):
            return None
        return self.texts(column)

    def gold_answers(self, column: str) -> tuple[str, ...] | None:
        """Return a list of gold answers; None where they are hidden: no list, an empty one, or one of empty texts."""
        answers = self.texts_or_none(column)
        return answers if answers and any(answers) else None

    def gold_answer(self, column: str) -> tuple[str, ...] | None:
        """Return one gold answer as it is stored, brackets included, or those of a list; None where they are hidden."""
        value = self.get(column)
        if isinstance(value, list | tuple):
            return self.gold_answers(column)
        return (self.text(column),) if value != "" and not is_absent(value) else None

    def gold_answer_or_list(self, column: str) -> tuple[str, ...] | None:
        """Return one gold answer, or those of a list, which may be written as a text in brackets."""
        value = self.get(column)
        if isinstance(value, str) and value.startswith("[") and value.endswith("]"):
            return self.gold_answers(column)
        return self.gold_answer(column)

    def gold_letter(self, column: str, choices: Sequence[str], hidden: Collection[Any] = ()) -> tuple[str, ...] | None:
        """Return the letter of the right option, given by its place from 0; None where it is `hidden` or not there."""
        if self.is_empty(column) or self[column] in hidden:
            return None
        return (letter(self.integer(column), choices, column),)

    def struct(self, column: str) -> "Row":
        """Return named values, given as a struct or JSON; an empty column gives none."""
        expected = "named values"
        value = self.get(column)
        values = {} if is_absent(value) else decoded(value, column, expected)
        if not isinstance(values, Mapping):
            raise bad_column(column, value, expected)
        return Row(values)

    def groups(self, *columns: str) -> Groups:
        """Return the groups that a row's columns of text name, each column being a breakdown."""
        return tuple(group for column in columns for group in groups_of(column, [self.text_or_none(column)]))


def is_absent(value: Any) -> bool:
    """Whether a column holds nothing: null, or the NaN that pandas writes for it."""
    return value is None or (isinstance(value, float) and math.isnan(value))


def bad_column(column: str, value: Any, expected: str) -> BadRow:
    """Return the error that names a column, what it holds and what it should."""
    found = repr(value)
    shown = found if len(found) <= _SHOWN else f"{found[:_SHOWN]}…"
    return BadRow(f"column `{column}`: found {shown}, expected {expected}")


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


def letter(index: int, choices: Sequence[str], column: str) -> str:
    """Return the letter of an option that is given by its place from 0."""
    if not 0 <= index < len(choices):
        raise bad_column(column, index, f"the place of one of {len(choices)} options, from 0")
    return ascii_uppercase[index]


def groups_of(breakdown: str, values: Sequence[Any] | None) -> Groups:
    """Return the groups of one breakdown that a row is counted under; none for values that are not there."""
    return tuple((breakdown, str(value)) for value in values or () if not is_absent(value) and value != "")


def _is_word(value: Any) -> TypeGuard[str | int | float]:
    return isinstance(value, str | int | float) and not isinstance(value, bool) and not is_absent(value)
