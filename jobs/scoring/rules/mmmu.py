"""MMMU's rules for its two kinds of questions: an option's letter, or numbers and words in a free answer.

They know strings only. Where the official rule picks an option at random, ours reads nothing.
Source: MMMU bb0b95a, mmmu/utils/eval_utils.py; the variant of lmms-eval 75571cf, mmmu_mcq_utils.py.
"""

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeAlias

from jobs.scoring.rule import Gold, RuleResult, rule_result
from jobs.scoring.rules.letters import letter_result, letters_of

# What a free answer may mean: a number, or words in lower case.
Candidate: TypeAlias = str | float

_PUNCTUATION = (",", ".", "!", "?", ";", ":", "'")
_NUMBERS = (
    re.compile(r"-?\b\d{1,3}(?:,\d{3})+\b"),
    re.compile(r"-?\d+(?:\.\d+)?[eE][+-]?\d+"),
    re.compile(r"-?(?:\d+\.\d+|\.\d+|\d+\b)(?![eE][+-]?\d+)(?![,\d])"),
)
_LEADS = ("could be ", "so ", "is ", "thus ", "therefore ", "final ", "answer ", "result ")

# The thirty subjects in six disciplines: mmmu/utils/data_utils.py.
DISCIPLINES: Mapping[str, tuple[str, ...]] = {
    "Art and Design": ("Art", "Art_Theory", "Design", "Music"),
    "Business": ("Accounting", "Economics", "Finance", "Manage", "Marketing"),
    "Science": ("Biology", "Chemistry", "Geography", "Math", "Physics"),
    "Health and Medicine": (
        *("Basic_Medical_Science", "Clinical_Medicine", "Diagnostics_and_Laboratory_Medicine", "Pharmacy"),
        "Public_Health",
    ),
    "Humanities and Social Science": ("History", "Literature", "Sociology", "Psychology"),
    "Tech and Engineering": (
        *("Agriculture", "Architecture_and_Engineering", "Computer_Science", "Electronics", "Energy_and_Power"),
        *("Materials", "Mechanical_Engineering"),
    ),
}
DISCIPLINE_OF: Mapping[str, str] = {
    subject: discipline for discipline, subjects in DISCIPLINES.items() for subject in subjects
}


def parse_letter(response: str, choices: Sequence[str]) -> str | None:
    """Return the letter as the official rule reads it: `(X)`, else ` X `, else the option's text in a long response."""
    text = _padded(response)
    letters = letters_of(choices)
    return (
        _last([(text.rfind(f"({letter})"), letter) for letter in letters])
        or _last([(text.rfind(f" {letter} "), letter) for letter in letters])
        or _by_text(text, choices)
    )


def parse_letter_lmms(response: str, choices: Sequence[str]) -> str | None:
    """Return the letter as lmms-eval reads it: `(X)`, else `X ` even at a word's end, else `X.`, else the text."""
    text = _padded(response)
    letters = letters_of(choices)
    found = _last([(text.rfind(f"({letter})"), letter) for letter in letters])
    for form in ("{} ", "{}."):
        if found is None:
            # Of several the one counts for which ` X ` comes last, in either form; the first one if none has it.
            present = [letter for letter in letters if form.format(letter) in text]
            found = max(present, key=lambda letter: text.rfind(f" {letter} "), default=None)
    return found or _by_text(text, choices)


def _padded(response: str) -> str:
    for mark in _PUNCTUATION:
        response = response.strip(mark)
    return f" {response} "


def _last(positions: Iterable[tuple[int, str]]) -> str | None:
    """Return the letter with the last position, the first such letter if several have it; None if all are -1."""
    position, letter = max(positions, key=lambda pair: pair[0], default=(-1, ""))
    return letter if position >= 0 else None


def _by_text(text: str, choices: Sequence[str]) -> str | None:
    if len(text.split()) <= 5:
        return None
    lowered, letters = text.lower(), letters_of(choices)
    return _last([(lowered.rfind(choice.lower()), letter) for letter, choice in zip(letters, choices, strict=False)])


def numbers_in(text: str) -> list[str]:
    """Return all numbers in a text: those in groups of three digits, then in scientific notation, then plain ones."""
    return [number for pattern in _NUMBERS for number in pattern.findall(text)]


def normalize(text: str) -> list[Candidate]:
    """Return a number rounded to two decimals, or the text in lower case; a single character as `" c"` and `"c "`."""
    text = text.strip()
    try:
        return [round(float(text.replace(",", "")), 2)]
    except ValueError:
        lowered = text.lower()
        return [f" {lowered}", f"{lowered} "] if len(lowered) == 1 else [lowered]


def parse_open(response: str) -> list[Candidate]:
    """Return what a free answer may mean: the ends of its sentences, and every number in them, without repetitions."""
    ends = _ends(response)
    texts = [*ends, *(number for end in ends for number in numbers_in(end))]
    return list(dict.fromkeys(candidate for text in texts for candidate in normalize(text)))


def _ends(response: str) -> list[str]:
    """Return of each line the shortest end that follows a lead phrase; the whole response if no line has one."""
    text = response.strip().strip(".").lower()
    lines = text.split("\n")
    ends = [_end(line, _LEADS) for line in lines[:-1]]
    # The last line may be an equation.
    ends.append(_end(lines[-1], (*_LEADS, "=")))
    return [end for end in ends if end and end not in _PUNCTUATION] or [text]


def _end(line: str, leads: Sequence[str]) -> str:
    shortest = ""
    for lead in leads:
        if lead in line:
            end = line.split(lead)[-1].strip()
            # Any later end replaces an empty one, however long: the published loop takes it for unset.
            if not shortest or len(end) < len(shortest):
                shortest = end
    return shortest


def is_right(candidates: Iterable[Candidate], answers: Iterable[str]) -> bool:
    """Return whether words among the candidates contain a gold answer, or a number among them equals one."""
    golds = [gold for answer in answers for gold in normalize(answer)]
    words = [gold for gold in golds if isinstance(gold, str)]
    return any(
        any(word in candidate for word in words) if isinstance(candidate, str) else candidate in golds
        for candidate in candidates
    )


def score_mmmu(response: str, gold: Gold, parse: Callable[[str, Sequence[str]], str | None]) -> RuleResult:
    """Score a letter as `parse` reads it, or a free answer, which both rules score as officially.

    So does lmms-eval since its PR 1471; before, practically all open questions came out wrong there.
    """
    if is_multiple_choice(gold.facts.get("question_type")):
        return letter_result(parse(response, gold.choices), response, gold)
    candidates = parse_open(response)
    parsed = json.dumps(candidates, ensure_ascii=False)
    return rule_result(response, parsed, gold, float(is_right(candidates, gold.answers)))


def is_multiple_choice(question_type: object) -> bool:
    """Return which of MMMU's two kinds a question is of.

    Raises:
        ValueError: It is of neither.
    """
    if question_type not in ("multiple-choice", "open"):
        raise ValueError(f"found question_type {question_type!r}, expected 'multiple-choice' or 'open'")
    return question_type == "multiple-choice"


def subject_of(row_id: str) -> str:
    """Return the subject that an id such as `validation_Art_Theory_7` names."""
    return "_".join(row_id.split("_")[1:-1])
