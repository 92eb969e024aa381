"""A fourth family, as one would write it outside of the package: Qwen2-VL, on the seams that `models` has.

Its positions have three axes and are not the places in the cache, queries, keys and values have a bias, and the head
may be tied to the embeddings. It is for pictures and text; videos, and the flat config.json of the released files, are
left out. Nothing in `models` knows of it.
"""
