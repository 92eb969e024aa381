"""Make rows of members of one base name, `0001.jpg` and `0001.txt`, as they stand in tars and zip archives.

The base name ends at the first dot of the file's name. It knows extensions and what they mean; where members lie, the
archives know.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from pipeline.input.formats.rows import (
    IMAGE_EXTENSIONS,
    LIMIT_BYTES,
    RawRow,
    RowError,
    parse_json,
    parse_object,
)
from pipeline.input.formats.tar import Member

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


def fields_of(data: Data, members: Sequence[Member]) -> dict[str, object]:
    """Return what some members of a row say beside its images.

    Raises:
        RowError: One cannot be read.
    """
    return _fields(data, _by_extension(members))


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
