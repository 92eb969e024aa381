"""The wordings that belong to published numbers of Aria, Llama 3.2 Vision and Emu3.

Sources: VLMEvalKit e8e78f0, vlmeval/vlm/aria.py and emu.py; Meta's llama-models 2f6bfef, models/llama3_2/
eval_details.md, the lines for the 11B model; lm-evaluation-harness 4e7e0d4, arc_challenge_chat.yaml.
"""

import re
from collections.abc import Callable, Mapping

from jobs.benchmarks.benchmark import Item
from jobs.benchmarks.texts import with_options
from jobs.benchmarks.vlmevalkit import VLMEVALKIT, frames_and_subtitles, official_query, options_apart
from jobs.benchmarks.wording import LETTER, SHORT, Asked
from models.types import ImageSettings

_MARK = re.compile(r"<image \d+>")
_BEFORE_SUBTITLE = re.compile(r"(<image \d+>)(?!<image )")

# The wrapper's 980 pixels are what the checkpoint takes unless it is told otherwise.
_WHOLE = ImageSettings(split_image=False)
_IN_CROPS = ImageSettings(split_image=True)
_FRAMES = ImageSettings(split_image=False, max_image_size=490)


def _aria(instruction: str) -> Callable[[Item], str]:
    """Return what puts a hint, the question, its options and an instruction on lines of their own.

    The wrapper writes a line end between the last image and the text, which the chat template does not.
    """

    def asked(item: Item) -> str:
        hint = f"{item.context}\n" if item.context else ""
        posed = with_options(f"{hint}{item.question}", item.choices)
        return _MARK.sub("", f"\n{posed}\n{LETTER if item.choices else instruction}")

    return asked


def _aria_apart(item: Item) -> str:
    return _aria(SHORT)(options_apart(item))


def _aria_query(item: Item) -> str:
    return f"\n{official_query(item)}"


def _aria_longvideobench(item: Item) -> str:
    asked = f"{frames_and_subtitles(item)}{with_options(item.question, item.choices)}\n{LETTER}"
    return _BEFORE_SUBTITLE.sub(r"\1\n", asked)


def _aria_caption(item: Item) -> str:
    return f"\n{VLMEVALKIT['coco_caption'].text(item)}\n{SHORT}"


_SHORTLY = _aria(SHORT)

ARIA: Mapping[str, Asked] = {
    **dict.fromkeys(("vqav2", "gqa", "ok_vqa"), Asked(_SHORTLY, 512, images=_WHOLE)),
    "textvqa": Asked(_SHORTLY, 32, images=_IN_CROPS),
    "docvqa": Asked(_aria("Answer briefly and directly."), 128, images=_IN_CROPS),
    "infovqa": Asked(_SHORTLY, 512, images=_IN_CROPS),
    "chartqa": Asked(_SHORTLY, 128, images=_IN_CROPS),
    "ocrbench": Asked(_SHORTLY, 512, images=_IN_CROPS),
    **dict.fromkeys(("pope", "ai2d", "scienceqa", "mmbench_en", "mmbench_cn"), Asked(_SHORTLY, 64, images=_WHOLE)),
    "realworldqa": Asked(_aria_apart, 64, images=_WHOLE),
    **dict.fromkeys(("mmmu", "mmmu_test"), Asked(_SHORTLY, 512, images=_WHOLE)),
    "mmstar": Asked(_aria_apart, 512, images=_WHOLE),
    "mathvista": Asked(_aria_query, 512, images=_WHOLE),
    "longvideobench": Asked(_aria_longvideobench, 512, images=_FRAMES),
    "coco_caption": Asked(_aria_caption, 64, images=_WHOLE),
}

_FINAL_ANSWER = "FINAL ANSWER:"
_AS_SEEN = (
    "For yes/no questions, just respond Yes or No. If the answer is numeric, just respond with the number and nothing "
    "else. If the answer has multiple words, just respond with the words and absolutely nothing else. Never respond in "
    "a sentence or a phrase.\n "
)


def _llama_ai2d(item: Item) -> str:
    return (
        "Look at the scientific diagram carefully and answer the following question: "
        f"{with_options(item.question, item.choices)}\n Think step by step and finally respond to the question with "
        'only the correct option number as "FINAL ANSWER". Let\'s think step by step.'
    )


def _llama_chartqa(item: Item) -> str:
    return (
        "You are provided a chart image and will be asked a question. You have to think through your answer and "
        "provide a step-by-step solution. Once you have the solution, write the final answer in at most a few words at "
        f'the end with the phrase "FINAL ANSWER:". The question is: {item.question} Let\'s think step by step.'
    )


def _llama_docvqa(item: Item) -> str:
    return (
        " Read the text in the image carefully and answer the question with the text as seen exactly in the image. "
        f"{_AS_SEEN}Question: {item.question}"
    )


def _llama_vqav2(item: Item) -> str:
    return (
        " Look at the image carefully and answer this visual question. "
        f"{_AS_SEEN}Respond with as few words as possible.\n Question: {item.question}"
    )


def _llama_mmmu(item: Item) -> str:
    options = with_options("", item.choices).strip()
    asked = f"{item.question} Options: {options}" if options else item.question
    return (
        "Look at the image carefully and solve the following question step-by-step. "
        f"{_MARK.sub('', asked)} Indicate the correct answer at the end."
    )


def _llama_arc(item: Item) -> str:
    return (
        "Given the following question and four candidate answers (A, B, C and D), choose the best answer.\n"
        f"Question: {with_options(item.question.strip(), item.choices)}\nYour response should end with "
        '"The best answer is [the_answer_letter]" where the [the_answer_letter] is one of A, B, C or D.'
    )


# Where Meta's text has `<cot_start>`, for which its runs put something of their own, a blank stands.
LLAMA: Mapping[str, Asked] = {
    "vqav2": Asked(_llama_vqav2, 25),
    "docvqa": Asked(_llama_docvqa, 512),
    "chartqa": Asked(_llama_chartqa, 512, marker=_FINAL_ANSWER),
    "ai2d": Asked(_llama_ai2d, 400, marker=_FINAL_ANSWER),
    **dict.fromkeys(("mmmu", "mmmu_test"), Asked(_llama_mmmu, 2048)),
    "mathvista": Asked(official_query, 2048),
    "arc_challenge": Asked(_llama_arc, 100, marker="The best answer is"),
}


_UP_TO_FIVE = ImageSettings(pad_to_ratio=5)


def _plain(asked: Asked) -> Asked:
    """Put the images before the text, and a line end where they stood in it, as for a model that takes no mixture."""
    return asked._replace(text=lambda item: _MARK.sub("\n", asked.text(item)), max_new_tokens=1024, images=_UP_TO_FIVE)


# A video's frames make no sense without their places among the subtitles: VLMEvalKit's own wording stands in there.
EMU3: Mapping[str, Asked] = {name: _plain(asked) for name, asked in VLMEVALKIT.items() if name != "longvideobench"}
