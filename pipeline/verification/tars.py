"""Hold a part's tar against the part: a sample for each row that is well, with images, text and JSON.

It is read once, as a stream. It knows what stands in such a tar, and neither storage nor Ray.
"""

import tarfile
from collections.abc import Mapping
from typing import BinaryIO

from pipeline.verification.files import Damaged

KIND = "tar"


def check_tar(file: BinaryIO, number: int, samples: Mapping[int, tuple[str, bool]]) -> None:
    """Look at all of a tar.

    Args:
        file: The open file.
        number: The part's.
        samples: What its rows say that the tar holds, by their places: a text, and whether images.

    Raises:
        Damaged: It is another.
    """
    extensions: dict[int, list[str]] = {}
    try:
        with tarfile.open(fileobj=file, mode="r|") as archive:
            for member in archive:
                name, _, extension = member.name.partition(".")
                of_part, _, place = name.partition("-")
                if of_part != f"{number:05d}" or not place.isdecimal() or int(place) not in samples:
                    raise Damaged(KIND, f"a member {member.name[:100]}", "samples of the part's rows alone")
                content = archive.extractfile(member)
                data = content.read() if content else b""
                if extension == "txt" and data != samples[int(place)][0].encode():
                    raise Damaged(KIND, f"another text in {member.name}", "the text of the part's row")
                extensions.setdefault(int(place), []).append(extension)
    except (tarfile.TarError, EOFError, OSError) as error:
        raise Damaged(KIND, f"a file that cannot be read ({error})", "a whole tar") from error
    if lacking := samples.keys() - extensions.keys():
        found = f"no sample for {len(lacking):,} of the part's rows, first {number:05d}-{min(lacking):06d}"
        raise Damaged(KIND, found, f"{len(samples):,} samples")
    for row, names in sorted(extensions.items()):
        has_images = samples[row][1]
        if {"txt", "json"} - {*names} or len(names) != len({*names}) or (has_images and len(names) < 3):
            beside = ", and the row's images" if has_images else ""
            raise Damaged(KIND, f"{', '.join(names)} in {number:05d}-{row:06d}", f"one text, one JSON{beside}")
