"""How VQA answers are brought into one form before they are compared.

Four forms are in use, and they differ in commas and full stops only. What is counted with them is not known here.
"""

import re
from functools import lru_cache

from jobs.scoring.answers.contractions import CONTRACTIONS

# As many strings as VQAv2's answers mostly are; rarer ones are worked out again.
_REMEMBERED = 1 << 16

_PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'
_HAS_PUNCTUATION = re.compile(f"[{re.escape(_PUNCTUATION)}]")
_COMMA_IN_NUMBER = re.compile(r"\d,\d")
_COMMAS_IN_NUMBER = re.compile(r"\d,+\d")
_PERIOD = re.compile(r"\.(?!\d)")
_LONE_PERIOD = re.compile(r"(?<!\d)\.(?!\d)")
# The sources hand `re.UNICODE`, which is 32, to `re.sub` where the number of replacements belongs.
_NUM_PERIODS = 32

_ARTICLES = ("a", "an", "the")
_NUMERALS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_DIGITS = {"none": "0", **{word: str(number) for number, word in enumerate(_NUMERALS)}}


@lru_cache(_REMEMBERED)
def evalai(text: str) -> str:
    """Normalise as lmms-eval 75571cf does for VQAv2, with its copy of EvalAI's answer processor."""
    return _in_words(_without_punctuation(one_line(text), _COMMAS_IN_NUMBER, _PERIOD))


@lru_cache(_REMEMBERED)
def official(text: str) -> str:
    """Normalise as VQAv2's official evaluation does (vqaEval.py, GT-Vision-Lab/VQA a013f00).

    It means to keep a full stop after a digit, but looks ahead where it should look behind: `5.` becomes `5`.
    """
    return _in_words(_without_punctuation(one_line(text), _COMMA_IN_NUMBER, _PERIOD))


@lru_cache(_REMEMBERED)
def m4c(text: str) -> str:
    """Normalise as EvalAI's whole processor does (lmms-eval 75571cf, LLaVA c121f04): `it's` becomes `it 's`."""
    text = text.lower().replace(",", "").replace("?", "").replace("'s", " 's").strip()
    return _in_words(_without_punctuation(one_line(text), _COMMAS_IN_NUMBER, _PERIOD))


@lru_cache(_REMEMBERED)
def vlmevalkit(text: str) -> str:
    """Normalise as VLMEvalKit e8e78f0 does, which has the look behind repaired: `5.` stays `5.`."""
    return _in_words(_without_punctuation(one_line(text), _COMMA_IN_NUMBER, _LONE_PERIOD))


def one_line(text: str) -> str:
    """Turn line ends and tabs into blanks and strip: all that the official evaluation does in any case."""
    return text.replace("\n", " ").replace("\t", " ").strip()


def without_punctuation(text: str) -> str:
    """Treat punctuation as VLMEvalKit e8e78f0 does, in answers to yes-or-no questions too."""
    return _without_punctuation(text, _COMMA_IN_NUMBER, _LONE_PERIOD)


def _without_punctuation(text: str, commas: re.Pattern[str], periods: re.Pattern[str]) -> str:
    kept = text
    if _HAS_PUNCTUATION.search(text):
        has_number = commas.search(text) is not None
        for mark in _PUNCTUATION:
            if mark in text:
                # Whether there is a blank beside it is asked of the text as it came, not of what is left of it.
                stands_apart = f"{mark} " in text or f" {mark}" in text
                kept = kept.replace(mark, "" if has_number or stands_apart else " ")
    return periods.sub("", kept, count=_NUM_PERIODS) if "." in kept else kept


def _in_words(text: str) -> str:
    words = [_DIGITS.get(word, word) for word in text.lower().split()]
    return " ".join([CONTRACTIONS.get(word, word) for word in words if word not in _ARTICLES])
