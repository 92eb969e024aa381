"""Metrics of sets of captions: BLEU, ROUGE-L, CIDEr-D and METEOR over the tokens of the Penn treebank.

Of pycocoevalcap only the jars are used: its Python code needs `java` on the PATH, writes into its own folder, prints,
ignores a Java that fails, and is missing without the extra; ours gives the same numbers.
"""
