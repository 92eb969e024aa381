"""The rules over an option's letter: `mcq/...`, and those of AI2D, ScienceQA, RealWorldQA and MMStar.

They know strings only, neither benchmarks nor rows.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from string import ascii_uppercase

from jobs.scoring.rule import Gold, RuleResult, rule_result
from jobs.scoring.rules.text_match import NO_PUNCTUATION

# What VLMEvalKit writes in place of an option's letter if the model refuses, or says that no option fits.
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

_LETTER_AND_STOP = re.compile(r"\s*([A-Z])\.")
# The stop is any character in the published pattern, too: the answer must not end with the letter.
_LLAVA_PHRASE = re.compile(r"The answer is ([A-Z]).")
_LLAVA_LETTERS = "ABCDE"
_MMSTAR_LEADS = ("(", "option ", "the answer is ")


def letters_of(choices: Sequence[str]) -> str:
    """Return the letters of some options; A to D if they are not known, as they are part of the question's text."""
    return ascii_uppercase[: len(choices)] if choices else "ABCD"


def options_of(gold: Gold) -> dict[str, str]:
    """Return each option's letter and text. One with an empty text is left out: it would be found in every response."""
    return {letter: text for letter, text in zip(letters_of(gold.choices), gold.choices, strict=True) if text}


def prefetch(response: str, options: Mapping[str, str]) -> str | None:
    """Return an option's letter, Z for a refusal, or None if a judge would be asked.

    Source: VLMEvalKit e8e78f0, matching_util.py, can_infer.

    Args:
        response: The model's response.
        options: Letter: text.
    """
    return _prefetch_letter(response, options) or _prefetch_text(response, options)


def _prefetch_letter(response: str, options: Mapping[str, str]) -> str | None:
    if _NO_SERVICE in response:
        return None
    if any(refusal in response for refusal in _REFUSALS):
        return NONE_OF_THEM
    words = response.translate(_PREFETCH_BLANKS).split()
    letters = [letter for letter in options if letter in words]
    # A lone letter far from the end is rather a word, as in "A person is ...".
    if len(letters) == 1 and words.index(letters[0]) > len(words) - 5:
        return letters[0]
    if not letters and NONE_OF_THEM in words:
        return NONE_OF_THEM
    phrase = _PREFETCH_PHRASE.search(response)
    return phrase[1].upper() if phrase and phrase[1].upper() in options else None


def _prefetch_text(response: str, options: Mapping[str, str]) -> str | None:
    lowered = response.lower()
    if len(lowered) > 2 * sum(map(len, options.values())):
        return None
    letters = [letter for letter, text in options.items() if text.lower() in lowered]
    return letters[0] if len(letters) == 1 else None


def ranked(response: str, letters: str) -> str | None:
    """Return the letter in the position that ranks highest; of several in equal positions the last one.

    Source: lmms-eval 75571cf, mcq_extract.py.
    """
    if not response.strip():
        return None
    text = response.strip()
    for edge in _RANKED_EDGES:
        text = text.strip(edge)
    text = f" {text} "
    positions = [*_forms(text, letters), *_after_phrases(text, letters), *_ends(text, letters)]
    if not positions:
        positions = [(0, text.rfind(letter), letter) for letter in letters if letter in text]
    return max(positions)[2] if positions else None


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
    positions = [(7, text.find(letter, start), letter) for start in starts for letter in letters]
    return [position for position in positions if position[1] >= 0]


def _ends(text: str, letters: str) -> list[tuple[int, int, str]]:
    inner = text.strip()
    positions = []
    if inner[:1] and inner[0] in letters and not inner[1:2].isalpha():
        positions.append((10, 0, inner[0]))
    if inner[:1] and inner[-1] in letters and not inner[-2:-1].isalpha():
        positions.append((9, len(text), inner[-1]))
    return positions


def first_letter(response: str) -> str | None:
    """Return the first capital A to E, wherever it is, after some lead phrases are deleted.

    Source: lmms-eval 75571cf, longvideobench/utils.py, which picks at random where this returns None.
    """
    for prefix in _FIRST_LETTER_PREFIXES:
        response = response.replace(prefix, "")
    letter = _FIRST_LETTER.search(response)
    return letter[0] if letter else None


def letter_result(letter: str | None, response: str, gold: Gold) -> RuleResult:
    """Compare a letter with the gold letter."""
    return rule_result(response, letter, gold, float(letter in gold.answers))


