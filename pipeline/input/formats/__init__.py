"""The input formats: each file knows how to find the rows of its shards and how to read some of them.

They give rows as the input has them; what our columns are called, and where images are fetched, `read` knows.
"""
