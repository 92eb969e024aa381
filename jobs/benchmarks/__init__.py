"""Published data sets: how their rows become questions, how these are put to a model, and what their scores add up to.

To add a data set, write one entry, a `Benchmark`, into DATA_SETS of a file in jobs/benchmarks/datasets; a new file is
named in `_FILES` of `__init__.py` there:
1. `key` names it; `needed`, `used`, `key_column` and `images` name the columns of its copy on the hub.
2. `to_item` turns a row into an `Item`: the question, the gold answers, the breakdowns to count it under, and the facts
   that the rule looks at. jobs/benchmarks/row.py reads columns; `question_from` is enough where they are plain.
3. `rule` is how answers are scored, one of RULES in jobs/scoring/rules/__init__.py.
4. `prompts` holds a prompt template for each preset: at least `lmms`, which takes the place of those that are missing.
5. `aggregation` says what the first number is, where that is no mean over rows.
Then tests ask for an example row in tests/jobs/benchmark_rows.py and for a line in docs/benchmarks.md. A whole made-up
one, from its files to its score, is tests/jobs/test_new_benchmark.py.
"""