def score_prefetch(response: str, gold: Gold) -> RuleResult:
    """The rule `mcq/prefetch`: VLMEvalKit's heuristic, without its judge. An option with an empty text is none."""
    options = options_of(gold) if gold.choices else dict.fromkeys(letters_of(()), "")
    letter = prefetch(response, options)
    result = letter_result(letter, response, gold)
    if letter == NONE_OF_THEM and letter not in options:
        return replace(result, status="refused")
    return result


def score_ranked(response: str, gold: Gold) -> RuleResult:
    """The rule `mcq/ranked`: lmms-eval's extraction for MMStar and RealWorldQA."""
    return letter_result(ranked(response, letters_of(gold.choices)), response, gold)


def score_first_letter(response: str, gold: Gold) -> RuleResult:
    """The rule `mcq/first_letter`: LongVideoBench's."""
    return letter_result(first_letter(response), response, gold)


def score_ai2d(response: str, gold: Gold) -> RuleResult:
    """The rule `ai2d/letter`: the letter of `X. ...`, else the whole response, ignoring case and ASCII punctuation.

    Source: lmms-eval 75571cf, ai2d/utils.py and the exact match of its metrics.
    """
    lettered = _LETTER_AND_STOP.match(response)
    read = (lettered[1] if lettered else response).lower().translate(NO_PUNCTUATION)
    right = read in {answer.lower().translate(NO_PUNCTUATION) for answer in gold.answers}
    letter = read.upper() if right or _is_option(read.upper(), gold) else None
    return rule_result(response, letter, gold, float(right))


def score_scienceqa(response: str, gold: Gold) -> RuleResult:
    """The rule `scienceqa/lmms`: the letter alone in either case, or `X.` with a capital, whatever follows.

    Source: lmms-eval 75571cf, scienceqa/utils.py.
    """
    text = response.strip()
    if text.lower() in {answer.lower() for answer in gold.answers} or _is_option(text.upper(), gold):
        return letter_result(text.upper(), response, gold)
    return letter_result(text[0] if text[:1].isupper() and text[1:2] == "." else None, response, gold)


def score_scienceqa_llava(response: str, gold: Gold) -> RuleResult:
    """The rule `scienceqa/llava`: the capital letter alone, or `X. ...`, or `The answer is X.` exactly once.

    Source: LLaVA c121f04, eval_science_qa.py.
    """
    letter = _llava_letter(response)
    if letter is not None and letter not in _LLAVA_LETTERS[: len(gold.choices)]:
        letter = None
    return letter_result(letter, response, gold)


def _llava_letter(response: str) -> str | None:
    if response[:1] in tuple(_LLAVA_LETTERS) and (len(response) == 1 or response[1:3] == ". "):
        return response[0]
    letters: list[str] = _LLAVA_PHRASE.findall(response)
    return letters[0] if len(letters) == 1 else None


def score_realworldqa(response: str, gold: Gold) -> RuleResult:
    """The rule `realworldqa/ranked`: `mcq/ranked` for a gold letter A to D, else equal but for case and end stops.

    Source: lmms-eval 75571cf, realworldqa/utils.py.
    """
    golds = [answer.strip() for answer in gold.answers]
    if golds and all(answer.upper() in tuple("ABCD") for answer in golds):
        letters = replace(gold, answers=tuple(answer.upper() for answer in golds))
        return letter_result(ranked(response, "ABCD"), response, letters)
    text = response.lower().strip().rstrip(".")
    return rule_result(response, text, gold, float(text in {answer.lower() for answer in golds}))


def score_mmstar(response: str, gold: Gold) -> RuleResult:
    """The rule `mmstar/official`: the gold letter is the first character, or follows `(`, `option `, `the answer is `.

    The case does not matter, so any word that begins with the letter is right, too.
    Source: MMStar 88f243a, eval/vlmeval/evaluate/mmstar.py.
    """
    text = response.lower().strip().replace("\n", " ")
    characters = [text[:1], *(text[len(lead) : len(lead) + 1] for lead in _MMSTAR_LEADS if text.startswith(lead))]
    golds = {answer.lower().strip().replace("\n", " ") for answer in gold.answers}
    right = [character for character in characters if character and character in golds]
    letter = next((letter.upper() for letter in (*right, *characters) if letter and letter.upper() in "ABCD"), None)
    return rule_result(response, letter, gold, float(bool(right)))


def _is_option(letter: str, gold: Gold) -> bool:
    return len(letter) == 1 and letter in letters_of(gold.choices)
