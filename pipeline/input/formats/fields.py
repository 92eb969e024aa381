"""Give the input's other columns one type for the whole run, and fit every value into it.

JSON values are looked at in a sample of rows: texts, whole numbers, numbers and truth values keep their type, anything
else is kept as JSON text. It knows values, not files.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pyarrow as pa

from pipeline.input.formats.rows import MAX_FIELDS, Fault, ReadError

ANSWERS = pa.list_(pa.string())
# Columns of ours that must be text: anything else in them makes an error row, never text of its own.
TEXTS = ("text", "question")


def note_types(fields: dict[str, pa.DataType], values: Mapping[str, Any]) -> None:
    """Widen the types found so far so that they hold one more row.

    Raises:
        ReadError: There are more fields than any table of ours should have.
    """
    for name, value in values.items():
        fields[name] = wider(fields.get(name, pa.null()), _type_of(value))
    if len(fields) > MAX_FIELDS:
        raise ReadError(f"found more than {MAX_FIELDS} different fields, the most allowed, for example {name!r}")


def wider(first: pa.DataType, second: pa.DataType) -> pa.DataType:
    """Return a type that holds values of both: Arrow's own, where that loses nothing, else text."""
    first, second = _plain(first), _plain(second)
    if first == second or pa.types.is_null(second):
        return first
    if pa.types.is_null(first):
        return second
    both = (first, second)
    # Arrow would take int64, in which half of them do not fit.
    if pa.types.is_uint64(first) or pa.types.is_uint64(second):
        return pa.uint64() if all(map(pa.types.is_integer, both)) else pa.string()
    if any(map(pa.types.is_decimal, both)) and any(map(pa.types.is_floating, both)):
        return pa.string()
    schemas = [pa.schema([("both", kind)]) for kind in both]
    try:
        return pa.unify_schemas(schemas, promote_options="permissive").field("both").type
    except (pa.ArrowTypeError, pa.ArrowInvalid):
        return pa.string()


def kept_type(name: str, found: pa.DataType, where: str, *, is_read: bool) -> pa.DataType:
    """Return the type in which a column of ours or of the input is kept.

    Args:
        name: What the column is called in our tables.
        found: The type that all shards together have.
        where: What to call the input in a message.
        is_read: Whether the job reads the column: then `text`, `question` and `answers` must be what they are called.

    Raises:
        ReadError: `text`, `question` or `answers` cannot be made from what was found.
    """
    plain = _plain(found)
    is_text = pa.types.is_string(plain) or pa.types.is_null(plain)
    if not is_read:
        return pa.string() if is_text else plain
    if name in TEXTS:
        if not is_text:
            raise ReadError(f"{where}: column {name!r} holds {found}, expected string; read.columns can name another")
        return pa.string()
    if name == "answers":
        item = _plain(plain.value_type) if pa.types.is_list(plain) else plain
        if not (pa.types.is_string(item) or pa.types.is_null(item) or pa.types.is_integer(item)):
            raise ReadError(f"{where}: column 'answers' holds {found}, expected string or list<string>")
        return ANSWERS
    return pa.string() if is_text else plain


def is_key_type(found: pa.DataType) -> bool:
    """Say whether a column of a type can hold keys: text or whole numbers."""
    plain = _plain(found)
    return any(is_kind(plain) for is_kind in (pa.types.is_string, pa.types.is_integer, pa.types.is_null))


def raw_type(found: pa.DataType) -> pa.DataType:
    """Return the type in which a column of a raw source is kept: its own, but for how a writer has stored it."""
    plain = _plain(found)
    return pa.string() if pa.types.is_null(plain) else plain


def fit_values(
    name: str, values: Sequence[Any], kind: pa.DataType, *, is_plain: bool = False
) -> tuple[pa.Array, list[Fault | None]]:
    """Make a column of plain values; what does not fit is null and has a fault.

    Args:
        name: The column.
        values: One for each row.
        kind: The column's type.
        is_plain: Whether the column is like any other, even where its name is `text`, `question` or `answers`.
    """
    fit = _fitter("" if is_plain else name, kind)
    fitted: list[Any] = []
    faults: list[Fault | None] = []
    for value in values:
        try:
            fitted.append(None if value is None else fit(value))
            faults.append(None)
        except (ValueError, OverflowError) as error:
            reason = "is not UTF-8" if isinstance(error, UnicodeError) else f"expected {kind}"
            fitted.append(None)
            faults.append(Fault("WrongType", f"column {name!r} holds {_shown(value)}, {reason}"))
    return pa.array(fitted, type=kind), faults


