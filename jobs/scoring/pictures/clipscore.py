"""CLIPScore: how well a picture and a text fit, from their embeddings. It knows vectors, not which network made them.

Source: J. Hessel et al., "CLIPScore: a reference-free evaluation metric for image captioning" (arXiv 2104.08718) and
its clipscore.py; the text-to-image form is that of torchmetrics. Published captioning numbers are of CLIP ViT-B/32
with `PREFIX` before each caption; whoever reports a score names the variant and the weights' hash.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

PREFIX = "A photo depicts "

_WEIGHT = 2.5


def cosines(pictures: ArrayLike, texts: ArrayLike) -> NDArray[np.float64]:
    """Return the cosine of each picture's embedding and its text's.

    Args:
        pictures: One embedding a row.
        texts: As many, of the same width.

    Raises:
        ValueError: The shapes differ, or an embedding has no direction.
    """
    one, other = _directions(pictures), _directions(texts)
    if one.shape != other.shape:
        raise ValueError(f"found embeddings of shapes {one.shape} and {other.shape}, expected the same shape")
    return np.asarray((one * other).sum(axis=1))


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
    fits = clipscore(pictures, captions)
    if len(references) != len(fits):
        raise ValueError(f"found references for {len(references)} pictures, expected them for {len(fits)}")
    best = [
        float((_directions(image) @ caption).max())
        for image, caption in zip(references, _directions(captions), strict=True)
    ]
    pairs = zip(fits.tolist(), best, strict=True)
    return [2 * fit * near / (fit + near) if fit + near else None for fit, near in pairs]


def _directions(embeddings: ArrayLike) -> NDArray[np.float64]:
    values = np.asarray(embeddings, dtype=np.float64)
    if values.ndim != 2 or not values.size:
        raise ValueError(f"found embeddings of shape {values.shape}, expected one a row and at least one")
    lengths = np.linalg.norm(values, axis=1, keepdims=True)
    if not (np.isfinite(lengths) & (lengths > 0)).all():
        place = int(np.argmin((np.isfinite(lengths) & (lengths > 0))[:, 0]))
        raise ValueError(f"found embedding {place} without a direction (all zero or not finite), expected one for each")
    return np.asarray(values / lengths)
