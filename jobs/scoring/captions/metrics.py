"""All caption metrics of one set of images at once: what COCO, NoCaps, Flickr30k and TextCaps report.

It knows captions by their images' ids; where the captions came from is the caller's affair.
"""

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, Literal, TypeVar

from jobs.scoring.captions import bleu, cider, rouge
from jobs.scoring.captions.java import CaptionError
from jobs.scoring.captions.meteor import running_meteor
from jobs.scoring.captions.tokens import tokenize

Id = TypeVar("Id", bound=Hashable)


@dataclass(frozen=True)
class ImageScores:
    """One image's own scores, by which the worst captions are found; BLEU of one caption says little."""

    bleu: tuple[float, ...]
    rouge_l: float
    cider_d: float
    meteor: float | None


@dataclass(frozen=True)
class CaptionScores(Generic[Id]):
    """Scores of a whole set; only CIDEr-D goes past 1, to 10.

    Attributes:
        bleu: BLEU-1 to BLEU-4.
        rouge_l: The images' mean.
        cider_d: The images' mean.
        meteor: None where it was not asked for.
        images: Each image's own.
        tokenizer: What parted the words. Only `ptb` gives the published numbers.
    """

    bleu: tuple[float, ...]
    rouge_l: float
    cider_d: float
    meteor: float | None
    images: Mapping[Id, ImageScores]
    tokenizer: Literal["ptb", "fallback", "none"]


def caption_metrics(
    candidates: Mapping[Id, str], references: Mapping[Id, Sequence[str]], *, meteor: bool
) -> CaptionScores[Id]:
    """Tokenise and score a set of captions as pycocoevalcap 1.2 does.

    Args:
        candidates: One caption an image.
        references: At least one an image, of the very same images.
        meteor: Whether to add METEOR, which takes Java, its time and 2 GB of memory.

    Raises:
        CaptionError: Images differ or lack references, or a Java program failed.
    """
    _check(candidates, references)
    flat = [caption for image, caption in candidates.items() for caption in (caption, *references[image])]
    tokens = tokenize(flat)
    texts = iter(tokens.texts)
    words: dict[Id, str] = {}
    others: dict[Id, list[str]] = {}
    for image in candidates:
        words[image] = next(texts)
        others[image] = [next(texts) for _ in references[image]]
    return _scores(words, others, meteor, tokens.tokenizer)


def untokenized_metrics(candidates: Mapping[Id, str], references: Mapping[Id, Sequence[str]]) -> CaptionScores[Id]:
    """Score captions as VLMEvalKit e8e78f0 does: as they are, parted at blanks. Not comparable with published ones."""
    _check(candidates, references)
    return _scores(candidates, references, False, "none")


def _scores(
    candidates: Mapping[Id, str],
    references: Mapping[Id, Sequence[str]],
    with_meteor: bool,
    tokenizer: Literal["ptb", "fallback", "none"],
) -> CaptionScores[Id]:
    ids = list(candidates)
    captions, others = [candidates[image] for image in ids], [references[image] for image in ids]
    counts = [bleu.matches(caption, image) for caption, image in zip(captions, others, strict=True)]
    rouges = [rouge.rouge_l(caption, image) for caption, image in zip(captions, others, strict=True)]
    ciders = cider.cider_d(captions, others)
    whole, meteors = _meteor(captions, others) if with_meteor else (None, [None] * len(ids))
    images = {
        image: ImageScores(bleu.bleu(counts[place]), rouges[place], ciders[place], meteors[place])
        for place, image in enumerate(ids)
    }
    # Exact sums, so that the images' order leaves no trace.
    mean_rouge, mean_cider = math.fsum(rouges) / len(ids), math.fsum(ciders) / len(ids)
    return CaptionScores(bleu.bleu(bleu.total(counts)), mean_rouge, mean_cider, whole, images, tokenizer)


def _meteor(captions: Sequence[str], references: Sequence[Sequence[str]]) -> tuple[float, list[float]]:
    with running_meteor() as running:
        return running.scores(captions, references)


def _check(candidates: Mapping[Id, str], references: Mapping[Id, Sequence[str]]) -> None:
    if not candidates:
        raise CaptionError("found no captions, expected at least one")
    if candidates.keys() != references.keys():
        one = next(iter(candidates.keys() ^ references.keys()))
        where = "no references" if one in candidates else "no caption"
        counts = f"{len(candidates)} captions, {len(references)} images with references"
        raise CaptionError(f"found {where} for image {one!r} ({counts}), expected both for every image")
    bare = [image for image, captions in references.items() if not captions]
    if bare:
        raise CaptionError(f"found no reference for image {bare[0]!r}, expected at least one")
