"""Tars as people make them: several images, nested extensions, compressed, damaged."""

import bz2
import gzip
import io
import os
import subprocess
import tarfile
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from pipeline.input import scan
from pipeline.input.formats import packed, tar_rows
from pipeline.input.formats.rows import ReadError
from pipeline.input.keys import duplicate_keys
from pipeline.input.read import read_unit
from pipeline.input.units import ReadSettings, plan_input
from pipeline.storage.file_systems import BLOCK_BYTES
from pipeline.storage.ranged_file import ranged_file
from tests.pipeline.inputs import faults, read_all, rows_as_members, rows_of, tar_bytes, write


def warnings_of(uri: Path | str, **settings: object) -> list[str]:
    return plan_input(ReadSettings.model_validate({"uri": str(uri), **settings}), 3).warnings


def tar_of(folder: Path, *names: str) -> Path:
    """A tar whose members hold their own names."""
    return write(folder / "a.tar", tar_bytes([(name, name.encode()) for name in names]))


def images_of(path: Path, **columns: str) -> list[list[str]]:
    return [[image.decode() for image in row["images"]] for row in rows_of(path, columns=columns)]


def test_numbered_images_of_a_row_come_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    names = [f"a.image.{number}.jpg" for number in (0, 10, 9, 1)]
    assert images_of(tar_of(tmp_path, *names)) == [
        ["a.image.0.jpg", "a.image.1.jpg", "a.image.9.jpg", "a.image.10.jpg"]
    ]
    names = ["a.1.png", "a.0.JPEG", "b.000.jpg", "b.001.webp"]
    assert images_of(tar_of(tmp_path, *names)) == [["a.0.JPEG", "a.1.png"], ["b.000.jpg", "b.001.webp"]]
    # Files called so themselves are one row as well: the base name ends at the first dot.
    assert images_of(tar_of(tmp_path, "image.0.jpg", "image.1.jpg")) == [["image.0.jpg", "image.1.jpg"]]


def test_extensions_in_capitals_are_the_same_extensions(tmp_path: Path) -> None:
    assert images_of(tar_of(tmp_path, "a.JPG", "b.jpeg", "c.Jpg", "d.image.PNG")) == [
        ["a.JPG"],
        ["b.jpeg"],
        ["c.Jpg"],
        ["d.image.PNG"],
    ]


@pytest.mark.parametrize(
    ("named", "images"),
    [
        ("left.jpg", [["a.left.jpg"], ["b.left.0.jpg", "b.left.1.jpg"]]),
        ("left", [["a.left.jpg"], ["b.left.0.jpg", "b.left.1.jpg"]]),
        (".LEFT", [["a.left.jpg"], ["b.left.0.jpg", "b.left.1.jpg"]]),
        ("left.1.jpg", [[], ["b.left.1.jpg"]]),
        ("seg.png", [["a.seg.png"], []]),
    ],
)
def test_nested_extensions_are_images_once_they_are_named(tmp_path: Path, named: str, images: list[list[str]]) -> None:
    path = tar_of(tmp_path, "a.left.jpg", "a.right.jpg", "a.seg.png", "b.left.1.jpg", "b.left.0.jpg", "b.right.0.jpg")
    assert images_of(path) == [[], []]
    assert images_of(path, image=named) == images


@pytest.mark.parametrize(
    "names",
    [
        ("a.jpg", "a.png"),
        ("a.jpg", "a.0.jpg"),
        ("a.0.jpg", "a.0.png"),
        ("a.image.0.jpg", "a.1.jpg"),
        ("a.jpg", "a.image.jpg"),
    ],
)
def test_images_whose_order_nobody_said_are_not_guessed(tmp_path: Path, names: tuple[str, ...]) -> None:
    (row,) = rows_of(tar_of(tmp_path, *names))
    assert row["error"]["type"] == "SeveralImages"
    assert all(name in row["error"]["message"] for name in names)


def test_a_member_that_stands_twice_makes_its_row_an_error(tmp_path: Path) -> None:
    rows = rows_of(tar_of(tmp_path, "a.0.jpg", "a.1.jpg", "a.1.jpg", "b.txt", "b.txt", "c.jpg"))
    assert faults(rows) == ["DuplicateMember", "DuplicateMember", None]


