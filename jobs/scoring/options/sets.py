"""The letter rules that single benchmarks have of their own: AI2D, ScienceQA, RealWorldQA, MMStar.

They know strings only, neither rows nor models.
"""

import re
import string

from jobs.scoring.options.letters import letter_verdict, letters_of, ranked, status_of
from jobs.scoring.rule import Gold, Verdict

_LETTER_AND_STOP = re.compile(r"\s*([A-Z])\.")
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)
# The stop is any character in the published pattern, too: the answer must not end with the letter.
_LLAVA_PHRASE = re.compile(r"The answer is ([A-Z]).")
_LLAVA_LETTERS = "ABCDE"
_MMSTAR_LEADS = ("(", "option ", "the answer is ")


def score_ai2d(response: str, gold: Gold) -> Verdict:
    """The rule `ai2d/letter`: the letter of `X. ...`, else the whole response, ignoring case and ASCII punctuation.

    Source: lmms-eval 75571cf, ai2d/utils.py and the exact match of its metrics.
    """
    found = _LETTER_AND_STOP.match(response)
    read = (found[1] if found else response).lower().translate(_NO_PUNCTUATION)
    right = read in {answer.lower().translate(_NO_PUNCTUATION) for answer in gold.answers}
    letter = read.upper() if right or _is_option(read.upper(), gold) else None
    return Verdict(letter, status_of(letter, response), float(right) if gold.answers else None)


def score_scienceqa(response: str, gold: Gold) -> Verdict:
    """The rule `scienceqa/lmms`: the letter alone in either case, or `X.` with a capital, whatever follows.

    Source: lmms-eval 75571cf, scienceqa/utils.py.
    """
    said = response.strip()
    alone = said.lower() in {answer.lower() for answer in gold.answers} or _is_option(said.upper(), gold)
    if alone:
        return letter_verdict(said.upper(), response, gold)
    return letter_verdict(said[0] if said[:1].isupper() and said[1:2] == "." else None, response, gold)


def score_scienceqa_llava(response: str, gold: Gold) -> Verdict:
    """The rule `scienceqa/llava`: the capital letter alone, or `X. ...`, or `The answer is X.` exactly once.

    Source: LLaVA c121f04, eval_science_qa.py.
    """
    letter = _llava_letter(response)
    if letter is not None and letter not in _LLAVA_LETTERS[: len(gold.choices)]:
        letter = None
    return letter_verdict(letter, response, gold)


def _llava_letter(response: str) -> str | None:
    if response[:1] in tuple(_LLAVA_LETTERS) and (len(response) == 1 or response[1:3] == ". "):
        return response[0]
    found = _LLAVA_PHRASE.findall(response)
    return found[0] if len(found) == 1 else None


def score_realworldqa(response: str, gold: Gold) -> Verdict:
    """The rule `realworldqa/ranked`: `mcq/ranked` for a gold letter A to D, else equal but for case and end stops.

    Source: lmms-eval 75571cf, realworldqa/utils.py.
    """
    golds = [answer.strip() for answer in gold.answers]
    if golds and all(answer.upper() in tuple("ABCD") for answer in golds):
        letters = Gold(tuple(answer.upper() for answer in golds), gold.choices, gold.facts)
        return letter_verdict(ranked(response, "ABCD"), response, letters)
    said = response.lower().strip().rstrip(".")
    score = float(said in {answer.lower() for answer in golds}) if golds else None
    return Verdict(said, status_of(said, response), score)


def score_mmstar(response: str, gold: Gold) -> Verdict:
    """The rule `mmstar/official`: the gold letter is the first character, or follows `(`, `option `, `the answer is `.

    The case does not matter, so any word that begins with the letter is right, too.
    Source: MMStar 88f243a, eval/vlmeval/evaluate/mmstar.py.
    """
    said = response.lower().strip().replace("\n", " ")
    places = [said[:1], *(said[len(lead) : len(lead) + 1] for lead in _MMSTAR_LEADS if said.startswith(lead))]
    golds = {answer.lower().strip().replace("\n", " ") for answer in gold.answers}
    right = [place for place in places if place and place in golds]
    letter = next((place.upper() for place in (*right, *places) if place and place.upper() in "ABCD"), None)
    return Verdict(letter, status_of(letter, response), float(bool(right)) if golds else None)


def _is_option(letter: str, gold: Gold) -> bool:
    return len(letter) == 1 and letter in letters_of(gold.choices)
