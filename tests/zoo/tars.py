"""Tars as downloads, copies and scripts leave them."""

import bz2
import gzip
import io
import tarfile
from collections.abc import Iterator

from tests.pipeline.inputs import tar_bytes
from tests.zoo.animal import RED, Animal
from tests.zoo.pictures import encoded, noise, quarters

PICTURE = encoded(quarters())
OTHER = encoded(quarters().transpose(3))


def tars() -> Iterator[Animal]:
    """Give them all."""
    yield from _samples()
    yield from _damaged()
    yield from _packed()
    yield from _members()


def _tar(*names: str, data: bytes = PICTURE) -> bytes:
    return tar_bytes([(name, data) for name in names], tarfile.USTAR_FORMAT)


def _samples() -> Iterator[Animal]:
    numbered = tar_bytes([("a.image.10.png", OTHER), ("a.image.9.png", PICTURE)])
    yield Animal("numbered.tar", "image.10 stands before image.9", numbered, corner=RED, images=2)
    yield Animal("capitals.tar", ".JPG, .Png and .jpeg", _tar("a.JPG", "b.Png", "c.jpeg"), "3 answers")
    several = _tar("a.jpg", "a.png", "b.png")
    yield Animal("several.tar", "a row with two images of no order", several, "1 answer, 1 fetch/SeveralImages")
    chosen = {"columns": {"image": "png"}}
    warning = "passed over 1 members with extension 'jpg'"
    yield Animal("chosen.tar", "the same, told which", several, "2 answers", trouble=warning, read=chosen)
    nested = _tar("a.jpg", "a.seg.png", "b.jpg")
    warning = "passed over 1 members with extension 'seg.png'"
    yield Animal("nested.tar", "masks beside images", nested, "2 answers", trouble=warning)
    views = _tar("a.left.jpg", "a.right.jpg")
    warning = "passed over 1 members with extension 'left.jpg'"
    yield Animal("views.tar", "left.jpg and right.jpg", views, "fetch/MissingImage", trouble=warning)
    yield Animal("left.tar", "the same, told which", views, trouble="right.jpg", read={"columns": {"image": "left"}})
    texts = tar_bytes([("a.jpg", PICTURE), ("a.question.txt", b"What colour?"), ("a.answers.json", b'["red"]')])
    yield Animal("questions.tar", "nested texts, which are columns", texts, text="What colour?")
    twice = _tar("a.jpg", "a.jpg", "b.jpg")
    yield Animal("twice.tar", "a member that stands twice", twice, "1 answer, 1 fetch/DuplicateMember")
    apart = _tar("a.jpg", "b.jpg", "a.png")
    yield Animal("apart.tar", "members of one name that do not stand together", apart, "3 answers")


