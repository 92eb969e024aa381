"""Captions: COCO, NoCaps, Flickr30k, TextCaps and COCO in Karpathy's split; only all of them together have a score.

A row asks for a caption, and its gold answers are the reference captions.
"""

import logging
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pyarrow as pa

from jobs.benchmarks import templates
from jobs.benchmarks.benchmark import Aggregation, Benchmark, Item, PromptTemplate
from jobs.benchmarks.row import Row, bad_column
from jobs.scoring.captions.java import CaptionError
from jobs.scoring.captions.metrics import caption_metrics
from jobs.scoring.intervals import student
from jobs.scoring.statistics import standard_error

log = logging.getLogger(__name__)

# The tasks of lmms-eval 75571cf ask so; a caption's row has no question of its own that any harness puts.
_QUESTION = "Provide a one-sentence caption for the provided image."
_VLMEVALKIT = (
    "Please describe this image in general. Directly provide the description, "
    'do not include prefix like "This image depicts". '
)


def _number_in_name(row: Row, column: str) -> int:
    """Read 42 from `COCO_val2014_000000000042.jpg`: as lmms-eval, what stands between the last `_` and the `.`."""
    name = row.text(column)
    digits = name.rpartition("_")[2].partition(".")[0]
    if not digits.isdecimal():
        raise bad_column(column, name, "a file name that ends in the picture's number")
    return int(digits)


def _headline(rows: pa.Table, rule: str, with_meteor: bool) -> dict[str, Any]:
    """Return CIDEr-D, and the other metrics of captions beside it."""
    captioned = [row for row in rows.to_pylist() if row["answers"]]
    if not captioned:
        return {}
    candidates = {row["key"]: row["response_clean"] or "" for row in captioned}
    references = {row["key"]: row["answers"] for row in captioned}
    counts = {"n": len(captioned), "unscored": rows.num_rows - len(captioned)}
    try:
        scores = caption_metrics(candidates, references, meteor=with_meteor)
    except CaptionError as error:  # the answers are there, and `triptych report` can score them once Java is well
        if with_meteor:
            log.warning("captions have no METEOR: %s", error)
            return {**_headline(rows, rule, False), "meteor_fault": str(error)}
        log.warning("captions have no score: %s", error)
        nothing = dict.fromkeys(("score", "se", "low", "high", "interval"))
        return {"metric": "CIDEr-D", **nothing, **counts, "fault": str(error)}
    images = [scores.images[row["key"]].cider_d for row in captioned]
    # The words' rarity is held fixed while images vary: drawing images anew would change what each is worth.
    spread = standard_error(images)
    low, high = (None, None) if spread is None else student(scores.cider_d, spread, len(images) - 1)
    bleu = {f"BLEU-{n}": score for n, score in enumerate(scores.bleu, start=1)}
    return {
        "metric": "CIDEr-D",
        "score": scores.cider_d,
        "se": spread,
        "low": low,
        "high": high,
        "interval": None if spread is None else "t",
        **counts,
        "tokenizer": scores.tokenizer,
        "metrics": {**bleu, "ROUGE-L": scores.rouge_l, "CIDEr-D": scores.cider_d, "METEOR": scores.meteor},
    }


_AGGREGATION = Aggregation(_headline, has_meteor=True)


def _captions(
    key: str,
    references: str,
    image: str,
    image_id: Callable[[Row, str], Any],
    groups: tuple[str, ...] = (),
    question: str = _QUESTION,
) -> Benchmark:
    """Return a data set of captions.

    Args:
        key: Its name.
        references: The column with the reference captions.
        image: The column that names the picture.
        image_id: Reads the picture's id from there.
        groups: Columns of text, each of which is a breakdown.
        question: What is asked.
    """
    return Benchmark(
        key=key,
        to_item=lambda row: Item(
            question=question,
            answers=row.gold_answers(references),
            groups=row.groups(*groups),
            facts={"image_id": image_id(row, image)},
        ),
        needed=(),
        used=(references, *groups),
        key_column=image,
        rule="captions/coco",
        prompts={"lmms": PromptTemplate("{question}", 64)},
        aggregation=_AGGREGATION,
    )


# lmms-eval's copy: `question_id` is the picture's file name.
_COCO = _captions("coco_caption", "answer", "question_id", _number_in_name)
_KARPATHY = _captions("coco_karpathy", "sentences", "filename", _number_in_name, question="Describe the image briefly.")
DATA_SETS: tuple[Benchmark, ...] = (
    replace(
        _COCO,
        prompts={
            **_COCO.prompts,
            "vlmevalkit": PromptTemplate(_VLMEVALKIT, templates.VLMEVALKIT_OTHERS),
            "aria": PromptTemplate(f"\n{_VLMEVALKIT}\n{templates.SHORT}", 64, images=templates.ARIA_WHOLE),
        },
    ),
    # Its rows hold the pictures' addresses.
    replace(_KARPATHY, images=("url",)),
    # In groups: pictures with objects that COCO's captions name, hardly name, or never name.
    _captions("nocaps", "annotations_captions", "image_id", Row.integer, groups=("image_domain",)),
    _captions("flickr30k", "caption", "img_id", Row.integer),
    _captions("textcaps", "caption_str", "image_id", Row.text),
)
