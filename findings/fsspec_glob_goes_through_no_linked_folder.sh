#!/usr/bin/env bash
# fsspec 2026.9.0, local disk: a glob whose wildcard stands for a folder does not go through folders that are links, and
# a wildcard at the end names a linked folder as if it were a file of no known type.
#
# One would guess that `*/a.txt` finds what the shell, Python's glob and pathlib find: links to folders are how a large
# data set is put together from several disks. A path that names the link itself works, so tries by hand look well.
#
# Where it matters: files in linked folders are left out of a glob without a word; here the listing is matched by the
# pattern and links are followed in our own code (pipeline/storage/local_disk.py).
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet fsspec==2026.9.0
mkdir -p "$folder/data/real" "$folder/elsewhere"
touch "$folder/data/real/a.txt" "$folder/elsewhere/a.txt"
ln -s ../elsewhere "$folder/data/linked"
"$folder/venv/bin/python" - "$folder/data" <<'PY'
import glob
import sys

import fsspec

root = sys.argv[1]
disk = fsspec.filesystem("file")


def below(paths):
    return sorted(path.removeprefix(f"{root}/") for path in paths)


seen = {
    "fsspec */a.txt": below(disk.glob(f"{root}/*/a.txt")),
    "python */a.txt": below(glob.glob(f"{root}/*/a.txt")),
    "fsspec linked/*": below(disk.glob(f"{root}/linked/*")),
    "fsspec find": below(disk.find(root)),
    "type of linked": disk.glob(f"{root}/l*", detail=True)[f"{root}/linked"]["type"],
}
for name, found in seen.items():
    print(f"fsspec {fsspec.__version__}: {name}: {found}")
assert seen == {
    "fsspec */a.txt": ["real/a.txt"],
    "python */a.txt": ["linked/a.txt", "real/a.txt"],
    "fsspec linked/*": ["linked/a.txt"],
    "fsspec find": ["linked", "real/a.txt"],
    "type of linked": "other",
}, f"this has changed: found {seen}"
PY
# Output seen:
# fsspec 2026.9.0: fsspec */a.txt: ['real/a.txt']
# fsspec 2026.9.0: python */a.txt: ['linked/a.txt', 'real/a.txt']
# fsspec 2026.9.0: fsspec linked/*: ['linked/a.txt']
# fsspec 2026.9.0: fsspec find: ['linked', 'real/a.txt']
# fsspec 2026.9.0: type of linked: other
