"""Captions: COCO, NoCaps, Flickr30k, TextCaps and COCO in Karpathy's split.

Each function turns a row, by the data set's own column names, into the request for a caption; its gold answers are
the reference captions. It knows no images.
"""

from dataclasses import replace

from jobs.benchmarks.benchmark import Benchmark, Item, Row
from jobs.benchmarks.cells import bad, cells_of, gold, text, whole

# The tasks of lmms-eval 75571cf ask so; a caption's row has no question of its own that any harness puts.
ASKED = "Provide a one-sentence caption for the provided image."
ASKED_BRIEFLY = "Describe the image briefly."


def coco(row: Row) -> Item:
    """COCO in the layout of lmms-eval's copy: `question_id` is the picture's file name, with its number in it."""
    name = text(row, "question_id")
    return Item(question=ASKED, answers=gold(row, "answer"), facts={"image_id": _number_in(name, "question_id")})


def karpathy(row: Row) -> Item:
    """COCO in Karpathy's split, whose rows hold the pictures' addresses."""
    name = text(row, "filename")
    return Item(
        question=ASKED_BRIEFLY, answers=gold(row, "sentences"), facts={"image_id": _number_in(name, "filename")}
    )


def nocaps(row: Row) -> Item:
    """NoCaps: pictures with objects that COCO's captions name, hardly name, or never name."""
    return Item(
        question=ASKED,
        answers=gold(row, "annotations_captions"),
        groups=cells_of(row, "image_domain"),
        facts={"image_id": whole(row, "image_id")},
    )


def flickr30k(row: Row) -> Item:
    """Flickr30k in the layout of lmms-eval's copy."""
    return Item(question=ASKED, answers=gold(row, "caption"), facts={"image_id": whole(row, "img_id")})


def textcaps(row: Row) -> Item:
    """TextCaps: pictures with writing in them; they are named by letters and digits."""
    return Item(question=ASKED, answers=gold(row, "caption_str"), facts={"image_id": text(row, "image_id")})


def _number_in(name: str, column: str) -> int:
    """Return 42 for `COCO_val2014_000000000042.jpg`: as lmms-eval, what stands between the last `_` and the `.`."""
    digits = name.rpartition("_")[2].partition(".")[0]
    if not digits.isdecimal():
        raise bad(column, name, "a file name that ends in the picture's number")
    return int(digits)


_COCO = Benchmark(
    key="coco_caption",
    item=coco,
    needed=(),
    used=("answer",),
    key_column="question_id",
    rule="captions/coco",
    asked_as="coco_caption",
    total="captions",
)
DATA_SETS: tuple[Benchmark, ...] = (
    _COCO,
    replace(
        _COCO,
        key="coco_karpathy",
        item=karpathy,
        used=("sentences",),
        key_column="filename",
        images=("url",),
        asked_as="caption",
    ),
    replace(
        _COCO,
        key="nocaps",
        item=nocaps,
        used=("annotations_captions", "image_domain"),
        key_column="image_id",
        asked_as="caption",
    ),
    replace(_COCO, key="flickr30k", item=flickr30k, used=("caption",), key_column="img_id", asked_as="caption"),
    replace(_COCO, key="textcaps", item=textcaps, used=("caption_str",), key_column="image_id", asked_as="caption"),
)