def _damaged() -> Iterator[Animal]:
    whole = _tar("a.png", "b.png", "c.png")
    step = 512 + -(-len(PICTURE) // 512) * 512
    broken = bytearray(whole)
    broken[2 * step] ^= 0xFF
    yield Animal(
        "cut.tar",
        "cut off within its third image",
        whole[: 2 * step + 600],
        "2 answers",
        trouble="cut off within 'c.png'",
    )
    yield Animal(
        "cut_header.tar",
        "cut off within a header",
        whole[: 2 * step + 100],
        "2 answers",
        trouble="cut off within a header",
    )
    yield Animal("no_end.tar", "without its end mark", whole[: 3 * step], "3 answers")
    yield Animal(
        "flipped.tar", "a wrong byte in its third header", bytes(broken), "2 answers", trouble="no tar header at byte"
    )
    glued = _tar("a.png") + _tar("b.png")
    yield Animal("glued.tar", "two tars in one file", glued, trouble="more bytes after the end-of-archive mark")
    yield Animal("empty.tar", "no bytes", b"", "no plan", trouble="has no bytes")
    yield Animal("no_members.tar", "no members", _tar(), "no plan", trouble="found no rows")
    page = b"<html>403 Forbidden</html>" * 99
    yield Animal("page.tar", "a web page", page, "no plan", trouble="no tar header at byte 0")


def _packed() -> Iterator[Animal]:
    whole = _tar("a.png", "b.png", "c.png")
    packed = gzip.compress(whole, mtime=0)
    stored = gzip.compress(whole, compresslevel=0, mtime=0)
    wrong = stored[:-8] + bytes([stored[-8] ^ 1]) + stored[-7:]
    yield Animal("packed.tar.gz", "gzip", packed, "3 answers", corner=RED)
    yield Animal("packed.tgz", "gzip by its short name", packed, "3 answers", corner=RED)
    yield Animal("packed.tar", "gzip that does not say so", packed, "3 answers", corner=RED)
    yield Animal("plain.tar.gz", "called gzip, and is none", whole, "3 answers", corner=RED)
    noisy = gzip.compress(_tar("a.png", "b.png", "c.png", data=noise()), compresslevel=0, mtime=0)
    cut = "gzip stream is cut off"
    yield Animal("half.tar.gz", "gzip cut off in the middle", noisy[: len(noisy) // 2], trouble=cut)
    yield Animal("wrong.tar.gz", "gzip with a wrong checksum", wrong, "3 answers", trouble="damaged gzip stream")
    member = tarfile.TarInfo("a.png")
    member.size = 70 * 2**20
    zeros = gzip.compress(bytes(2**20), mtime=0)  # streams glued together are one
    bomb = gzip.compress(member.tobuf(), mtime=0) + 70 * zeros
    yield Animal("bomb.tar.gz", "70 MB of zeros in 70 kB", bomb, "no plan", trouble="refused a decompression bomb")
    squeezed = bz2.compress(whole) + bytes(512)
    yield Animal("squeezed.tar", "bzip2", squeezed, "no plan", trouble="(bzip2)")


def _members() -> Iterator[Animal]:
    deep = "/".join(["folder" * 8] * 8)
    long = tar_bytes([(f"{deep}/a.png", PICTURE)], tarfile.PAX_FORMAT)
    yield Animal("long_names.tar", "a name of 400 characters (pax)", long, corner=RED)
    long = tar_bytes([(f"{deep}/a.png", PICTURE)], tarfile.GNU_FORMAT)
    yield Animal("gnu_names.tar", "the same as GNU writes it", long, corner=RED)
    away = _tar("../../etc/passwd.png", "/elsewhere/b.png")
    yield Animal("away.tar", "names that lead out of the folder", away, "2 answers", corner=RED)
    hidden = _tar("a.png", "._a.png", "README", ".DS_Store")
    warning = "passed over 3 hidden members and members without an extension"
    yield Animal("hidden.tar", "what a Mac adds", hidden, trouble=warning)
    out = _links(tarfile.SYMTYPE, "/etc/passwd")
    yield Animal("links.tar", "a link to /etc/passwd", out, "1 answer, 1 fetch/NoTarget")
    well = ("well.png", PICTURE)
    empty = tar_bytes([("a.png", b""), well])
    yield Animal("empty_image.tar", "an image without bytes", empty, "1 answer, 1 fetch/NoBytes")
    broken = tar_bytes([("a.png", PICTURE), ("a.json", b"{'single': 'quotes'}"), well])
    yield Animal("broken_json.tar", "JSON that is none", broken, "1 answer, 1 fetch/NotJson")
    latin = tar_bytes([("a.png", PICTURE), ("a.txt", b"caf\xe9"), well])
    yield Animal("latin.tar", "a text in Latin-1", latin, "1 answer, 1 fetch/NotUtf8")
    name = tar_bytes([("caf\udce9.png", PICTURE)], tarfile.GNU_FORMAT)
    yield Animal("latin_name.tar", "a name in Latin-1", name)
    yield Animal("sparse.tar", "a sparse member", _sparse(), corner=RED)
    marked = tar_bytes([("a.png", PICTURE), ("a.question.txt", "\ufeffWhat colour?".encode())])
    yield Animal("marked.tar", "a byte order mark in a text", marked, text="What colour?")
    yield Animal("hard_link.tar", "a hard link to a member before", _links(tarfile.LNKTYPE, "real.png"), "2 answers")


def _links(kind: bytes, target: str) -> bytes:
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w") as archive:
        real = tarfile.TarInfo("real.png")
        real.size = len(PICTURE)
        archive.addfile(real, io.BytesIO(PICTURE))
        link = tarfile.TarInfo("link.png")
        link.type, link.linkname = kind, target
        archive.addfile(link)
    return sink.getvalue()


def _sparse() -> bytes:
    """Return a picture behind which GNU tar left out 4,096 zeros: its header maps one piece of data."""
    info = tarfile.TarInfo("a.png")
    info.type, info.size = b"S", len(PICTURE)
    header = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    header[386:410] = b"%011o\0%011o\0" % (0, len(PICTURE))
    header[483:495] = b"%011o\0" % (len(PICTURE) + 4096)
    header[148:156] = b"%06o\0 " % sum(header[:148] + b" " * 8 + header[156:])
    return bytes(header) + PICTURE + bytes(-len(PICTURE) % 512) + bytes(1024)
