"""The rules `vqa/...`: how many of the people who were asked gave an answer (VQAv2, TextVQA, OK-VQA: ten a question).

Answers are normalised before they are compared, in one of four ways that differ in commas and full stops only.
"""

import re
from collections.abc import Callable, Sequence
from functools import lru_cache

from jobs.scoring.rule import Gold, RuleResult, rule_result

# Holds most of the answers of VQAv2; rarer ones are normalised again.
_CACHE_SIZE = 1 << 16

_PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'
_HAS_PUNCTUATION = re.compile(f"[{re.escape(_PUNCTUATION)}]")
_COMMA_IN_NUMBER = re.compile(r"\d,\d")
_COMMAS_IN_NUMBER = re.compile(r"\d,+\d")
_PERIOD = re.compile(r"\.(?!\d)")
_LONE_PERIOD = re.compile(r"(?<!\d)\.(?!\d)")
# The sources pass `re.UNICODE`, which is 32, to `re.sub` as the number of replacements.
_NUM_PERIODS = 32

_ARTICLES = ("a", "an", "the")
_NUMERALS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_DIGITS = {"none": "0", **{word: str(number) for number, word in enumerate(_NUMERALS)}}

# Contractions that people write without their apostrophe, or with one too few, and what VQA takes them for.
# From VQAv2's official evaluation (vqaEval.py, GT-Vision-Lab/VQA a013f00). The gaps are the source's and decide scores:
# `its`, `shes`, `lets` and `im` are left alone. Keys with a capital are left out, as words are lower-case by then.
# Each of these is also meant where its apostrophe is missing.
_ONE_APOSTROPHE = """
    ain't aren't can't could've couldn't didn't doesn't don't hadn't hasn't haven't he'd he's how'd how'll how's isn't
    it'd it'll ma'am mightn't might've mustn't must've needn't not've o'clock oughtn't shan't should've shouldn't
    somebody'll somebody's someone'd someone'll someone's something'd something'll that's there'd there're there's
    they'd they'll they're they've 'twas wasn't we've weren't what'll what're what's what've when's where'd where's
    where've who'd who'll who's who've why'll why're why's won't would've wouldn't y'all you'd you'll you're you've
"""

# Each of these is also meant where one of its two apostrophes is missing.
_TWO_APOSTROPHES = """
    couldn't've hadn't've he'd've it'd've mightn't've she'd've shouldn't've somebody'd've someone'd've something'd've
    there'd've they'd've we'd've who'd've wouldn't've you'd've
"""

CONTRACTIONS = {
    **{whole.replace("'", ""): whole for whole in _ONE_APOSTROPHE.split()},
    **{whole.replace("'", "", 1): whole for whole in _TWO_APOSTROPHES.split()},
    **{"".join(whole.rsplit("'", 1)): whole for whole in _TWO_APOSTROPHES.split()},
    "yall'll": "y'all'll",
    "y'allll": "y'all'll",
    "yall'd've": "y'all'd've",
    "y'alld've": "y'all'd've",
    "y'all'dve": "y'all'd've",
    "ow's'at": "'ow's'at",
    "'ows'at": "'ow's'at",
    "'ow'sat": "'ow's'at",
    # The one that loses its apostrophe instead.
    "somebody'd": "somebodyd",
}


def accuracy(prediction: str, answers: Sequence[str]) -> float:
    """Return the mean, over the answers left out in turn, of min(1, matches among the others / 3).

    Ten answers give 0.3 for one match, 0.6 for two, 0.9 for three and 1 for more; a single answer gives 0.
    Source: VQAv2's official evaluation (vqaEval.py, GT-Vision-Lab/VQA a013f00), counted in whole thirds.

    Args:
        prediction: In the same form as the answers.
        answers: At least one. Equal ones count each: they are other people's.
    """
    same = answers.count(prediction)
    thirds = same * min(3, same - 1) + (len(answers) - same) * min(3, same)
    return thirds / (3 * len(answers))


def score_vqa(response: str, gold: Gold, normalize: Callable[[str], str]) -> RuleResult:
    """Compare normalised strings."""
    prediction = normalize(response)
    score = accuracy(prediction, [normalize(answer) for answer in gold.answers]) if gold.answers else 0.0
    return rule_result(response, prediction, gold, score)


def score_official(response: str, gold: Gold) -> RuleResult:
    """Compare as VQAv2's official evaluation does since 2021: normalised, unless all answers are equal as they came.

    So `Yes` against ten times `yes` scores 0.
    """
    are_equal = len({one_line(answer) for answer in gold.answers}) == 1
    return score_vqa(response, gold, one_line if are_equal else normalize_official)


@lru_cache(_CACHE_SIZE)
def normalize_evalai(text: str) -> str:
    """Normalise as lmms-eval 75571cf does for VQAv2, with its copy of EvalAI's answer processor."""
    return _in_words(_without_punctuation(one_line(text), _COMMAS_IN_NUMBER, _PERIOD))


@lru_cache(_CACHE_SIZE)
def normalize_official(text: str) -> str:
    """Normalise as VQAv2's official evaluation does (vqaEval.py, GT-Vision-Lab/VQA a013f00).

    It means to keep a full stop after a digit, but looks ahead where it should look behind: `5.` becomes `5`.
    """
    return _in_words(_without_punctuation(one_line(text), _COMMA_IN_NUMBER, _PERIOD))


@lru_cache(_CACHE_SIZE)
def normalize_m4c(text: str) -> str:
    """Normalise as EvalAI's whole processor does (lmms-eval 75571cf, LLaVA c121f04): `it's` becomes `it 's`."""
    text = text.lower().replace(",", "").replace("?", "").replace("'s", " 's").strip()
    return _in_words(_without_punctuation(one_line(text), _COMMAS_IN_NUMBER, _PERIOD))


@lru_cache(_CACHE_SIZE)
def normalize_vlmevalkit(text: str) -> str:
    """Normalise as VLMEvalKit e8e78f0 does, which has the look behind repaired: `5.` stays `5.`."""
    return _in_words(_without_punctuation(one_line(text), _COMMA_IN_NUMBER, _LONE_PERIOD))


def one_line(text: str) -> str:
    """Turn line ends and tabs into blanks, and strip: what the official evaluation always does."""
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
                # Blanks beside it are looked for in the original text, not in what is left of it.
                stands_apart = f"{mark} " in text or f" {mark}" in text
                kept = kept.replace(mark, "" if has_number or stands_apart else " ")
    return periods.sub("", kept, count=_NUM_PERIODS) if "." in kept else kept


def _in_words(text: str) -> str:
    words = [_DIGITS.get(word, word) for word in text.lower().split()]
    return " ".join([CONTRACTIONS.get(word, word) for word in words if word not in _ARTICLES])
