"""All caption metrics of one set of images at once: what COCO, NoCaps, Flickr30k and TextCaps report.

It knows captions by their images' ids; not where the captions came from.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from jobs.scoring.captions.bleu_rouge_cider import add_matches, bleu, cider_d, matches, rouge_l
from jobs.scoring.captions.java import CaptionError, running_meteor
from jobs.scoring.captions.tokens import tokenize


@dataclass(frozen=True)
class ImageScores:
    """One image's own scores, by which the worst captions are found; BLEU of one caption says little."""

    bleu: tuple[float, ...]
    rouge_l: float
    cider_d: float
    meteor: float | None


@dataclass(frozen=True)
class CaptionScores:
    """Scores of a whole set; only CIDEr-D goes past 1, to 10.

    Attributes:
        bleu: BLEU-1 to BLEU-4.
        rouge_l: The images' mean.
        cider_d: The images' mean.
        meteor: None where it was not asked for.
        images: Each image's own.
        tokenizer: What split the captions into words. Only `ptb` gives the published numbers.
    """

    bleu: tuple[float, ...]
    rouge_l: float
    cider_d: float
    meteor: float | None
    images: Mapping[str, ImageScores]
    tokenizer: Literal["ptb", "fallback"]


def caption_metrics(
    candidates: Mapping[str, str], references: Mapping[str, Sequence[str]], *, meteor: bool
) -> CaptionScores:
    """Tokenise and score a set of captions as pycocoevalcap 1.2 does.

    Args:
        candidates: One caption an image.
        references: At least one an image, of the very same images.
        meteor: Whether to add METEOR, which takes Java, its time and 2 GB of memory.

    Raises:
        CaptionError: Images differ or lack references, or a Java program failed.
    """
    _check(candidates, references)
    images = list(candidates)
    tokens = tokenize([caption for image in images for caption in (candidates[image], *references[image])])
    texts = iter(tokens.texts)
    rows = [[next(texts) for _ in range(1 + len(references[image]))] for image in images]
    captions, others = [row[0] for row in rows], [row[1:] for row in rows]
    counts = [matches(caption, image) for caption, image in zip(captions, others, strict=True)]
    rouges = [rouge_l(caption, image) for caption, image in zip(captions, others, strict=True)]
    ciders = cider_d(captions, others)
    whole: float | None = None
    meteors: Sequence[float | None] = [None] * len(images)
    if meteor:
        with running_meteor() as running:
            whole, meteors = running.scores(captions, others)
    scores = map(ImageScores, map(bleu, counts), rouges, ciders, meteors)
    # Exact sums, so that the order of images does not matter.
    mean_rouge, mean_cider = math.fsum(rouges) / len(images), math.fsum(ciders) / len(images)
    by_image = dict(zip(images, scores, strict=True))
    return CaptionScores(bleu(add_matches(counts)), mean_rouge, mean_cider, whole, by_image, tokens.tokenizer)


def _check(candidates: Mapping[str, str], references: Mapping[str, Sequence[str]]) -> None:
    if not candidates:
        raise CaptionError("found no captions, expected at least one")
    if candidates.keys() != references.keys():
        image = next(iter(candidates.keys() ^ references.keys()))
        missing = "no references" if image in candidates else "no caption"
        counts = f"{len(candidates)} captions, {len(references)} images with references"
        raise CaptionError(f"found {missing} for image {image!r} ({counts}), expected both for every image")
    empty = [image for image, captions in references.items() if not captions]
    if empty:
        raise CaptionError(f"found no reference for image {empty[0]!r}, expected at least one")
