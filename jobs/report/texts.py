"""What is counted of texts that a model has written: how many are alike, how long they are, and what looks wrong.

Each rule is stated in RULES, as the page says it. Of every text a hash is kept, and the text itself only of a few
that are frequent.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

# So many of the texts that were most frequent so far are kept in sight, and so many are shown in the end.
MOST_KEPT, MOST_SHOWN = 5000, 10
# How long a repeated stretch may be, how often it must stand, and how much of the text that must be.
LONGEST_STRETCH, REPEATS, LEAST_CHARACTERS = 20, 4, 20
REFUSALS = (
    "i'm sorry", "i am sorry", "sorry,", "i cannot", "i can't", "i can not", "i am unable", "i'm unable",
    "i'm not able", "i am not able", "i won't", "as an ai", "unfortunately, i",
)  # fmt: skip
RULES = {
    "looping": f"end with a stretch of at most {LONGEST_STRETCH} words that stands {REPEATS} times or more, one after "
    f"the other, {LEAST_CHARACTERS} characters or more in all; characters take the place of words where nothing "
    "separates words",
    "refusing": "begin with words such as “I'm sorry”, “I cannot” or “As an AI”",
    "empty": "hold nothing",
}


class Texts:
    """The counts over the texts seen so far.

    Attributes:
        lengths: How many texts have so many words.
        faults: How many texts break each of RULES.
    """

    def __init__(self) -> None:
        self.lengths: Counter[int] = Counter()
        self.faults: Counter[str] = Counter()
        self._hashes: list[np.ndarray] = []
        self._frequent: Counter[str] = Counter()

    def add(self, texts: Sequence[str | None]) -> None:
        """Count the texts of the next part; a row that failed has None."""
        written = [text for text in texts if text is not None]
        self._hashes.append(np.fromiter(map(hash, written), np.int64, len(written)))
        self.lengths.update(len(text.split()) for text in written)
        for text in written:
            self.faults.update(faults_of(text))
        self._frequent.update(written)
        if len(self._frequent) > MOST_KEPT:
            self._frequent = Counter(dict(self._frequent.most_common(MOST_KEPT)))

    def summary(self) -> dict[str, Any] | None:
        """Return what report.json says of them; None where there are none.

        `most_frequent` counts exactly; where there are more than MOST_KEPT different texts, one that comes up seldom in
        each part may be missing from it.
        """
        hashes, counts = np.unique(np.concatenate(self._hashes or [np.empty(0, np.int64)]), return_counts=True)
        total = int(counts.sum())
        if not total:
            return None
        found = {text: int(counts[np.searchsorted(hashes, hash(text))]) for text in self._frequent}
        repeated = [(text, count) for text, count in found.items() if count > 1]
        shown = sorted(repeated, key=lambda item: (-item[1], item[0]))[:MOST_SHOWN]
        return {
            "texts": total,
            "distinct": len(hashes),
            "most_frequent": [{"text": text, "count": count} for text, count in shown],
            "faults": {name: self.faults[name] for name in RULES},
        }


def faults_of(text: str) -> list[str]:
    """Return which of RULES a text breaks."""
    if not text.strip():
        return ["empty"]
    return [name for name, is_so in (("looping", _is_looping(text)), ("refusing", _is_refusing(text))) if is_so]


def _is_looping(text: str) -> bool:
    words = text.split()
    if _repeats(words, " "):
        return True
    return len(words) < REPEATS and _repeats(list(text.strip()), "")


def _repeats(pieces: list[str], space: str) -> bool:
    longest = min(LONGEST_STRETCH, len(pieces) // REPEATS)
    return any(
        pieces[-1] == pieces[-1 - length]
        and pieces[-REPEATS * length :] == pieces[-length:] * REPEATS
        # A stretch may stand more often than asked for, so that a long row of one short word counts, too.
        and _run_length(pieces, length, space) >= LEAST_CHARACTERS
        for length in range(1, longest + 1)
    )


def _run_length(pieces: list[str], length: int, space: str) -> int:
    stretch, start = pieces[-length:], len(pieces)
    while start >= length and pieces[start - length : start] == stretch:
        start -= length
    return len(space.join(pieces[start:]))


def _is_refusing(text: str) -> bool:
    return text.strip().lower().replace("’", "'").startswith(REFUSALS)
