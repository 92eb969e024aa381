"""Read WebDataset shards: tars whose consecutive members of one base name, `0001.jpg` and `0001.txt`, are one row.

Where members lie, the tar knows, what they mean samples.py, and whether a shard is compressed makes no difference here
but to how it is looked through.
"""

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import BinaryIO

import pyarrow as pa

from pipeline.input.formats.chats import Sampled
from pipeline.input.formats.fields import note_types
from pipeline.input.formats.packed import WINDOW_BYTES, Unpacked, is_packed
from pipeline.input.formats.rows import (
    Cutter,
    Index,
    RawRow,
    ReadError,
    RowError,
    Shape,
    is_sampled,
)
from pipeline.input.formats.samples import (
    MEMBER_NAME,
    MEMBER_PREFIX,
    count,
    fields_of,
    is_field,
    key_of,
    row_of,
    rows_of,
)
from pipeline.input.formats.tar import Member, ReadAt, Walk, content_of, reader_of


def index(file: BinaryIO, size: int, unit_rows: int, shapes: Collection[Shape] = ()) -> Index:
    """Go through a shard once and find its rows; of one that is damaged those that come before the damage.

    Args:
        file: The shard.
        size: Its bytes.
        unit_rows: The most rows of a unit.
        shapes: What rows may be beyond their fields.

    Raises:
        ReadError: It is no tar from its first byte on, or unpacks to more than it should.
    """
    packed = Unpacked(file) if is_packed(file) else None
    walk = Walk(packed.read_at, 0, None) if packed else Walk(reader_of(file, size), 0, size)
    cutter = Cutter(unit_rows)
    fields: dict[str, pa.DataType] = {}
    found: Counter[str] = Counter()
    passed_over: Counter[str] = Counter()
    texts: dict[Member, bytes] = {}
    chats = Sampled("chat" in shapes, has_members=True)
    for members in rows_of(_noting_texts(walk, cutter, texts), passed_over):
        if texts:
            note_types(fields, chats.fields_of(_sampled(texts, members)))
        count(found, members)
        cutter.add(members[0].first_byte, members[-1].end_byte)
    if walk.num_devices:
        passed_over["devices"] = walk.num_devices
    trouble = (packed and packed.trouble) or walk.trouble or ("" if size else "has no bytes")
    if walk.is_broken and not cutter.num_rows:
        raise ReadError(trouble)
    warnings = [f"{trouble}; found {cutter.num_rows} rows before that" if size else trouble] if trouble else []
    return Index(
        cutter.close(),
        fields,
        warnings,
        extensions=found,
        passed_over={**passed_over, **chats.passed_over},
        is_packed=packed is not None,
        shape=chats.shape,
    )


def read(
    read_at: ReadAt,
    start: int,
    end: int,
    image: str | None,
    find: Callable[[Collection[str]], Mapping[str, Member]],
    *,
    with_images: bool = True,
) -> list[RawRow]:
    """Read the rows between two places.

    Args:
        read_at: Gives the bytes at a place of the shard, also of one before `start` or behind `end`.
        start: Where the first row's first header stands.
        end: Where the last row's data end.
        image: The extension that holds the image if there may be several.
        find: Gives the members of some names wherever they stand in the shard; it is asked only where rows hold links.
        with_images: Whether images are read.
    """
    rows = list(rows_of(Walk(read_at, start, end)))
    targets = {member.target for members in rows for member in members if member.target is not None}
    found = find(targets) if targets else {}

    def data(member: Member) -> bytes:
        return content_of(member, read_at)

    return [row_of(data, members, found, image, with_images) for members in rows]


def find_members(read_at: ReadAt, size: int | None, names: Collection[str]) -> dict[str, Member]:
    """Return the members of some names that have data themselves; of several of one name the last."""
    walk = Walk(read_at, 0, size)
    plain = ((MEMBER_PREFIX.sub("", member.name), member) for member in walk if member.target is None)
    return {name: member for name, member in plain if name in names}


def keys(read_at: ReadAt, start: int, end: int) -> list[str]:
    """Return the keys of the rows between two places."""
    return [key_of(members) for members in rows_of(Walk(read_at, start, end))]


def _noting_texts(walk: Walk, cutter: Cutter, texts: dict[Member, bytes]) -> Iterator[Member]:
    """Pass members on and keep the fields of some rows: of a compressed tar nothing can be read a second time."""
    for member in walk:
        is_noted = is_sampled(cutter.num_rows) and member.size <= WINDOW_BYTES and member.target is None
        name = MEMBER_NAME.fullmatch(member.name)
        if is_noted and name and is_field(name[2].lower()):
            texts[member] = content_of(member, walk.read_at)
        yield member


def _sampled(texts: dict[Member, bytes], members: Sequence[Member]) -> dict[str, object]:
    noted = [member for member in members if member in texts]
    try:
        return fields_of(texts.__getitem__, noted)
    except RowError:  # it is an error row when its turn comes
        return {}
    finally:
        for member in noted:
            del texts[member]
