"""Read and write Thrift's compact protocol, in which Parquet's footers and page headers stand.

It knows no structs: a struct is its fields' numbers with their types and values, and is written back as it was read.
https://github.com/apache/thrift/blob/master/doc/specs/thrift-compact-protocol.md
"""

from typing import Any

TRUE, FALSE, BYTE, I16, I32, I64, DOUBLE, BINARY, LIST, SET, STRUCT = 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12
DEEPEST = 32

Struct = dict[int, tuple[int, Any]]


class NotThrift(ValueError):
    """The bytes are no struct of this protocol, or end within one."""


def read_struct(data: bytes, position: int = 0) -> tuple[Struct, int]:
    """Return the struct at a position, and the position after it.

    Raises:
        NotThrift: There is none, or the bytes end within it.
    """
    try:
        return _struct(data, position, 0)
    except IndexError as error:
        raise NotThrift(f"the struct at byte {position} does not end within {len(data)} bytes") from error


def write_struct(fields: Struct) -> bytes:
    """Return a struct's bytes."""
    out = bytearray()
    last = 0
    for number, (kind, value) in sorted(fields.items()):
        if 0 < number - last < 16:
            out.append((number - last) << 4 | kind)
        else:
            out.append(kind)
            out += varint(_zigzag(number))
        if kind not in (TRUE, FALSE):
            out += _value_bytes(kind, value)
        last = number
    out.append(0)
    return bytes(out)


def get(fields: Struct, *path: int) -> Any:
    """Return a field's value, or that of a field of a struct in it; None where it is left out."""
    value: Any = fields
    for number in path:
        if number not in value:
            return None
        value = value[number][1]
    return value


def _struct(data: bytes, position: int, depth: int) -> tuple[Struct, int]:
    if depth > DEEPEST:
        raise NotThrift(f"found structs nested more than {DEEPEST} deep")
    fields: Struct = {}
    number = 0
    while head := data[position]:
        position += 1
        if step := head >> 4:
            number += step
        else:
            found, position = read_varint(data, position)
            number = _unzigzag(found)
        kind = head & 15
        if kind in (TRUE, FALSE):
            fields[number] = (kind, kind == TRUE)
            continue
        value, position = _value(data, position, kind, depth)
        fields[number] = (kind, value)
    return fields, position + 1


def _value(data: bytes, position: int, kind: int, depth: int) -> tuple[Any, int]:
    if kind in (I16, I32, I64):
        found, position = read_varint(data, position)
        return _unzigzag(found), position
    if kind == BINARY:
        count, position = read_varint(data, position)
        return _bytes(data, position, count), position + count
    if kind == STRUCT:
        return _struct(data, position, depth + 1)
    if kind in (LIST, SET):
        return _list(data, position, depth)
    if kind in (BYTE, TRUE, FALSE):  # of a list's booleans each takes a byte
        return data[position], position + 1
    if kind == DOUBLE:
        return _bytes(data, position, 8), position + 8
    raise NotThrift(f"found type {kind} at byte {position}, expected one of the protocol that Parquet uses")


def _list(data: bytes, position: int, depth: int) -> tuple[Any, int]:
    head = data[position]
    position += 1
    count, kind = head >> 4, head & 15
    if count == 15:
        count, position = read_varint(data, position)
    if count > len(data):
        raise NotThrift(f"found a list of {count} at byte {position} of {len(data)}")
    values = []
    for _ in range(count):
        value, position = _value(data, position, kind, depth)
        values.append(value)
    return (kind, values), position


def _bytes(data: bytes, position: int, count: int) -> bytes:
    if position + count > len(data):
        raise IndexError(position)
    return bytes(data[position : position + count])


def read_varint(data: bytes, position: int) -> tuple[int, int]:
    """Return such a number, and the position after it."""
    value = shift = 0
    while True:
        byte = data[position]
        position += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, position
        shift += 7
        if shift > 63:
            raise NotThrift(f"found a number of more than 64 bits at byte {position}")


def _value_bytes(kind: int, value: Any) -> bytes:
    if kind in (I16, I32, I64):
        return varint(_zigzag(value))
    if kind == BINARY:
        return varint(len(value)) + bytes(value)
    if kind == STRUCT:
        return write_struct(value)
    if kind in (LIST, SET):
        of, values = value
        head = bytes([len(values) << 4 | of]) if len(values) < 15 else bytes([15 << 4 | of]) + varint(len(values))
        return head + b"".join(_value_bytes(of, each) for each in values)
    return bytes([value]) if kind in (BYTE, TRUE, FALSE) else bytes(value)


def varint(value: int) -> bytes:
    """Return a number, seven bits a byte."""
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


def _zigzag(value: int) -> int:
    return value << 1 if value >= 0 else (-value << 1) - 1


def _unzigzag(value: int) -> int:
    return (value >> 1) ^ -(value & 1)