def test_nested_texts_and_json_are_columns_of_their_names(tmp_path: Path) -> None:
    members = [
        ("a.json", b'{"n": 1, "caption": "from json"}'),
        ("a.jpg", b"image"),
        ("a.caption.txt", b"a text"),
        ("a.box.json", b"[1, 2]"),
        ("a.cls.json", b"7"),
        ("a.txt", b"plain"),
        ("b.cls.json", b"{broken"),
    ]
    rows = rows_of(write(tmp_path / "a.tar", tar_bytes(members)))
    found = {name: rows[0][name] for name in ("n", "caption", "box", "cls", "text")}
    assert found == {"n": 1, "caption": "a text", "box": "[1, 2]", "cls": 7, "text": "plain"}
    assert faults(rows) == [None, "NotJson"]


def test_images_that_are_too_large_together_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("formats.rows", "formats.samples", "read"):
        monkeypatch.setattr(f"pipeline.input.{module}.LIMIT_BYTES", 4000)
    members = [(f"{key}.{n}.jpg", bytes([1]) * size) for key, size in (("a", 1500), ("b", 1000)) for n in range(3)]
    rows = rows_of(write(tmp_path / "a.tar", tar_bytes(members)))
    assert faults(rows) == ["TooLarge", None]
    assert "the row's 3 images have 4500 bytes" in rows[0]["error"]["message"]


def test_what_belongs_to_no_row_is_counted_over_all_shards(tmp_path: Path) -> None:
    for name in "xyz":
        members = [("a.jpg", b"1"), ("a.cls", b"5"), ("a.seg.png", b"1"), ("README", b"1"), (".hidden.jpg", b"1")]
        write(tmp_path / f"{name}.tar", tar_bytes(members[: 5 if name == "x" else 2]))
    assert warnings_of(tmp_path) == [
        "passed over 3 members with extension 'cls' in 3 of 3 shards",
        "passed over 2 hidden members and members without an extension in 1 of 3 shards",
        "passed over 1 members with extension 'seg.png' in 1 of 3 shards",
    ]
    assert "passed over 3 members with extension 'jpg' in 3 of 3 shards" in warnings_of(
        tmp_path, columns={"image": "seg.png"}
    )


