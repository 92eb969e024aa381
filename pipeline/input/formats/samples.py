"""Read WebDataset shards: tars whose consecutive members of one base name, `0001.jpg` and `0001.txt`, are one row.

The base name ends at the first dot of the file's name. It knows extensions and what they mean; where members lie, the
tar knows, and whether a shard is compressed makes no difference here but to how it is looked through.
"""

import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import BinaryIO, NamedTuple

import pyarrow as pa

from pipeline.input.formats.fields import note_types
from pipeline.input.formats.packed import WINDOW_BYTES, Unpacked, is_packed
from pipeline.input.formats.rows import (
    IMAGE_EXTENSIONS,
    LIMIT_BYTES,
    Cutter,
    Index,
    RawRow,
    ReadError,
    RowError,
    is_sampled,
    parse_json,
    parse_object,
)
from pipeline.input.formats.tar import Member, ReadAt, Walk, content_of

# The folder stays in the key: `cats/0001.jpg` and `dogs/0001.jpg` are different rows.
MEMBER_NAME = re.compile(r"(?:\./)*((?:.*/)?[^./][^./]*)\.([^/]+)", re.DOTALL)
MEMBER_PREFIX = re.compile(r"^(?:\./)+")
# Told apart in one tar; where base names hold dots, every member may have another.
MAX_EXTENSIONS = 256
# What nested extensions of pictures begin with that need not be named: `0001.image.0.jpg`.
PLAIN_PREFIXES = ("", "image")

Data = Callable[[Member], bytes]


class Picture(NamedTuple):
    """An image member's extension in its pieces: `left.0.jpg` is the prefix `left`, the number 0 and `jpg`."""

    prefix: str
    number: int | None
    kind: str


def index(file: BinaryIO, size: int, unit_rows: int) -> Index:
    """Go through a shard once and find its rows; of one that is damaged those that come before the damage.

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
    for members in rows_of(_noting_texts(walk, cutter, texts), passed_over):
        if texts:
            note_types(fields, _sampled(texts, members))
        count(found, members)
        cutter.add(members[0].first_byte, members[-1].end_byte)
    if walk.num_devices:
        passed_over["devices"] = walk.num_devices
    trouble = (packed and packed.trouble) or walk.trouble or ("" if size else "has no bytes")
    if walk.is_broken and not cutter.num_rows:
        raise ReadError(trouble)
    warnings = [f"{trouble}; found {cutter.num_rows} rows before that" if size else trouble] if trouble else []
    return Index(
        cutter.close(), fields, warnings, extensions=found, passed_over=passed_over, is_packed=packed is not None
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


def key_of(members: Sequence[Member]) -> str:
    """Return the key of the row that consists of some members."""
    return _split(members[0].name)[0]


def is_field(extension: str) -> bool:
    """Say whether members of an extension are read into columns."""
    return extension.split(".")[-1] in ("txt", "json")


def is_image(extension: str, wanted: str | None) -> bool:
    """Say whether members of an extension are the row's images; `wanted` is what the user calls them.

    That may be the whole extension, what comes before the number (`left` of `left.0.jpg`), or the extension without
    the number.
    """
    picture = _picture(extension)
    if wanted is None:
        return picture is not None and picture.prefix in PLAIN_PREFIXES
    names = {extension}
    if picture:
        names |= {picture.prefix, f"{picture.prefix}.{picture.kind}".removeprefix(".")}
    return wanted in names


def is_numbered(extension: str) -> bool:
    """Say whether members of an extension are one of several images of their row."""
    picture = _picture(extension)
    return picture is not None and picture.number is not None


def wanted_image(named: str | None) -> str | None:
    """Return an extension as members have it, whether the user wrote `.JPG` or `jpg`."""
    return named.lower().removeprefix(".") if named else None


def rows_of(members: Iterable[Member], passed_over: Counter[str] | None = None) -> Iterator[list[Member]]:
    """Gather consecutive members of one base name; hidden files and files without an extension are nobody's."""
    row: list[Member] = []
    for member in members:
        if not MEMBER_NAME.fullmatch(member.name):
            if passed_over is not None:
                passed_over["hidden members and members without an extension"] += 1
            continue
        if row and _split(row[0].name)[0] != _split(member.name)[0]:
            yield row
            row = []
        row.append(member)
    if row:
        yield row


def reader_of(file: BinaryIO, size: int) -> ReadAt:
    """Return a way to read at places of an open file, up to its size."""

    def read_at(position: int, count: int) -> bytes:
        file.seek(position)
        return file.read(min(count, size - position))

    return read_at


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
        return _fields(texts.__getitem__, _by_extension(noted))
    except RowError:  # it is an error row when its turn comes
        return {}
    finally:
        for member in noted:
            del texts[member]


