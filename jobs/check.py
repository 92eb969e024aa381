"""Questions to another model about drawn pictures, the answers expected, and whether a picture is kept for them.

It knows rows and answers; which model looks, and how its chat is written, is not known here.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import Field, field_validator

from jobs.prompt import Prompt, columns_of, fill, request_for
from jobs.scoring.response import clean
from jobs.scoring.rules.text_match import exact_match, normalize
from models.types import Answer, Request, Sampling
from pipeline import ANSWER, CheckSettings, Settings

NAME = "check/all_as_expected"

# Columns of a part that are not about the picture; there a column of the input by such a name is `input_<name>`.
RENAMED = tuple(name for name in ANSWER.names if name != "seed")
# The picture itself, and what is only known once every question is answered.
WRITTEN_LATER = ("image", "check_answers", "keep")

_FIRST_WORD = re.compile(r"\W*(\w+)")


class Question(Settings):
    """One question about a picture, and the answer that keeps it."""

    ask: Prompt = Field(
        description="{column} is replaced by that column's text, {text} by what the picture was drawn from; where a "
        "column is empty the question is not asked"
    )
    expect: Prompt = Field(default="yes", description="the answer that keeps the picture, columns filled in as well")

    @property
    def columns(self) -> list[str]:
        """The columns that it names."""
        return [*columns_of(self.ask), *columns_of(self.expect)]

    @field_validator("ask", "expect")
    @classmethod
    def _about_what_is_known(cls, text: str) -> str:
        named = [name for name in columns_of(text) if name in WRITTEN_LATER]
        if named:
            raise ValueError(f"found {{{named[0]}}}, which the job writes itself, expected another column of the input")
        return text

    @field_validator("expect", mode="before")
    @classmethod
    def _a_word(cls, expect: Any) -> Any:
        # YAML reads a bare yes or no as a truth value; as an answer it can only be the word.
        return {True: "yes", False: "no"}[expect] if isinstance(expect, bool) else expect


class PictureCheckSettings(CheckSettings):
    """Which model looks at the drawn pictures, and what it is asked."""

    template: str | None = Field(
        default=None, description="takes the chat template's place: plain text with {image} and {question}"
    )
    questions: tuple[Question, ...] = Field(
        default=(Question(ask="Does this picture show {text}? Answer yes or no."),),
        min_length=1,
        description="all must be answered as expected for a picture to be kept; each costs one look",
    )


@dataclass(frozen=True)
class PictureCheck:
    """See pipeline.job.Check."""

    settings: PictureCheckSettings

    @property
    def template(self) -> str | None:
        """What takes the chat template's place."""
        return self.settings.template

    @property
    def columns(self) -> list[str]:
        """The columns that the questions name, each once."""
        return list(dict.fromkeys(name for question in self.settings.questions for name in question.columns))

    def requests(self, row: Mapping[str, Any], sampling: Sampling) -> Sequence[Request]:
        """Ask of the picture every question whose columns have something in this row; there may be none.

        Raises:
            BadRequest: A column that a question names holds no text.
        """
        values = {**_input_columns(row), "images": (row["image"],)}
        questions = self._questions(values)
        shared = len(questions) > 1
        return [request_for(question.ask, values, sampling, shared=shared) for question in questions]

    def record(self, row: Mapping[str, Any], answers: Sequence[Answer]) -> Mapping[str, Any]:
        """Keep the answers, and the picture if each of them is the expected one; null where nothing was asked."""
        values = _input_columns(row)
        questions = self._questions(values)
        if not questions:
            return {"check_answers": None, "keep": None}
        pairs = zip(questions, answers, strict=True)
        agreed = [agrees(answer.text, fill(question.expect, values)) for question, answer in pairs]
        return {"check_answers": [answer.text.strip() for answer in answers], "keep": all(agreed)}

    def shown(self, row: Mapping[str, Any]) -> list[tuple[str, str]]:
        """Show each question with its answer, or why none could be asked."""
        if row["error"] is not None:
            return [("not checked", row["error"]["message"])]
        if row["check_answers"] is None:
            return []
        values = _input_columns(row)
        pairs = zip(self._questions(values), row["check_answers"], strict=True)
        return [(fill(question.ask, values), answer or "(nothing)") for question, answer in pairs]

    def _questions(self, values: Mapping[str, Any]) -> list[Question]:
        """Return the questions none of whose columns is empty."""
        return [
            question
            for question in self.settings.questions
            if not any(_is_empty(values.get(name)) for name in question.columns)
        ]


def agrees(response: str, expected: str) -> bool:
    """Compare as `exact/nocase_nopunct` does; where yes or no is expected, the response's first word decides.

    So `Yes, there is.` agrees with yes, and `not really` does not agree with no.
    """
    cleaned = clean(response)
    if normalize(expected) in ("yes", "no"):
        first = _FIRST_WORD.match(cleaned)
        return first is not None and normalize(first.group(1)) == normalize(expected)
    return exact_match(cleaned, [expected]) == 1.0


def _input_columns(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a part's row under the names that its columns have in the input."""
    renamed = {name: row[f"input_{name}"] for name in RENAMED if f"input_{name}" in row}
    return {**row, "text": row["caption_in"], **renamed}


def _is_empty(value: Any) -> bool:
    return value is None or (isinstance(value, str) and not value.strip())
