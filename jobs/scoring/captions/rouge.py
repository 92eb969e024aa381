"""ROUGE-L of one caption against its references. It knows captions as words with single blanks between.

Source: pycocoevalcap 1.2, rouge.py, after C.-Y. Lin, "ROUGE: a package for automatic evaluation of summaries" (2004).
"""

from collections.abc import Sequence

# How much more recall weighs than precision.
_BETA = 1.2


def rouge_l(candidate: str, references: Sequence[str]) -> float:
    """Return the F measure of the best precision and the best recall, which may come from different references.

    Without any word a caption is one empty word, as in the reference, so that two such captions agree.
    """
    words = candidate.split(" ")
    others = [reference.split(" ") for reference in references]
    common = [_longest_common(words, other) for other in others]
    precision = max(common) / len(words)
    recall = max(length / len(other) for length, other in zip(common, others, strict=True))
    if not precision:
        return 0.0
    return (1 + _BETA**2) * precision * recall / (recall + _BETA**2 * precision)


def _longest_common(one: Sequence[str], other: Sequence[str]) -> int:
    """Return the length of the longest sequence of words that stand in both, in this order."""
    above = [0] * (len(other) + 1)
    for word in one:
        row = [0]
        for place, another in enumerate(other):
            row.append(above[place] + 1 if word == another else max(above[place + 1], row[place]))
        above = row
    return above[-1]
