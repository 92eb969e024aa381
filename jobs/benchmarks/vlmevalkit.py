"""The wording of VLMEvalKit's data sets, for models that bring none of their own.

Its wrappers of models set the longest answer; the limits here are those of its Llama 3.2 Vision.
Source: VLMEvalKit e8e78f0, vlmeval/dataset: image_base.py, image_vqa.py, image_mcq.py, image_caption.py,
longvideobench.py.
"""

import re
from collections.abc import Mapping
from dataclasses import replace

from jobs.benchmarks.benchmark import Item
from jobs.benchmarks.options import stem
from jobs.benchmarks.texts import with_options
from jobs.benchmarks.wording import LETTER, SHORT, Asked, instructed, question

_SELECT = "Please select the correct answer from the options above. \n"
_DESCRIBE = (
    "Please describe this image in general. Directly provide the description, "
    'do not include prefix like "This image depicts". '
)
_AFTER_FRAME = re.compile(r"(<image \d+>)\n")
_OPTIONS, _OTHERS = 128, 512


def _choose(item: Item) -> str:
    hint = f"Hint: {item.context}\n" if item.context else ""
    asked = f"{hint}Question: {item.question}\n"
    return f"{asked}{with_options('Options:', item.choices)}\n{_SELECT}" if item.choices else asked


def options_apart(item: Item) -> Item:
    """Take the options out of the question's text, where MMStar and RealWorldQA have them and its tables do not."""
    return replace(item, question=stem(item)) if item.choices else item


def official_query(item: Item) -> str:
    """Ask MathVista's question in its authors' words, which is what VLMEvalKit's table calls the question."""
    return str(item.facts["query"])


def frames_and_subtitles(item: Item) -> str:
    """Put nothing between two frames and a line end after each subtitle only."""
    return _AFTER_FRAME.sub(r"\1", f"{item.context}\n") if item.context else ""


def _longvideobench(item: Item) -> str:
    return f"{frames_and_subtitles(item)}{with_options(item.question, item.choices)}\n{LETTER}"


_SHORTLY = Asked(instructed(SHORT), _OTHERS)
_CHOOSE = Asked(_choose, _OPTIONS)

VLMEVALKIT: Mapping[str, Asked] = {
    **dict.fromkeys(("vqav2", "gqa", "ok_vqa", "textvqa", "docvqa", "infovqa", "chartqa"), _SHORTLY),
    "pope": Asked(question, _OPTIONS),
    "ocrbench": Asked(question, _OTHERS),
    **dict.fromkeys(("ai2d", "scienceqa", "mmmu", "mmmu_test"), _CHOOSE),
    **dict.fromkeys(("mmbench_en", "mmbench_cn"), _CHOOSE),
    **dict.fromkeys(("realworldqa", "mmstar"), Asked(lambda item: _choose(options_apart(item)), _OPTIONS)),
    "mathvista": Asked(official_query, _OTHERS),
    "longvideobench": Asked(_longvideobench, _OTHERS),
    "coco_caption": Asked(lambda item: _DESCRIBE, _OTHERS),
}
