"""What a judge is asked about an answer that no rule could read, and how its reply is read.

The judge only says what was answered; the rules' own comparison decides whether that is right.
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

# The answer that a reply gives, and its score; None if it gives none.
Verdict: TypeAlias = tuple[str, float | None] | None


@dataclass(frozen=True)
class JudgePrompt:
    """What a judge is asked about one answer.

    Attributes:
        text: The prompt.
        read: Reads the verdict out of the reply.
    """

    text: str
    read: Callable[[str], Verdict]


def judge_prompt(rule: str, question: str, response: str, gold: Gold) -> JudgePrompt | None:
    """Return what to ask about an answer; None where a judge could only guess.

    Args:
        rule: The rule that could not read it.
        question: The question, as the data set has it.
        response: The answer, cleaned.
        gold: The options, the gold answers, and what else the rule needs.
    """
    if rule.startswith("mathvista/"):
        return _extraction(question, response, gold)
    if rule.startswith("pope/"):
        text = YES_NO.format(question=question, response=response)
        return JudgePrompt(text, lambda reply: _yes_or_no(reply, gold))
    if gold.choices:
        text = OPTIONS.format(question=question, options=_option_lines(gold), response=response)
        return JudgePrompt(text, lambda reply: _letter(reply, gold))
    return None


def _extraction(question: str, response: str, gold: Gold) -> JudgePrompt:
    expected = "the option's text" if is_multi_choice(gold) else KINDS.get(gold.facts["answer_type"], "the answer")
    options = f"Options:\n{_option_lines(gold)}\n" if gold.choices else ""
    text = EXTRACTION.format(kind=expected, question=question, options=options, response=response)

    def read(reply: str) -> Verdict:
        extracted = clean(reply)
        return (extracted, score_extraction(extracted, gold).score) if extracted else None

    return JudgePrompt(text, read)


def _letter(reply: str, gold: Gold) -> Verdict:
    letter = prefetch(clean(reply), options_of(gold))
    if letter is None:
        return None
    return letter, float(letter in gold.answers) if gold.answers else None


def _yes_or_no(reply: str, gold: Gold) -> Verdict:
    word = clean(reply).rstrip(".").lower()
    if word not in ("yes", "no"):
        return None
    return word, float(word in (answer.lower() for answer in gold.answers)) if gold.answers else None


def _option_lines(gold: Gold) -> str:
    return "\n".join(f"{letter}. {text}" for letter, text in options_of(gold).items())