def test_as_many_kinds_as_there_are_members_make_a_few_lines(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tar", tar_bytes([(f"a.{n}x", b"") for n in range(400)] + [("a.jpg", b"1")]))
    warnings = warnings_of(path)
    assert len(warnings) == 21 and warnings[-1].startswith("passed over members of ")


def packed_tar(folder: Path, count: int = 50, name: str = "a.tar.gz") -> tuple[Path, list[bytes]]:
    images = [os.urandom(5000 + n) for n in range(count)]
    rows = [{"key": f"{n:03d}", "json": {"n": n}, "jpg": image} for n, image in enumerate(images)]
    return write(folder / name, gzip.compress(tar_bytes(rows_as_members(rows)))), images


@pytest.mark.parametrize("name", ["a.tar.gz", "a.TGZ", "a.tar"])
def test_a_compressed_tar_gives_the_same_rows(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packed, "WINDOW_BYTES", 8000)
    monkeypatch.setattr(packed, "PIECE_BYTES", 3000)
    path, images = packed_tar(tmp_path, name=name)
    write(tmp_path / "plain/a.tar", gzip.decompress(path.read_bytes()))
    found, plain = read_all(path, 7), read_all(tmp_path / "plain", 7)
    assert found.drop(["shard"]) == plain.drop(["shard"])
    assert found.column("images").to_pylist() == [[image] for image in images]
    planned = plan_input(ReadSettings(uri=str(tmp_path / name)), 7)
    assert planned.warnings == [] and {unit.is_packed for unit in planned.units} == {True}
    assert duplicate_keys(planned.units, ReadSettings(uri=str(path))) == []


def test_a_compressed_tar_that_would_be_unpacked_many_times_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def told(path: Path, unit_rows: int) -> list[str]:
        return plan_input(ReadSettings(uri=str(path)), unit_rows).warnings

    path, _ = packed_tar(tmp_path)
    assert told(path, 5) == [], "it is small"
    monkeypatch.setattr(scan, "UNPACKED_BYTES", 2**20)
    assert told(path, 7) == [], "eight units"
    (warning,) = told(path, 5)
    assert warning.startswith("1 compressed shards have more than 8 units (first a.tar.gz: 10), and a unit may have to")
    write(tmp_path / "plain.tar", gzip.decompress(path.read_bytes()))
    assert told(tmp_path / "plain.tar", 5) == []


def test_gzip_streams_glued_together_are_one_stream(tmp_path: Path) -> None:
    data = tar_bytes(rows_as_members([{"key": str(n), "jpg": os.urandom(900)} for n in range(9)]))
    path = write(tmp_path / "a.tgz", gzip.compress(data[:5000]) + gzip.compress(data[5000:]) + bytes(100))
    assert [row["key"] for row in rows_of(path)] == [str(n) for n in range(9)]
    assert warnings_of(path) == []


@pytest.mark.parametrize("share", [0.2, 0.5, 0.99])
def test_a_cut_off_gzip_stream_is_read_to_its_last_whole_row(tmp_path: Path, share: float) -> None:
    path, images = packed_tar(tmp_path)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    rows = rows_of(path)
    assert int(50 * share) - 1 <= len(rows) <= int(50 * share) + 1
    assert [row["images"] for row in rows[:-1]] == [[image] for image in images[: len(rows) - 1]]
    (warning,) = warnings_of(path)
    assert f"gzip stream is cut off; found {len(rows)} rows before that" in warning


def test_damage_within_a_gzip_stream_keeps_what_comes_before_and_says_so(tmp_path: Path) -> None:
    path, images = packed_tar(tmp_path)
    data = bytearray(path.read_bytes())
    data[-8] ^= 1  # of the checksum: which byte is wrong, nobody can tell
    path.write_bytes(data)
    assert [row["images"] for row in rows_of(path)] == [[image] for image in images]
    assert "damaged gzip stream: " in warnings_of(path)[0] and "found 50 rows" in warnings_of(path)[0]
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    rows = rows_of(path)
    assert 24 <= len(rows) <= 50  # a wrong byte within a picture's noise may be found out only at the end
    assert [row["images"] for row in rows[:24]] == [[image] for image in images[:24]]


def test_a_gzip_bomb_is_refused(tmp_path: Path) -> None:
    member = tarfile.TarInfo("a.jpg")
    member.size = 70 * 2**20
    data = gzip.compress(member.tobuf()) + 70 * gzip.compress(bytes(2**20))
    path = write(tmp_path / "a.tar.gz", data)
    with pytest.raises(ReadError, match=r"a\.tar\.gz as webdataset: refused a decompression bomb: .* bytes unpack to"):
        plan_input(ReadSettings(uri=str(path)), 3)


def test_an_image_of_a_compressed_tar_that_is_too_large_costs_its_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("formats.rows", "formats.samples", "read"):
        monkeypatch.setattr(f"pipeline.input.{module}.LIMIT_BYTES", 4000)
    members = [("0.jpg", b"a"), ("1.jpg", os.urandom(9000)), ("1.txt", b"t"), ("2.jpg", b"c")]
    rows = rows_of(write(tmp_path / "a.tgz", gzip.compress(tar_bytes(members))))
    assert faults(rows) == [None, "TooLarge", None]


def test_other_compressions_are_named(tmp_path: Path) -> None:
    write(tmp_path / "a.tar", bz2.compress(tar_bytes([("a.jpg", b"1")])) * 9)
    with pytest.raises(ReadError, match=r"no tar header at byte 0: found .*\(bzip2\)"):
        plan_input(ReadSettings(uri=str(tmp_path)), 3)


def with_entries(*entries: tuple[str, bytes, str], members: Sequence[tuple[str, bytes]] = ()) -> bytes:
    """Write a tar of plain members and then links, folders and devices: name, kind, and what a link names."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
        for name, kind, target in entries:
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, target
            archive.addfile(info)
    return buffer.getvalue()


def test_devices_are_counted_and_folders_are_not(tmp_path: Path) -> None:
    data = with_entries(("d", tarfile.DIRTYPE, ""), ("b.jpg", tarfile.FIFOTYPE, ""), members=[("c.jpg", b"1")])
    path = write(tmp_path / "a.tar", data)
    assert warnings_of(path) == ["passed over 1 devices in 1 of 1 shards"]


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
@pytest.mark.parametrize("unit_rows", [1, 2, 8])
def test_a_link_is_what_it_names_wherever_that_stands_in_the_tar(
    tmp_path: Path, unit_rows: int, pack: Callable[[bytes], bytes]
) -> None:
    long = "deep/" + "n" * 150 + ".jpg"
    members = [("./a.jpg", b"first"), ("cats/b.jpg", b"second"), ("words.txt", b"x"), (long, b"third")]
    links = [
        ("c.jpg", tarfile.LNKTYPE, "./a.jpg"),
        ("cats/d.jpg", tarfile.SYMTYPE, "b.jpg"),
        ("dogs/e.jpg", tarfile.SYMTYPE, "../cats/./b.jpg"),
        ("f.jpg", tarfile.LNKTYPE, long),
        ("words.jpg", tarfile.SYMTYPE, "a.jpg"),
    ]
    path = write(tmp_path / ("a.tar" if pack is bytes else "a.tar.gz"), pack(with_entries(*links, members=members)))
    rows = {row["key"]: row for row in rows_of(path, unit_rows)}
    images = {key: row["images"] for key, row in rows.items() if row["images"]}
    third = {long.removesuffix(".jpg"): [b"third"], "f": [b"third"]}
    second = {"cats/b": [b"second"], "cats/d": [b"second"], "dogs/e": [b"second"]}
    assert images == {"a": [b"first"], "c": [b"first"], "words": [b"first"]} | second | third
    assert not any(row["error"] for row in rows.values())


def test_a_link_out_of_the_tar_is_its_rows_error(tmp_path: Path) -> None:
    links = [("a.jpg", tarfile.SYMTYPE, "/etc/passwd"), ("b.jpg", tarfile.LNKTYPE, "gone.jpg")]
    path = write(tmp_path / "a.tar", with_entries(*links, members=[("c.jpg", b"1")]))
    errors = {row["key"]: row["error"] and row["error"]["type"] for row in rows_of(path)}
    assert errors == {"a": "NoTarget", "b": "NoTarget", "c": None}


@pytest.mark.parametrize("format", ["gnu", "posix"])
def test_sparse_members_are_read_whole_as_gnu_tar_writes_them(tmp_path: Path, format: str) -> None:
    content = b"".join(bytes([n]) * 4096 + bytes(8192) for n in range(1, 31)) + bytes(100_000)  # a map of two blocks
    with (tmp_path / "b.bin").open("wb") as file:
        for start in range(0, len(content), 4096):
            piece = content[start : start + 4096]
            file.seek(len(piece), os.SEEK_CUR) if not any(piece) else file.write(piece)
        file.truncate(len(content))
    (tmp_path / "b.bin").rename(tmp_path / "b.jpg")
    for name in ("a.jpg", "c.jpg"):
        write(tmp_path / name, name.encode())
    names = ["a.jpg", "b.jpg", "c.jpg"]
    subprocess.run(["tar", "-S", f"--format={format}", "-cf", tmp_path / "x.tar", "-C", tmp_path, *names], check=True)
    assert (tmp_path / "x.tar").stat().st_size < len(content)
    rows = rows_of(tmp_path / "x.tar", 1)
    assert [row["key"] for row in rows] == ["a", "b", "c"]
    assert [row["images"] for row in rows] == [[b"a.jpg"], [content], [b"c.jpg"]]


def test_a_byte_order_mark_is_no_part_of_a_member(tmp_path: Path) -> None:
    mark = "\ufeff".encode()
    members = [("a.txt", mark + b"hello"), ("a.json", mark + b'{"x": 1}'), ("a.name.json", mark + b'"y"')]
    (row,) = rows_of(write(tmp_path / "a.tar", tar_bytes(members)))
    assert (row["text"], row["x"], row["name"], row["error"]) == ("hello", 1, "y", None)


def test_a_unit_of_a_compressed_tar_is_read_without_what_lies_behind_it(tmp_path: Path) -> None:
    path, images = packed_tar(tmp_path, count=20)
    settings = ReadSettings(uri=str(path), on_changed="accept")
    units = plan_input(settings, 5).units
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2] + bytes(len(data) - len(data) // 2))
    assert read_unit(units[0], settings).column("images").to_pylist() == [[image] for image in images[:5]]


@pytest.mark.parametrize(("size", "least", "most", "requests"), [(60_000, 0.9, 1.0, 5), (5_000_000, 0.0, 0.4, 8)])
def test_looking_through_a_tar_skips_large_members_and_reads_on_over_small_ones(
    size: int, least: float, most: float, requests: int
) -> None:
    num_rows = 33_000_000 // size
    data = tar_bytes(rows_as_members([{"key": str(n), "jpg": bytes(size), "txt": b"t"} for n in range(num_rows)]))
    fetched: list[int] = []

    def fetch(start: int, stop: int) -> bytes:
        fetched.append(stop - start)
        return data[start:stop]

    found = tar_rows.index(ranged_file(fetch, len(data), BLOCK_BYTES), len(data), 8)
    assert found.num_rows == num_rows and not found.warnings
    assert least * len(data) <= sum(fetched) <= most * len(data)
    assert len(fetched) <= requests
