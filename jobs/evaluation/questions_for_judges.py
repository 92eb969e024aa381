"""What a judge is asked about an answer that no rule could read, and what its reply says.

It knows questions, options and texts, not which judge is asked. The judge only says what was answered; whether that is
right, the rules' own comparison decides.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from jobs.scoring.response import clean
from jobs.scoring.rule import Gold
from jobs.scoring.rules.letters import options_of, prefetch
from jobs.scoring.rules.mathvista import is_multi_choice, score_extraction

# The idea is VLMEvalKit's (e8e78f0, multiple_choice.py): match an answer with the options, Z for none of them.
OPTIONS = """\
Somebody was asked a question with options. Say which option the answer means.
Reply with that option's letter and nothing else. If the answer means none of the options, or several, or refuses, \
reply with Z.

Question: What is on the table?
Options:
A. a cup
B. a book
Answer: There is something to read on it.
Letter: B

Question: {question}
Options:
{options}
Answer: {response}
Letter:"""

# The idea is MathVista's (53d5258, evaluation/extract_answer.py): take the answer out of the text around it.
EXTRACTION = """\
Somebody has answered a question of mathematics. Take the final answer out of the text.
Reply with {kind} and nothing else. If the text gives no answer, reply with nothing.

Question: How many stamps are left? (Answer with a whole number.)
Text: He had 12 and gave 5 away, so 7 stamps are left.
Answer: 7

Question: {question}
{options}Text: {response}
Answer:"""

YES_NO = """\
Somebody was asked a question that yes or no answers. Say which of the two the answer means.
Reply with yes or no and nothing else. If it means neither, reply with unclear.

Question: {question}
Answer: {response}
Reply:"""

KINDS = {
    "integer": "a whole number",
    "float": "a number with its decimals",
    "list": "a Python list",
}

# What was read from a reply, and its score; None if nothing could be read.
Finding: TypeAlias = tuple[str, float | None] | None


@dataclass(frozen=True)
class Matter:
    """What is put to a judge about one answer.

    Attributes:
        prompt: The question to the judge.
        read: Turns its reply into what was answered, and the score of that.
    """

    prompt: str
    read: Callable[[str], Finding]


def matter_of(rule: str, question: str, response: str, gold: Gold) -> Matter | None:
    """Return what to ask about an answer; None where a judge could only guess.

    Args:
        rule: What could not read it.
        question: As the data set has it.
        response: The answer, cleaned.
        gold: The options, what is right, and what else the rule looks at.
    """
    if rule.startswith("mathvista/"):
        return _extraction(question, response, gold)
    if rule.startswith("pope/"):
        prompt = YES_NO.format_map({"question": question, "response": response})
        return Matter(prompt, lambda reply: _yes_or_no(reply, gold))
    if gold.choices:
        prompt = OPTIONS.format_map({"question": question, "options": _lines(gold), "response": response})
        return Matter(prompt, lambda reply: _letter(reply, gold))
    return None


def _extraction(question: str, response: str, gold: Gold) -> Matter:
    wanted = "the option's text" if is_multi_choice(gold) else KINDS.get(gold.facts["answer_type"], "the answer")
    options = f"Options:\n{_lines(gold)}\n" if gold.choices else ""
    prompt = EXTRACTION.format_map({"kind": wanted, "question": question, "options": options, "response": response})

    def read(reply: str) -> Finding:
        extracted = clean(reply)
        if not extracted:
            return None
        return extracted, score_extraction(extracted, gold).score

    return Matter(prompt, read)


def _letter(reply: str, gold: Gold) -> Finding:
    letter = prefetch(clean(reply), options_of(gold))
    if letter is None:
        return None
    return letter, float(letter in gold.answers) if gold.answers else None


def _yes_or_no(reply: str, gold: Gold) -> Finding:
    word = clean(reply).rstrip(".").lower()
    if word not in ("yes", "no"):
        return None
    return word, float(word in (answer.lower() for answer in gold.answers)) if gold.answers else None


def _lines(gold: Gold) -> str:
    return "\n".join(f"{letter}. {text}" for letter, text in options_of(gold).items())
