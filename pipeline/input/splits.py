"""Tell the splits of a data set apart that lie in one folder, by the words that Hugging Face's hub knows them by.

A folder has splits only if every shard's name says which, and there are several (huggingface.co/docs/hub,
"File names and splits"). Their rows are never mixed unless settings say so.
"""

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace

from pipeline.input.formats.rows import ReadError
from pipeline.input.formats.table import FORMATS
from pipeline.input.shards import Shards

SPLITS: Mapping[str, tuple[str, ...]] = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test", "testing", "eval", "evaluation"),
}
ALL = "all"
_NAMES = {word: split for split, words in SPLITS.items() for word in words}
_WORD = "|".join(_NAMES)
# train.jsonl, train-00000-of-00002-0123456789abcdef.parquet, captions_val2017.json, data-test_3.tar
_FILE = re.compile(
    rf"(?:.*[-_])?({_WORD})(?:[-_]?[0-9]{{1,6}}(?:-of-[0-9]{{1,6}})?(?:-[0-9a-f]{{8,}})?)?", re.IGNORECASE
)


def of_split(shards: Shards, wanted: str | None, uri: str) -> Shards:
    """Return the shards of one split.

    Args:
        shards: All that were found.
        wanted: The split; `all`, or None where there is but one.
        uri: Where they lie, for messages.

    Raises:
        ReadError: There are several and none is wanted, or the one that is wanted is not there.
    """
    if wanted == ALL or (wanted is None and not shards.is_folder):
        return shards
    splits = [split_of(entry.path, is_file=FORMATS[shards.format].is_file) for entry in shards.entries]
    counts = Counter(split for split in splits if split)
    there = ", ".join(f"{split} ({count} files)" for split, count in sorted(counts.items())) or "none"
    if wanted is None:
        if len(counts) < 2 or None in splits:
            return shards
        raise ReadError(f"found several splits at {uri}: {there}; set read.split to one of them, or to {ALL}")
    name = _NAMES.get(wanted.lower(), wanted)
    if name not in counts:
        raise ReadError(f"found no split {wanted!r} at {uri}; splits that its file names tell: {there}")
    places = [place for place, split in enumerate(splits) if split == name]
    sidecars = [shards.sidecars[place] for place in places] if shards.sidecars else ()
    note = f"{shards.note}; of them the split {name}, {len(places)} files"
    entries = [shards.entries[place] for place in places]
    return replace(shards, entries=entries, sidecars=sidecars, note=note, num_images=0)


def split_of(path: str, *, is_file: bool) -> str | None:
    """Return the split that a shard's path names: one of its folders, or the file's name unless every file is a row."""
    *folders, name = path.split("/")
    found = [_NAMES[folder.lower()] for folder in folders if folder.lower() in _NAMES]
    if not found and not is_file and (match := _FILE.fullmatch(name.split(".")[0])):
        found = [_NAMES[match[1].lower()]]
    return found[0] if found else None
