"""CLIPScore: how well a picture and a text fit, from their embeddings. It knows vectors, not which network made them.

Source: J. Hessel et al., "CLIPScore: a reference-free evaluation metric for image captioning" (arXiv 2104.08718) and
its clipscore.py; the text-to-image form is that of torchmetrics. Published captioning numbers are of CLIP ViT-B/32
with `PREFIX` before each caption; whoever reports a score names the variant and the weights' hash.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image

PREFIX = "A photo depicts "
CLIP_SIDE = 224

_WEIGHT = 2.5


def clip_pixels(picture: Image.Image) -> NDArray[np.float32]:
    """Resize an RGB picture's short side to 224, bicubic, and cut out the middle: jmhessel/clipscore, clipscore.py."""
    width, height = picture.size
    short = min(width, height)
    wide, high = CLIP_SIDE * width // short, CLIP_SIDE * height // short
    resized = picture.resize((wide, high), Image.Resampling.BICUBIC)
    left, top = round((wide - CLIP_SIDE) / 2), round((high - CLIP_SIDE) / 2)
    return np.asarray(resized.crop((left, top, left + CLIP_SIDE, top + CLIP_SIDE)), np.float32)


def cosines(pictures: ArrayLike, texts: ArrayLike) -> NDArray[np.float64]:
    """Return the cosine of each picture's embedding and its text's.

    Args:
        pictures: One embedding a row.
        texts: As many, of the same width.

    Raises:
        ValueError: The shapes differ, or an embedding has no direction.
    """
    a, b = _directions(pictures), _directions(texts)
    if a.shape != b.shape:
        raise ValueError(f"found embeddings of shapes {a.shape} and {b.shape}, expected the same shape")
    return np.asarray((a * b).sum(axis=1))


def clipscore(pictures: ArrayLike, captions: ArrayLike) -> NDArray[np.float64]:
    """Return each pair's 2.5 * max(cosine, 0), captions embedded with `PREFIX`; the score is their mean."""
    return _WEIGHT * np.maximum(cosines(pictures, captions), 0)


def text_to_image_score(pictures: ArrayLike, prompts: ArrayLike) -> NDArray[np.float64]:
    """Return each pair's 100 * max(cosine, 0), prompts embedded without a prefix, as papers on pictures report it."""
    return 100 * np.maximum(cosines(pictures, prompts), 0)


def reference_clipscore(
    pictures: ArrayLike, captions: ArrayLike, references: Sequence[ArrayLike]
) -> list[float | None]:
    """Return each pair's RefCLIPScore: the harmonic mean of its CLIPScore and its best cosine to a reference.

    The official code leaves that cosine as it is, so that a caption far from all references scores below 0. None
    where the two add up to nothing.

    Args:
        pictures: One embedding a row.
        captions: As many.
        references: For each of them the embeddings of its references, with `PREFIX` as well.

    Raises:
        ValueError: The shapes do not fit, or an embedding has no direction.
    """
    scores = clipscore(pictures, captions)
    if len(references) != len(scores):
        raise ValueError(f"found references for {len(references)} pictures, expected them for {len(scores)}")
    best = [
        float((_directions(image) @ caption).max())
        for image, caption in zip(references, _directions(captions), strict=True)
    ]
    pairs = zip(scores.tolist(), best, strict=True)
    return [2 * score * cosine / (score + cosine) if score + cosine else None for score, cosine in pairs]


def _directions(embeddings: ArrayLike) -> NDArray[np.float64]:
    values = np.asarray(embeddings, dtype=np.float64)
    if values.ndim != 2 or not values.size:
        raise ValueError(f"found embeddings of shape {values.shape}, expected one a row and at least one")
    lengths = np.linalg.norm(values, axis=1, keepdims=True)
    if not (np.isfinite(lengths) & (lengths > 0)).all():
        place = int(np.argmin((np.isfinite(lengths) & (lengths > 0))[:, 0]))
        raise ValueError(f"found embedding {place} without a direction (all zero or not finite), expected one for each")
    return np.asarray(values / lengths)
