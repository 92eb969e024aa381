"""How counts are spread over rows, and rows over time, as few numbers that a page can draw."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

MOST_BINS = 30
# Longer than nearly all; the few beyond stand together in the last bin, so that they do not press the others flat.
NEARLY_ALL = 0.995
# Units are committed in bursts: what a shorter while brings says nothing of how fast a run is.
MOST_RATES, LEAST_S = 40, 1.0


def distribution(counts: Mapping[int, int]) -> dict[str, Any] | None:
    """Return how numbers are spread; None where there are none.

    Args:
        counts: How often each number occurs.

    Returns:
        `least`, `median`, `p95`, `most`, `mean`, and `bins` of equal width: `start`, `stop` (excluded; None for the
        last one where it holds all that are larger) and `count`.
    """
    if not counts:
        return None
    numbers = np.array(sorted(counts))
    times = np.array([counts[number] for number in numbers.tolist()])
    below = np.cumsum(times)

    def quantile(share: float) -> int:
        return int(numbers[np.searchsorted(below, share * below[-1])])

    least, most = int(numbers[0]), int(numbers[-1])
    last = most if most - least < MOST_BINS else quantile(NEARLY_ALL)
    width = -(-(last - least + 1) // MOST_BINS)
    starts = range(least, last + 1, width)
    edges = [*starts, max(most + 1, starts[-1] + width)]
    found, _ = np.histogram(numbers, edges, weights=times)
    bins = [
        {"start": start, "stop": stop, "count": int(count)}
        for (start, stop), count in zip(pairwise(edges), found, strict=True)
    ]
    if bins[-1]["stop"] - bins[-1]["start"] > width:
        bins[-1]["stop"] = None
    return {
        "least": least,
        "median": quantile(0.5),
        "p95": quantile(0.95),
        "most": most,
        "mean": round(float(numbers @ times / below[-1]), 2),
        "bins": bins,
    }


def rates_over_time(attempts: Sequence[Mapping[str, Any]]) -> list[dict[str, float]]:
    """Return how fast each start went, stretch by stretch: `start`, `stop` in seconds, and `rows_per_second`.

    Times count from the first start, waiting between starts left out. Rows between two commits are taken to have come
    evenly, and those of the first commit since the model was loaded. Many units are on their way by then and come in a
    burst; so the first stretch takes in as long again, and none is shorter than that while. A start of an older version
    has noted no series, or not when the model was loaded; then there is no rate before the first commit.
    """
    stretches, began = [], 0.0
    for attempt in attempts:
        series, ready = attempt.get("series") or [], attempt.get("ready_seconds")
        burst = 0.0 if ready is None else (attempt.get("first_seconds") or ready) - ready
        for (start, before), (stop, after) in pairwise(_thinned(series, MOST_RATES // len(attempts) + 1, burst)):
            if stop > start:
                rate = round((after - before) / (stop - start), 3)
                stretches.append(
                    {"start": round(began + start, 1), "stop": round(began + stop, 1), "rows_per_second": rate}
                )
        began += attempt["seconds"]
    return stretches


def _thinned(series: Sequence[Sequence[float]], most: int, least_s: float) -> list[Sequence[float]]:
    """Keep points that lie apart, the first and the last among them."""
    if not series:
        return []
    span = series[-1][0] - series[0][0]
    apart = max(LEAST_S, least_s, span / max(1, most - 1))
    kept = [series[0]]
    for point in series[1:]:
        if point[0] - kept[-1][0] >= max(apart, 2 * least_s if len(kept) == 1 else 0.0):
            kept.append(point)
    # The rest is too short for a rate of its own.
    first, last = kept[: max(1, len(kept) - 1)], series[-1]
    return [*first, last] if span >= LEAST_S else kept