def fit_column(name: str, column: pa.ChunkedArray, kind: pa.DataType) -> tuple[pa.Array, list[Fault | None]]:
    """Make an Arrow column be of a type; what does not fit is null and has a fault."""
    whole = column.combine_chunks()
    try:
        return _cast(whole, kind), [None] * len(whole)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        pieces = [_fit_one(name, whole.slice(place, 1), kind) for place in range(len(whole))]
    arrays = [array for array, _ in pieces]
    return pa.concat_arrays(arrays), [fault for _, fault in pieces]


def plain_values(column: pa.ChunkedArray | pa.Array) -> list[Any]:
    """Return values as Python has them; the bytes of a text that is not UTF-8 are lone surrogates, as in CSV."""
    try:
        values: list[Any] = column.to_pylist()
    except UnicodeDecodeError:
        return [_plain_value(value) for value in column]
    return values


def _plain_value(value: pa.Scalar) -> Any:
    try:
        return value.as_py()
    except UnicodeDecodeError as error:
        return error.object.decode("utf-8", "surrogateescape")


def _fit_one(name: str, value: pa.Array, kind: pa.DataType) -> tuple[pa.Array, Fault | None]:
    if pa.types.is_dictionary(value.type):
        value = value.dictionary_decode()
    value = value.take(pa.array([0]))  # what lies in other rows is not to be looked at
    try:
        return _cast(value, kind), None
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        (found,) = plain_values(value)
        is_utf8 = "\\udc" not in ascii(found)
        reason = f" ({value.type}), expected {kind}" if is_utf8 else ", is not UTF-8"
        return pa.nulls(1, kind), Fault("WrongType", f"column {name!r} holds {_shown(found)}{reason}")


def _cast(array: pa.Array, kind: pa.DataType) -> pa.Array:
    array.validate(full=True)  # Arrow takes texts on trust, and some writers put Latin-1 there
    if array.type == kind:
        return array
    if isinstance(array.type, pa.BaseExtensionType):
        array = array.storage
    if kind == ANSWERS and not pa.types.is_list(_plain(array.type)):
        texts = array.cast(pa.string())
        wrapped = [None if text is None else [text] for text in texts.to_pylist()]
        return pa.array(wrapped, type=ANSWERS)
    if pa.types.is_string(kind) and pa.types.is_nested(array.type):
        return pa.array([None if value is None else _as_json(value) for value in array.to_pylist()], kind)
    return array.cast(kind)


def _as_json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, default=str)


def _plain(kind: pa.DataType) -> pa.DataType:
    """Undo what writers choose for their own reasons: dictionaries, extensions and 64-bit offsets of texts."""
    if isinstance(kind, pa.BaseExtensionType):
        return _plain(kind.storage_type)
    if pa.types.is_dictionary(kind):
        return _plain(kind.value_type)
    if pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return pa.string()
    if pa.types.is_large_list(kind):
        return pa.list_(kind.value_type)
    return kind


def _type_of(value: Any) -> pa.DataType:
    if value is None:
        return pa.null()
    if isinstance(value, list):
        return ANSWERS if all(isinstance(item, str) for item in value) else pa.string()
    if type(value) is int and not -(2**63) <= value < 2**63:
        return pa.uint64() if 0 <= value < 2**64 else pa.string()
    kinds = {bool: pa.bool_(), int: pa.int64(), float: pa.float64()}
    return kinds.get(type(value), pa.string())


def _fitter(name: str, kind: pa.DataType) -> Callable[[Any], Any]:
    if kind == ANSWERS:
        return _answers if name == "answers" else _texts
    if pa.types.is_boolean(kind):
        return _exactly(bool)
    if pa.types.is_integer(kind):
        return _whole(0, 2**64) if pa.types.is_uint64(kind) else _whole(-(2**63), 2**63)
    if pa.types.is_floating(kind):
        return _number
    return _text if name in TEXTS else _text_or_json


def _exactly(expected: type) -> Callable[[Any], Any]:
    def fit(value: Any) -> Any:
        if type(value) is not expected:
            raise ValueError
        return value

    return fit


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError
    value.encode()  # a lone surrogate is allowed in JSON and nowhere else
    return value


def _text_or_json(value: Any) -> str:
    return _text(value if isinstance(value, str) else _as_json(value))


def _texts(value: Any) -> list[str]:
    if not isinstance(value, list):
        raise ValueError
    return [_text(item) for item in value]


def _answers(value: Any) -> list[str]:
    items = value if isinstance(value, list) else [value]
    return [str(item) if type(item) in (int, float) else _text(item) for item in items]


def _whole(first: int, end: int) -> Callable[[Any], int]:
    def fit(value: Any) -> int:
        if type(value) is not int or not first <= value < end:
            raise ValueError
        return value

    return fit


def _number(value: Any) -> float:
    if type(value) not in (int, float) or (type(value) is int and int(float(value)) != value):  # digits would be lost
        raise ValueError
    return float(value)


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
