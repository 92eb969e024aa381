"""Pieces of prompt templates that several data sets share, by the harness or the model's authors that ask so.

Sources: lmms-eval 75571cf, the `default` variant of each task; VLMEvalKit e8e78f0, vlmeval/dataset (image_base.py,
image_vqa.py, image_mcq.py, image_caption.py, longvideobench.py) and vlmeval/vlm (aria.py, emu.py); Meta's llama-models
2f6bfef, models/llama3_2/eval_details.md, the lines for the 11B model; lm-evaluation-harness 4e7e0d4.
"""

import re
from collections.abc import Callable
from dataclasses import replace

from jobs.benchmarks.benchmark import Item, PromptTemplate
from models.types import ImageSettings

SHORT = "Answer the question using a single word or phrase."
LETTER = "Answer with the option's letter from the given choices directly."
QUESTION_SHORT = f"{{question}}\n{SHORT}"
OPTIONS_LETTER = f"{{question_with_options}}\n{LETTER}"
IMAGE_MARK = re.compile(r"<image \d+>")

# What lmms-eval's wrappers of models take where a task sets no limit.
LMMS_UNLIMITED = 1024
# VLMEvalKit leaves limits to its wrappers of models; these are those of its Llama 3.2 Vision.
VLMEVALKIT_OPTIONS, VLMEVALKIT_OTHERS = 128, 512

# The 980 pixels of VLMEvalKit's wrapper of Aria are what the checkpoint takes unless it is told otherwise.
ARIA_WHOLE = ImageSettings(split_image=False)
ARIA_IN_CROPS = ImageSettings(split_image=True)
ARIA_FRAMES = ImageSettings(split_image=False, max_image_size=490)

FINAL_ANSWER = "FINAL ANSWER:"
LLAMA_AS_SEEN = (
    "For yes/no questions, just respond Yes or No. If the answer is numeric, just respond with the number and nothing "
    "else. If the answer has multiple words, just respond with the words and absolutely nothing else. Never respond in "
    "a sentence or a phrase.\n "
)

_SELECT = "Please select the correct answer from the options above. \n"


def stripped(item: Item) -> Item:
    """Return an item whose question has no white space around it."""
    return replace(item, question=item.question.strip())


def transformed(change: Callable[[Item], Item], template: PromptTemplate) -> PromptTemplate:
    """Return a template that changes each item first."""
    return template._replace(text=lambda item: template.render(change(item)))


def _vlmevalkit_choose(item: Item) -> str:
    hint = f"Hint: {item.context}\n" if item.context else ""
    posed = f"{hint}Question: {item.question}\n"
    return f"{posed}{item.with_options('Options:')}\n{_SELECT}" if item.choices else posed


VLMEVALKIT_SHORT = PromptTemplate(QUESTION_SHORT, VLMEVALKIT_OTHERS)
VLMEVALKIT_CHOOSE = PromptTemplate(_vlmevalkit_choose, VLMEVALKIT_OPTIONS)


def aria(max_new_tokens: int, instruction: str = SHORT, images: ImageSettings = ARIA_WHOLE) -> PromptTemplate:
    """Put a hint, the question, its options and an instruction on lines of their own.

    VLMEvalKit's wrapper writes a line end between the last image and the text, which the chat template does not.
    """

    def render(item: Item) -> str:
        hint = f"{item.context}\n" if item.context else ""
        posed = item.with_options(f"{hint}{item.question}")
        return IMAGE_MARK.sub("", f"\n{posed}\n{LETTER if item.choices else instruction}")

    return PromptTemplate(render, max_new_tokens, images=images)


def emu3(template: PromptTemplate) -> PromptTemplate:
    """Put the images before the text, and a line end where they stood in it, as for a model that takes no mixture."""
    return template._replace(
        text=lambda item: IMAGE_MARK.sub("\n", template.render(item)),
        max_new_tokens=1024,
        images=ImageSettings(pad_to_ratio=5),
    )
