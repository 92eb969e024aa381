#!/usr/bin/env bash
# fsspec 2026.9.0: in an object store `a//x.jpg` and `a/x.jpg` are two keys. `find("bucket/a/")` lists both, but
# `glob("bucket/a//*.jpg")` finds nothing, and `glob("bucket/a/*.jpg")` finds only the key with one slash. Shown with the
# file system in memory; s3fs inherits the same glob.
#
# One would guess that a pattern that is a key's own name but for its last part matches that key. Writers that join a
# prefix which ends in a slash with a name after another leave such keys in buckets.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv" && "$folder/venv/bin/pip" install --quiet fsspec==2026.9.0
"$folder/venv/bin/python" - <<'PY'
import fsspec

files = fsspec.filesystem("memory")
for key in ("bucket/a//x.jpg", "bucket/a/x.jpg"):
    files.pipe(key, b"")
found = {
    "find bucket/a/": files.find("bucket/a/"),
    "glob bucket/a//*.jpg": files.glob("bucket/a//*.jpg"),
    "glob bucket/a/*.jpg": files.glob("bucket/a/*.jpg"),
}
for call, keys in found.items():
    print(f"fsspec {fsspec.__version__}, {call}: {keys}")
expected = [["/bucket/a//x.jpg", "/bucket/a/x.jpg"], [], ["/bucket/a/x.jpg"]]
assert list(found.values()) == expected, f"this has changed: found {found}"
PY
# Output seen:
# fsspec 2026.9.0, find bucket/a/: ['/bucket/a//x.jpg', '/bucket/a/x.jpg']
# fsspec 2026.9.0, glob bucket/a//*.jpg: []
# fsspec 2026.9.0, glob bucket/a/*.jpg: ['/bucket/a/x.jpg']
