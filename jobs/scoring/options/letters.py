"""Read an option's letter from a response in words: the three ways in use, each as its harness does it.

It knows strings only, neither benchmarks nor rows.
"""

import re
from collections.abc import Mapping, Sequence
from string import ascii_uppercase

from jobs.scoring.rule import Gold, Status, Verdict

# What VLMEvalKit writes where an option's letter would stand if the model refuses, or says that no option fits.
NONE_OF_THEM = "Z"

_REFUSALS = (
    "Sorry, I can't help with images of people yet.",
    "I can't process this file.",
    "I'm sorry, but without the image provided",
    "Cannot determine the answer",
)
# What VLMEvalKit stores as the prediction if a service did not answer: no letter is looked for in it.
_NO_SERVICE = "Failed to obtain answer via API"
_PREFETCH_BLANKS = str.maketrans(dict.fromkeys(".()[],:;!*#{}", " "))
_PREFETCH_PHRASE = re.compile(r"answer\s+is\s+\**([A-D])", re.IGNORECASE)

_RANKED_EDGES = (",", ".", "!", "?", ";", ":", "'", '"')
_RANKED_PHRASES = (
    *("the answer is", "answer is", "the correct answer is", "correct answer is", "the best answer is"),
    *("best answer is", "the correct option is", "correct option is", "the best option is", "best option is"),
    *("the choice is", "choice is", "the correct choice is", "correct choice is"),
    *("i choose", "i select", "i pick", "my answer is", "my choice is"),
    *("옵션", "정답은", "답은", "답:", "答案是", "答案为", "选", "答えは"),
)
_RANKED_FORMS = (("({})", 6), ("{}.", 5), ("{}:", 4), ("{})", 3), ("{} ", 2))

_FIRST_LETTER_PREFIXES = (
    *("The best answer is", "The correct answer is", "The answer is", "The answer"),
    *("The best option is", "The correct option is", "Best answer:", "Best option:"),
)
_FIRST_LETTER = re.compile("[A-E]")


def letters_of(choices: Sequence[str]) -> str:
    """Return the letters of some options; A to D if they are not known, since they stand in the question's text."""
    return ascii_uppercase[: len(choices)] if choices else "ABCD"


def prefetch(response: str, options: Mapping[str, str]) -> str | None:
    """Return an option's letter, Z for a refusal, or None if a judge would be asked.

    Source: VLMEvalKit e8e78f0, matching_util.py, can_infer.

    Args:
        response: What the model said.
        options: Letter: text.
    """
    return _prefetch_letter(response, options) or _prefetch_text(response, options)


def _prefetch_letter(response: str, options: Mapping[str, str]) -> str | None:
    if _NO_SERVICE in response:
        return None
    if any(refusal in response for refusal in _REFUSALS):
        return NONE_OF_THEM
    words = response.translate(_PREFETCH_BLANKS).split()
    found = [letter for letter in options if letter in words]
    # A lone letter far from the end is rather a word, as in "A person is ...".
    if len(found) == 1 and words.index(found[0]) > len(words) - 5:
        return found[0]
    if not found and NONE_OF_THEM in words:
        return NONE_OF_THEM
    phrase = _PREFETCH_PHRASE.search(response)
    return phrase[1].upper() if phrase and phrase[1].upper() in options else None


def _prefetch_text(response: str, options: Mapping[str, str]) -> str | None:
    lowered = response.lower()
    if len(lowered) > 2 * sum(map(len, options.values())):
        return None
    found = [letter for letter, text in options.items() if text.lower() in lowered]
    return found[0] if len(found) == 1 else None


def ranked(response: str, letters: str) -> str | None:
    """Return the letter that stands in the most telling place, the last one of those that stand equally well.

    Source: lmms-eval 75571cf, mcq_extract.py.
    """
    if not response.strip():
        return None
    text = response.strip()
    for edge in _RANKED_EDGES:
        text = text.strip(edge)
    text = f" {text} "
    places = [*_forms(text, letters), *_after_phrases(text, letters), *_ends(text, letters)]
    if not places:
        places = [(0, text.rfind(letter), letter) for letter in letters if letter in text]
    return max(places)[2] if places else None


def _forms(text: str, letters: str) -> list[tuple[int, int, str]]:
    return [
        (rank, text.rfind(form.format(letter)), letter)
        for form, rank in _RANKED_FORMS
        for letter in letters
        if form.format(letter) in text
    ]


def _after_phrases(text: str, letters: str) -> list[tuple[int, int, str]]:
    lowered = text.lower()
    starts = [lowered.find(phrase) + len(phrase) for phrase in _RANKED_PHRASES if phrase in lowered]
    places = [(7, text.find(letter, start), letter) for start in starts for letter in letters]
    return [place for place in places if place[1] >= 0]


def _ends(text: str, letters: str) -> list[tuple[int, int, str]]:
    inner = text.strip()
    places = []
    if inner[:1] and inner[0] in letters and not inner[1:2].isalpha():
        places.append((10, 0, inner[0]))
    if inner[:1] and inner[-1] in letters and not inner[-2:-1].isalpha():
        places.append((9, len(text), inner[-1]))
    return places


def first_letter(response: str) -> str | None:
    """Return the first capital A to E, wherever it stands, after some lead phrases are deleted.

    Source: lmms-eval 75571cf, longvideobench/utils.py, which picks at random where this returns None.
    """
    for prefix in _FIRST_LETTER_PREFIXES:
        response = response.replace(prefix, "")
    found = _FIRST_LETTER.search(response)
    return found[0] if found else None


def letter_verdict(letter: str | None, response: str, gold: Gold) -> Verdict:
    """Compare a letter with the gold letter; without a gold answer there is no score."""
    score = float(letter in gold.answers) if gold.answers else None
    return Verdict(letter, status_of(letter, response), score)


def status_of(parsed: str | None, response: str) -> Status:
    """Return `empty` for an empty response, else `failed` if nothing could be read from it, else `ok`."""
    if not response.strip():
        return "empty"
    return "failed" if parsed is None else "ok"


def score_prefetch(response: str, gold: Gold) -> Verdict:
    """The rule `mcq/prefetch`: VLMEvalKit's heuristic, without its judge. An option with an empty text is none."""
    texts = gold.choices or [""] * len(letters_of(gold.choices))
    lettered = zip(letters_of(gold.choices), texts, strict=True)
    options = {letter: text for letter, text in lettered if text or not gold.choices}
    letter = prefetch(response, options)
    verdict = letter_verdict(letter, response, gold)
    if letter == NONE_OF_THEM and letter not in options:
        return Verdict(letter, "refused", verdict.score)
    return verdict


def score_ranked(response: str, gold: Gold) -> Verdict:
    """The rule `mcq/ranked`: lmms-eval's extraction for MMStar and RealWorldQA."""
    return letter_verdict(ranked(response, letters_of(gold.choices)), response, gold)


def score_first_letter(response: str, gold: Gold) -> Verdict:
    """The rule `mcq/first_letter`: LongVideoBench's."""
    return letter_verdict(first_letter(response), response, gold)