def extension_of(member: Member) -> str:
    """Return what stands behind the first dot of a member's name, in lower case."""
    return _split(member.name)[1]


def count(found: Counter[str], members: Sequence[Member]) -> None:
    """Count the extensions of a row's members."""
    for member in members:
        extension = _split(member.name)[1]
        found[extension if extension in found or len(found) < MAX_EXTENSIONS else "others"] += 1


def row_of(
    data: Data, members: Sequence[Member], targets: Mapping[str, Member], image: str | None, with_images: bool
) -> RawRow:
    """Read the row that consists of some members; what is wrong with it is its fault.

    Args:
        data: Gives a member's content.
        members: Those of the row.
        targets: What links among them stand for.
        image: The extension that holds the image if there may be several.
        with_images: Whether images are read.
    """
    row = RawRow(key=key_of(members))
    try:
        found = _by_extension([_linked(member, targets) for member in members])
        row.values = _fields(data, found)
        if with_images:
            members = _pictures(found, image)
            row.image, row.members = [data(one) for one in members], [one.name for one in members]
    except RowError as error:
        row.fault = error.fault
    return row


def _linked(member: Member, targets: Mapping[str, Member]) -> Member:
    """Return what a link stands for, under the link's name."""
    if member.target is None:
        return member
    if member.target not in targets:
        raise RowError("NoTarget", f"{member.name} is a link to {member.target!r}, which is no file in the tar")
    return replace(targets[member.target], name=member.name)


def _fields(data: Data, found: Mapping[str, Sequence[Member]]) -> dict[str, object]:
    """Return a row's fields: those of `.json`, over them one of each `name.json` and `name.txt`, and `text`."""
    values: dict[str, object] = {}
    for extension in sorted(filter(is_field, found), key=lambda extension: extension != "json"):
        member = _only(found[extension])
        _check_size([member])
        name = extension.rpartition(".")[0]
        if extension == "json":
            values.update(parse_object(data(member), member.name))
        elif extension.endswith("json"):
            values[name] = parse_json(data(member), member.name)
        else:
            values[name or "text"] = _text(data(member), member.name)
    return values


def _text(data: bytes, name: str) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise RowError("NotUtf8", f"{name} is not UTF-8: {error.reason} at byte {error.start}") from error


def _pictures(found: Mapping[str, Sequence[Member]], wanted: str | None) -> list[Member]:
    """Return the one image, or those that are numbered, in the order of their numbers."""
    pictures = {extension: members for extension, members in found.items() if is_image(extension, wanted)}
    if len(pictures) > 1:
        labels = {extension: _picture(extension) for extension in pictures}
        numbers = [label.number for label in labels.values() if label and label.number is not None]
        prefixes = {label and label.prefix for label in labels.values()}
        if len(set(numbers)) < len(pictures) or len(prefixes) > 1:
            listed = ", ".join(sorted(members[0].name for members in pictures.values()))
            raise RowError(
                "SeveralImages", f"found several images in one row ({listed}); name one extension in read.columns.image"
            )
    members = [_only(pictures[extension]) for extension in sorted(pictures, key=_number)]
    _check_size(members)
    for member in members:
        if not member.size:
            raise RowError("NoBytes", f"member {member.name} has no bytes, expected an image")
    return members


def _picture(extension: str) -> Picture | None:
    *front, kind = extension.split(".")
    if kind not in IMAGE_EXTENSIONS:
        return None
    number = int(front.pop()) if front and re.fullmatch(r"[0-9]{1,9}", front[-1]) else None
    return Picture(".".join(front), number, kind)


def _number(extension: str) -> int:
    picture = _picture(extension)
    return picture.number or 0 if picture else 0


def _only(members: Sequence[Member]) -> Member:
    if len(members) > 1:
        raise RowError(
            "DuplicateMember", f"member {members[0].name} occurs {len(members)} times in its row, expected once"
        )
    return members[0]


def _check_size(members: Sequence[Member]) -> None:
    """Refuse what no memory should hold, one by one and together."""
    size = sum(member.size for member in members)
    if size > LIMIT_BYTES:
        what = f"member {members[0].name} has" if len(members) == 1 else f"the row's {len(members)} images have"
        raise RowError("TooLarge", f"{what} {size} bytes, at most {LIMIT_BYTES} are allowed")


def _by_extension(members: Sequence[Member]) -> dict[str, list[Member]]:
    """Sort a row's members by their extension in lower case."""
    found: dict[str, list[Member]] = {}
    for member in members:
        found.setdefault(_split(member.name)[1], []).append(member)
    return found


def _split(name: str) -> tuple[str, str]:
    match = MEMBER_NAME.fullmatch(name)
    assert match is not None, name
    return match[1], match[2].lower()
