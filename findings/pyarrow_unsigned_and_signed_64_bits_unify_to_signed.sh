#!/usr/bin/env bash
# pyarrow 26.0.1: `unify_schemas(..., promote_options="permissive")` makes int64 of uint64 and any signed integer, and half
# of the uint64 values do not fit: the cast of the very table whose schema was unified then raises. Of uint64 and a signed
# integer of 32 bits it makes int64, too. (uint32 and int32 give int64, in which both fit.)
#
# One would guess that a unified schema holds the values of all the schemas that it was made from; perceptual hashes of
# images are unsigned 64-bit numbers, and a shard with small ones alone may say int64.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv" && "$folder/venv/bin/pip" install --quiet pyarrow==26.0.1
"$folder/venv/bin/python" - <<'PY'
import pyarrow as pa

found = {}
for one, other in ((pa.uint64(), pa.int64()), (pa.uint64(), pa.int32()), (pa.uint32(), pa.int32())):
    largest = pa.table({"hash": pa.array([2**one.bit_width - 1], one)})
    schema = pa.unify_schemas([largest.schema, pa.schema([("hash", other)])], promote_options="permissive")
    try:
        largest.cast(schema)
        outcome = "fits"
    except pa.ArrowInvalid as error:
        outcome = type(error).__name__
    found[f"{one} and {other}"] = (str(schema.field("hash").type), outcome)
for pair, (kind, outcome) in found.items():
    print(f"pyarrow {pa.__version__}, {pair}: {kind}; the largest unsigned value in it: {outcome}")
expected = {
    "uint64 and int64": ("int64", "ArrowInvalid"),
    "uint64 and int32": ("int64", "ArrowInvalid"),
    "uint32 and int32": ("int64", "fits"),
}
assert found == expected, f"this has changed: found {found}, expected {expected}"
PY
# Output seen:
# pyarrow 26.0.1, uint64 and int64: int64; the largest unsigned value in it: ArrowInvalid
# pyarrow 26.0.1, uint64 and int32: int64; the largest unsigned value in it: ArrowInvalid
# pyarrow 26.0.1, uint32 and int32: int64; the largest unsigned value in it: fits
