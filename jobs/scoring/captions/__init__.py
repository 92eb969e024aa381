"""Corpus metrics of captions: BLEU, ROUGE-L, CIDEr-D and METEOR over the tokens of the Penn treebank."""
