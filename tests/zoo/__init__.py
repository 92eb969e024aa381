"""A zoo of nasty files: what people have in their shards, each with what should become of it.

`python -m tests.zoo` prints the table that stands in docs/inputs.md.
"""
